"""Makes everything in the documents that the program can say itself: pictures, schemas, and the output of commands.

``python docs/build.py`` rewrites what has changed; ``python docs/build.py index.md checks.md`` only the named pages.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("build_schema.py", "arena.py", "vision_plot.py", "screen_picture.py")


def main(pages: list[str]) -> int:
    """Run the scripts, then cog over the pages (all of them where none is named); return the exit code."""
    for script in SCRIPTS:
        subprocess.run([sys.executable, f"docs/{script}"], cwd=ROOT, check=True)  # noqa: S603 - our own
    named = [f"docs/{page}" for page in pages]
    every = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
    words = [sys.executable, "-m", "cogapp", "-r", "-P", "-I", "docs", *(named or every)]
    return subprocess.run(words, cwd=ROOT, check=False).returncode  # noqa: S603 - same


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
