"""How file types rank in quality, from ``profiles/quality.yaml``."""

from __future__ import annotations

from functools import cache

from planner.catalog.data import load_data
from planner.placement.objective import Quality


@cache
def quality_table() -> Quality:
    """Return the table, read once."""
    raw = load_data("quality.yaml")
    return Quality(rise=dict(raw["perplexity_rise_thousandths"]), cache_order=tuple(raw["cache_order"]))
