"""A delta net whose decay is per channel: queries, keys and values have projections and convolutions of their own.

Source: llama.cpp 0.5.0-dev, src/models/bailingmoe3.cpp.
"""

from __future__ import annotations

from planner.engines.llama_cpp.graph import Node
from planner.engines.llama_cpp.kinds.context import Build
from planner.engines.llama_cpp.kinds.recurrent import convolved, keep, state_rows
from planner.model import GatedDeltaNet


def channel_delta_net(b: Build, x: Node, mixer: GatedDeltaNet) -> Node:
    """List the net over the normed input ``x``; return the projected result."""
    g, t, s, d, n_heads = b.graph, b.n_seq_tokens, b.n_seqs, mixer.head_dim, mixer.n_value_heads
    inner = d * n_heads
    cache = b.state("conv_state", 3 * (mixer.conv_kernel - 1) * inner)
    states = state_rows(b, cache)
    q, k, v = (_convolved_input(b, x, states, cache, part, mixer) for part in range(3))
    decay = _decay(b, x, mixer)
    beta = g.unary(g.reshape(b.linear(x, "ssm_beta"), 1, n_heads, t, s), "sigmoid")
    state_cache = b.state("delta_state", d * inner)
    state = g.reshape(state_rows(b, state_cache), d, d, n_heads, s)
    q, k = (g.scale(g.norm(part, None)) for part in (q, k))
    out = g.op("gated_delta_net", (q, k, v, decay, beta, state), (inner, t * s + d * s, 1, 1), "f32")
    strides = (4 * d, 4 * d * d, 4 * d * inner)
    keep(b, g.view(out, (d, d, n_heads, s), strides, offset=4 * inner * t * s), state_cache)
    result = g.cont(g.view(out, (d, n_heads, t, s), (4 * d, 4 * inner, 4 * inner * t)))
    normed = b.norm(g.reshape(result, d, n_heads, t * s), "ssm_norm")
    gate = g.unary(g.reshape(b.linear(x, "ssm_g_a"), d, n_heads, t * s), "sigmoid")
    return b.linear(g.cont(g.mul(normed, gate), inner, t * s), "attn_output")


def _convolved_input(  # noqa: PLR0913 - a part of the cache has this many parts
    b: Build, x: Node, states: Node, cache: Node, part: int, mixer: GatedDeltaNet
) -> Node:
    """List one of queries, keys and values through its convolution; keep its last columns in its part of the cache."""
    g, t, s, d, n_heads = b.graph, b.n_seq_tokens, b.n_seqs, mixer.head_dim, mixer.n_value_heads
    n_kept, inner, letter = mixer.conv_kernel - 1, d * n_heads, "qkv"[part]
    shape, strides = (n_kept, inner, s), (4 * n_kept, 4 * 3 * n_kept * inner)
    offset = 4 * part * n_kept * inner
    history = g.view(states, shape, strides, offset=offset)
    projected = g.reshape(b.linear(x, f"attn_{letter}"), inner, t, s)
    joined = g.concat(history, g.transpose(projected), 0)
    last = g.view(joined, shape, (joined.strides[1], joined.strides[2]), offset=4 * t)
    g.expand(g.store("cpy", (last, target := g.view(cache, shape, strides, offset=offset)), target))
    weight = g.reshape(b.of_layer(f"ssm_conv1d_{letter}.weight"), mixer.conv_kernel, inner)
    mixed = g.unary(g.reshape(convolved(b, joined, weight), inner, t * s), "silu")
    return g.reshape(mixed, d, n_heads, t, s)


def _decay(b: Build, x: Node, mixer: GatedDeltaNet) -> Node:
    """Return how much of each channel decays."""
    g, d, n_heads = b.graph, mixer.head_dim, mixer.n_value_heads
    decay = g.add(b.linear(x, "ssm_f_a"), b.of_layer("ssm_dt.bias"))
    factors = g.reshape(b.of_layer("ssm_a"), 1, n_heads, 1)
    decay = g.scale(g.unary(g.mul(g.reshape(decay, d, n_heads, b.n_tokens), factors), "sigmoid"))
    return g.reshape(decay, d, n_heads, b.n_seq_tokens, b.n_seqs)
