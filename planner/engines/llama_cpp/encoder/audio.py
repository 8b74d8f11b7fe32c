"""Audio towers of projector files with two modalities: loaded, and reserved for at load, beside the vision tower.

Only their warm-up counts here: a fixed number of frames. Source: tools/mtmd/models, llama.cpp 0.5.0-dev; which
projector type has which tower: profiles/engines/llama_cpp/encoders.yaml.
"""

from __future__ import annotations

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.tower import Tower
from planner.engines.llama_cpp.graph import Node

CHUNK = 12  # frames of one block of local attention
PAST = 12  # frames before the block that it sees
POSITIONS = PAST + 1
CONTEXT = CHUNK + PAST


# ---- convolutions over frames


def spectrum_convolutions(tower: Tower, x: Node) -> Node:
    """Return frames through two strided convolutions and a stored matrix: (n_embd, positions)."""
    g = tower.graph
    x = g.cont(g.transpose(x))
    for i in (0, 1):
        x = ops.conv_2d(g, tower.need(f"a.conv1d.{i}.weight"), x, 2, 1)
        x = tower.biased(f"a.conv1d.{i}", x)
        weight = tower.weight(f"a.conv1d.{i}.norm.weight")
        if weight is not None:
            x = g.norm(g.cont(g.permute(x, 1, 2, 0, 3)), weight, word="norm")
            x = g.cont(g.permute(x, 2, 0, 1, 3))
        x = g.unary(x, "relu")
    x = g.cont(g.permute(x, 1, 2, 0, 3))
    x = g.reshape(x, x.shape[0] * x.shape[1], x.shape[2])
    return tower.linear("a.input_projection", x)


def chunk_convolutions(tower: Tower, x: Node) -> Node:
    """Return chunks of 100 frames through three strided convolutions and a stored matrix, plus positions."""
    g, chunk = tower.graph, 100
    n_frames, n_mel = x.shape[:2]
    n_chunks = n_frames // chunk
    x = g.cont(g.view(x, (chunk, n_mel, 1, n_chunks), (n_frames * 4, chunk * 4, chunk * 4)))
    x = g.cont(g.permute(_thrice_convolved(tower, x), 2, 0, 1, 3))
    x = g.reshape(x, x.shape[0] * x.shape[1], x.shape[2] * x.shape[3])
    x = tower.biased("a.conv_out", g.mul_mat(tower.need("a.conv_out.weight"), x))
    table = tower.need("a.position_embd.weight")
    few = g.view(table, (table.shape[0], x.shape[1] // n_chunks), (table.strides[1],))
    return g.add(x, ops.repeat(g, few, table.shape[0], x.shape[1]))


def whole_convolutions(tower: Tower, x: Node) -> Node:
    """Return all frames through three strided convolutions and a stored matrix."""
    g = tower.graph
    x = g.cont(g.permute(_thrice_convolved(tower, x), 2, 0, 1, 3))
    return g.mul_mat(tower.need("a.conv_out.weight"), g.reshape(x, x.shape[0] * x.shape[1], x.shape[2]))


def _thrice_convolved(tower: Tower, x: Node) -> Node:
    g = tower.graph
    for i in (1, 2, 3):
        x = ops.conv_2d(g, tower.need(f"a.conv2d.{i}.weight"), x, 2, 1)
        bias = tower.weight(f"a.conv2d.{i}.bias")
        if bias is not None:
            x = g.add(x, g.reshape(bias, 1, 1, x.shape[2], 1))
        x = g.unary(x, "gelu")
    return x


def samples(tower: Tower, x: Node) -> Node:
    """Return frames of raw samples, one per row: (samples, frames)."""
    return tower.graph.cont(tower.graph.permute(x, 1, 0, 2, 3))


def frame_convolutions(tower: Tower, x: Node) -> Node:
    """Return frames through two convolutions, the second of stride 2, plus learned positions."""
    g = tower.graph
    n_tokens = x.shape[0] // 2
    for i, stride in ((1, 1), (2, 2)):
        x = g.add(_conv_1d(tower, x, f"a.conv1d.{i}.weight", stride), tower.need(f"a.conv1d.{i}.bias"))
        x = g.unary(x, "gelu")
    x = g.cont(g.transpose(x))
    table = tower.need("a.position_embd.weight")
    return g.add(x, g.view(table, (table.shape[0], n_tokens), (table.strides[1],)))


def _conv_1d(tower: Tower, x: Node, name: str, stride: int) -> Node:
    g, kernel = tower.graph, tower.need(name)
    length = (x.shape[0] + 2 * (kernel.shape[0] // 2) - kernel.shape[0]) // stride + 1
    window = kernel.shape[0] * kernel.shape[1]
    windows = g.op("im2col", (kernel, x), (window, length, x.shape[2], 1), "f32" if kernel.format == "bf16" else "f16")
    rows = g.reshape(windows, window, windows.shape[1] * windows.shape[2])
    product = g.mul_mat(rows, g.reshape(kernel, window, kernel.shape[2]))
    return g.reshape(product, length, kernel.shape[2], windows.shape[2])


# ---- projectors


def stacked_frames(tower: Tower, x: Node) -> Node:
    """Return so many positions as the file says side by side.

    Zeros are appended first, as many as the engine's rounding says: it is right for widths that are powers of two only.
    """
    g, n = tower.graph, tower.fact("projector.stack_factor", 1)
    if n <= 1:
        return x
    width = x.shape[0] * n
    rounded = (x.n_elements + width - 1) & ~(width - 1)
    if rounded > x.n_elements:
        x = ops.pad(g, g.view(x, (x.n_elements,)), rounded - x.n_elements)
    return g.view(x, (width, rounded // width), (ops.row_bytes(x.format, width),))


def halves_gated(tower: Tower, x: Node) -> Node:
    """Return one half of every row, gated by the other."""
    return tower.graph.glu(x)


def gated(tower: Tower, x: Node, *, gate: str, value: str) -> Node:
    """Return ``x`` through one stored matrix times an activation of it through another."""
    g = tower.graph
    return g.mul(g.unary(tower.linear(gate, x), "silu"), tower.linear(value, x))


# ---- conformer blocks


def conformer(tower: Tower, x: Node) -> Node:
    """Return (n_embd, positions) through blocks of half feed-forwards, local attention and a light convolution."""
    g = tower.graph
    n_blocks = -(-x.shape[1] // CHUNK)
    relative = tower.input("pos_emb", "f32", tower.n_heads * tower.head_dim, POSITIONS)
    mask = tower.input("kq_mask", "f32", CONTEXT, CHUNK, n_blocks)
    for layer in tower.layers:
        g.layer = layer
        at = f"a.blk.{layer}"
        x = _half_ffn(tower, x, at, "")
        y = _local_attention(tower, _pre_normed(tower, x, at), at, (n_blocks, x.shape[1]), relative, mask)
        x = g.add(x, _normed_if(tower, y, f"{at}.attn_post_norm"))
        x = g.add(x, _light_convolution(tower, x, at))
        x = _half_ffn(tower, x, at, "_1")
        x = _normed_if(tower, x, f"{at}.ln2")
    g.layer = -1
    return tower.linear("a.pre_encode.out", x) if tower.has("a.pre_encode.out.weight") else x


def _normed_if(tower: Tower, x: Node, name: str) -> Node:
    weight = tower.weight(f"{name}.weight")
    return x if weight is None else tower.graph.norm(x, weight)


def _pre_normed(tower: Tower, x: Node, at: str) -> Node:
    own = tower.has(f"{at}.attn_pre_norm.weight")
    return _normed_if(tower, x, f"{at}.attn_pre_norm" if own else f"{at}.ln1")


def _half_ffn(tower: Tower, x: Node, at: str, number: str) -> Node:
    g = tower.graph
    y = g.norm(x, tower.need(f"{at}.ffn_norm{number}.weight"))
    y = g.unary(tower.product(f"{at}.ffn_up{number}", y), "silu")
    y = tower.product(f"{at}.ffn_down{number}", y)
    y = _normed_if(tower, y, f"{at}.ffn_post_norm{number}")
    return g.add(x, g.scale(y))


def _local_attention(  # noqa: PLR0913 - one block's inputs
    tower: Tower,
    x: Node,
    at: str,
    sizes: tuple[int, int],
    relative: Node,
    mask: Node,
) -> Node:
    """Return blocks of frames that attend to themselves and some frames before."""
    g, d, n_heads = tower.graph, tower.head_dim, tower.n_heads
    n_blocks, n_tokens = sizes
    q, k, v = (g.reshape(tower.product(f"{at}.attn_{w}", x), d, n_heads, n_tokens) for w in "qkv")
    q = _per_dim(tower, g.scale(q), f"{at}.per_dim_scale.weight")
    k = _per_dim(tower, g.scale(k), f"{at}.per_dim_k_scale.weight")
    missing = n_blocks * CHUNK - n_tokens
    q = g.reshape(ops.pad(g, q, 0, 0, missing), d, n_heads, CHUNK, n_blocks)
    q = g.cont(g.permute(q, 0, 3, 1, 2))
    k = g.cont(g.permute(_overlapping(tower, k, n_blocks), 0, 3, 1, 2))
    v = g.cont(g.permute(_overlapping(tower, v, n_blocks), 1, 3, 0, 2))
    scores = g.mul_mat(k, q)
    if tower.has(f"{at}.attn_k_rel.weight"):
        scores = g.add(scores, _relative_scores(tower, q, at, relative, n_blocks))
    scores = g.scale(g.unary(g.scale(scores), "tanh"))
    scores = g.soft_max(g.add(scores, mask))
    y = g.cont(g.permute(g.mul_mat(v, scores), 0, 2, 3, 1))
    y = g.cont(y, d * n_heads, CHUNK * n_blocks)
    if missing:
        y = g.cont(g.view(y, (d * n_heads, n_tokens), (y.strides[1],)))
    return tower.linear(f"{at}.attn_out", y)


def _per_dim(tower: Tower, x: Node, name: str) -> Node:
    weight = tower.weight(name)
    return x if weight is None else tower.graph.mul(x, tower.graph.reshape(weight, tower.head_dim, 1, 1))


def _overlapping(tower: Tower, x: Node, n_blocks: int) -> Node:
    g = tower.graph
    d, n_heads, n_tokens = x.shape[:3]
    x = ops.pad(g, x, 0, 0, CONTEXT * n_blocks - n_tokens)
    strides = (x.strides[1], x.strides[2], CHUNK * x.strides[2])
    return g.cont(g.view(x, (d, n_heads, CONTEXT, n_blocks), strides))


def _relative_scores(tower: Tower, q: Node, at: str, relative: Node, n_blocks: int) -> Node:
    g, d, n_heads = tower.graph, tower.head_dim, tower.n_heads
    p = g.mul_mat(tower.need(f"{at}.attn_k_rel.weight"), relative)
    p = g.cont(g.permute(g.reshape(p, d, n_heads, POSITIONS), 0, 2, 1, 3))
    x = g.mul_mat(p, g.reshape(q, d, CHUNK * n_blocks, n_heads))
    x = ops.pad(g, g.reshape(x, POSITIONS, CHUNK, n_blocks, n_heads), CONTEXT + 1 - POSITIONS)
    x = g.reshape(x, (CONTEXT + 1) * CHUNK, n_blocks, n_heads)
    x = g.cont(g.view(x, (CHUNK * CONTEXT, n_blocks, n_heads), (x.strides[1], x.strides[2])))
    return g.reshape(x, CONTEXT, CHUNK, n_blocks, n_heads)


def _light_convolution(tower: Tower, x: Node, at: str) -> Node:
    g = tower.graph
    x = tower.product(f"{at}.conv_pw1", g.norm(x, tower.need(f"{at}.conv_norm.weight")))
    half = x.shape[0] // 2
    widths, strides = (half, x.shape[1]), (x.strides[1],)
    gate = g.unary(g.cont(g.view(x, widths, strides, offset=half * x.strides[0])), "sigmoid")
    x = g.cont(g.transpose(g.mul(g.view(x, widths, strides), gate)))
    kernel = tower.need(f"{at}.conv_dw.weight")
    x = ops.pad(g, x, 4)
    x = g.op("ssm_conv", (x, kernel), (kernel.shape[1], x.shape[0] - kernel.shape[0] + 1, x.shape[2], 1), "f32")
    x = tower.biased(f"{at}.conv_dw", x)
    x = g.unary(_normed_if(tower, x, f"{at}.norm_conv"), "silu")
    return tower.product(f"{at}.conv_pw2", x)
