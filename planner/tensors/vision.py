"""The tensors of a projector file (mmproj) from the facts of a tower, with the formats of an F16 file.

Source: llama.cpp 0.5.0-dev, ``tools/mtmd/clip.cpp`` and the converter; compared with true file headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.model import Tensor
from planner.tensors.audio import audio_tensors
from planner.tensors.projectors import PROJECTORS, Entries, bias, matrix, norm
from planner.tensors.sam import language_blocks, queried_tower, sam_tensors
from planner.tensors.staged import staged_convolutions, staged_stem
from planner.tensors.two_stage import features_matrix, staged_blocks, tile_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable

    from planner.model import Vision


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """How the tower's blocks are stored."""

    bias: bool = True
    norm_bias: bool = True
    gated: bool = False
    fused_qkv: bool = False
    head_norms: bool = False
    post_norms: bool = False
    layer_scale: bool = False


def vision_tensors(vision: Vision, n_embd_text: int) -> tuple[Tensor, ...]:
    """Return the tensors of the projector file of ``vision``, feeding a language model ``n_embd_text`` wide.

    Returns nothing for a tower or projector of a kind that has no known file.
    """
    embeddings, projector = _EMBEDDINGS.get(vision.tower), _PROJECTORS.get(vision.projector)
    if embeddings is None or projector is None:
        return ()
    blocks = _BLOCKS.get(vision.tower, _blocks)
    found = [*embeddings(vision), *blocks(vision), *projector(vision, n_embd_text), *audio_tensors(vision, n_embd_text)]
    return tuple(Tensor(name=name, shape=shape, format=stored) for name, shape, stored in found)


def _number(vision: Vision, key: str, default: int) -> int:
    value = vision.facts.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _positions(vision: Vision, stored: str, *, extra: int = 0) -> Entries:
    """Yield the table of learned positions: the fact ``n_positions``, else one per patch of the tower's own image."""
    own = (vision.image_size // vision.patch_size) ** 2 + extra
    yield "v.position_embd.weight", (vision.n_embd, _number(vision, "n_positions", own)), stored


def _patches(vision: Vision, n_frames: int = 1, stored: str = "f16") -> Entries:
    shape = (vision.patch_size, vision.patch_size, 3, vision.n_embd)
    for frame in range(n_frames):
        yield "v.patch_embd.weight" + (f".{frame}" if frame else ""), shape, stored


def _clip(vision: Vision) -> Entries:
    yield from _patches(vision)
    yield "v.class_embd", (vision.n_embd,), "f32"
    yield from _positions(vision, "f16", extra=1)
    yield from norm("v.pre_ln", vision.n_embd)


def _siglip(vision: Vision) -> Entries:
    patches, positions = _STORED.get(vision.projector, ("f16", "f32"))
    yield from _patches(vision, stored=patches)
    yield bias("v.patch_embd", vision.n_embd)
    yield from _positions(vision, positions)
    yield from norm("v.post_ln", vision.n_embd)


# formats of patches and positions where the converter of a projector type leaves its usual ones
_STORED = {"resampler": ("f16", "f16"), "mlp": ("f16", "f16"), "idefics3": ("f32", "f32")}


def _sam_and_clip(vision: Vision) -> Entries:
    """Yield two towers in series; the second takes the first one's features but keeps its own patches in the file."""
    yield from _patches(vision, stored="f32")
    yield "v.class_embd", (vision.n_embd,), "f32"
    yield from _positions(vision, "f32", extra=1)
    yield from norm("v.pre_ln", vision.n_embd)
    yield from sam_tensors(vision)


def _internvit(vision: Vision) -> Entries:
    yield from _patches(vision)
    yield "v.class_embd", (vision.n_embd,), "f32"
    yield from _positions(vision, "f32", extra=1)
    yield bias("v.patch_embd", vision.n_embd)


def _two_frames(vision: Vision) -> Entries:
    yield from _patches(vision, 2)
    yield from norm("v.post_ln", vision.n_embd, with_bias=_form(vision).norm_bias)


def _interpolated(vision: Vision) -> Entries:
    yield from _patches(vision, 2)
    yield from _positions(vision, "f32")
    yield bias("v.patch_embd", vision.n_embd)
    yield from norm("v.post_ln", vision.n_embd)


def _normed_patches(vision: Vision) -> Entries:
    yield from _patches(vision)
    yield from norm("v.pre_ln", vision.n_embd, with_bias=False)


def _dots(vision: Vision) -> Entries:
    yield from _normed_patches(vision)
    yield bias("v.patch_embd", vision.n_embd)


def _two_axis_positions(vision: Vision) -> Entries:
    yield from _patches(vision)
    yield "v.position_embd.weight", (vision.n_embd, _number(vision, "n_positions", 10240), 2), "f32"
    if vision.facts.get("standardise"):
        yield "v.std_bias", (vision.n_embd,), "f32"
        yield "v.std_scale", (vision.n_embd,), "f32"


def _patches_as_matrix(vision: Vision) -> Entries:
    yield matrix("v.patch_embd", 3 * vision.patch_size**2, vision.n_embd)
    yield "v.class_embd", (vision.n_embd,), "f32"
    yield from _positions(vision, "f32", extra=1)
    yield from norm("v.pre_ln", vision.n_embd)
    yield from norm("v.post_ln", vision.n_embd)


def _normed_embeddings(vision: Vision) -> Entries:
    yield from _patches(vision, 2)
    yield bias("v.patch_embd", vision.n_embd)
    yield from norm("v.norm_embd", vision.n_embd, with_bias=False)
    yield from _positions(vision, "f32")
    yield from norm("v.post_ln", vision.n_embd, with_bias=False)


_EMBEDDINGS: dict[str, Callable[[Vision], Entries]] = {
    "clip": _clip,
    "siglip": _siglip,
    "sam_clip": _sam_and_clip,
    "sam_qwen2": queried_tower,
    "moonvit": _siglip,
    "internvit": _internvit,
    "qwen2vl": _two_frames,
    "qwen2.5vl": _two_frames,
    "qwen3vl": _interpolated,
    "pixtral": _normed_patches,
    "dots": _dots,
    "gemma4v": _two_axis_positions,
    "llama4": _patches_as_matrix,
    "mllama": tile_embeddings,
    "glm4v": _normed_embeddings,
    "mobilenetv5": staged_stem,
}

_FORMS: dict[str, Blocks] = {
    "qwen2.5vl": Blocks(norm_bias=False, gated=True),
    "qwen3vl": Blocks(fused_qkv=True),
    "sam_clip": Blocks(fused_qkv=True),
    "internvit": Blocks(layer_scale=True),
    "pixtral": Blocks(bias=False, norm_bias=False, gated=True),
    "dots": Blocks(bias=False, norm_bias=False, gated=True, fused_qkv=True),
    "gemma4v": Blocks(bias=False, norm_bias=False, gated=True, head_norms=True, post_norms=True),
    "glm4v": Blocks(bias=False, norm_bias=False, gated=True, fused_qkv=True),
}


def _form(vision: Vision) -> Blocks:
    return _FORMS.get(vision.tower, Blocks())


def _blocks(vision: Vision) -> Entries:
    form = _form(vision)
    block = [*_attention(vision, form), *_norms(vision, form), *_ffn(vision, form)]
    for index in range(vision.n_layers):
        for name, shape, stored in block:
            yield f"v.blk.{index}.{name}", shape, stored


def _attention(vision: Vision, form: Blocks) -> Entries:
    """Yield projections; towers whose queries and keys are normed over the whole width have no bias there."""
    n_embd = vision.n_embd
    whole_norms = bool(vision.facts.get("qk_norm"))
    if form.fused_qkv:
        yield from _linear("attn_qkv", n_embd, 3 * n_embd, form.bias)
    else:
        for letter in "qkv":
            yield from _linear(f"attn_{letter}", n_embd, n_embd, form.bias and not whole_norms)
    yield from _linear("attn_out", n_embd, n_embd, form.bias)
    if whole_norms or form.head_norms:
        width = n_embd if whole_norms else n_embd // vision.n_heads
        yield from norm("attn_q_norm", width, with_bias=False)
        yield from norm("attn_k_norm", width, with_bias=False)


def _norms(vision: Vision, form: Blocks) -> Entries:
    n_embd = vision.n_embd
    with_bias = form.norm_bias and not vision.facts.get("rms_norm")
    yield from norm("ln1", n_embd, with_bias=with_bias)
    yield from norm("ln2", n_embd, with_bias=with_bias)
    if form.post_norms:
        yield from norm("attn_post_norm", n_embd, with_bias=False)
        yield from norm("ffn_post_norm", n_embd, with_bias=False)
    if form.layer_scale:
        yield from norm("ls1", n_embd, with_bias=False)
        yield from norm("ls2", n_embd, with_bias=False)


def _ffn(vision: Vision, form: Blocks) -> Entries:
    """Yield the feed-forward block; ``block_ff`` where its width is not the one the file states as its own."""
    width = _number(vision, "block_ff", vision.n_ff)
    yield from _linear("ffn_up", vision.n_embd, width, form.bias)
    yield from _linear("ffn_down", width, vision.n_embd, form.bias)
    if form.gated:
        yield from _linear("ffn_gate", vision.n_embd, width, form.bias)


def _linear(name: str, n_in: int, n_out: int, with_bias: bool) -> Entries:  # noqa: FBT001 - stands last and alone
    yield matrix(name, n_in, n_out)
    if with_bias:
        yield bias(name, n_out)


_BLOCKS: dict[str, Callable[[Vision], Entries]] = {
    "mllama": staged_blocks,
    "sam_qwen2": language_blocks,
    "mobilenetv5": staged_convolutions,
}
_PROJECTORS: dict[str, Callable[[Vision, int], Entries]] = {**PROJECTORS, "mllama": features_matrix}
