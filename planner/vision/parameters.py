"""The parameters of one resizing rule, read with their types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.model import Number


MAX_TILES = 1024  # of one image; published rules stay under 40


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a profile, a projector file or the user says about one rule, by the publisher's own words.

    Raises:
        UsageError: from every reader, where a value is missing or of another kind.
    """

    rule: str
    values: Mapping[str, Number]

    def integer(self, name: str, default: int | None = None) -> int:
        """Return a whole number."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "a whole number")
        return value

    def positive(self, name: str, default: int | None = None) -> int:
        """Return a whole number above zero."""
        value = self.integer(name, default)
        if value <= 0:
            raise self._wrong(name, "a whole number above 0")
        return value

    def count(self, name: str, default: int | None = None, *, most: int = MAX_TILES) -> int:
        """Return a number of tiles, crops or slices, small enough to look at every grid of so many."""
        value = self.positive(name, default)
        if value > most:
            raise self._wrong(name, f"{most} at most")
        return value

    def real(self, name: str, default: float | None = None) -> float:
        """Return a number."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(name, "a number")
        return float(value)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return a yes or no."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def pairs(self, name: str) -> tuple[tuple[int, int], ...]:
        """Return the pairs of a flat list, as image_grid_pinpoints are stored."""
        value = self.values.get(name)
        if not isinstance(value, tuple) or len(value) < 2 or len(value) % 2 or any(n <= 0 for n in value):
            raise self._wrong(name, "a list of pairs of whole numbers above 0")
        return tuple(zip(value[::2], value[1::2], strict=True))

    def _wrong(self, name: str, kind: str) -> UsageError:
        found = "nothing" if name not in self.values else repr(self.values[name])
        return UsageError(f"image rule {self.rule!r}: {name} must be {kind}, found {found}")
