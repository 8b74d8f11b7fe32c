"""A picture of a real screen: what one command prints, as SVG. ``python docs/screen_picture.py`` writes ``screen.svg``."""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from commands import ROOT, run
from svg import MONO, picture

COMMAND = 'vlplan recommend qwen2.5-vl-7b --gpu "RTX 3060" --ram 32GiB --image 1920x1080 --context 8192'
GROUND, PLAIN, STRONG, BAR, DIM = "#0d1117", "#c9d1d9", "#ffffff", "#3fb950", "#8b949e"
LINE, COLUMN, MARGIN = 17, 7.83, 16


def color(row: str) -> str:
    """Return the colour of a line by what it is."""
    if row.startswith("$"):
        return STRONG
    if row.startswith("  ["):
        return BAR
    return DIM if row.startswith(("SIMULATED", "  weights", "  kv_cache", "  compute", "  overhead")) else PLAIN


def wrapped(row: str, width: int) -> list[str]:
    """Return ``row`` as a terminal shows it: cut at ``width`` columns."""
    return [row[start : start + width] for start in range(0, len(row), width)] or [""]


def draw() -> str:
    """Return the command and its output as a picture of a terminal of 100 columns."""
    output, _ = run(COMMAND)
    rows = [f"$ {COMMAND}", *output.rstrip().splitlines()]
    shown = [(part, color(row)) for row in rows for part in wrapped(row, 100)]
    body = []
    for index, (part, ink) in enumerate(shown):
        y = MARGIN + LINE * index + 13
        body.append(
            f'<text x="{MARGIN}" y="{y}" font-size="13" fill="{ink}" xml:space="preserve">{escape(part)}</text>'
        )
    width, height = round(100 * COLUMN) + 2 * MARGIN, LINE * len(shown) + 2 * MARGIN
    return picture(width, height, COMMAND, body, font=MONO, fill=GROUND)


if __name__ == "__main__":
    (ROOT / "docs" / "screen.svg").write_text(draw(), encoding="utf-8")
