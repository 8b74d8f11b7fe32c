"""The hyper-parameters of one architecture as a GGUF file states them, typed and without the architecture's prefix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.frozen import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.model import Number
    from planner.sources.gguf.file import GgufFile
    from planner.sources.gguf.header import Value

MAX_LAYERS = 512  # of the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Look-ups among the keys of one prefix; ``name`` is the file, for messages."""

    name: str
    values: Mapping[str, Value]

    def integer(self, key: str, default: int | None = None) -> int:
        """Return the whole number under ``key``.

        Raises:
            SourceError: it is missing without a default, negative, or no whole number.
        """
        value = self.values.get(key, default)
        if isinstance(value, tuple):  # one number per layer: the widest
            value = max(value, default=default) if all(isinstance(n, int) for n in value) else None
        if not isinstance(value, int) or not 0 <= value < 1 << 40:
            raise SourceError(f"{self.name}: the key {key!r} is {value!r} where a whole number is needed")
        return int(value)

    def real(self, key: str, default: float) -> float:
        """Return the number under ``key``."""
        value = self.values.get(key, default)
        return float(value) if isinstance(value, int | float) else default

    def per_layer(self, key: str, n_layers: int, default: int) -> tuple[int, ...]:
        """Return one whole number per layer, whether the file has an array or one number for all.

        Raises:
            SourceError: an array of another length.
        """
        value = self.values.get(key, default)
        if not isinstance(value, tuple):
            return (self.integer(key, default),) * n_layers
        if len(value) < n_layers or not all(isinstance(n, int) and 0 <= n < 1 << 40 for n in value):
            raise SourceError(f"{self.name}: the key {key!r} has {len(value)} values for {n_layers} layers")
        return tuple(int(n) for n in value[:n_layers])

    def of_layer(self, key: str, index: int, default: float) -> float:
        """Return the number under ``key``, of one layer where the file has an array."""
        value = self.values.get(key, default)
        if isinstance(value, tuple):
            value = value[index] if index < len(value) else default
        return float(value) if isinstance(value, int | float) else default

    def facts(self) -> dict[str, Number]:
        """Return every scalar and every array of whole numbers, for whoever needs more than the layers say."""
        found: dict[str, Number] = {}
        for key, value in self.values.items():
            if not isinstance(value, tuple):
                found[key] = value
            elif all(isinstance(n, int) for n in value):
                found[key] = tuple(int(n) for n in value)
        return found


def keys_of(file: GgufFile, prefix: str) -> Keys:
    """Return the keys of ``file`` that begin with ``prefix`` and a dot."""
    dotted = prefix + "."
    values = {key.removeprefix(dotted): value for key, value in file.metadata.items() if key.startswith(dotted)}
    return Keys(name=file.name, values=values)
