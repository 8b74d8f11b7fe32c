"""Layers with constant state per sequence: gated delta net, short convolution, Mamba 1 and 2.

Source: llama.cpp 0.5.0-dev, src/models (delta-net-base.cpp, mamba-base.cpp and what includes them); llama-graph.cpp
(``build_rs``).
"""

from __future__ import annotations

from collections.abc import Callable

from planner.engines.llama_cpp.graph import Node
from planner.engines.llama_cpp.kinds.context import Build
from planner.model import GatedDeltaNet, Mamba, ShortConv

RowsOf = Callable[[Node, Node], Node]


def state_rows(b: Build, cache: Node, rows_of: RowsOf | None = None) -> Node:
    """List the reading of every sequence's state: one is cleared, all are gathered, surplus ones copied back."""
    g, size = b.graph, cache.shape[0]
    states = g.reshape(cache, size, cache.shape[1])
    all_rows, surplus_rows = b.state_rows()
    first = g.view(states, (size,))
    g.expand(g.store("scale", (first,), first))
    gathered = (rows_of or g.get_rows)(states, all_rows)
    g.expand(gathered)
    surplus = g.get_rows(states, surplus_rows)
    g.expand(g.store("cpy", (surplus, target := g.view(cache, (size, 0), (cache.strides[1],))), target))
    return gathered


def keep(b: Build, x: Node, cache: Node) -> None:
    """List the copy of new state into the cache."""
    target = b.graph.view(cache, (cache.shape[0], b.n_seqs), (cache.strides[1],))
    b.graph.expand(b.graph.store("cpy", (x, target), target))


def _with_history(b: Build, x: Node, name: str, kernel: int, width: int) -> Node:
    """Return the last kernel - 1 columns of every sequence, then ``x`` transposed; keep the new last columns."""
    g, cache = b.graph, b.state(name, (kernel - 1) * width)
    history = g.reshape(state_rows(b, cache), kernel - 1, width, b.n_seqs)
    joined = g.concat(history, g.transpose(x), 0)
    last = g.view(joined, (kernel - 1, width, b.n_seqs), (joined.strides[1], joined.strides[2]), offset=4 * x.shape[1])
    keep(b, last, cache)
    return joined


def convolved(b: Build, joined: Node, weight: Node) -> Node:
    """Return the convolution of the columns of each sequence, those of its history in front."""
    shape = (joined.shape[1], joined.shape[0] - weight.shape[0] + 1, joined.shape[2], 1)
    return b.graph.op("ssm_conv", (joined, weight), shape)


def delta_net(b: Build, x: Node, mixer: GatedDeltaNet) -> Node:
    """List a gated delta net over the normed input ``x``; return the projected result."""
    g, t, s, d = b.graph, b.n_seq_tokens, b.n_seqs, mixer.head_dim
    n_keys, n_values = mixer.n_key_heads, mixer.n_value_heads
    width = d * (2 * n_keys + n_values)
    qkv = g.reshape(b.linear(x, "attn_qkv"), width, t, s)
    z = b.linear(x, "attn_gate")
    beta, gate = _joint_gates(b, x, mixer) if mixer.joint_gates else _gates(b, x, n_values)
    joined = _with_history(b, qkv, "conv_state", mixer.conv_kernel, width)
    state_cache = b.state("delta_state", d * d * n_values)
    state = g.reshape(state_rows(b, state_cache), d, d, n_values, s)
    mixed = g.unary(convolved(b, joined, b.of_layer("ssm_conv1d.weight")), "silu")
    strides = (4 * d, 4 * width, 4 * width * t)
    q, k, v = (
        g.view(mixed, (d, heads, t, s), strides, offset=4 * d * start)
        for heads, start in ((n_keys, 0), (n_keys, n_keys), (n_values, 2 * n_keys))
    )
    q, k = (g.scale(g.norm(part, None)) for part in (q, k))
    if mixer.joint_gates and n_keys != n_values:
        q, k = (_for_each_value_head(b, part, n_values) for part in (q, k))
    shape = (d * n_values, t * s + d * s, 1, 1)
    out = g.op("gated_delta_net", (q, k, v, gate, beta, state), shape, "f32")
    new_state = g.view(
        out, (d, d, n_values, s), (4 * d, 4 * d * d, 4 * d * d * n_values), offset=4 * d * n_values * t * s
    )
    keep(b, new_state, state_cache)
    result = g.view(out, (d, n_values, t, s), (4 * d, 4 * d * n_values, 4 * d * n_values * t))
    normed = b.norm(result, "ssm_norm")
    gated = g.mul(normed, g.unary(g.reshape(z, d, n_values, t, s), "silu"))
    projected = b.linear(g.reshape(gated, d * n_values, t, s), "ssm_out")
    return g.reshape(projected, b.language.n_embd, t * s)


def _gates(b: Build, x: Node, n_heads: int) -> tuple[Node, Node]:
    """Return how much is written and how much decays, from a projection each."""
    g, t, s = b.graph, b.n_seq_tokens, b.n_seqs
    beta = g.unary(g.reshape(b.linear(x, "ssm_beta"), 1, n_heads, t, s), "sigmoid")
    return beta, _decay(b, g.reshape(b.linear(x, "ssm_alpha"), n_heads, t, s))


def _joint_gates(b: Build, x: Node, mixer: GatedDeltaNet) -> tuple[Node, Node]:
    """Return the same two from one projection, whose rows alternate by key head."""
    g, t, s, n_heads = b.graph, b.n_seq_tokens, b.n_seqs, mixer.n_value_heads
    share = n_heads // mixer.n_key_heads
    both = g.reshape(b.linear(x, "ssm_ba"), 2 * share, mixer.n_key_heads, t, s)
    shape, strides = (share, mixer.n_key_heads, t, s), (both.strides[1], both.strides[2], both.strides[3])
    beta = g.unary(g.cont(g.view(both, shape, strides)), "sigmoid")
    alpha = g.cont(g.view(both, shape, strides, offset=4 * share), n_heads, t, s)
    return g.reshape(beta, 1, n_heads, t, s), _decay(b, alpha)


def _decay(b: Build, alpha: Node) -> Node:
    g, (n_heads, t, s, _) = b.graph, alpha.shape
    alpha = g.unary(g.add(alpha, b.of_layer("ssm_dt.bias")), "softplus")
    return g.reshape(g.mul(alpha, b.of_layer("ssm_a")), 1, n_heads, t, s)


def _for_each_value_head(b: Build, x: Node, n_values: int) -> Node:
    """Return queries or keys repeated for the value heads that share them."""
    g, (d, n_keys, t, s) = b.graph, x.shape
    rows = g.reshape(x, d, 1, n_keys, t * s)
    return g.reshape(g.op("repeat", (rows,), (d, n_values // n_keys, n_keys, t * s)), d, n_values, t, s)


def short_conv(b: Build, x: Node, mixer: ShortConv) -> Node:
    """List a gated short convolution over the normed input ``x``; return the projected result."""
    g, t, s, n_embd = b.graph, b.n_seq_tokens, b.n_seqs, b.language.n_embd
    bcx = b.linear(g.reshape(x, n_embd, t, s), "shortconv.in_proj")
    before, after, middle = (
        g.view(bcx, (n_embd, t, s), (bcx.strides[1], bcx.strides[2]), offset=4 * n_embd * i) for i in range(3)
    )
    cache = b.state("conv_state", (mixer.conv_kernel - 1) * n_embd)
    gated = g.transpose(g.mul(before, middle))
    history = g.reshape(state_rows(b, cache), mixer.conv_kernel - 1, n_embd, s)
    joined = g.concat(history, gated, 0)
    last = g.view(joined, (mixer.conv_kernel - 1, n_embd, s), (joined.strides[1], joined.strides[2]), offset=4 * t)
    keep(b, last, cache)
    out = g.mul(after, convolved(b, joined, b.of_layer("shortconv.conv.weight")))
    return g.reshape(b.linear(out, "shortconv.out_proj"), n_embd, t * s)


def mamba(b: Build, x: Node, mixer: Mamba) -> Node:
    """List a selective state space layer over the normed input ``x``; return the projected result."""
    return _mamba1(b, x, mixer) if mixer.version == 1 else _mamba2(b, x, mixer)


def _scan(b: Build, operands: tuple[Node, ...], shape: tuple[int, int, int], state_cache: Node) -> Node:
    """List the scan over the sequence: its result, followed by the new states."""
    g, (d_state, head_dim, n_heads) = b.graph, shape
    x = operands[0]

    def rows_of(states: Node, numbers: Node) -> Node:
        state = g.reshape(states, d_state, head_dim, n_heads, b.n_seqs)
        n_elements = x.n_elements + d_state * head_dim * n_heads * b.n_seqs
        return g.op("ssm_scan", (state, *operands, numbers), (n_elements, 1, 1, 1), "f32")

    return state_rows(b, state_cache, rows_of)


def _mamba1(b: Build, x: Node, mixer: Mamba) -> Node:
    g, t, s = b.graph, b.n_seq_tokens, b.n_seqs
    inner, d_state, rank = mixer.inner_dim, mixer.state_dim, mixer.dt_rank
    kernel = mixer.conv_kernel
    conv_cache = b.state("conv_state", (kernel - 1) * inner)
    history = g.reshape(state_rows(b, conv_cache), kernel - 1, inner, s)
    xz = b.linear(g.reshape(x, x.shape[0], t, s), "ssm_in")
    part, z = (g.view(xz, (inner, t, s), (xz.strides[1], xz.strides[2]), offset=4 * inner * i) for i in range(2))
    joined = g.concat(history, g.transpose(part), 0)
    last = g.view(joined, (kernel - 1, inner, s), (joined.strides[1], joined.strides[2]), offset=4 * t)
    target = g.view(conv_cache, ((kernel - 1) * inner * s,))
    g.expand(g.store("cpy", (last, target), target))
    conv = g.add(convolved(b, joined, b.of_layer("ssm_conv1d.weight")), b.of_layer("ssm_conv1d.bias"))
    conv = g.unary(conv, "silu")
    parts = g.mul_mat(b.of_layer("ssm_x.weight"), conv)
    row, plane = parts.strides[1], parts.strides[2]
    dt = g.view(parts, (rank, t, s), (row, plane))
    in_, out_ = (
        g.view(parts, (d_state, 1, t, s), (4 * d_state, row, plane), offset=4 * start)
        for start in (rank, rank + d_state)
    )
    if b.has(f"blk.{b.layer}.ssm_dt_norm.weight"):
        dt, in_, out_ = b.norm(dt, "ssm_dt_norm"), b.norm(in_, "ssm_b_norm"), b.norm(out_, "ssm_c_norm")
    else:
        dt = g.cont(dt)
    dt = b.linear(dt, "ssm_dt")
    by_head = g.reshape(conv, 1, inner, t, s)
    state_cache = b.state("scan_state", d_state * inner)
    y = _scan(b, (by_head, dt, b.of_layer("ssm_a"), in_, out_), (d_state, 1, inner), state_cache)
    target = g.view(state_cache, (d_state * inner * s,))
    g.expand(g.store("cpy", (g.view(y, (d_state * inner * s,), offset=4 * by_head.n_elements), target), target))
    result = g.view(y, (inner, t, s), (by_head.strides[2], by_head.strides[3]))
    result = g.add(result, g.mul(conv, b.of_layer("ssm_d")))
    projected = b.linear(g.glu(g.cont(z), result), "ssm_out")
    return g.reshape(projected, projected.shape[0], t * s)


def _mamba2(b: Build, x: Node, mixer: Mamba) -> Node:
    g, t, s = b.graph, b.n_seq_tokens, b.n_seqs
    inner, d_state, n_heads, n_groups = mixer.inner_dim, mixer.state_dim, mixer.dt_rank, mixer.n_groups
    head, width, kernel = inner // n_heads, inner + 2 * n_groups * d_state, mixer.conv_kernel
    conv_cache = b.state("conv_state", (kernel - 1) * width)
    history = g.reshape(state_rows(b, conv_cache), kernel - 1, width, s)
    projected = b.linear(x, "ssm_in")
    projected = g.reshape(projected, projected.shape[0], t, s)
    row, plane = projected.strides[1], projected.strides[2]
    z = g.view(projected, (head, n_heads, t, s), (4 * head, row, plane))
    part = g.view(projected, (width, t, s), (row, plane), offset=4 * inner)
    dt = g.view(projected, (n_heads, t, s), (row, plane), offset=4 * (inner + width))
    joined = g.concat(history, g.transpose(part), 0)
    keep(b, g.view(joined, (kernel - 1, width, s), (joined.strides[1], joined.strides[2]), offset=4 * t), conv_cache)
    conv = g.add(convolved(b, joined, b.of_layer("ssm_conv1d.weight")), b.of_layer("ssm_conv1d.bias"))
    conv = g.unary(conv, "silu")
    row, plane = conv.strides[1], conv.strides[2]
    by_head = g.view(conv, (head, n_heads, t, s), (4 * head, row, plane))
    in_, out_ = (
        g.view(conv, (d_state, n_groups, t, s), (4 * d_state, row, plane), offset=4 * start)
        for start in (inner, inner + n_groups * d_state)
    )
    dt = g.add(g.cont(dt), b.of_layer("ssm_dt.bias"))
    state_cache = b.state("scan_state", d_state * inner)
    y = _scan(b, (by_head, dt, b.of_layer("ssm_a"), in_, out_), (d_state, head, n_heads), state_cache)
    size = d_state * inner
    new = g.view(y, (size, s, 1), (4 * size, 4 * size * s), offset=4 * by_head.n_elements)
    target = g.view(state_cache, (size, s, 1), (state_cache.strides[1], 4 * size * s))
    g.expand(g.store("cpy", (new, target), target))
    result = g.view(y, (head, n_heads, t, s), (by_head.strides[1], n_heads * by_head.strides[1], t * inner * 4))
    result = g.add(result, g.mul(by_head, b.of_layer("ssm_d")))
    result = g.glu(g.cont(z), result)
    if b.has(f"blk.{b.layer}.ssm_norm.weight"):
        result = b.norm(g.reshape(result, inner // n_groups, n_groups, t, s), "ssm_norm")
    return b.linear(g.reshape(result, inner, t * s), "ssm_out")
