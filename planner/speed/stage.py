"""How long one stage takes: a range in seconds, what bounds it, and how that is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.budget import Basis

# from the best known to the least
_ORDER: tuple[Basis, ...] = ("exact", "measured", "modelled", "assumed")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Seconds of one stage, low to high. ``bound_by`` names its largest part."""

    name: str
    low_s: float
    expected_s: float
    high_s: float
    bound_by: str
    basis: Basis
    source: str = ""

    def per_second(self, count: float) -> tuple[float, float, float]:
        """Return how many of ``count`` things done in this stage are done per second: low, expected, high."""
        return tuple(count / seconds if seconds > 0 else 0.0 for seconds in (self.high_s, self.expected_s, self.low_s))  # type: ignore[return-value]


def stage(name: str, parts: dict[str, float], spread: float, basis: Basis, source: str = "") -> StageTime:
    """Return the stage whose named ``parts`` in seconds add up; its range is a factor ``spread`` either way."""
    seconds = sum(parts.values())
    bound_by = max(parts, key=lambda part: parts[part]) if parts else "nothing"
    return StageTime(
        name=name,
        low_s=seconds / spread,
        expected_s=seconds,
        high_s=seconds * spread,
        bound_by=bound_by,
        basis=basis,
        source=source,
    )


def in_sequence(name: str, stages: Sequence[StageTime]) -> StageTime:
    """Return stages one after the other as one: seconds add, the longest bounds, the least known is the basis."""
    longest = max(stages, key=lambda one: one.expected_s)
    return replace(
        longest,
        name=name,
        low_s=sum(one.low_s for one in stages),
        expected_s=sum(one.expected_s for one in stages),
        high_s=sum(one.high_s for one in stages),
        basis=max((one.basis for one in stages), key=_ORDER.index),
    )
