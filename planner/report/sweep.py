"""A capacity grid as Markdown, CSV, JSON and one self-contained HTML page with plots."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from html import escape

from planner.errors import UsageError
from planner.questions.sweep import Cell
from planner.units import GIB, format_bytes

_HEADERS = (
    "model",
    "type",
    "engine",
    "image",
    "tokens",
    "batch",
    "context",
    "box",
    "verdict",
    "expected",
    "at most",
    "spare",
)
_COMPONENTS = ("weights", "kv_cache", "compute", "overhead")


def render(cells: Sequence[Cell], output: str) -> str:
    """Return the grid in one of the formats markdown, csv, json and html."""
    if output == "csv":
        return _csv(cells)
    if output == "json":
        return json.dumps({"schema": 1, "cells": [asdict(cell) for cell in cells]}, indent=2)
    if output == "html":
        return _html(cells)
    return _markdown(cells)


def _row(cell: Cell) -> tuple[str, ...]:
    verdict = cell.verdict.replace("_", " ") + (f": {cell.reason}" if cell.reason else "")
    return (
        cell.model,
        cell.quantization,
        cell.engine,
        cell.image,
        str(cell.image_tokens or ""),
        str(cell.batch),
        str(cell.context),
        cell.machine,
        verdict,
        format_bytes(cell.expected_bytes) if cell.high_bytes else "",
        format_bytes(cell.high_bytes) if cell.high_bytes else "",
        format_bytes(cell.headroom_bytes) if cell.high_bytes else "",
    )


def _markdown(cells: Sequence[Cell]) -> str:
    from tabulate import tabulate  # noqa: PLC0415 - 40 ms that other formats can spare

    return tabulate([_row(cell) for cell in cells], headers=_HEADERS, tablefmt="github", disable_numparse=True)


def _csv(cells: Sequence[Cell]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(Cell)]
    writer.writerow(names)
    writer.writerows([getattr(cell, name) for name in names] for cell in cells)
    return text.getvalue().rstrip("\n")


# ---- HTML: the table and plots as SVG, no script, nothing fetched


def _html(cells: Sequence[Cell]) -> str:
    plots = "\n".join(f"<figure>{svg}</figure>" for svg in _plots(cells))
    head = "".join(f"<th>{escape(name)}</th>" for name in _HEADERS)
    body = "\n".join(
        f'<tr class="{cell.verdict}">' + "".join(f"<td>{escape(text)}</td>" for text in _row(cell)) + "</tr>"
        for cell in cells
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Capacity</title>
<style>
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #222; }}
table {{ border-collapse: collapse; }}
th, td {{ border-bottom: 1px solid #ddd; padding: 0.2em 0.6em; text-align: left; }}
tr.fits td:nth-child(9) {{ color: #17692b; }}
tr.does_not_fit td:nth-child(9), tr.will_not_load td:nth-child(9) {{ color: #a11; }}
figure {{ margin: 1em 0; }}
</style>
</head>
<body>
<h1>Capacity</h1>
<p>Described boxes count as empty. A cell fits when its high bound does, on every device.</p>
{plots}
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
</body>
</html>"""


def _plots(cells: Sequence[Cell]) -> list[str]:
    """Return the plots as SVG: memory by component, fit by box and cell, tokens against resolution."""
    try:
        import vl_convert  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UsageError("HTML needs the plots extra: pip install 'vlplan[plots]'") from error
    specs = [_memory_plot(cells), _fit_plot(cells)]
    if any(cell.image_tokens for cell in cells):
        specs.append(_tokens_plot(cells))
    return [vl_convert.vegalite_to_svg(json.dumps(spec)) for spec in specs]


def _load(cell: Cell) -> str:
    image = "" if cell.image == "none" else f", {cell.image}"
    batch = f", batch {cell.batch}" if cell.batch > 1 else ""
    return f"{cell.model} {cell.quantization}, {cell.context}{image}{batch}"


def _memory_plot(cells: Sequence[Cell]) -> dict[str, object]:
    seen: dict[str, Cell] = {}
    for cell in cells:
        seen.setdefault(_load(cell), cell)
    values = [
        {"load": load, "component": name, "rank": rank, "GiB": getattr(cell, f"{name}_bytes") / GIB}
        for load, cell in seen.items()
        for rank, name in enumerate(_COMPONENTS)
    ]
    return {
        "data": {"values": values},
        "title": "Expected memory by component",
        "mark": "bar",
        "encoding": {
            "y": {"field": "load", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 400}},
            "x": {"field": "GiB", "type": "quantitative", "aggregate": "sum"},
            "color": {"field": "component", "type": "nominal", "sort": list(_COMPONENTS)},
            "order": {"field": "rank", "type": "quantitative"},
        },
    }


def _fit_plot(cells: Sequence[Cell]) -> dict[str, object]:
    values = [{"load": _load(cell), "box": cell.machine, "verdict": cell.verdict.replace("_", " ")} for cell in cells]
    return {
        "data": {"values": values},
        "title": "What fits where",
        "mark": {"type": "rect", "stroke": "white"},
        "encoding": {
            "y": {"field": "load", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 400}},
            "x": {"field": "box", "type": "nominal", "sort": None, "title": None},
            "color": {
                "field": "verdict",
                "type": "nominal",
                "scale": {
                    "domain": ["fits", "does not fit", "will not load", "unknown"],
                    "range": ["#4c9f70", "#c8553d", "#7a3b2e", "#aaaaaa"],
                },
            },
        },
    }


def _tokens_plot(cells: Sequence[Cell]) -> dict[str, object]:
    seen: dict[tuple[str, str], dict[str, object]] = {}
    for cell in cells:
        width, _, height = cell.image.partition(":")[0].partition("x")
        if height.isdigit():
            pixels = int(width) * int(height) / 1e6
            seen[cell.model, cell.image] = {"model": cell.model, "Mpixel": pixels, "tokens": cell.image_tokens}
    return {
        "data": {"values": list(seen.values())},
        "title": "Tokens against resolution",
        "mark": {"type": "line", "point": True},
        "encoding": {
            "x": {"field": "Mpixel", "type": "quantitative", "title": "million pixels"},
            "y": {"field": "tokens", "type": "quantitative"},
            "color": {"field": "model", "type": "nominal"},
        },
    }
