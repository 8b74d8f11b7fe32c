"""A tower of stages of depthwise convolutions whose channels are weighted by their share of the whole.

Source: tools/mtmd/models/yasa2.cpp, llama.cpp 0.5.0-dev. ``x`` is (width, height, channels, batch).
"""

from __future__ import annotations

from itertools import count, takewhile

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.patches import PATCHES
from planner.engines.llama_cpp.encoder.tower import Tower
from planner.engines.llama_cpp.graph import Node

OUTPUT_SIDE = 8  # columns and rows of tokens


def convnext_tower(tower: Tower, x: Node) -> Node:
    """Return the pixels through all stages, averaged to a square of tokens: (channels, tokens)."""
    x = ops.conv_2d(tower.graph, tower.need(PATCHES), x, tower.patch)
    x = _normed(tower, _shifted(tower, x, "v.patch_embd.bias"), "v.patch_ln")
    for stage in takewhile(lambda n: _is_stored(tower, n), count()):
        x = _stage(tower, x, f"v.stage.{stage}")
    return _tokens(tower, _pooled(tower, _placed(tower, x)))


def _is_stored(tower: Tower, stage: int) -> bool:
    return tower.has(f"v.stage.{stage}.down.conv.weight") or tower.has(f"v.stage.{stage}.blk.0.dw.weight")


def _stage(tower: Tower, x: Node, at: str) -> Node:
    if tower.has(f"{at}.down.conv.weight"):
        x = _normed(tower, x, f"{at}.down.ln")
        x = ops.conv_2d(tower.graph, tower.need(f"{at}.down.conv.weight"), x, 2)
        x = _shifted(tower, x, f"{at}.down.conv.bias")
    for block in takewhile(lambda n: tower.has(f"{at}.blk.{n}.dw.weight"), count()):
        x = _block(tower, x, f"{at}.blk.{block}")
    return x


def _block(tower: Tower, x: Node, at: str) -> Node:
    g = tower.graph
    y = ops.conv_2d_depthwise(g, tower.need(f"{at}.dw.weight"), x, 1, 3)
    y = _normed(tower, _shifted(tower, y, f"{at}.dw.bias"), f"{at}.ln")
    y = g.unary(_projected(tower, y, f"{at}.pw1"), "gelu")
    return g.add(x, _projected(tower, _weighted(tower, y, f"{at}.grn"), f"{at}.pw2"))


# ---- pieces


def _shifted(tower: Tower, x: Node, name: str) -> Node:
    """Return ``x`` plus a stored number per channel, if there is one."""
    bias = tower.weight(name)
    return x if bias is None else tower.graph.add(x, tower.graph.reshape(bias, 1, 1, bias.shape[0]))


def _scaled(tower: Tower, x: Node, name: str) -> Node:
    """Return ``x`` times a stored number per channel, if there is one."""
    scale = tower.weight(name)
    return x if scale is None else tower.graph.mul(x, tower.graph.reshape(scale, 1, 1, scale.shape[0]))


def _affine(tower: Tower, x: Node, name: str) -> Node:
    return _shifted(tower, _scaled(tower, x, f"{name}.weight"), f"{name}.bias")


def _mean(tower: Tower, x: Node) -> Node:
    return tower.graph.op("mean", (x,), (1, *x.shape[1:]))


def _normed(tower: Tower, x: Node, name: str) -> Node:
    """Return ``x`` normalised over its channels, step by step."""
    g = tower.graph
    x = g.cont(g.permute(x, 2, 1, 0, 3))
    x = g.op("sub", (x, _mean(tower, x)))
    spread = g.op("sqrt", (g.op("clamp", (_mean(tower, g.mul(x, x)),)),))
    return _affine(tower, g.cont(g.permute(g.op("div", (x, spread)), 2, 1, 0, 3)), name)


def _projected(tower: Tower, x: Node, name: str) -> Node:
    """Return every place of ``x`` through a stored matrix over its channels."""
    g = tower.graph
    w, h, _, n = x.shape
    y = tower.linear(name, _tokens(tower, x))
    return g.reshape(g.cont(g.permute(y, 1, 0, 2, 3)), w, h, y.shape[0], n)


def _tokens(tower: Tower, x: Node) -> Node:
    """Return (channels, places, batch)."""
    g = tower.graph
    w, h, c, n = x.shape
    return g.cont(g.permute(g.reshape(x, w * h, c, n), 1, 0, 2, 3))


def _weighted(tower: Tower, x: Node, name: str) -> Node:
    """Return ``x`` plus itself with each channel weighted by its length against the mean of all."""
    g = tower.graph
    w, h, c, n = x.shape
    squares = g.reshape(g.mul(x, x), w * h, c, 1, n)
    lengths = g.op("sqrt", (g.op("sum_rows", (squares,), (1, c, 1, n)),))
    mean = g.op("clamp", (_mean(tower, g.cont(g.permute(lengths, 1, 0, 2, 3))),))
    share = g.cont(g.permute(g.op("div", (lengths, mean)), 0, 2, 1, 3))
    return g.add(x, _affine(tower, g.mul(x, share), name))


def _placed(tower: Tower, x: Node) -> Node:
    """Return ``x`` plus learned positions, where the file has one for every place."""
    g = tower.graph
    w, h, c, n = x.shape
    tokens = _tokens(tower, x)
    table = tower.weight("v.vision_pos_embed")
    if table is not None and table.shape[1] == w * h:
        tokens = g.add(tokens, g.reshape(table, c, w * h, 1))
    return g.reshape(g.cont(g.permute(tokens, 1, 0, 2, 3)), w, h, c, n)


def _pooled(tower: Tower, x: Node) -> Node:
    """Return averages over windows that leave about ``OUTPUT_SIDE`` columns and rows."""
    wide, high = (max(side // min(OUTPUT_SIDE, side), 1) for side in x.shape[:2])
    return ops.pool_2d(tower.graph, x, wide, high)
