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
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOWHERE = str(ROOT / "docs" / "no-such-folder")
sys.path.insert(0, str(ROOT))


def run(command: str) -> tuple[str, int]:
    """Return what ``command`` (a vlplan command line) writes to stdout, and its exit code."""
    from planner.cli import main  # noqa: PLC0415 - the path is set above

    words = shlex.split(command)
    if words[:1] != ["vlplan"]:
        raise ValueError(f"documents run vlplan only, not {command!r}")
    output, quiet = io.StringIO(), io.StringIO()
    with _nothing_of_this_computer(), contextlib.redirect_stdout(output), contextlib.redirect_stderr(quiet):
        try:
            main(words[1:])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
    return output.getvalue(), code


@contextlib.contextmanager
def _nothing_of_this_computer() -> Iterator[None]:
    """Run in the repository with 80 columns and without this computer's own profiles and calibration."""
    before = dict(os.environ)
    os.environ.update(COLUMNS="80", XDG_CONFIG_HOME=NOWHERE, XDG_DATA_HOME=NOWHERE)
    os.environ.pop("VLPLAN_PROFILES", None)
    try:
        with contextlib.chdir(ROOT):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def show(command: str, *, lines: int | None = None) -> None:
    """Print ``command`` with its output (its first ``lines``) as a console block."""
    text, code = run(command)
    shown = text.rstrip().splitlines()
    if lines is not None and len(shown) > lines:
        shown = [*shown[:lines], "..."]
    ending = [f"(exit code {code})"] if code else []
    print("\n".join(["```console", f"$ {command}", *shown, *ending, "```"]))


def tables(command: str) -> None:
    """Print ``command`` and, below it, what it writes as part of the page (for commands that write Markdown)."""
    text, _ = run(command)
    print(f"```sh\n{command}\n```\n\n{text.rstrip()}\n")


def example(name: str, language: str = "yaml") -> None:
    """Print a file of ``docs/examples`` as a code block."""
    text = (ROOT / "docs" / "examples" / name).read_text(encoding="utf-8").rstrip()
    print(f"```{language}\n{text}\n```")


def commands_help() -> None:
    """Print the help of every command, each under a heading of its own."""
    from planner.cli import app  # noqa: PLC0415 - the path is set above

    for name in app.list_commands(None):  # type: ignore[arg-type]  # the context is not used
        text, _ = run(f"vlplan {name} --help")
        print(f"\n## vlplan {name}\n\n```console\n$ vlplan {name} --help\n{text.rstrip()}\n```")
