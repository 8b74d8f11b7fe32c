"""Figures that hold for all engines, from ``profiles/engines/``: device overhead and speed."""

from __future__ import annotations

from functools import cache
from typing import Any

from planner.catalog.data import load_data
from planner.memory.overhead import (
    NOTHING,
    ByteRange,
    ContextBand,
    EngineExtra,
    MeasuredContext,
    OverheadTable,
)
from planner.units import parse_bytes


@cache
def overhead_table() -> OverheadTable:
    """Return ``profiles/engines/overhead.yaml``, read once."""
    raw = load_data("engines/overhead.yaml")
    return OverheadTable(
        bands=tuple(_band(row) for row in raw["bands"]),
        measured=tuple(
            MeasuredContext(gpu=row["gpu"], range=_range(row), source=row["source"]) for row in raw["measured"]
        ),
        extras=tuple(
            EngineExtra(engines=tuple(row["engines"]), range=_range(row["fixed"]), source=row["source"])
            for row in raw["engines"]
        ),
        expert_staging=_range(raw["expert_staging"]["fixed"]),
        expert_staging_source=raw["expert_staging"]["source"],
        windows_note=raw["notes"]["windows"],
    )


def _band(row: dict[str, Any]) -> ContextBand:
    capability = row.get("min_compute_capability")
    return ContextBand(
        backend=row["backend"],
        min_compute_capability=None if capability is None else _pair(capability),
        per_unit=_range(row["per_unit"]) if "per_unit" in row else NOTHING,
        fixed=_range(row["fixed"]),
        basis=row["basis"],
        source=row["source"],
        whole_process=row.get("whole_process", False),
    )


def _range(row: dict[str, Any]) -> ByteRange:
    low, expected, high = (parse_bytes(str(row[key])) for key in ("low", "expected", "high"))
    return ByteRange(low_bytes=low, expected_bytes=expected, high_bytes=high)


def _pair(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)
