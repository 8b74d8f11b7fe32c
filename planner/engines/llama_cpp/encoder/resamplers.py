"""Projectors that are small networks of their own: resamplers, adapters, mergers inside the tower.

Source: the graphs in tools/mtmd/models, llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from functools import reduce

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.blocks import block
from planner.engines.llama_cpp.encoder.projectors import framed, normed
from planner.engines.llama_cpp.encoder.tower import Tower, fact_of
from planner.engines.llama_cpp.graph import Node

RESAMPLER_HEAD = 128


def resampler(tower: Tower, x: Node) -> Node:
    """Return stored queries that attend to the patches, whose keys carry positions computed by the device."""
    g = tower.graph
    q = tower.need("resampler.query")
    width = tower.need("resampler.proj.weight").shape[1]
    n, n_queries, n_heads = tower.n_patches, q.shape[1], width // RESAMPLER_HEAD
    v = tower.norm("resampler.ln_kv", tower.product("resampler.kv", x), "layer")
    q = tower.norm("resampler.ln_q", q, "layer")
    k = g.add(v, _wave_positions(tower, width, n))
    queries = g.reshape(tower.linear("resampler.attn.q", q), RESAMPLER_HEAD, n_heads, n_queries)
    keys = g.reshape(tower.linear("resampler.attn.k", k), RESAMPLER_HEAD, n_heads, n)
    values = g.reshape(tower.linear("resampler.attn.v", v), RESAMPLER_HEAD, n_heads, n)
    x = tower.attention(queries, keys, values, "resampler.attn.out")
    return tower.product("resampler.proj", tower.norm("resampler.ln_post", x, "layer"))


def _wave_positions(tower: Tower, width: int, n: int) -> Node:
    """Return sine and cosine of column and row: (width, n)."""
    g = tower.graph
    omega = tower.input("omega", "f32", width // 4)
    rows, columns = tower.input("pos_h", "f32", 1, n), tower.input("pos_w", "f32", 1, n)
    base = ops.repeat(g, omega, omega.shape[0], n)
    halves = []
    for place in (columns, rows):
        angle = g.mul(base, place)
        halves.append(g.concat(g.op("sin", (angle,)), g.op("cos", (angle,)), 0))
    return g.concat(halves[0], halves[1], 0)


# ---- a merger between two blocks, another after the last


def merging_blocks(tower: Tower, x: Node) -> Node:
    """Return ``x`` through blocks with a windowed attention and a 2 x 2 merger after the block that is named."""
    g = tower.graph
    n = tower.n_patches
    if tower.merge == 2:
        return _run(tower, x, tower.layers, n)
    found = fact_of(tower.vision, "wa_layer_indexes")
    after = found[0] if isinstance(found, tuple) and found else 0
    before = tuple(layer for layer in tower.layers if layer <= after)
    x = _windowed(tower, _run(tower, x, before, n), n)
    corners = _corners(tower, x, n // 4, "inner")
    mean = g.scale(reduce(g.add, corners))
    merged = tower.norm("v.vit_merger.ds_ln", _side_by_side(tower, corners), "layer")
    x = g.add(tower.ffn(merged, "v.vit_merger.ds_ffn_up", "v.vit_merger.ds_ffn_down"), mean)
    return _run(tower, x, tower.layers[len(before) :], n // 4)


def _run(tower: Tower, x: Node, layers: tuple[int, ...], n: int) -> Node:
    for layer in layers:
        tower.graph.layer = layer
        x = block(tower, x, layer, "layer", (n, 1), lambda t: t)
    tower.graph.layer = -1
    return x


def _windowed(tower: Tower, x: Node, n: int) -> Node:
    g, at = tower.graph, "v.vit_merger"
    order, back = tower.input("window_idx", "i32", n), tower.input("inv_window_idx", "i32", n)
    mask = tower.input("window_mask", "f32", n, n)
    if tower.flash:
        mask = g.cast(mask, "f16")
    y = g.get_rows(tower.norm(f"{at}.ln1", x, "layer"), order)
    q, k, v = (g.reshape(tower.linear(f"{at}.attn_{word}", y), tower.head_dim, tower.n_heads, n) for word in "qkv")
    y = tower.attention(q, k, v, f"{at}.attn_out", mask=mask)
    return g.add(g.get_rows(y, back), x)


def _corners(tower: Tower, x: Node, n: int, where: str) -> list[Node]:
    g = tower.graph
    return [g.get_rows(x, tower.input(f"{where}_corner_{i}", "i32", n)) for i in range(4)]


def _side_by_side(tower: Tower, parts: list[Node]) -> Node:
    return reduce(lambda a, b: tower.graph.concat(a, b, 0), parts)


def corner_merger(tower: Tower, x: Node) -> Node:
    """Return every square of tokens, gathered by rows, through a stored feed-forward part."""
    merged = _side_by_side(tower, _corners(tower, x, x.shape[1] // 4, "last"))
    return tower.ffn(tower.norm("mm.input_norm", merged, "layer"), "mm.up", "mm.down")


# ---- adapters


def gated_adapter(tower: Tower, x: Node) -> Node:
    """Return ``x`` through a stored matrix, norm and gated part, between two stored tokens."""
    g = tower.graph
    x = tower.norm("mm.post_fc_norm", tower.product("mm.model.fc", x), "layer")
    x = ops.activation_in_place(g, x)
    up = tower.product("mm.up", x)
    x = tower.product("mm.down", g.glu(tower.product("mm.gate", x), up))
    return framed(tower, x, first="v.boi", last="v.eoi")


def convolving_adapter(tower: Tower, x: Node) -> Node:
    """Return squares of patches through a convolution and a gated part, between two stored tokens."""
    g = tower.graph
    side = int(x.shape[1] ** 0.5)
    x = g.cont(g.permute(x, 1, 0, 2, 3), side, side, x.shape[0])
    x = ops.conv_2d(g, tower.need("adapter.conv.weight"), x, 2)
    x = g.cont(g.permute(g.reshape(x, x.shape[0] * x.shape[1], x.shape[2]), 1, 0, 2, 3))
    x = tower.biased("adapter.conv", x)
    x = tower.norm("adapter.linear.norm1", tower.product("adapter.linear.linear", x), "layer")
    x = ops.activation_in_place(g, x)
    gate = tower.product("adapter.linear.gate", x)
    x = g.glu(gate, tower.product("adapter.linear.dense_h_to_4h", x))
    x = tower.product("adapter.linear.dense_4h_to_h", x)
    return framed(tower, x, first="adapter.boi", last="adapter.eoi")


def perceiver(tower: Tower, x: Node) -> Node:
    """Return the grid through two convolutions, with a token after every row and one at either end."""
    g, m = tower.graph, tower.merge
    x = normed(tower, x, name="mm.pre_norm", kind="rms", bias=False)
    x = g.cont(g.permute(g.reshape(x, tower.n_embd, tower.columns, tower.rows), 2, 0, 1, 3))
    x = g.unary(_convolved_with_bias(tower, x, "mm.0", m), "gelu")
    x = _convolved_with_bias(tower, x, "mm.2", 1)
    columns, rows, width = tower.columns // m, tower.rows // m, x.shape[2]
    line = g.reshape(tower.need("v.image_newline"), 1, 1, width)
    x = g.concat(x, ops.repeat(g, line, 1, rows, width), 0)
    x = tower.linear("mm.model.fc", g.cont(g.permute(x, 1, 2, 0, 3), width, (columns + 1) * rows))
    x = framed(tower, x, first="mm.image_begin", last="mm.image_end", reshaped=True)
    return normed(tower, x, name="mm.post_norm", kind="rms", bias=False)


def _convolved_with_bias(tower: Tower, x: Node, name: str, stride: int) -> Node:
    g = tower.graph
    x = ops.conv_2d(g, tower.need(f"{name}.weight"), x, stride)
    bias = tower.weight(f"{name}.bias")
    return x if bias is None else g.add(x, g.reshape(bias, 1, 1, bias.shape[0]))


def strided_convolutions(tower: Tower, x: Node) -> Node:
    """Return the grid through two convolutions of stride 2, then a stored matrix."""
    g = tower.graph
    x = g.cont(g.permute(x, 1, 0, 2, 3), tower.columns, tower.rows, tower.n_embd)
    for name in ("mm.0", "mm.1"):
        x = _turned_bias(tower, ops.conv_2d(g, tower.need(f"{name}.weight"), x, 2, 1), name)
    x = g.reshape(x, x.shape[0] * x.shape[1], x.shape[2], x.shape[3])
    x = g.cont(g.permute(x, 1, 0, 2, 3))
    return g.mul_mat(tower.need("mm.model.fc.weight"), x)


def _turned_bias(tower: Tower, x: Node, name: str) -> Node:
    bias = tower.weight(f"{name}.bias")
    if bias is None:
        return x
    g = tower.graph
    w, h, c = x.shape[:3]
    rows = g.add(g.cont(g.transpose(g.reshape(x, w * h, c))), bias)
    return g.reshape(g.cont(g.transpose(rows)), w, h, c)
