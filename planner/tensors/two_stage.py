"""The tensors of a tower in two stages over tiles: blocks within, then gated blocks over all tiles of a picture.

Source: Ollama 0.6 to 0.24, ``convert/convert_mllama.go``, the only engine that reads such files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.tensors.projectors import Entries, bias, matrix, norm

if TYPE_CHECKING:
    from planner.model import Vision


def tile_embeddings(vision: Vision) -> Entries:
    """Yield patches, positions and the gated tables of tiles, one entry per arrangement of tiles."""
    n_embd, n_tiles = vision.n_embd, _fact(vision, "max_num_tiles", 4)
    n_arrangements = _fact(vision, "n_aspect_ratios", 8) + 1
    n_positions = (vision.image_size // vision.patch_size) ** 2 + 1
    yield "v.patch_embd.weight", (vision.patch_size, vision.patch_size, 3, n_embd), "f16"
    yield "v.class_embd", (n_embd,), "f32"
    yield "v.position_embd.weight", (n_embd, n_positions), "f16"
    yield "v.tile_position_embd.weight", (n_tiles * n_positions * n_embd, n_arrangements), "f16"
    for side in ("pre", "post"):
        yield f"v.{side}_tile_position_embd.weight", (n_tiles * n_embd, n_arrangements), "f16"
    for name in ("position_embd", "tile_position_embd", "pre_tile_position_embd", "post_tile_position_embd"):
        yield f"v.{name}.gate", (1,), "f32"
    yield from norm("v.pre_ln", n_embd)
    yield from norm("v.post_ln", n_embd)


def staged_blocks(vision: Vision) -> Entries:
    """Yield the blocks of both stages; those of the second have gates."""
    for index in range(vision.n_layers):
        yield from _block(vision, f"v.blk.{index}.")
    for index in range(_fact(vision, "global_block_count", 0)):
        prefix = f"v.global.blk.{index}."
        yield from _block(vision, prefix)
        yield f"{prefix}attn_gate", (1,), "f32"
        yield f"{prefix}ffn_gate", (1,), "f32"


def features_matrix(vision: Vision, n_embd_text: int) -> Entries:
    """Yield the one matrix over the last and the intermediate features."""
    yield matrix("mm.0", _fact(vision, "output_dim", vision.n_embd), n_embd_text)
    yield bias("mm.0", n_embd_text)


def _block(vision: Vision, prefix: str) -> Entries:
    n_embd = vision.n_embd
    for word in ("q", "k", "v", "output"):
        yield matrix(f"{prefix}attn_{word}", n_embd, n_embd)
    yield from norm(f"{prefix}ln1", n_embd)
    yield from norm(f"{prefix}ln2", n_embd)
    for name, n_in, n_out in (("ffn_up", n_embd, vision.n_ff), ("ffn_down", vision.n_ff, n_embd)):
        yield matrix(prefix + name, n_in, n_out)
        yield bias(prefix + name, n_out)


def _fact(vision: Vision, key: str, default: int) -> int:
    value = vision.facts.get(key)
    return value if isinstance(value, int) else default
