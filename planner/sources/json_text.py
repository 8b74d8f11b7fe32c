"""JSON from strangers: bounded in size, depth and number of values, without duplicate keys or endless numbers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.units import MIB

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_TEXT_BYTES = 24 * MIB  # the index of a checkpoint with 150,000 tensors
MAX_FOREIGN_BYTES = 4 * MIB  # of text beyond ASCII, which may need four bytes a character in memory
MAX_CONTAINERS = 200_000  # lists and objects; a shard of 60,000 tensors has so many
MAX_VALUES = 400_000  # commas, that is; a tensor has five
MAX_NUMBER = 1 << 62


def parse_object(data: bytes, name: str) -> dict[str, object]:
    """Return the JSON object in ``data``.

    Raises:
        SourceError: not JSON, not an object, a key twice, or larger than any honest file.
    """
    _refuse_bulk(data, name)
    try:
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{name}: not valid JSON: {_short(error)}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{name}: holds {_kind(value)} where a JSON object is expected")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """Typed access to a JSON object of a file; ``where`` names the file and the path inside it."""

    values: Mapping[str, object]
    where: str

    def __contains__(self, key: str) -> bool:
        """Whether ``key`` is there and not null."""
        return self.values.get(key) is not None

    def first(self, *keys: str) -> object:
        """Return the value of the first of ``keys`` that is there and not null, else None."""
        return next((self.values[key] for key in keys if self.values.get(key) is not None), None)

    def integer(
        self, *keys: str, default: int | None = None, at_least: int = 0, at_most: int = MAX_NUMBER
    ) -> int | None:
        """Return the whole number under the first of ``keys`` present.

        Raises:
            SourceError: it is something else, or out of bounds.
        """
        value = self.first(*keys)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer() and abs(value) < MAX_NUMBER:
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not at_least <= value <= at_most:
            self._refuse(keys, value, f"a whole number from {at_least} to {at_most}")
        return value

    def require(self, *keys: str, at_least: int = 0, at_most: int = MAX_NUMBER) -> int:
        """Return the whole number under the first of ``keys`` present.

        Raises:
            SourceError: none is there, or it is not such a number.
        """
        value = self.integer(*keys, at_least=at_least, at_most=at_most)
        if value is None:
            raise SourceError(f"{self.where}: {' or '.join(keys)} is missing")
        return value

    def number(self, *keys: str, default: float | None = None) -> float | None:
        """Return the finite number under the first of ``keys`` present.

        Raises:
            SourceError: it is something else.
        """
        value = self.first(*keys)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < MAX_NUMBER:
            self._refuse(keys, value, "a number")
        return value

    def flag(self, *keys: str, default: bool = False) -> bool:
        """Return the truth value under the first of ``keys`` present.

        Raises:
            SourceError: it is something else.
        """
        value = self.first(*keys)
        if value is None:
            return default
        if not isinstance(value, bool):
            self._refuse(keys, value, "true or false")
        return value

    def text(self, *keys: str, default: str = "") -> str:
        """Return the text under the first of ``keys`` present.

        Raises:
            SourceError: it is something else, or longer than a kilobyte.
        """
        value = self.first(*keys)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > 1024:
            self._refuse(keys, value, "a short text")
        return value

    def items(self, *keys: str) -> list[object]:
        """Return the list under the first of ``keys`` present, empty without one.

        Raises:
            SourceError: it is something else.
        """
        value = self.first(*keys)
        if value is None:
            return []
        if not isinstance(value, list):
            self._refuse(keys, value, "a list")
        return value

    def integers(self, *keys: str, at_most_items: int = 65_536) -> tuple[int, ...]:
        """Return the whole numbers listed under the first of ``keys`` present.

        Raises:
            SourceError: something else stands there.
        """
        values = self.items(*keys)
        if len(values) > at_most_items:
            self._refuse(keys, values, f"at most {at_most_items} numbers")
        found = tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool) and abs(v) < MAX_NUMBER)
        if len(found) != len(values):
            self._refuse(keys, values, "a list of whole numbers")
        return found

    def fields(self, *keys: str) -> Fields | None:
        """Return the object under the first of ``keys`` present, None without one.

        Raises:
            SourceError: it is something else.
        """
        found = next((key for key in keys if self.values.get(key) is not None), None)
        if found is None:
            return None
        value = self.values[found]
        if not isinstance(value, dict):
            self._refuse(keys, value, "an object")
        return Fields(values=value, where=f"{self.where}, {found}")

    def _refuse(self, keys: tuple[str, ...], value: object, wanted: str) -> NoReturn:
        key = next((k for k in keys if self.values.get(k) is not None), keys[0])
        raise SourceError(f"{self.where}: {key} is {_shown(value)} where {wanted} is expected")


def _refuse_bulk(data: bytes, name: str) -> None:
    """Refuse text that would fill memory once parsed: an empty list costs three bytes here and sixty there."""
    n_containers = data.count(b"[") + data.count(b"{")
    limit = MAX_TEXT_BYTES if data.isascii() else MAX_FOREIGN_BYTES
    if len(data) > limit or n_containers > MAX_CONTAINERS or data.count(b",") > MAX_VALUES:
        raise SourceError(f"{name}: {len(data)} bytes of JSON, {n_containers} lists and objects; refused as too large")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is written twice")
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _short(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]


def _kind(value: object) -> str:
    return {list: "a list", str: "a text", bool: "a truth value", type(None): "null"}.get(type(value), "a number")


def _shown(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 64:
        return "an enormous number"
    text = repr(value) if not isinstance(value, list | dict) else _kind(value).replace("a number", "an object")
    return text if len(text) <= 40 else text[:37] + "..."
