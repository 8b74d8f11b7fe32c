"""Predicted beside measured, as a table and as a mapping."""

from __future__ import annotations

import textwrap
from dataclasses import asdict

from planner.questions.verify import Row, Verification, headline
from planner.units import format_bytes

_MARKS = {True: "ok: ", False: "OUTSIDE: ", None: ""}


def verification_mapping(found: Verification) -> dict[str, object]:
    """Return the comparison ready for ``json.dumps``."""
    plan = found.plan
    return {
        "schema": 1,
        "model": plan.model.name,
        "quantization": plan.model.quantization,
        "engine": plan.engine,
        "engine_version": plan.engine_version,
        "request": dict(found.request),
        "all_within": found.all_within,
        "n_judged": found.n_judged,
        "rows": [asdict(row) | {"difference_bytes": row.difference_bytes} for row in found.rows],
        "facts": dict(found.facts),
        "overhead": [asdict(one) for one in found.overheads],
        "remarks": list(found.remarks),
    }


def verification_screen(found: Verification, width: int = 80) -> str:
    """Return one line per figure with its explanation below, and the result first."""
    plan = found.plan
    name = " ".join(word for word in (plan.model.name, plan.model.quantization) if word)
    lines = [headline(found), f"{name} on {plan.engine} {plan.engine_version}"]
    lines += [_folded(remark, width, "- ") for remark in found.remarks]
    lines += ["", f"{'':<28}{'measured':>12}{'predicted':>12}  from low to high"]
    device = None
    for row in found.rows:
        if row.device != device:
            device = row.device
            lines.append(device)
        lines += _lines(row, width)
    lines += [f"overhead of {one.engine} on {one.gpu}: {format_bytes(one.high_bytes)}" for one in found.overheads]
    return "\n".join(lines)


def _lines(row: Row, width: int) -> list[str]:
    what = f"  {row.component} {row.part}"
    if row.component in {"total", "overhead"}:
        what = f"  {row.component} {row.term}"
    figures = f"{format_bytes(row.measured_bytes):>12}{'none':>12}"
    if row.expected_bytes is not None and row.low_bytes is not None and row.high_bytes is not None:
        span = f"  {format_bytes(row.low_bytes)} to {format_bytes(row.high_bytes)}"
        exact = row.low_bytes == row.high_bytes
        figures = f"{format_bytes(row.measured_bytes):>12}{format_bytes(row.expected_bytes):>12}{'' if exact else span}"
    head = f"{what:<28}{figures}" if len(what) < 28 else f"{what}\n{'':<28}{figures}"
    return [head, _folded(f"{_MARKS[row.within]}{row.why}", width, "      ")]


def _folded(text: str, width: int, first: str) -> str:
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * len(first), break_long_words=False)
