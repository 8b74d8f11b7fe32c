"""The tensors of an audio tower that shares the projector file of a vision tower."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.tensors.projectors import Entries, bias, matrix, norm

if TYPE_CHECKING:
    from planner.model import Vision

_NORMS = (
    "ffn_norm",
    "ffn_post_norm",
    "ffn_norm_1",
    "ffn_post_norm_1",
    "attn_pre_norm",
    "attn_post_norm",
    "ln2",
    "norm_conv",
    "conv_norm",
)
_CHANNELS = (1, 128, 32)  # of the two convolutions over the spectrogram
_CONVOLUTION = 5  # frames


def audio_tensors(vision: Vision, n_embd_text: int) -> Entries:
    """Yield the tensors of the conformer tower that the facts ``audio.…`` describe; nothing where there is none."""
    n_layers, n_embd, n_ff, n_heads, n_out = (
        _fact(vision, key)
        for key in (
            "block_count",
            "embedding_length",
            "feed_forward_length",
            "attention.head_count",
            "projection_dim",
        )
    )
    if vision.facts.get("audio.tower") != "conformer" or not n_heads:
        return
    yield from _input(n_embd)
    yield from _output(n_embd, n_out, n_embd_text)
    block = [*_attention(n_embd, n_embd // n_heads), *_feed_forward(n_embd, n_ff), *_convolution(n_embd)]
    for index in range(n_layers):
        for name, shape, stored in block:
            yield f"a.blk.{index}.{name}", shape, stored


def _fact(vision: Vision, key: str) -> int:
    value = vision.facts.get(f"audio.{key}")
    return value if isinstance(value, int) else 0


def _input(n_embd: int) -> Entries:
    """Yield two strided convolutions and the matrix into the tower."""
    for index in range(2):
        yield f"a.conv1d.{index}.weight", (3, 3, *_CHANNELS[index : index + 2]), "f32"
        yield from norm(f"a.conv1d.{index}.norm", _CHANNELS[index + 1], with_bias=False)
    yield matrix("a.input_projection", n_embd, n_embd)


def _output(n_embd: int, n_out: int, n_embd_text: int) -> Entries:
    yield matrix("a.pre_encode.out", n_embd, n_out)
    yield bias("a.pre_encode.out", n_out)
    yield matrix("mm.a.input_projection", n_out, n_embd_text)


def _attention(n_embd: int, head_dim: int) -> Entries:
    for word in ("q", "k", "v", "out", "k_rel"):
        yield matrix(f"attn_{word}", n_embd, n_embd)
    yield from norm("per_dim_scale", head_dim, with_bias=False)
    for name in _NORMS:
        yield from norm(name, n_embd, with_bias=False)


def _feed_forward(n_embd: int, n_ff: int) -> Entries:
    """Yield the two feed-forward blocks around attention and convolution."""
    for suffix in ("", "_1"):
        yield matrix(f"ffn_up{suffix}", n_embd, n_ff)
        yield matrix(f"ffn_down{suffix}", n_ff, n_embd)


def _convolution(n_embd: int) -> Entries:
    yield matrix("conv_pw1", n_embd, 2 * n_embd)
    yield "conv_dw.weight", (_CONVOLUTION, n_embd), "f32"
    yield matrix("conv_pw2", n_embd, n_embd)
