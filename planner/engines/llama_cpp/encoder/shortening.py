"""As few blocks as give the same memory: the arena repeats itself after a few equal blocks.

The running sum of a tower alternates between two places, so the parity of a run of equal blocks is kept: three or four
of them stand for any number. That this changes no byte is tested on every tower and size of the tables.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import groupby

from planner.engines.llama_cpp.encoder.blocks import is_masked, kept_layers
from planner.engines.llama_cpp.encoder.kinds import EncoderKind
from planner.engines.llama_cpp.encoder.tower import fact_of
from planner.model import Vision

_NAME = re.compile(r"(?:[va]\.blk|v\.deepstack)\.(\d+)\.")
ENOUGH = 4


def short_layers(vision: Vision, kind: EncoderKind) -> tuple[int, ...]:
    """Return the numbers of blocks that stand for all of ``vision``."""
    layers = kind.layers_of(vision)
    stored = _stored_by_layer(vision)
    kept, masks = kept_layers(vision), kind.masks
    looks = [
        (tuple(stored.get(n, ())), n in kept, n + 1 in kept, is_masked(vision, n, masks), n in listed_layers(vision))
        for n in layers
    ]
    return shortened(layers, looks)


def shortened(layers: Sequence[int], looks: Sequence[Hashable]) -> tuple[int, ...]:
    """Return ``layers`` with every run of equal ``looks`` cut to its first three or four, parity kept."""
    few: list[int] = []
    for _, run in groupby(zip(layers, looks, strict=True), key=lambda pair: pair[1]):
        equal = [layer for layer, _ in run]
        n = len(equal)
        few += equal if n <= ENOUGH else equal[: ENOUGH - n % 2]
    return tuple(few)


def _stored_by_layer(vision: Vision) -> Mapping[int, list[Hashable]]:
    by_layer: dict[int, list[Hashable]] = {}
    for tensor in vision.tensors:
        match = _NAME.match(tensor.name)
        if match:
            entry = (tensor.name[match.end() :], tensor.shape, tensor.format)
            by_layer.setdefault(int(match[1]), []).append(entry)
    return by_layer


def listed_layers(vision: Vision) -> frozenset[int]:
    """Return the blocks whose number means something to a tower with windows."""
    found = fact_of(vision, "wa_layer_indexes")
    return frozenset(found) if isinstance(found, tuple) else frozenset()
