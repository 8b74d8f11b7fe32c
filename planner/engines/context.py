"""The device context of one process as a span: from the table by GPU where there is one."""

from __future__ import annotations

from planner.engines.span import Span
from planner.machine import Gpu
from planner.memory.overhead import OverheadTable, overhead_bytes


def context_span(gpu: Gpu, engine: str, table: OverheadTable | None, otherwise: Span) -> Span:
    """Return what a process of ``engine`` takes on ``gpu`` beside its own buffers; ``otherwise`` without a table."""
    if table is None:
        return otherwise
    found = overhead_bytes(gpu, engine, table)
    return Span(low=found.low_bytes, expected=found.expected_bytes, high=found.high_bytes)
