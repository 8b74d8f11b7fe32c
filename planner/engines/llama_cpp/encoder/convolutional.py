"""Towers and projectors made of convolutions: inverted residuals with a little attention, and depthwise projectors.

Source: tools/mtmd/models (``build_inverted_residual``, ``PROJECTOR_TYPE_LDP``), llama.cpp 0.5.0-dev. ``x`` is (width,
height, channels, batch).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.tower import Tower
from planner.engines.llama_cpp.graph import Node

_STAGED = re.compile(r"v\.blk\.(\d+)\.(\d+)\.")
OUTPUT_SIDE = 16  # columns and rows of tokens
N_STAGES = 4


def staged_tower(tower: Tower, x: Node) -> Node:
    """Return the pixels through four stages of convolutions, the last two fused: (n_embd, tokens)."""
    x = _convolved(tower, _padded(tower, x, 3, 2), "v.conv_stem.conv", 2)
    x = _normed(tower, tower.biased("v.conv_stem.conv", x), "v.conv_stem.bn")
    x = tower.graph.unary(x, "gelu")
    features = []
    for stage, n_blocks in enumerate(_blocks_per_stage(tower)):
        for i in range(n_blocks):
            x = _staged_block(tower, x, f"v.blk.{stage}.{i}", 2 if i == 0 else 1)
        if stage >= N_STAGES - 2:
            features.append(x)
    return _fused(tower, features)


def _blocks_per_stage(tower: Tower) -> list[int]:
    found = {(int(m[1]), int(m[2])) for m in map(_STAGED.match, tower.tensors) if m}
    counts = [sum(1 for stage, _ in found if stage == number) for number in range(N_STAGES)]
    if 0 in counts:
        raise ValueError("a stage without blocks")
    return counts


def _staged_block(tower: Tower, x: Node, at: str, stride: int) -> Node:
    if tower.has(f"{at}.conv_exp.weight"):
        return _edge_residual(tower, x, at, stride)
    if tower.has(f"{at}.attn.query.proj.weight"):
        return _grid_attention(tower, x, at)
    return _inverted_residual(tower, x, at, stride)


# ---- pieces


def _convolved(tower: Tower, x: Node, name: str, stride: int = 1, padding: int = 0) -> Node:
    """Return a convolution that runs as one operation."""
    kernel = tower.need(f"{name}.weight")
    out = [(x.shape[axis] + 2 * padding - kernel.shape[axis]) // stride + 1 for axis in (0, 1)]
    return tower.graph.op("conv_2d", (kernel, x), (out[0], out[1], kernel.shape[3], x.shape[3]), x.format)


def _padded(tower: Tower, x: Node, kernel: int, stride: int) -> Node:
    """Return ``x`` padded so that a strided convolution covers all of it."""
    missing = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:2]]
    return ops.pad(tower.graph, x, *missing) if any(missing) else x


def _normed(tower: Tower, x: Node, name: str) -> Node:
    """Return ``x`` normalised over its channels; unchanged where no weight is stored."""
    weight = tower.weight(f"{name}.weight")
    if weight is None:
        return x
    g = tower.graph
    turned = g.norm(g.cont(g.permute(x, 2, 1, 0, 3)), weight)
    return g.cont(g.permute(turned, 2, 1, 0, 3))


def _added(tower: Tower, x: Node, given: Node) -> Node:
    return tower.graph.add(x, given) if x.shape == given.shape else x


def _scaled(tower: Tower, x: Node, at: str) -> Node:
    scale = tower.weight(f"{at}.layer_scale.gamma")
    return x if scale is None else tower.graph.mul(x, scale)


# ---- blocks


def _edge_residual(tower: Tower, x: Node, at: str, stride: int) -> Node:
    y = _padded(tower, x, 3, stride) if stride > 1 else x
    y = _normed(tower, _convolved(tower, y, f"{at}.conv_exp", stride, 0 if stride > 1 else 1), f"{at}.bn1")
    y = _convolved(tower, tower.graph.unary(y, "gelu"), f"{at}.conv_pwl")
    y = _normed(tower, y, f"{at}.bn2")
    return _added(tower, y, x) if stride == 1 else y


def _depthwise(tower: Tower, x: Node, name: str, stride: int) -> Node:
    kernel = tower.need(f"{name}.weight")
    if stride > 1:
        return ops.conv_2d_depthwise(tower.graph, kernel, _padded(tower, x, kernel.shape[0], stride), stride, 0)
    return ops.conv_2d_depthwise(tower.graph, kernel, x, 1, kernel.shape[0] // 2)


def _inverted_residual(tower: Tower, x: Node, at: str, stride: int) -> Node:
    g, y = tower.graph, x
    if tower.has(f"{at}.dw_start.conv.weight"):
        y = _normed(tower, _depthwise(tower, y, f"{at}.dw_start.conv", 1), f"{at}.dw_start.bn")
    if tower.has(f"{at}.pw_exp.conv.weight"):
        y = g.unary(_normed(tower, _convolved(tower, y, f"{at}.pw_exp.conv"), f"{at}.pw_exp.bn"), "gelu")
    if tower.has(f"{at}.dw_mid.conv.weight"):
        y = _depthwise(tower, y, f"{at}.dw_mid.conv", stride)
        y = g.unary(_normed(tower, y, f"{at}.dw_mid.bn"), "gelu")
    if tower.has(f"{at}.pw_proj.conv.weight"):
        y = _normed(tower, _convolved(tower, y, f"{at}.pw_proj.conv"), f"{at}.pw_proj.bn")
    return _added(tower, _scaled(tower, y, at), x)


def _grid_attention(tower: Tower, x: Node, at: str) -> Node:
    """Return attention with one head of keys and values, taken from a grid of half the side."""
    g = tower.graph
    y = _normed(tower, x, f"{at}.norm")
    q = _convolved(tower, y, f"{at}.attn.query.proj")
    k, v = (_small(tower, y, f"{at}.attn.{word}") for word in ("key", "value"))
    width, height, _, n = y.shape
    d, m = k.shape[2], k.shape[0] * k.shape[1]
    n_heads, size = q.shape[2] // d, width * height
    q = g.reshape(g.reshape(q, size, d * n_heads, n), size, d, n_heads, n)
    q = g.cont(g.permute(q, 1, 0, 2, 3))
    k = g.cont(g.permute(g.reshape(g.reshape(k, m, d, n), m, d, 1, n), 1, 0, 2, 3))
    v = g.cont(g.reshape(g.reshape(v, m, d, n), m, d, 1, n))
    scores = g.soft_max(g.scale(g.mul_mat(k, q)))
    mixed = g.cont(g.permute(g.mul_mat(v, scores), 1, 0, 2, 3))
    mixed = g.reshape(g.reshape(mixed, size, d * n_heads, n), width, height, d * n_heads, n)
    y = _convolved(tower, g.cont(mixed), f"{at}.attn.output.proj")
    return g.add(_scaled(tower, y, at), x) if y.shape == x.shape else y


def _small(tower: Tower, x: Node, name: str) -> Node:
    if tower.has(f"{name}.down_conv.weight"):
        x = _normed(tower, _depthwise(tower, x, f"{name}.down_conv", 2), f"{name}.norm")
    return _convolved(tower, x, f"{name}.proj")


def _fused(tower: Tower, features: Sequence[Node]) -> Node:
    """Return the stages' features at the size of the first, projected, pooled, as tokens."""
    g = tower.graph
    width, height = features[0].shape[:2]
    grown = [f if f.shape[0] == width else ops.interpolate(g, f, width, height, *f.shape[2:]) for f in features]
    x = reduce(lambda a, b: g.concat(a, b, 2), grown)
    if tower.has("v.msfa.ffn.pw_exp.conv.weight"):
        x = _normed(tower, _convolved(tower, x, "v.msfa.ffn.pw_exp.conv"), "v.msfa.ffn.pw_exp.bn")
        x = g.unary(x, "gelu")
    if tower.has("v.msfa.ffn.pw_proj.conv.weight"):
        x = _normed(tower, _convolved(tower, x, "v.msfa.ffn.pw_proj.conv"), "v.msfa.ffn.pw_proj.bn")
    if x.shape[0] > OUTPUT_SIDE:
        side = x.shape[0] // OUTPUT_SIDE
        x = ops.pool_2d(g, x, side, side)
    x = _normed(tower, x, "v.msfa.norm")
    w, h, c, n = x.shape
    x = g.cont(g.permute(g.permute(x, 2, 1, 0, 3), 0, 2, 1, 3))
    return g.cont(g.reshape(x, c, w * h, n))


# ---- projectors of fixed 24 x 24 patches


def depthwise_projector(tower: Tower, x: Node) -> Node:
    """Return (n_embd, patches) through two matrices and two blocks of depthwise convolutions, the last of stride 2."""
    g = tower.graph
    x = tower.linear("mm.model.mlp.3", g.unary(tower.linear("mm.model.mlp.1", x), "gelu"))
    grid = _as_grid(tower, x)
    y = _squeezed_block(tower, grid, 1, 1)
    y = g.add(grid, g.cont(g.permute(y, 2, 0, 1, 3)))
    y = _squeezed_block(tower, y, 2, 2)
    return g.reshape(y, y.shape[0], y.shape[1] * y.shape[2], y.shape[3])


def _as_grid(tower: Tower, x: Node) -> Node:
    g, side = tower.graph, tower.columns
    turned = g.permute(x, 1, 0, 2, 3)
    return g.cont(turned, side, side, turned.shape[1], turned.shape[2])


def _channel_norm(tower: Tower, x: Node, name: str) -> Node:
    return tower.graph.norm(x, tower.need(f"{name}.weight"), tower.need(f"{name}.bias"), word="norm")


def _squeezed_block(tower: Tower, x: Node, number: int, stride: int) -> Node:
    """Return a depthwise convolution whose channels are weighted by their means: (channels, width, height)."""
    g, at = tower.graph, f"mm.model.mb_block.{number}.block"
    x = ops.conv_2d_depthwise(g, tower.need(f"{at}.0.0.weight"), x, stride, 1)
    x = _channel_norm(tower, g.cont(g.permute(x, 1, 2, 0, 3)), f"{at}.0.1")
    x = g.unary(g.cont(g.permute(x, 2, 0, 1, 3)), "hardswish")
    w, h, c, n = x.shape
    means = g.reshape(ops.pool_2d(g, x, w, h), c, n)
    means = g.unary(tower.linear(f"{at}.1.fc1", means), "relu")
    means = g.unary(tower.linear(f"{at}.1.fc2", means), "hardsigmoid")
    x = g.mul(x, g.reshape(means, 1, 1, means.shape[0], means.shape[1]))
    x = g.cont(g.permute(g.reshape(x, w * h, c, n), 1, 0, 2, 3))
    x = g.mul_mat(tower.need(f"{at}.2.0.weight"), x)
    return _channel_norm(tower, g.reshape(x, x.shape[0], w, h, x.shape[3]), f"{at}.2.1")


def pooling_projector(tower: Tower, x: Node) -> Node:
    """Return (n_embd, patches) through two matrices, averaged over squares, plus a depthwise convolution of itself."""
    g = tower.graph
    x = tower.linear("mm.model.mlp.2", g.unary(tower.linear("mm.model.mlp.0", x), "gelu"))
    small = ops.pool_2d(g, _as_grid(tower, x), 2, 2)
    peg = ops.conv_2d_depthwise(g, tower.need("mm.model.peg.0.weight"), small, 1, 1)
    peg = tower.biased("mm.model.peg.0", g.cont(g.permute(peg, 1, 2, 0, 3)))
    y = g.add(peg, g.cont(g.permute(small, 1, 2, 0, 3)))
    return g.reshape(y, y.shape[0], y.shape[1] * y.shape[2], y.shape[3])
