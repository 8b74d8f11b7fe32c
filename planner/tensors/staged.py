"""The tensors of a tower in four stages of convolutions, the last two with grid attention between them.

Source: llama.cpp 0.5.0-dev, the converter and ``tools/mtmd/clip.cpp``; shapes counted on timm 1.0.31
(``mobilenetv5_300m_enc``). Kernels have the fastest dimension first: columns, rows, channels in, channels out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.tensors.projectors import Entries, norm

if TYPE_CHECKING:
    from planner.model import Vision

_STEM = 64  # channels behind the first convolution
_EDGE = 3  # its kernel, and that of the first stage
_MIDDLE = 5  # kernel in the block that halves a stage's picture
_FUSED = (1920, 3840)  # channels of the last two stages together, and within the block that joins them


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """A stage of inverted residuals behind the one that halves the picture.

    Attributes:
        width: channels.
        kernel: of the convolution that starts the halving block.
        kernels: of the blocks after it; 0 for one that starts without a convolution and does not widen.
        pairs: of attention and a block that doubles the width, behind those.
        head_dim: of the one key head.
        n_heads: query heads.
        pooled: keys and values see the picture at half its size.
    """

    width: int
    kernel: int
    kernels: tuple[int, ...] = ()
    pairs: int = 0
    head_dim: int = 0
    n_heads: int = 0
    pooled: bool = False


_EDGE_STAGE = (128, 3)  # channels, blocks
_STAGES = (
    _Stage(width=256, kernel=3, kernels=(5, 3, 5, 3)),
    _Stage(width=640, kernel=5, kernels=(5,) * 7 + (0,), pairs=14, head_dim=64, n_heads=12, pooled=True),
    _Stage(width=1280, kernel=5, pairs=19, head_dim=96, n_heads=16),
)


def staged_stem(_: Vision) -> Entries:
    """Yield the first convolution."""
    yield "v.conv_stem.conv.weight", (_EDGE, _EDGE, 3, _STEM), "f32"
    yield "v.conv_stem.conv.bias", (1, 1, _STEM), "f32"
    yield from _norm("v.conv_stem.bn", _STEM)


def staged_convolutions(vision: Vision) -> Entries:
    """Yield the blocks of all stages and what joins the last two."""
    yield from _edges()
    n_in = _EDGE_STAGE[0]
    for number, stage in enumerate(_STAGES, start=1):
        for index, block in enumerate(_blocks(stage, n_in)):
            for name, shape, stored in block:
                yield f"v.blk.{number}.{index}.{name}", shape, stored
        n_in = stage.width
    together, within = _FUSED
    yield from _pointwise("v.msfa.ffn.pw_exp", together, within)
    yield from _pointwise("v.msfa.ffn.pw_proj", within, vision.n_embd)
    yield from _norm("v.msfa.norm", vision.n_embd)


def _edges() -> Entries:
    width, n_blocks = _EDGE_STAGE
    for index in range(n_blocks):
        n_in, prefix = _STEM if index == 0 else width, f"v.blk.0.{index}."
        yield f"{prefix}conv_exp.weight", (_EDGE, _EDGE, n_in, 4 * n_in), "f16"
        yield from _norm(f"{prefix}bn1", 4 * n_in)
        yield f"{prefix}conv_pwl.weight", (1, 1, 4 * n_in, width), "f16"
        yield from _norm(f"{prefix}bn2", width)


def _blocks(stage: _Stage, n_in: int) -> list[Entries]:
    """Return the blocks of a stage that takes ``n_in`` channels."""
    halving = _residual((n_in, 6 * n_in, stage.width), start=stage.kernel, middle=_MIDDLE)
    plain = [
        _residual((stage.width, stage.width * (4 if kernel else 1), stage.width), start=kernel)
        for kernel in stage.kernels
    ]
    pairs = [
        block
        for _ in range(stage.pairs)
        for block in (_attention(stage), _residual((stage.width, 2 * stage.width, stage.width)))
    ]
    return [halving, *plain, *pairs]


def _residual(widths: tuple[int, int, int], start: int = 0, middle: int = 0) -> Entries:
    """Yield an inverted residual from, within and to ``widths``; ``start`` and ``middle``: kernels, 0 for none."""
    n_in, within, n_out = widths
    if start:
        yield from _depthwise("dw_start", start, n_in)
    yield from _pointwise("pw_exp", n_in, within)
    if middle:
        yield from _depthwise("dw_mid", middle, within)
    yield from _pointwise("pw_proj", within, n_out)
    yield "layer_scale.gamma", (1, 1, n_out), "f32"


def _attention(stage: _Stage) -> Entries:
    """Yield attention over the picture, all queries on one key and one value."""
    width, n_query = stage.width, stage.n_heads * stage.head_dim
    yield from _norm("norm", width)
    yield "attn.query.proj.weight", (1, 1, width, n_query), "f16"
    for word in ("key", "value"):
        if stage.pooled:
            yield f"attn.{word}.down_conv.weight", (_EDGE, _EDGE, 1, width), "f16"
            yield from _norm(f"attn.{word}.norm", width)
        yield f"attn.{word}.proj.weight", (1, 1, width, stage.head_dim), "f16"
    yield "attn.output.proj.weight", (1, 1, n_query, width), "f16"
    yield "layer_scale.gamma", (1, 1, width), "f32"


def _depthwise(name: str, kernel: int, width: int) -> Entries:
    yield f"{name}.conv.weight", (kernel, kernel, 1, width), "f16"
    yield from _norm(f"{name}.bn", width)


def _pointwise(name: str, n_in: int, n_out: int) -> Entries:
    yield f"{name}.conv.weight", (1, 1, n_in, n_out), "f16"
    yield from _norm(f"{name}.bn", n_out)


def _norm(name: str, width: int) -> Entries:
    return norm(name, width, with_bias=False)
