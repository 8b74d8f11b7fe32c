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
    yield from _neck(n_embd, _fact(vision, "sam.output_dim", 4 * _NECK))


def queried_tower(vision: Vision) -> Entries:
    """Yield a windowed tower and the learned queries that a language-like tower answers behind it."""
    yield from sam_tensors(vision)
    for side in (768, 1024):  # pixels of the two kinds of views
        n_tokens = (side // _fact(vision, "sam.patch_size", 16) // 4) ** 2
        yield f"v.resample_query_{side}.weight", (vision.n_embd, n_tokens), "f16"
    yield from norm("v.post_ln", vision.n_embd, with_bias=False)


def language_blocks(vision: Vision) -> Entries:
    """Yield blocks with grouped queries and a gated feed-forward block, as language models have them."""
    n_embd = vision.n_embd
    n_kv = n_embd // vision.n_heads * _fact(vision, "attention.head_count_kv", vision.n_heads)
    for index in range(vision.n_layers):
        prefix = f"v.blk.{index}."
        for letter, width in (("q", n_embd), ("k", n_kv), ("v", n_kv)):
            yield matrix(f"{prefix}attn_{letter}", n_embd, width)
            yield bias(f"{prefix}attn_{letter}", width)
        yield matrix(f"{prefix}attn_out", n_embd, n_embd)
        yield from norm(f"{prefix}ln1", n_embd, with_bias=False)
        yield from norm(f"{prefix}ln2", n_embd, with_bias=False)
        yield matrix(f"{prefix}ffn_gate", n_embd, vision.n_ff)
        yield matrix(f"{prefix}ffn_up", n_embd, vision.n_ff)
        yield matrix(f"{prefix}ffn_down", vision.n_ff, n_embd)


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


def _neck(n_embd: int, n_out: int) -> Entries:
    yield "v.sam.neck.0.weight", (1, 1, n_embd, _NECK), "f32"
    yield from norm("v.sam.neck.1", _NECK)
    yield "v.sam.neck.2.weight", (3, 3, _NECK, _NECK), "f32"
    yield from norm("v.sam.neck.3", _NECK)
    yield "v.sam.net_2.weight", (3, 3, _NECK, 2 * _NECK), "f32"
    yield "v.sam.net_3.weight", (3, 3, 2 * _NECK, n_out), "f32"
