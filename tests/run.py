"""The whole test: lint, format, types, layers, tests with branch coverage, and the wheel from another directory.

Run it as ``python tests/run.py`` in an environment that has the ``dev`` extra. Stops at the first failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCS = tuple(sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")))
CHECKS = (
    ("lint", ("ruff", "check", ".")),
    ("format", ("ruff", "format", "--check", ".")),
    ("types", ("mypy",)),
    ("layers", ("importlinter.cli", "lint_imports_command")),
    ("docs", ("cogapp", "-P", "--check", "--diff", "-I", "docs", "README.md", *DOCS)),
    ("tests", ("pytest", "-n", "2", "--cov", "--cov-report=term:skip-covered", "--cov-fail-under=90")),
)


def run(name: str, command: tuple[str, ...]) -> None:
    """Run one check in the repository's root and stop the whole run if it fails."""
    started = time.monotonic()
    print(f"== {name}: {' '.join(command[1:] if command[0] == sys.executable else command)}", flush=True)
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"== {name}: {'ok' if code == 0 else 'FAILED'} in {time.monotonic() - started:.0f} s", flush=True)
    if code:
        sys.exit(code)


def module(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the command that runs a tool with this interpreter."""
    if words[0].endswith(".py"):
        return (sys.executable, *words)
    if words[0] == "importlinter.cli":
        return (sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()")
    return (sys.executable, "-m", *words)


def wheel_smoke_test() -> None:
    """Build the wheel, install it alone into a fresh environment and plan with it from another directory."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        run("wheel", (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, str(ROOT)))
        venv.create(home / "env", with_pip=True)
        python = str(home / "env" / "bin" / "python")
        wheel = str(next(home.glob("vlplan-*.whl")))
        run("install", (python, "-m", "pip", "install", "--quiet", wheel))
        command = (
            str(home / "env" / "bin" / "vlplan"),
            "recommend",
            "llava-1.6-7b",
            "--gpu",
            "RTX 3070",
            "--ram",
            "32GiB",
        )
        environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        print("== smoke: vlplan recommend from another directory", flush=True)
        answer = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
        print(answer.stdout, answer.stderr, flush=True)
        if answer.returncode or "FITS" not in answer.stdout:
            sys.exit(f"== smoke: FAILED with code {answer.returncode}")


if __name__ == "__main__":
    for name, words in CHECKS:
        run(name, module(words))
    wheel_smoke_test()
