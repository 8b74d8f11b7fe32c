"""What tells one block of a tower from another: blocks of equal signature are the same operations."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping

from planner.engines.llama_cpp.encoder.blocks import is_masked, kept_layers
from planner.engines.llama_cpp.encoder.kinds import EncoderKind
from planner.engines.llama_cpp.encoder.tower import fact_of
from planner.engines.llama_cpp.encoder.windows import band_modes
from planner.model import Vision

_NAME = re.compile(r"(?:[va]\.blk|v\.deepstack)\.(\d+)\.(?!\d)")


def block_signatures(vision: Vision, kind: EncoderKind) -> list[Hashable]:
    """Return one value per block that runs: its stored tensors, its mask, and what its number alone means.

    Nothing for towers that have no such blocks.
    """
    stored = _stored_by_block(vision)
    if not stored:
        return []
    kept, listed, modes = kept_layers(vision), _listed(vision), band_modes(vision)
    return [
        (
            tuple(stored.get(n, ())),
            is_masked(vision, n, kind.masks),
            n if n in kept else None,
            n + 1 in kept,
            n in listed,
            modes[max(n - 1, 0) : n + 1],
        )
        for n in kind.layers_of(vision)
    ]


def _stored_by_block(vision: Vision) -> Mapping[int, list[Hashable]]:
    found: dict[int, list[Hashable]] = {}
    for tensor in vision.tensors:
        match = _NAME.match(tensor.name)
        if match:
            entry = (tensor.name[match.end() :], tensor.shape, tensor.format)
            found.setdefault(int(match[1]), []).append(entry)
    return found


def _listed(vision: Vision) -> frozenset[int]:
    """Return the blocks that the file lists for windows or for a merger after them."""
    found = fact_of(vision, "wa_layer_indexes")
    return frozenset(found) if isinstance(found, tuple) else frozenset()
