"""A lightning indexer: a small attention of its own scores every cell, and attention proper sees only the best.

Source: llama.cpp 0.5.0-dev, src/models and llama-graph.cpp (``build_attn_inp_k_dsa``).
"""

from __future__ import annotations

from planner.engines.llama_cpp.graph import Node
from planner.engines.llama_cpp.kinds.context import Build
from planner.model import Indexer
from planner.quantization import row_bytes

_FUSED_HEADS = (32, 64)  # for which CUDA has a kernel; what becomes of others was not measured
_FUSED_HEAD_DIM = 128


def chosen_cells(b: Build, x: Node, low: Node, indexer: Indexer) -> Node:
    """Return the numbers of the cells that the present layer looks at, (chosen, tokens, 1, streams).

    ``low``: the low-rank queries. A layer without an indexer of its own takes the choice of the last that has one.
    """
    if indexer.n_heads not in _FUSED_HEADS or indexer.head_dim != _FUSED_HEAD_DIM:
        raise KeyError("an indexer without a kernel")
    if not indexer.own:
        if b.choice is None:
            raise KeyError("a shared choice before the first")
        return b.choice
    scores = _scores(b, x, low, indexer)
    k = min(indexer.n_chosen, scores.shape[0])
    b.choice = b.graph.cont(b.graph.op("top_k", (scores,), (k, *scores.shape[1:]), "i32"))
    return b.choice


def _scores(b: Build, x: Node, low: Node, indexer: Indexer) -> Node:
    """List the indexer's queries, keys and weights, the store of the keys, and the scores of all cells."""
    g, n, d, n_heads = b.graph, b.n_tokens, indexer.head_dim, indexer.n_heads
    q = g.rope(g.reshape(b.linear(low, "indexer.attn_q_b"), d, n_heads, n), b.positions())
    k = b.norm(b.linear(x, "indexer.attn_k"), "indexer.k_norm", mean=True)
    k = g.rope(g.reshape(k, d, 1, n), b.positions())
    rotation = b.input("indexer rotation", "f32", d, d)
    q, k = g.mul_mat(rotation, q), g.mul_mat(rotation, k)
    keys = _stored_keys(b, k)
    weights = b.linear(x, "indexer.proj")
    n_streams = keys.shape[3]
    per_stream = n // n_streams
    q = g.view(q, (d, n_heads, per_stream, n_streams), (q.strides[1], q.strides[2], q.strides[3] // n_streams))
    strides = (weights.strides[1], weights.strides[2] // n_streams, weights.strides[3] // n_streams)
    weights = g.scale(g.view(weights, (n_heads, per_stream, 1, n_streams), strides))
    cells = keys.shape[2]
    mask = b.input("indexer mask", "f16", cells, per_stream, 1, n_streams)
    return g.op("lightning_indexer", (q, keys, weights, mask), (cells, per_stream, 1, n_streams), "f32")


def _stored_keys(b: Build, k: Node) -> Node:
    """List the write of the keys into their cache; return the cache as (head, 1, cells, streams)."""
    g, d, cells, n_streams = b.graph, k.shape[0], b.cells(window=False), b.request.n_streams
    cache = b.cache("indexer_k", b.request.cache_type_k, (d, cells, n_streams), b.layer)
    flat = g.view(k, (d, k.shape[2]), (k.strides[2],))
    target = g.reshape(cache, d, cells * n_streams) if n_streams > 1 else cache
    g.expand(g.store("set_rows", (flat, b.input("indexer k cells", "i64", b.n_tokens), target), target))
    row = row_bytes(cache.format, d)
    return g.view(cache, (d, 1, cells, n_streams), (row, row, row * cells))


def mask_of_chosen(b: Build, chosen: Node) -> Node:
    """Return the attention mask with all but the chosen cells masked out."""
    g, mask = b.graph, b.mask(window=False)
    filled = g.op("fill", (mask,))
    rows = g.view(filled, (1, mask.shape[0], mask.shape[1], mask.shape[3]), filled.strides[:3])
    numbers = g.view(chosen, (chosen.shape[0], chosen.shape[1], chosen.shape[3]), chosen.strides[1:3])
    zeros = Node("none", (1, *numbers.shape[:3]), "f32", name="zeros")
    unmasked = g.store("set_rows", (g.op("fill", (zeros,)), numbers, rows), rows)
    back = g.view(unmasked, mask.shape, (unmasked.strides[2], unmasked.strides[3], unmasked.strides[3]))
    return g.add(back, mask)
