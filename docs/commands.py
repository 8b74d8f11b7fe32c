"""Runs the program for the documents: what they show is what it prints.

Used inside cog blocks: ``show("vlplan tokens llava-1.6-7b --image 1920x1080")`` writes the command and its output as
a console block. An exit code other than 0 is shown as a last line.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def run(command: str) -> tuple[str, int]:
    """Return what ``command`` (a vlplan command line) writes to stdout, and its exit code."""
    from planner.cli import main  # noqa: PLC0415 - the path is set above

    words = shlex.split(command)
    if words[:1] != ["vlplan"]:
        raise ValueError(f"documents run vlplan only, not {command!r}")
    output = io.StringIO()
    os.environ["COLUMNS"] = "80"
    with contextlib.chdir(ROOT), contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        try:
            main(words[1:])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return output.getvalue(), code


def show(command: str, *, lines: int | None = None) -> None:
    """Print ``command`` with its output (its first ``lines``) as a console block."""
    text, code = run(command)
    shown = text.rstrip().splitlines()
    if lines is not None and len(shown) > lines:
        shown = [*shown[:lines], "..."]
    ending = [f"(exit code {code})"] if code else []
    print("\n".join(["```console", f"$ {command}", *shown, *ending, "```"]))
