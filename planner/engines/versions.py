"""Version words of engines as comparable values: ``v0.10.2``, ``0.30.0-rc1``, ``4.57``, ``b11549``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import total_ordering

from planner.errors import UsageError

_RELEASE = re.compile(
    r"[vV]?(?P<numbers>\d{1,9}(?:\.\d{1,9}){0,4})"
    r"(?:[-_.]?(?P<stage>alpha|beta|dev|pre|post|a|b|c|rc)[-_.]?(?P<n>\d{1,9})?)?"
    r"(?:[-_.]?dev\d{0,9})?(?:\+[A-Za-z0-9._-]{1,40})?"
)
_BUILD = re.compile(r"[bB](?P<number>\d{1,9})")
_STAGES = {"dev": -4, "alpha": -3, "a": -3, "beta": -2, "b": -2, "c": -1, "rc": -1, "pre": -1, "post": 1}


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A release: its numbers, then the stage before (negative) or after (positive) it, and the stage's number."""

    numbers: tuple[int, ...]
    stage: int = 0
    n: int = 0

    @property
    def _key(self) -> tuple[tuple[int, ...], int, int]:
        numbers = self.numbers
        while len(numbers) > 1 and numbers[-1] == 0:
            numbers = numbers[:-1]
        return numbers, self.stage, self.n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __lt__(self, other: Version) -> bool:
        return self._key < other._key

    def within(self, last: Version) -> bool:
        """Whether this is not past ``last``, where ``4.57`` stands for the whole 4.57 series."""
        return self <= last or self.numbers[: len(last.numbers)] == last.numbers != self.numbers


def parse_version(word: str) -> Version:
    """Return the version that ``word`` writes; a llama.cpp build ``b6628`` becomes one number.

    Raises:
        UsageError: the word is no version.
    """
    text = word.strip()
    build = _BUILD.fullmatch(text)
    if build is not None:
        return Version((int(build["number"]),))
    match = _RELEASE.fullmatch(text)
    if match is None:
        raise UsageError(f"{word[:60]!r} is not an engine version; write it like 0.10.2, 0.30.0-rc1 or b11549")
    numbers = tuple(int(number) for number in match["numbers"].split("."))
    return Version(numbers, _STAGES.get(match["stage"] or "", 0), int(match["n"] or 0))
