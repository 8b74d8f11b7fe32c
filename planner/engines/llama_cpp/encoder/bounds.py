"""Compute memory of a tower whose operations are not known: a bound that is meant to be high.

Not the engine's mechanism but its largest plausible moments, added up: the windows of the patch embedding, every
tensor of one block alive at once, a mask, attention scores where flash attention may be refused, the widest stored
matrix's result twice. Labelled ``assumed`` wherever it is used.
"""

from __future__ import annotations

from planner.engines.llama_cpp.backend import head_sizes_supported
from planner.engines.llama_cpp.encoder.weights import is_audio
from planner.model import Vision

F32 = 4
ALIVE_WIDTHS = 12  # residual, norm, queries, keys, values and their copies, the result, twice over
ALIVE_FFN = 4
SCORES = 3  # of all heads: the product, its soft-max, one copy
MASK_BYTES = 8  # per pair of patches: the input, its f16 copy and that of a block
_MASK_PER_HEAD = ("sam.", "pos_h", "rel_pos")  # names of towers whose masks no kernel takes


def may_hold_scores(vision: Vision, flash_attn: str, *, on_gpu: bool) -> bool:
    """Whether attention may run with all its scores in memory: asked for, or flash attention may be refused."""
    if flash_attn == "off":
        return True
    head = vision.n_embd // max(vision.n_heads, 1)
    refused = not head_sizes_supported(head, head, 1, may_group=False)
    masks = any(word in tensor.name for tensor in vision.tensors for word in _MASK_PER_HEAD)
    return on_gpu and (refused or masks)


def assumed_compute_bytes(vision: Vision, width: int, height: int, batch: int = 1, *, scores: bool = True) -> int:
    """Return a high bound of the compute memory for ``batch`` pictures of ``width`` x ``height`` pixels.

    ``scores``: attention may hold those of every pair of patches and every head.
    """
    patch = max(vision.patch_size, 1)
    n = batch * (-(-width // patch) * -(-height // patch) + 1)
    widest = max((max(t.shape[0], _n_rows(t.shape)) for t in vision.tensors if _is_matrix(t.name, t.shape)), default=0)
    inner = max(vision.n_ff, 4 * vision.n_embd, min(widest, 8 * vision.n_embd))
    picture = batch * 3 * width * height * (F32 + F32 + F32)
    block = n * F32 * (ALIVE_WIDTHS * vision.n_embd + ALIVE_FFN * inner)
    per_pair = MASK_BYTES + (SCORES * max(vision.n_heads, 1) * F32 if scores else 0)
    return picture + block + n * n * per_pair // batch + 2 * F32 * widest * n


def _n_rows(shape: tuple[int, ...]) -> int:
    n = 1
    for width in shape[1:]:
        n *= width
    return n


def _is_matrix(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a matrix of the tower or its projector, not a table of positions or a convolution."""
    return len(shape) == 2 and "embd" not in name and "pos" not in name and not is_audio(name)
