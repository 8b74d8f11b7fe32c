"""The few SVG elements that the documents' pictures are made of; the same numbers always give the same text."""

from __future__ import annotations

from html import escape

SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace"
INK, FAINT = "#1f2328", "#d0d7de"


def number(value: float) -> str:
    """Return a coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def rectangle(x: float, y: float, width: float, height: float, *, fill: str, title: str = "") -> str:  # noqa: PLR0913 - coordinates
    """Return a rectangle; ``title`` is shown by browsers when the pointer rests on it."""
    inner = f"<title>{escape(title)}</title>" if title else ""
    shape = f'x="{number(x)}" y="{number(y)}" width="{number(width)}" height="{number(height)}" fill="{fill}"'
    return f'<rect {shape} stroke="white" stroke-width="0.5">{inner}</rect>'


def line(points: list[tuple[float, float]], *, color: str, width: float = 1) -> str:
    """Return an open line through ``points``."""
    path = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="{number(width)}"/>'


def text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 11, color: str = INK) -> str:  # noqa: PLR0913 - coordinates
    """Return words at a point; ``anchor`` is start, middle or end."""
    where = f'x="{number(x)}" y="{number(y)}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {where} fill="{color}">{escape(words)}</text>'


def picture(width: int, height: int, title: str, body: list[str], *, font: str = SANS, fill: str = "white") -> str:  # noqa: PLR0913 - coordinates
    """Return a whole picture on a plain ground, readable on light and dark pages."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="{font}" role="img">'
    ground = f'<rect width="{width}" height="{height}" fill="{fill}"/>'
    return "\n".join([head, f"<title>{escape(title)}</title>", ground, *body, "</svg>", ""])
