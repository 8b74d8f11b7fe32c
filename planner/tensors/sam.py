"""The tensors of a windowed tower (SAM) that stands before another one in the same projector file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.tensors.projectors import Entries, bias, matrix, norm

if TYPE_CHECKING:
    from planner.model import Vision

_NECK = 256  # channels between the tower and its two strided convolutions


def sam_tensors(vision: Vision) -> Entries:
    """Yield the tower that the facts ``sam.…`` describe: blocks with relative positions, a neck, two convolutions.

    Facts: ``sam.block_count``, ``sam.embedding_length``, ``sam.head_count``, ``sam.patch_size``, ``sam.image_size``
    (pixels per side), ``sam.global_layers`` (layers that look at everything), ``window_size`` (patches per side).
    """
    n_embd, patch = _fact(vision, "sam.embedding_length", 768), _fact(vision, "sam.patch_size", 16)
    side = _fact(vision, "sam.image_size", 1024) // patch
    yield "v.sam.pos_embd.weight", (n_embd, side, side), "f32"
    yield "v.sam.patch_embd.weight", (patch, patch, 3, n_embd), "f16"
    yield bias("v.sam.patch_embd", n_embd)
    layers = vision.facts.get("sam.global_layers")
    whole = layers if isinstance(layers, tuple) else ()
    for index in range(_fact(vision, "sam.block_count", 12)):
        reach = side if index in whole else _fact(vision, "window_size", 14)
        yield from _block(f"v.sam.blk.{index}.", n_embd, n_embd // _fact(vision, "sam.head_count", 12), reach)
    yield from _neck(n_embd)


def _fact(vision: Vision, key: str, default: int) -> int:
    value = vision.facts.get(key)
    return value if isinstance(value, int) else default


def _block(prefix: str, n_embd: int, head_dim: int, reach: int) -> Entries:
    """Yield one block; ``reach``: patches per side that its attention sees."""
    for name, n_in, n_out in (("attn.qkv", n_embd, 3 * n_embd), ("attn.out", n_embd, n_embd)):
        yield matrix(prefix + name, n_in, n_out)
        yield bias(prefix + name, n_out)
    yield from norm(f"{prefix}pre_ln", n_embd)
    yield from norm(f"{prefix}post_ln", n_embd)
    for axis in "hw":
        yield f"{prefix}attn.pos_{axis}.weight", (head_dim, 2 * reach - 1), "f32"
    for name, n_in, n_out in (("mlp.lin1", n_embd, 4 * n_embd), ("mlp.lin2", 4 * n_embd, n_embd)):
        yield matrix(prefix + name, n_in, n_out)
        yield bias(prefix + name, n_out)


def _neck(n_embd: int) -> Entries:
    yield "v.sam.neck.0.weight", (1, 1, n_embd, _NECK), "f32"
    yield from norm("v.sam.neck.1", _NECK)
    yield "v.sam.neck.2.weight", (3, 3, _NECK, _NECK), "f32"
    yield from norm("v.sam.neck.3", _NECK)
    yield "v.sam.net_2.weight", (3, 3, _NECK, 2 * _NECK), "f32"
    yield "v.sam.net_3.weight", (3, 3, 2 * _NECK, 4 * _NECK), "f32"
