"""The feed-forward part with experts that some blocks of a tower have instead of one of their own.

Source: ``build_moe_ffn`` in tools/mtmd/clip.cpp, llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from functools import reduce

from planner.engines.llama_cpp.encoder.tower import Tower
from planner.engines.llama_cpp.graph import Graph, Node


def experts(tower: Tower, x: Node, at: str) -> Node:
    """Return the weighted sum of the chosen experts' results for every token of ``x`` (n_embd, tokens).

    Raises:
        ValueError: the file does not say how many experts a token has.
    """
    g = tower.graph
    gates = tower.need(f"{at}.ffn_gate_exps.weight")
    n_used, n = min(tower.fact("expert_used_count", 0), gates.shape[2]), x.shape[1]
    if n_used < 1:
        raise ValueError(f"{at}: experts, but none is used")
    chosen, weights = _routed(tower, x, at, n_used)
    x = g.reshape(x, x.shape[0], 1, n)
    gate = _products(g, gates, x, chosen)
    up = _products(g, tower.need(f"{at}.ffn_up_exps.weight"), x, chosen)
    x = g.mul(g.unary(gate, "silu"), up)
    x = g.mul(_products(g, tower.need(f"{at}.ffn_down_exps.weight"), x, chosen), weights)
    parts = [g.view(x, (x.shape[0], n), (x.strides[2],), offset=i * x.strides[1]) for i in range(n_used)]
    return reduce(g.add, parts) if n_used > 1 else g.cont(parts[0])


def _routed(tower: Tower, x: Node, at: str, n_used: int) -> tuple[Node, Node]:
    """Return the numbers of the chosen experts, (used, tokens), and their weights, (1, used, tokens)."""
    g = tower.graph
    likely = g.unary(tower.product(f"{at}.ffn_gate_inp", x), "sigmoid")
    n_experts, n = likely.shape[0], x.shape[1]
    bias = tower.weight(f"{at}.exp_probs_b.weight")
    chosen = g.op("top_k", (likely if bias is None else g.add(likely, bias),), (n_used, n, 1, 1), "i32")
    weights = g.reshape(g.get_rows(g.reshape(likely, 1, n_experts, n), chosen), n_used, n)
    weights = g.op("div", (weights, g.op("sum_rows", (weights,), (1, n, 1, 1))))
    return chosen, g.reshape(weights, 1, n_used, n)


def _products(g: Graph, stored: Node, x: Node, chosen: Node) -> Node:
    """Return every token through the matrices of its experts: (rows of a matrix, used, tokens)."""
    if stored.shape[0] != x.shape[0]:
        raise ValueError(f"{stored.name}: rows of {stored.shape[0]} elements meet rows of {x.shape[0]}")
    shape = (stored.shape[1], chosen.shape[0], x.shape[2], 1)
    return g.op("mul_mat_id", (stored, x, chosen), shape, "f32")
