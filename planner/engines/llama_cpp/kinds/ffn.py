"""Feed-forward blocks: dense, mixture of experts with its router, shared expert, dense branch beside the experts.

Source: llama.cpp 0.5.0-dev, llama-graph.cpp (``build_ffn``, ``build_moe_ffn``); the branch beside
the experts: src/models.
"""

from __future__ import annotations

from planner.engines.llama_cpp.graph import Node
from planner.engines.llama_cpp.kinds.context import Build
from planner.model import DenseFfn, MoeFfn


def dense_ffn(b: Build, x: Node, ffn: DenseFfn) -> Node:
    """List a dense block: gate and up, their product, down."""
    if ffn.fused:
        return b.linear(b.graph.glu(b.linear(x, "ffn_up")), "ffn_down")
    return gated_ffn(b, x, "", clamped=ffn.clamped) if ffn.gated else plain_ffn(b, x, "")


def plain_ffn(b: Build, x: Node, which: str) -> Node:
    """List up, activation and down of the tensors whose names end in ``which`` (empty, or ``_shexp``)."""
    return b.linear(activated(b, b.linear(x, f"ffn_up{which}")), f"ffn_down{which}")


def activated(b: Build, x: Node) -> Node:
    """Return the activation of a block without a gate."""
    if b.traits.activation == "relu_sqr":
        return b.graph.op("sqr", (b.graph.unary(x, "relu"),))
    return b.graph.unary(x, b.traits.activation)


def gated_ffn(b: Build, x: Node, which: str, *, clamped: bool = False) -> Node:
    """List gate, up and down of the tensors whose names end in ``which`` (empty, or ``_shexp``)."""
    up, gate = b.linear(x, f"ffn_up{which}"), b.linear(x, f"ffn_gate{which}")
    return b.linear(_gate_and_up(b, gate, up, clamped=clamped), f"ffn_down{which}")


def _gate_and_up(b: Build, gate: Node, up: Node, *, clamped: bool) -> Node:
    """Return the gated activation; where both are clamped it is made in steps."""
    g = b.graph
    if not clamped:
        return g.glu(gate, up)
    up = g.op("clamp", (up,))
    return g.mul(g.op("clamp", (g.unary(gate, "silu"),)), up)


def experts_ffn(b: Build, x: Node, ffn: MoeFfn, logits: Node | None = None) -> Node:
    """List routed experts over the normed input ``x``, then the shared expert over the same.

    ``logits``: of the router, by default made of ``x``.
    """
    g = b.graph
    logits = g.mul_mat(b.of_layer("ffn_gate_inp.weight"), x) if logits is None else logits
    out = routed_experts(b, x, logits, ffn)
    if not ffn.n_ff_shared:
        return out
    shared = gated_ffn(b, x, "_shexp", clamped=ffn.shared_clamped) if ffn.gated else plain_ffn(b, x, "_shexp")
    if ffn.shared_gate:
        gate = g.mul_mat(b.of_layer("ffn_gate_inp_shexp.weight"), x)
        if b.traits.shared_gate == "sigmoid":
            shared = g.mul(shared, g.unary(gate, "sigmoid"))
        else:
            shared = g.mul(shared, g.op("div", (g.unary(gate, "silu"), gate)))
    out = g.add(out, shared)
    return g.scale(out, "mean") if b.traits.shared_mean else out


def routed_experts(b: Build, x: Node, logits: Node, ffn: MoeFfn) -> Node:
    """List the choice of experts by ``logits`` and the weighted sum of what they make of ``x``."""
    g, n = b.graph, b.n_tokens if x.shape[1] == b.n_tokens else x.shape[1]
    n_embd, n_used = x.shape[0], ffn.n_experts_used
    chosen, weights = _route(b, logits, ffn)
    g.expand(weights)
    x = g.reshape(x, n_embd, 1, n)
    if b.traits.weights_before_experts:
        x = g.mul(g.op("repeat", (x,), (n_embd, n_used, n, 1)), weights)
    kind = "exact" if b.traits.exact_experts else ""
    out = _by_expert(b, _expert_activation(b, x, chosen, ffn), "ffn_down_exps", chosen, kind)
    if not b.traits.weights_before_experts:
        out = g.mul(out, weights)
    return _sum_of_experts(b, out, n_used)


def _by_expert(b: Build, x: Node, name: str, chosen: Node, kind: str = "") -> Node:
    """Return ``x`` through the chosen experts' matrices, scaled and with bias where stored."""
    g, weight = b.graph, b.of_layer(name + ".weight")
    shape = (weight.shape[1], chosen.shape[0], x.shape[2], 1)
    out = g.op("mul_mat_id", (weight, x, chosen), shape, "f32", kind=kind)
    scale = b.maybe(name + ".scale")
    if scale is not None:
        n_experts = scale.shape[0]
        rows = g.op("repeat", (g.reshape(scale, 1, n_experts, 1),), (1, n_experts, x.shape[2], 1))
        out = g.mul(out, g.get_rows(rows, chosen))
    bias = b.maybe(name + ".bias")
    return out if bias is None else g.op("add_id", (out, bias, chosen))


def _expert_activation(b: Build, x: Node, chosen: Node, ffn: MoeFfn) -> Node:
    g = b.graph
    if not ffn.gated:
        return activated(b, _by_expert(b, x, "ffn_up_exps", chosen))
    if not ffn.fused:
        up, gate = _by_expert(b, x, "ffn_up_exps", chosen), _by_expert(b, x, "ffn_gate_exps", chosen)
        return _gate_and_up(b, gate, up, clamped=ffn.clamped)
    both = _by_expert(b, x, "ffn_gate_up_exps", chosen)
    half = both.shape[0] // 2
    widths, strides = (half, both.shape[1], both.shape[2]), (both.strides[1], both.strides[2])
    return g.glu(g.view(both, widths, strides), g.view(both, widths, strides, offset=4 * half))


def _route(b: Build, logits: Node, ffn: MoeFfn) -> tuple[Node, Node]:
    """Return the numbers of the chosen experts and their weights, (1, used, tokens)."""
    g = b.graph
    bias = b.maybe("ffn_gate_inp.bias")
    if bias is not None:
        logits = g.add(logits, bias)
    probabilities = _gate(b, logits, ffn)
    selection = probabilities
    if ffn.selection_bias:
        selection = g.add(probabilities, b.of_layer("exp_probs_b.bias"))
    if b.traits.weights_before_experts:
        selection = logits
    n_groups = int(b.fact("expert_group_count"))
    if n_groups > 1:
        selection = _grouped_selection(b, selection, n_groups, int(b.fact("expert_group_used_count")))
    chosen = _top_k(b, selection, ffn.n_experts_used)
    weights = g.get_rows(g.reshape(probabilities, 1, ffn.n_experts, logits.shape[1]), chosen)
    return chosen, _normalised(b, weights, ffn)


def _gate(b: Build, logits: Node, ffn: MoeFfn) -> Node:
    if ffn.router == "softmax":
        return b.graph.soft_max(logits)
    return b.graph.unary(logits, "sigmoid") if ffn.router == "sigmoid" else logits


def _top_k(b: Build, x: Node, k: int) -> Node:
    g = b.graph
    order = g.op("argsort", (x,), x.shape, "i32")
    return g.view(order, (k, *x.shape[1:]), (order.strides[1], order.strides[2], order.strides[3]))


def _grouped_selection(b: Build, x: Node, n_groups: int, n_used: int) -> Node:
    """Return the selection scores with all but the best groups of experts masked out."""
    g, n_experts, n = b.graph, x.shape[0], x.shape[1]
    size = n_experts // n_groups
    groups = g.reshape(x, size, n_groups, n)
    best = g.get_rows(g.reshape(groups, 1, size, n_groups, n), _top_k(b, groups, 2))
    scores = g.op("sum_rows", (g.reshape(best, best.shape[1], best.shape[2], best.shape[3]),), (1, n_groups, n, 1))
    chosen = _top_k(b, g.reshape(scores, n_groups, n), n_used)
    rows = g.get_rows(groups, chosen)
    masked = g.store("set_rows", (rows, chosen, filled := g.op("fill", (groups,))), filled)
    return g.reshape(masked, n_experts, n)


def _normalised(b: Build, weights: Node, ffn: MoeFfn) -> Node:
    g, k, n = b.graph, weights.shape[1], weights.shape[2]
    if ffn.router == "softmax_weight":
        weights = g.reshape(g.soft_max(g.reshape(weights, k, n)), 1, k, n)
    if ffn.normalise_weights:
        flat = g.reshape(weights, k, n)
        total = g.op("clamp", (g.op("sum_rows", (flat,), (1, n, 1, 1)),))
        weights = g.reshape(g.op("div", (flat, total)), 1, k, n)
    return g.scale(weights) if ffn.weights_scale not in (0.0, 1.0) else weights


def _sum_of_experts(b: Build, out: Node, n_used: int) -> Node:
    g = b.graph
    g.expand(out)
    parts = [
        g.view(out, (out.shape[0], out.shape[2]), (out.strides[2],), offset=i * out.strides[1]) for i in range(n_used)
    ]
    for part in parts:
        g.expand(part)
    total = parts[0]
    for part in parts[1:]:
        total = g.expand(g.add(total, part))
    return g.cont(total) if n_used == 1 else total


def experts_beside_dense(b: Build, x: Node, ffn: MoeFfn) -> Node:
    """List a dense branch and experts, each with norms of its own around it, over the un-normed ``x``; their sum."""
    g = b.graph
    dense = b.norm(gated_ffn(b, b.norm(x, "ffn_norm"), ""), "post_ffw_norm_1")
    for_experts = b.norm(x, "pre_ffw_norm_2")
    for_router = g.mul(g.scale(g.norm(x, None)), b.of_layer("ffn_gate_inp.scale"))
    logits = g.mul_mat(b.of_layer("ffn_gate_inp.weight"), for_router)
    experts = b.norm(routed_experts(b, for_experts, logits, ffn), "post_ffw_norm_2")
    return g.add(dense, experts)
