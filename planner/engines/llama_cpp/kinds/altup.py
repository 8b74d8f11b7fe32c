"""Alternating updates: the residual stream in several copies, of which each layer computes one and corrects the others.

Beside its attention a layer has a low-rank branch (``laurel``), and the first layers keep only the largest activations.
Source: llama.cpp 0.5.0-dev, src/models (``altup_predict``, ``laurel``).
"""

from __future__ import annotations

from planner.engines.llama_cpp.graph import Node
from planner.engines.llama_cpp.kinds.attention import grouped_attention
from planner.engines.llama_cpp.kinds.context import Build
from planner.model import Attention, Layer


def opened(b: Build, stream: Node) -> Node:
    """Return the stream and its projections to the other copies, (width, tokens, copies)."""
    g, n_copies = b.graph, int(b.fact("altup"))
    repeated = g.op("repeat", (stream,), (stream.shape[0], b.n_tokens, n_copies - 1, 1))
    target = _magnitude(b, stream)
    others = _rescaled(b, g.mul_mat(b.weight("altup_proj.weight"), repeated), target)
    return g.concat(stream, others, 2)


def closed(b: Build, streams: Node) -> Node:
    """Return the mean of the copies, each projected back."""
    g = b.graph
    target = _magnitude(b, _copy(b, streams, 0))
    others = g.mul_mat(b.weight("altup_unembd_proj.weight"), _copies_after_first(b, streams))
    others = _rescaled(b, others, target)
    total = _copy(b, streams, 0)
    for i in range(others.shape[2]):
        total = g.add(total, _copy(b, others, i))
    return g.scale(total)


def altup_layer(b: Build, layer: Layer, streams: Node, per_layer: Node) -> Node:
    """List one layer over all copies of the stream; return the copies after it."""
    g = b.graph
    if not isinstance(layer.mixer, Attention):
        raise KeyError("copies of the stream around something else than attention")
    predictions = _predicted(b, streams)
    active = _copy(b, predictions, 0)
    normed = b.norm(active, "attn_norm")
    low_rank = g.add(b.norm(b.linear(b.linear(normed, "laurel_l"), "laurel_r"), "laurel_post_norm"), normed)
    attended = b.norm(grouped_attention(b, normed, layer.mixer), "post_attention_norm")
    stream = g.scale(g.add(g.add(attended, active), low_rank))
    made = b.norm(_feed_forward(b, b.norm(stream, "ffn_norm")), "post_ffw_norm", pin=False)
    corrected = _corrected(b, predictions, g.add(made, stream))
    own = _own_input(b, g.mul(_copy(b, corrected, 0), b.of_layer("altup_correct_scale.weight")), per_layer)
    first, others = _copy(b, corrected, 0), _copies_after_first(b, corrected)
    return g.concat(first, g.add(others, own), 2)


def _copy(b: Build, streams: Node, i: int) -> Node:
    width, n = streams.shape[0], streams.shape[1]
    return b.graph.view(streams, (width, n), (4 * width,), offset=4 * i * width * n)


def _copies_after_first(b: Build, streams: Node) -> Node:
    width, n, n_copies, _ = streams.shape
    return b.graph.view(streams, (width, n, n_copies - 1), (4 * width, 4 * width * n), offset=4 * width * n)


def _magnitude(b: Build, x: Node) -> Node:
    squares = b.graph.op("sqr", (x,))
    return b.graph.op("sqrt", (_row_sums(b, squares),))


def _row_sums(b: Build, x: Node) -> Node:
    return b.graph.op("sum_rows", (x,), (1, *x.shape[1:]))


def _rescaled(b: Build, x: Node, target: Node) -> Node:
    """Return ``x`` with the magnitude of another."""
    return b.graph.op("div", (b.graph.mul(x, target), _magnitude(b, x)))


def _routed(b: Build, x: Node) -> Node:
    """Return how much each copy takes part, (copies, tokens)."""
    g = b.graph
    routed = g.mul_mat(b.of_layer("altup_router.weight"), g.scale(b.norm(x, "altup_router_norm")))
    return g.unary(routed, "tanh")


def _predicted(b: Build, streams: Node) -> Node:
    g, n_copies = b.graph, streams.shape[2]
    mixing = b.linear(_routed(b, _copy(b, streams, 0)), "altup_predict_coef")
    mixing = g.reshape(mixing, n_copies, n_copies, b.n_tokens)
    mixed = g.mul_mat(g.cont(g.permute(streams, 1, 2, 0, 3)), mixing)
    return g.add(g.cont(g.permute(mixed, 0, 2, 1, 3)), streams)


def _corrected(b: Build, predictions: Node, activated: Node) -> Node:
    g, (width, n, n_copies, _) = b.graph, predictions.shape
    routed = _routed(b, activated)
    news = g.op("sub", (activated, _copy(b, predictions, 0)))
    shares = g.scale(b.linear(routed, "altup_correct_coef"))
    shares = g.cont(g.transpose(shares), 1, n, n_copies)
    return g.add(g.mul(g.op("repeat", (news,), (width, n, n_copies, 1)), shares), predictions)


def _feed_forward(b: Build, x: Node) -> Node:
    g = b.graph
    up, gate = b.linear(x, "ffn_up"), b.linear(x, "ffn_gate")
    if b.layer < b.fact("sparse_layers"):
        gate = _largest(b, gate)
    return b.linear(g.mul(up, g.unary(gate, "gelu")), "ffn_down")


def _largest(b: Build, x: Node) -> Node:
    """Return what lies above the mean by some standard deviations, the rest as zero."""
    g = b.graph
    mean = g.op("mean", (x,), (1, *x.shape[1:]))
    squares = g.op("sqr", (g.op("sub", (x, mean)),))
    deviation = g.op("sqrt", (g.scale(_row_sums(b, squares)),))
    cut = g.add(mean, g.scale(deviation))
    return g.unary(g.op("sub", (x, cut)), "relu")


def _own_input(b: Build, stream: Node, per_layer: Node) -> Node:
    """Return what the layer's own part of the embedding makes of ``stream``."""
    g, width = b.graph, b.language.n_embd_per_layer
    own = g.view(per_layer, (width, b.n_tokens), (4 * width,), offset=4 * b.layer * width * b.n_tokens)
    gated = g.mul(g.unary(b.linear(stream, "inp_gate"), "gelu"), own)
    return b.norm(b.linear(gated, "proj"), "post_norm")
