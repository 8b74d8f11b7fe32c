"""The tensors between a vision tower and the language model, by the projector's word."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from planner.model import Vision

Stored = tuple[str, tuple[int, ...], str]  # name, shape, format
Entries = Iterator[Stored]


def matrix(name: str, n_in: int, n_out: int) -> Stored:
    """Return the weight of a linear layer."""
    return f"{name}.weight", (n_in, n_out), "f16"


def bias(name: str, width: int) -> Stored:
    """Return a bias."""
    return f"{name}.bias", (width,), "f32"


def norm(name: str, width: int, *, with_bias: bool = True) -> Entries:
    """Yield the weight of a norm and, for a layer norm, its bias."""
    yield f"{name}.weight", (width,), "f32"
    if with_bias:
        yield bias(name, width)


def _linear(name: str, n_in: int, n_out: int) -> Entries:
    yield matrix(name, n_in, n_out)
    yield bias(name, n_out)


def _number(vision: Vision, key: str, default: int) -> int:
    value = vision.facts.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _mlp(vision: Vision, n_text: int) -> Entries:
    """Two layers; joined feature layers feed as many widths, tiled pictures add the vector that ends a row."""
    features = vision.facts.get("feature_layer")
    n_features = len(features) if isinstance(features, tuple) else 1
    yield from _linear("mm.0", vision.n_embd * n_features, n_text)
    yield from _linear("mm.2", n_text, n_text)
    if vision.facts.get("image_grid_pinpoints"):
        yield "v.image_newline", (n_text,), "f32"


def _merger(vision: Vision, n_text: int) -> Entries:
    """Neighbouring patches joined, then two layers; deep features have a merger of their own each."""
    joined = vision.n_embd * _number(vision, "spatial_merge_size", 2) ** 2
    layers = vision.facts.get("deepstack_layers")
    for index in layers if isinstance(layers, tuple) else ():
        name = f"v.deepstack.{index}"
        yield from norm(f"{name}.norm", joined)
        yield from _linear(f"{name}.fc1", joined, joined)
        yield from _linear(f"{name}.fc2", joined, n_text)
    yield from _linear("mm.0", joined, joined)
    yield from _linear("mm.2", joined, n_text)


def _pooled(vision: Vision, n_text: int) -> Entries:
    yield matrix("mm.input_projection", n_text, vision.n_embd)  # stored the other way round
    yield from norm("mm.soft_emb_norm", vision.n_embd, with_bias=False)


def _pooled_plain(vision: Vision, n_text: int) -> Entries:
    yield matrix("mm.input_projection", vision.n_embd, n_text)


def _tabled(vision: Vision, n_text: int) -> Entries:
    """A norm and a matrix; beside them a table of the modality's own tokens, which the engine leaves in the file."""
    yield "mm.embedding.weight", (vision.n_embd, 128), "f16"
    yield from norm("mm.hard_emb_norm", vision.n_embd, with_bias=False)
    yield from norm("mm.soft_emb_norm", vision.n_embd, with_bias=False)
    yield from _pooled_plain(vision, n_text)


def _shuffled_mlp(vision: Vision, n_text: int) -> Entries:
    joined = vision.n_embd * _number(vision, "projector.scale_factor", 2) ** 2
    yield from norm("mm.model.mlp.0", joined)
    yield from _linear("mm.model.mlp.1", joined, n_text)
    yield from _linear("mm.model.mlp.3", n_text, n_text)


def _row_breaks(vision: Vision, n_text: int) -> Entries:
    """Yield the projector of merged rows and the vector that ends a row."""
    yield from _merged_rows(vision, n_text)
    yield "v.token_embd.img_break", (n_text,), "f32"


def _merged_rows(vision: Vision, n_text: int) -> Entries:
    """Two layers; where patches merge first, a norm and a merger and no biases."""
    merge = _number(vision, "spatial_merge_size", 1)
    yield matrix("mm.1", vision.n_embd, n_text)
    yield matrix("mm.2", n_text, n_text)
    if merge > 1:
        yield from norm("mm.input_norm", vision.n_embd, with_bias=False)
        yield matrix("mm.patch_merger", vision.n_embd * merge**2, vision.n_embd)
    else:
        yield bias("mm.1", n_text)
        yield bias("mm.2", n_text)


def _resampler(vision: Vision, n_text: int) -> Entries:
    yield "resampler.pos_embed_k", (n_text, _number(vision, "n_positions", 4900)), "f32"
    yield "resampler.query", (n_text, _number(vision, "minicpmv_query_num", 64)), "f32"
    yield matrix("resampler.proj", n_text, n_text)
    yield matrix("resampler.kv", vision.n_embd, n_text)
    for letter in ("q", "k", "v", "out"):
        yield from _linear(f"resampler.attn.{letter}", n_text, n_text)
    for word in ("q", "kv", "post"):
        yield from norm(f"resampler.ln_{word}", n_text)


def _shuffled_adapter(vision: Vision, n_text: int) -> Entries:
    """A two-layer adapter over shuffled patches, then one matrix."""
    width = _number(vision, "adapter_dim", 4096)
    joined = vision.n_embd * _number(vision, "projector.scale_factor", 2) ** 2
    yield matrix("mm.model.mlp.1", joined, width)
    yield matrix("mm.model.mlp.2", width, width)
    yield matrix("mm.model.fc", width, n_text)


def _convolving_merger(vision: Vision, n_text: int) -> Entries:
    width = vision.n_ff
    yield "mm.patch_merger.weight", (2, 2, vision.n_embd, n_text), "f16"
    yield bias("mm.patch_merger", n_text)
    yield matrix("mm.model.fc", n_text, n_text)
    yield from norm("mm.post_norm", n_text)
    yield matrix("mm.up", n_text, width)
    yield matrix("mm.gate", n_text, width)
    yield matrix("mm.down", width, n_text)


def _shuffled_matrix(vision: Vision, n_text: int) -> Entries:
    yield matrix("mm.model.fc", vision.n_embd * _number(vision, "projector.scale_factor", 2) ** 2, n_text)


def _normed_merger(vision: Vision, n_text: int) -> Entries:
    joined = vision.n_embd * 4
    yield from norm("mm.input_norm", vision.n_embd)
    yield from _linear("mm.1", joined, joined)
    yield from _linear("mm.2", joined, n_text)


def _closed_merger(vision: Vision, n_text: int) -> Entries:
    """The norm that closes the tower, then a norm and two layers over neighbouring patches."""
    joined = vision.n_embd * _number(vision, "projector.scale_factor", 2) ** 2
    yield from norm("mm.post_norm", vision.n_embd, with_bias=False)
    yield from norm("mm.input_norm", vision.n_embd)
    yield from _linear("mm.0", joined, joined)
    yield from _linear("mm.2", joined, n_text)


def _narrow_mlp(vision: Vision, n_text: int) -> Entries:
    joined, width = vision.n_embd * 4, _number(vision, "projector_dim", 2560)
    if vision.facts.get("projector_norm") is not False:
        yield from norm("mm.input_norm", joined)
    yield from _linear("mm.1", joined, width)
    yield from _linear("mm.2", width, n_text)


def _framed_matrix(vision: Vision, n_text: int) -> Entries:
    """One matrix over the features of two towers, and the vectors that end rows and part views."""
    yield "v.image_newline", (n_text,), "f32"
    yield "v.view_seperator", (n_text,), "f32"  # spelled so in the files
    yield from _linear("mm.model.fc", 2 * vision.n_embd, n_text)


def _parted_matrix(vision: Vision, n_text: int) -> Entries:
    """One matrix over the answered queries, and the vector that parts views."""
    yield "v.view_seperator", (n_text,), "f32"
    yield from _linear("mm.model.fc", vision.n_embd, n_text)


def _two_mergers(vision: Vision, n_text: int) -> Entries:
    """A merger with attention among the tower's blocks, and a second one behind them; each joins 2 x 2."""
    n_embd, joined = vision.n_embd, 4 * vision.n_embd
    yield from norm("v.vit_merger.ln1", n_embd)
    for word in ("q", "k", "v", "out"):
        yield from _linear(f"v.vit_merger.attn_{word}", n_embd, n_embd)
    yield from norm("v.vit_merger.ds_ln", joined)
    yield from _linear("v.vit_merger.ds_ffn_up", joined, 4 * vision.n_ff)
    yield from _linear("v.vit_merger.ds_ffn_down", 4 * vision.n_ff, n_embd)
    yield from norm("mm.input_norm", joined)
    yield from _linear("mm.up", joined, joined)
    yield from _linear("mm.down", joined, n_text)


PROJECTORS: dict[str, Callable[[Vision, int], Entries]] = {
    "mlp": _mlp,
    "qwen2vl_merger": _merger,
    "qwen2.5vl_merger": _merger,
    "qwen3vl_merger": _merger,
    "gemma3": _pooled,
    "gemma4v": _pooled_plain,
    "gemma3nv": _tabled,
    "internvl": _shuffled_mlp,
    "pixtral": _row_breaks,
    "resampler": _resampler,
    "llama4": _shuffled_adapter,
    "glm4v": _convolving_merger,
    "idefics3": _shuffled_matrix,
    "kimivl": _normed_merger,
    "paddleocr": _normed_merger,
    "dots_ocr": _closed_merger,
    "lightonocr": _merged_rows,
    "kimik25": _normed_merger,
    "lfm2": _narrow_mlp,
    "deepseekocr": _framed_matrix,
    "deepseekocr2": _parted_matrix,
    "minicpmv4_6": _two_mergers,
}
