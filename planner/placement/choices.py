"""What to try for engines that place by themselves: ranks, weight formats, cache types — what the user left open."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from itertools import product
from typing import Any

_RANKS = (1, 2, 4, 8)
_OPEN: Mapping[str, Sequence[Any]] = {
    "load_in": (None, "int8", "nf4"),
    "kv_cache_type": (None, "q8_0"),
    "max_num_seqs": (None, 32),  # vLLM's sampler and profiling run are sized by it
    "gpu_memory_utilization": (None, 0.95),
    "mem_fraction_static": (None, 0.8, 0.88),
    "max_batch_size": (None, 32),
    "cache_max_entry_count": (None, 0.5, 0.2),
}
_RANK_FIELDS = ("tensor_parallel_size", "tp", "tp_size")


def settings_choices(settings: Any, n_gpus: int, given: Collection[str]) -> list[Any]:  # noqa: ANN401 - any engine's
    """Return the settings to try, mildest first: what costs quality least and uses the fewest GPUs."""
    names = {field.name for field in fields(settings)}
    axes: list[list[tuple[str, Any]]] = []
    ranks = [n for n in _RANKS if n <= max(1, n_gpus)]
    for name, values in {**_OPEN, **dict.fromkeys(_RANK_FIELDS, ranks)}.items():
        if name in names and name not in given:
            axes.append([(name, value) for value in values])
    return [_with(settings, dict(choice)) for choice in product(*axes)]


def _with(settings: Any, changes: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any engine's
    kept = {name: value for name, value in changes.items() if value is not None}
    return replace(settings, **kept) if kept else settings
