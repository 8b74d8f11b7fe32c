"""The whole graph of a language model: embedding, layers, output; the engine's worst case for one ubatch.

Source: llama.cpp 0.5.0-dev, src/models/*.cpp and llama-graph.cpp (``build_inp_embd``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from planner.engines.llama_cpp.graph import Graph, Node
from planner.engines.llama_cpp.kinds.altup import altup_layer, closed, opened
from planner.engines.llama_cpp.kinds.attention import gated_attention, grouped_attention
from planner.engines.llama_cpp.kinds.channel_delta import channel_delta_net
from planner.engines.llama_cpp.kinds.context import Build
from planner.engines.llama_cpp.kinds.ffn import dense_ffn, experts_beside_dense, experts_ffn
from planner.engines.llama_cpp.kinds.latent import latent_attention
from planner.engines.llama_cpp.kinds.recurrent import delta_net, mamba, short_conv
from planner.engines.llama_cpp.layout import layer_of
from planner.engines.llama_cpp.traits import GraphRequest
from planner.model import (
    Attention,
    CrossAttention,
    DenseFfn,
    Ffn,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    Mamba,
    MoeFfn,
    NoMixer,
    ShortConv,
)

_NEVER_READ = ("rope_freqs.", "rope_factors_", "token_types.", "position_embd.")
_READ_FOR_IMAGES = re.compile(r"blk\.\d+\.vis_")


def language_graph(request: GraphRequest, layers: Sequence[int] | None = None) -> Graph | None:
    """Return the graph of the request's model, or None where some layer or stored tensor is not understood.

    ``layers``: the numbers of the layers to list; by default all, and then every stored tensor must be read by some
    operation.
    """
    everything = range(request.language.n_layers)
    build = _listed(request, everything if layers is None else layers)
    if build is None or (layers is None and _unread(build, everything)):
        return None
    return build.graph


def reads_everything(request: GraphRequest, layers: Sequence[int]) -> bool:
    """Whether the graph of some layers can be listed and reads every tensor they store, and all outside the layers."""
    build = _listed(request, layers)
    return build is not None and not _unread(build, layers)


def _listed(request: GraphRequest, layers: Sequence[int]) -> Build | None:
    build = Build(request)
    if not request.language.layers or any(not _known(layer) for layer in request.language.layers):
        return None
    try:
        _list_all(build, layers)
    except KeyError:  # a tensor that the kind needs is not stored
        return None
    return build


def _known(layer: Layer) -> bool:
    mixer = layer.mixer
    return not isinstance(mixer, CrossAttention)


def _unread(b: Build, layers: Sequence[int]) -> list[str]:
    """Return stored tensors that no operation reads although their layer is listed: a sign of an unknown graph."""
    left_out = set(range(b.language.n_layers + b.language.n_mtp_layers)) - set(layers)
    sharing = _projections_of_sharing_layers(b)
    return [
        name
        for name in b.tensors
        if name not in b.used
        and name not in sharing
        and layer_of(name) not in left_out
        and not name.startswith(_NEVER_READ)
        and not (b.fact("image_weights") and _READ_FOR_IMAGES.match(name))
    ]


def _projections_of_sharing_layers(b: Build) -> set[str]:
    """Return the key and value tensors of layers that read another layer's cache: stored, loaded and not used."""
    return {
        f"blk.{i}.{name}.weight"
        for i, layer in enumerate(b.language.layers)
        if isinstance(layer.mixer, Attention) and layer.mixer.kv_source_layer is not None
        for name in ("attn_k", "attn_v", "attn_k_norm")
    }


def _list_all(b: Build, layers: Sequence[int]) -> None:
    stream, embedding = _embedding(b)
    per_layer = _per_layer_embedding(b, stream) if b.language.n_embd_per_layer else None
    copied = b.fact("altup") and per_layer is not None
    stream = opened(b, stream) if copied else stream
    for i in layers:
        b.graph.layer = i
        layer = b.language.layers[i]
        part = b.request.deepstack.get(i)
        if part is not None and b.traits.deepstack == "mapped":
            stream = b.graph.add(stream, _deepstack(b, embedding, part), "deepstack")
        stream = (
            altup_layer(b, layer, stream, per_layer) if copied and per_layer else _layer(b, layer, stream, per_layer)
        )
        if part is not None and b.traits.deepstack == "after_first":
            stream = b.graph.add(stream, _deepstack(b, embedding, part), "deepstack")
    b.graph.layer = -1
    _output(b, closed(b, stream) if copied else stream)


def _embedding(b: Build) -> tuple[Node, Node]:
    """Return the token embeddings, and those together with the room for deepstack features."""
    g, n_embd = b.graph, b.language.n_embd
    width = n_embd * (1 + (b.language.n_deepstack_layers if b.traits.deepstack != "no" else 0))
    rows = g.get_rows(b.weight("token_embd.weight", b.request.weights["token_embd.weight"]), b.tokens())
    if width != n_embd:
        rows = g.op("pad", (rows,), (width, b.n_tokens, 1, 1), name="room for deepstack features")
    g.expand(rows)
    g.expand(b.input("embeddings", "f32", width, b.n_tokens))
    stream = embedding = rows if width == n_embd else g.view(rows, (n_embd, b.n_tokens), (rows.strides[1],))
    if b.fact("embedding_scale"):
        stream = g.scale(stream if stream.is_contiguous else g.cont(stream), "embedding scale")
    g.expand(stream)
    scaled = b.traits.embedding_scale and not b.fact("embedding_scale")
    return (g.scale(stream, "embedding scale") if scaled else stream), embedding


def _deepstack(b: Build, embedding: Node, part: int) -> Node:
    n_embd = b.language.n_embd
    return b.graph.view(embedding, (n_embd, b.n_tokens), (embedding.strides[1],), offset=4 * part * n_embd)


def _per_layer_embedding(b: Build, stream: Node) -> Node:
    """Return the inputs that every layer gets of its own, as (width, tokens, layers)."""
    g, width, n_layers = b.graph, b.language.n_embd_per_layer, b.language.n_layers
    rows = g.get_rows(b.weight("per_layer_token_embd.weight"), b.input("tokens of layers", "i32", b.n_tokens))
    rows = g.expand(g.scale(g.reshape(rows, width, n_layers, b.n_tokens)))
    projected = g.scale(g.mul_mat(b.weight("per_layer_model_proj.weight"), stream))
    projected = b.norm(g.reshape(projected, width, n_layers, b.n_tokens), "per_layer_proj_norm", layer=False)
    return g.cont(g.permute(g.scale(g.add(projected, rows)), 0, 2, 1, 3))


def _layer(b: Build, layer: Layer, stream: Node, per_layer: Node | None) -> Node:
    """List one layer over the residual ``stream``; return the stream after it."""
    g = b.graph
    if b.fact("optional_blocks") and (layer.ffn is None or isinstance(layer.mixer, NoMixer)):
        return _incomplete_layer(b, layer, stream)
    normed = stream if b.fact("no_pre_norms") else b.norm(stream, "attn_norm")
    if b.traits.norm_expanded:
        g.expand(normed)
    if b.traits.parallel != "no":
        return _parallel_layer(b, layer, normed, stream)
    if b.fact("single_blocks"):
        return _sum(b, _single_block(b, layer, normed), stream, b.traits.attention_sum)
    logits = g.mul_mat(b.of_layer("ffn_gate_inp.weight"), stream) if b.traits.routed_by == "layer_input" else None
    result = _mixer(b, layer, normed)
    normed_first = b.traits.output_rows == "last_layer_normed"
    if layer.post_norms and normed_first:
        result = b.norm(result, "post_attention_norm")
    if _picks_rows(b):
        result, stream = g.get_rows(result, b.output_rows()), g.get_rows(stream, b.output_rows())
        logits = logits and g.get_rows(logits, b.output_rows())
    if layer.post_norms and not normed_first:
        result = b.norm(result, "post_attention_norm")
    stream = _with_ffn(b, layer, _sum(b, result, stream, b.traits.attention_sum), logits)
    if per_layer is not None:
        stream = _add_own_input(b, stream, per_layer)
    scale = b.maybe("layer_output_scale.weight")
    return stream if scale is None else g.mul(stream, scale)


def _single_block(b: Build, layer: Layer, normed: Node) -> Node:
    """List a layer that only mixes tokens, or only has a feed-forward block."""
    if not isinstance(layer.mixer, NoMixer):
        return _mixer(b, layer, normed)
    if layer.ffn is None:
        raise KeyError("a layer without blocks")
    return dense_ffn(b, normed, layer.ffn) if isinstance(layer.ffn, DenseFfn) else experts_ffn(b, normed, layer.ffn)


def _picks_rows(b: Build) -> bool:
    """Whether the present layer drops the rows that need no logits."""
    return b.traits.output_rows in ("last_layer", "last_layer_normed") and b.layer == b.language.n_layers - 1


def _with_ffn(b: Build, layer: Layer, stream: Node, logits: Node | None = None) -> Node:
    """List the feed-forward block, if the layer has one; return the stream after it."""
    if layer.ffn is None:
        return stream
    result = _ffn(b, layer.ffn, stream, logits)
    if layer.post_norms:
        result = b.norm(result, "post_ffw_norm", pin=b.traits.post_norms_pinned)
    return _sum(b, result, stream, b.traits.ffn_sum)


def _incomplete_layer(b: Build, layer: Layer, stream: Node) -> Node:
    """List a layer that lacks one of its blocks; what mixes tokens without a block behind it is lost."""
    if layer.ffn is None:
        if _picks_rows(b):
            raise KeyError("a last layer without a feed-forward block")
        _mixer(b, layer, b.norm(stream, "attn_norm"))
        return stream
    return _with_ffn(b, layer, b.graph.get_rows(stream, b.output_rows()) if _picks_rows(b) else stream)


def _parallel_layer(b: Build, layer: Layer, normed: Node, stream: Node) -> Node:
    """List a layer whose attention and feed-forward block read the same norm."""
    g = b.graph
    attention = _mixer(b, layer, normed)
    if _picks_rows(b):
        attention, stream, normed = (g.get_rows(x, b.output_rows()) for x in (attention, stream, normed))
    if layer.ffn is None:
        raise KeyError("a parallel layer without a feed-forward block")
    ffn = dense_ffn(b, normed, layer.ffn) if isinstance(layer.ffn, DenseFfn) else experts_ffn(b, normed, layer.ffn)
    if b.traits.parallel == "ffn_first":
        return g.add(g.add(ffn, stream), attention)
    return g.add(g.add(attention, ffn), stream)


def _mixer(b: Build, layer: Layer, x: Node) -> Node:  # noqa: PLR0911 - one return per kind
    match layer.mixer:
        case Attention(gated=True) as mixer:
            return gated_attention(b, x, mixer)
        case Attention() as mixer:
            return grouped_attention(b, x, mixer)
        case LatentAttention() as mixer:
            return latent_attention(b, x, mixer)
        case GatedDeltaNet(decay="head") as mixer:
            return delta_net(b, x, mixer)
        case GatedDeltaNet() as mixer:
            return channel_delta_net(b, x, mixer)
        case ShortConv() as mixer:
            return short_conv(b, x, mixer)
        case Mamba() as mixer:
            return mamba(b, x, mixer)
        case CrossAttention() | NoMixer():
            raise KeyError("a mixer that no graph has")


def _ffn(b: Build, ffn: Ffn, stream: Node, logits: Node | None = None) -> Node:
    """List the feed-forward block; ``logits``: of the router, where it does not read the normed stream."""
    if isinstance(ffn, MoeFfn) and b.traits.dense_beside_experts:
        return experts_beside_dense(b, stream, ffn)
    normed = stream if b.fact("no_pre_norms") else b.norm(stream, str(b.facts.get("name.ffn_norm", "ffn_norm")))
    return dense_ffn(b, normed, ffn) if isinstance(ffn, DenseFfn) else experts_ffn(b, normed, ffn, logits)


def _sum(b: Build, result: Node, stream: Node, first: str) -> Node:
    if b.traits.residual_scale or b.fact("residual_scale"):
        result = b.graph.scale(result, "residual scale")
    return b.graph.add(result, stream) if first == "result" else b.graph.add(stream, result)


def _add_own_input(b: Build, stream: Node, per_layer: Node) -> Node:
    g, width = b.graph, b.language.n_embd_per_layer
    gated = g.unary(b.linear(stream, "inp_gate"), "gelu")
    offset = b.layer * 4 * width * b.n_tokens
    own = g.view(per_layer, (width, b.n_tokens), (4 * width,), offset=offset)
    return g.add(stream, b.norm(b.linear(g.mul(gated, own), "proj"), "post_norm"))


def _output(b: Build, stream: Node) -> None:
    """List the last norm and the logits; what the program reads afterwards is flagged as output."""
    g, rule = b.graph, b.traits.output_rows
    if rule in ("before_norm", "merged"):
        stream.is_output = rule == "before_norm"
        stream = g.get_rows(stream, b.output_rows())
    stream = b.norm(stream, str(b.facts.get("name.output_norm", "output_norm")), layer=False)
    stream.is_output = True
    if rule == "after_norm":
        stream = g.get_rows(stream, b.output_rows())
        stream.is_output = True
    if b.traits.head_scale:
        stream = g.scale(stream, "head scale")
    name = "output.weight" if b.has("output.weight") else "token_embd.weight"
    logits = g.mul_mat(b.weight(name, b.request.output_device if name != "output.weight" else None), stream, "logits")
    if b.has("output.bias"):
        logits = g.add(logits, b.weight("output.bias"))
    if b.traits.logit_scale or b.fact("logit_scale"):
        logits = g.scale(logits)
    if _caps_logits(b):
        logits = g.scale(g.unary(g.scale(logits), "tanh"))
    logits.is_output = True
    g.expand(logits)


def _caps_logits(b: Build) -> bool:
    rule = b.traits.logit_softcap
    return rule == "always" or (rule == "by_file" and b.fact("final_logit_softcapping") != 0)
