"""Multi-head latent attention: absorbed (one compressed row per token) or decompressed to plain heads.

Source: llama.cpp 0.5.0-dev, src/models (the graphs with ``wkv_a_mqa``).
"""

from __future__ import annotations

from planner.engines.llama_cpp.graph import Node
from planner.engines.llama_cpp.kinds.attention import attend, rotary_factors, scores_and_values, store_keys, tempered
from planner.engines.llama_cpp.kinds.context import Build
from planner.engines.llama_cpp.kinds.indexer import chosen_cells, mask_of_chosen
from planner.model import Attention, LatentAttention
from planner.quantization import row_bytes


def latent_attention(b: Build, x: Node, mixer: LatentAttention) -> Node:
    """List latent attention of the present layer over its normed input ``x``; return the projected result."""
    low = b.norm(b.linear(x, "attn_q_a"), "attn_q_a_norm") if mixer.q_lora_rank else None
    chosen = None if mixer.indexer is None or low is None else chosen_cells(b, x, low, mixer.indexer)
    q = _queries(b, x if low is None else low, mixer)
    compressed, k_rotary = _compressed(b, x, mixer)
    if chosen is not None:
        return b.linear(_absorbed(b, q, compressed, k_rotary, mixer, chosen), "attn_output")
    out = _absorbed(b, q, compressed, k_rotary, mixer) if mixer.absorbed else _plain(b, q, compressed, k_rotary, mixer)
    return b.linear(_gated(b, out, x, mixer) if mixer.output_gate else out, "attn_output")


def _gated(b: Build, out: Node, x: Node, mixer: LatentAttention) -> Node:
    """Return each head's result times a gate made of the input."""
    g, n, n_heads = b.graph, b.n_tokens, mixer.n_heads
    gate = g.unary(g.reshape(b.linear(x, "attn_gate"), 1, n_heads, n), "sigmoid")
    return g.cont(g.mul(g.reshape(out, mixer.value_dim, n_heads, n), gate), mixer.value_dim * n_heads, n)


def _queries(b: Build, x: Node, mixer: LatentAttention) -> Node:
    q = b.linear(x, "attn_q_b" if mixer.q_lora_rank else "attn_q")
    return b.graph.reshape(q, mixer.nope_dim + mixer.rope_dim, mixer.n_heads, b.n_tokens)


def _compressed(b: Build, x: Node, mixer: LatentAttention) -> tuple[Node, Node]:
    """Return the normed compressed row and the rotated part of the key."""
    g, n, rank, rope = b.graph, b.n_tokens, mixer.kv_lora_rank, mixer.rope_dim
    both = b.linear(x, "attn_kv_a_mqa")
    row = 4 * (rank + rope)
    k_rotary = g.view(both, (rope, 1, n), (row, row), offset=4 * rank)
    k_rotary = g.rope(k_rotary, b.positions(), rotary_factors(b, mixer))
    return b.norm(g.view(both, (rank, n), (row,)), "attn_kv_a_norm"), k_rotary


def _absorbed(  # noqa: PLR0913 - attention has this many parts
    b: Build, q: Node, compressed: Node, k_rotary: Node, mixer: LatentAttention, chosen: Node | None = None
) -> Node:
    g, n, rank = b.graph, b.n_tokens, mixer.kv_lora_rank
    q_plain = g.view(q, (mixer.nope_dim, mixer.n_heads, n), (q.strides[1], q.strides[2]))
    q_rotary = g.view(q, (mixer.rope_dim, mixer.n_heads, n), (q.strides[1], q.strides[2]), offset=4 * mixer.nope_dim)
    q_rotary = g.rope(q_rotary, b.positions(), rotary_factors(b, mixer))
    q_absorbed = g.mul_mat(b.of_layer("attn_k_b.weight"), g.permute(q_plain, 0, 2, 1, 3))
    queries = tempered(b, g.concat(g.permute(q_absorbed, 0, 2, 1, 3), q_rotary, 0))
    values = g.reshape(compressed, rank, 1, n)
    keys = g.concat(values, k_rotary, 0)
    for tensor in (queries, values, keys):
        g.expand(tensor)
    width, cells, n_streams = rank + mixer.rope_dim, b.cells(window=False), b.request.n_streams
    cache = b.cache("cache_k", b.request.cache_type_k, (width, cells, n_streams), b.layer)
    store_keys(b, keys, cache, b.k_rows(window=False))
    row = row_bytes(cache.format, width)
    k = g.view(cache, (width, 1, cells, n_streams), (row, row, row * cells))
    v = g.view(k, (rank, 1, cells, n_streams), (k.strides[1], k.strides[2], k.strides[3]))
    mask = None if chosen is None else mask_of_chosen(b, chosen)
    return scores_and_values(b, queries, k, v, decompress=b.of_layer("attn_v_b.weight"), mask=mask)


def _plain(b: Build, q: Node, compressed: Node, k_rotary: Node, mixer: LatentAttention) -> Node:
    g, n, heads = b.graph, b.n_tokens, mixer.n_heads
    kv = g.mul_mat(b.of_layer("attn_kv_b.weight"), compressed)
    head = 4 * (mixer.nope_dim + mixer.value_dim)
    k_plain = g.view(kv, (mixer.nope_dim, heads, n), (head, head * heads))
    v = g.cont(g.view(kv, (mixer.value_dim, heads, n), (head, head * heads), offset=4 * mixer.nope_dim))
    q = tempered(b, g.rope(q, b.positions(), rotary_factors(b, mixer)))
    repeated = g.op("repeat", (k_rotary,), (mixer.rope_dim, heads, n, 1))
    k = g.concat(k_plain, repeated, 0)
    as_heads = Attention(
        n_heads=heads, n_kv_heads=heads, key_dim=mixer.nope_dim + mixer.rope_dim, value_dim=mixer.value_dim
    )
    return attend(b, q, k, v, as_heads)
