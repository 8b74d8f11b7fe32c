"""Softmax attention with grouped queries: projections, rotation, cache, scores or flash attention, output.

Source: llama.cpp 0.5.0-dev, llama-graph.cpp (``build_qkv``, ``build_attn``, ``build_attn_mha``), llama-kv-cache.cpp.
"""

from __future__ import annotations

from planner.engines.llama_cpp.graph import Node
from planner.engines.llama_cpp.kinds.context import Build
from planner.model import Attention, DenseFfn, LatentAttention
from planner.quantization import row_bytes


def grouped_attention(b: Build, x: Node, mixer: Attention) -> Node:
    """List grouped-query attention of the present layer over its normed input ``x``; return the projected result."""
    q, k, v = _projections(b, x, mixer)
    q = _prepared(b, q, "attn_q_norm", mixer)
    if k is not None:
        k = _prepared(b, k, "attn_k_norm", mixer)
    if v is not None and b.traits.value_norm:
        v = b.graph.norm(v, None)
    if b.traits.query_scale:
        q = b.graph.scale(q, "query scale")
    out = b.linear(_gated(b, attend(b, q, k, v, mixer), x, mixer), "attn_output")
    return b.graph.scale(out, "value scale") if b.fact("attention.value_scale") not in (0.0, 1.0) else out


def _gated(b: Build, out: Node, x: Node, mixer: Attention) -> Node:
    """Return the result of attention times a gate made of the input, one per head or per element."""
    g, n = b.graph, b.n_tokens
    if mixer.output_gate == "none":
        return out
    gate = g.unary(b.linear(x, "attn_gate"), "sigmoid")
    if mixer.output_gate == "element":
        return g.mul(out, gate)
    by_head = g.mul(g.reshape(out, mixer.value_dim, mixer.n_heads, n), g.reshape(gate, 1, mixer.n_heads, n))
    return g.reshape(by_head, mixer.value_dim * mixer.n_heads, n)


def _projections(b: Build, x: Node, mixer: Attention) -> tuple[Node, Node | None, Node | None]:
    """Return queries, keys and values as (head, heads, tokens); keys and values are None where a cache is shared."""
    g, n = b.graph, b.n_tokens
    if mixer.qkv == "fused":
        return _fused_projections(b, x, mixer)
    q = g.reshape(_whole_norm(b, b.linear(x, "attn_q"), "attn_q_norm", mixer), mixer.key_dim, mixer.n_heads, n)
    if mixer.kv_source_layer is not None:
        return q, None, None
    k_flat = b.linear(x, "attn_k")
    v_flat = b.linear(x, "attn_v") if mixer.value_tensor else k_flat
    k = g.reshape(_whole_norm(b, k_flat, "attn_k_norm", mixer), mixer.key_dim, mixer.n_kv_heads, n)
    return q, k, g.reshape(v_flat, mixer.value_dim, mixer.n_kv_heads, n)


def _whole_norm(b: Build, x: Node, norm: str, mixer: Attention) -> Node:
    """Return queries or keys normed over all heads together, where the layer has that norm."""
    return b.norm(x, norm) if mixer.qk_norm == "model" else x


def _fused_projections(b: Build, x: Node, mixer: Attention) -> tuple[Node, Node, Node]:
    g, n = b.graph, b.n_tokens
    qkv = b.linear(x, "attn_qkv")
    row, h = qkv.strides[1], mixer.key_dim
    k_start = 4 * h * mixer.n_heads
    v_start = k_start + 4 * h * mixer.n_kv_heads
    if b.traits.fused_qkv == "copied":
        parts = ((h, mixer.n_heads, 0), (h, mixer.n_kv_heads, k_start), (mixer.value_dim, mixer.n_kv_heads, v_start))
        q, k, v = (
            g.reshape(g.cont(g.view(qkv, (width * heads, n), (row,), offset=start)), width, heads, n)
            for width, heads, start in parts
        )
        return q, k, v
    q = g.view(qkv, (h, mixer.n_heads, n), (4 * h, row))
    k = g.view(qkv, (h, mixer.n_kv_heads, n), (4 * h, row), offset=k_start)
    v = g.view(qkv, (mixer.value_dim, mixer.n_kv_heads, n), (4 * mixer.value_dim, row), offset=v_start)
    return q, k, v


def _prepared(b: Build, x: Node, norm: str, mixer: Attention) -> Node:
    """Return queries or keys normed (if the layer has that norm), rotated and, queries only, tempered."""
    g, traits = b.graph, b.traits
    by_head = mixer.qk_norm in ("head", "heads")
    if by_head and traits.qk_norm == "before":
        x = b.norm(x, norm)
    if rotates(b, mixer):
        x = g.rope(x, b.positions(), rotary_factors(b, mixer))
        if traits.rotated_norm:
            x = g.norm(x, None)
    if by_head and traits.qk_norm == "after":
        x = b.norm(x, norm)
    return tempered(b, x, rotated=rotates(b, mixer)) if norm == "attn_q_norm" else x


def tempered(b: Build, q: Node, *, rotated: bool = True) -> Node:
    """Return queries times the scale that grows with their position, where the architecture has one."""
    rule = b.traits.temperature
    if (rule == "unrotated" and not rotated) or (rule == "by_file" and b.fact("attention.temperature_scale")):
        return b.graph.mul(q, b.input("attention scale", "f32", 1, 1, b.n_tokens))
    return q


def rotates(b: Build, mixer: Attention) -> bool:
    """Whether the present layer rotates queries and keys."""
    rule = b.traits.rotary
    if not mixer.rotated:
        return False
    if rule == "windowed_or_dense" and isinstance(b.language.layers[b.layer].ffn, DenseFfn):
        return True
    if rule == "stepped":
        return (b.layer + 1) % b.request.rotary_step != 0
    if rule == "by_file":
        return bool(b.facts.get("rope.scaling.finetuned", True))
    if rule == "all" or (rule == "windowed_if_any" and not b.windowed):
        return True
    return rule != "none" and mixer.window_tokens is not None


def rotary_factors(b: Build, mixer: Attention | LatentAttention) -> Node | None:
    """Return the stored frequency factors that the present layer reads, from its own device."""
    rule = b.traits.rotary_factors
    windowed = isinstance(mixer, Attention) and mixer.window_tokens is not None
    if rule == "none" or (rule == "full_layers" and windowed):
        return None
    device = b.request.layer_devices[b.layer]
    if b.has("rope_freqs.weight"):
        return b.weight("rope_freqs.weight", device)
    longer = b.request.n_context > b.fact("rope.scaling.original_context_length")
    name = "rope_factors_long.weight" if longer else "rope_factors_short.weight"
    return b.weight(name, device) if b.has(name) else None


def attend(b: Build, q: Node, k: Node | None, v: Node | None, mixer: Attention) -> Node:
    """List cache stores and attention; return the result as (heads x value, tokens), before the output projection."""
    window = mixer.window_tokens is not None
    k_rotation = b.rotation("k", mixer.key_dim, window=window)
    v_rotation = b.rotation("v", mixer.value_dim, window=window)
    q = _rotated(b, q, k_rotation)
    k = None if k is None else _rotated(b, k, k_rotation)
    v = None if v is None else _rotated(b, v, v_rotation)
    for tensor in (q, k, v) if b.windowed else (q, v, k):
        if tensor is not None:
            b.graph.expand(tensor)
    if k is not None:
        _store_keys(b, k, mixer)
    if v is not None:
        _store_values(b, v, mixer)
    out = scores_and_values(
        b, q, cached_keys(b, mixer), _cached_values(b, mixer), window=window, sinks=_sinks(b, mixer)
    )
    return _rotated(b, out, v_rotation)


def _sinks(b: Build, mixer: Attention) -> Node | None:
    return b.of_layer("attn_sinks.weight") if mixer.sinks else None


def _rotated(b: Build, x: Node, rotation: Node | None) -> Node:
    """Return ``x`` times a Hadamard matrix, block by block."""
    if rotation is None:
        return x
    g, n = b.graph, rotation.shape[0]
    blocks = g.reshape(x, n, x.n_elements // n) if x.is_contiguous else g.cont(x, n, x.n_elements // n)
    return g.reshape(g.mul_mat(rotation, blocks), *x.shape)


def _key_cache(b: Build, mixer: Attention) -> Node:
    layer = b.layer if mixer.kv_source_layer is None else mixer.kv_source_layer
    cells = b.cells(window=mixer.window_tokens is not None)
    return b.cache(
        "cache_k", b.request.cache_type_k, (mixer.n_kv_heads * mixer.key_dim, cells, b.request.n_streams), layer
    )


def _value_cache(b: Build, mixer: Attention) -> Node:
    layer = b.layer if mixer.kv_source_layer is None else mixer.kv_source_layer
    cells = b.cells(window=mixer.window_tokens is not None)
    width = b.widest_value if b.request.transposed else mixer.n_kv_heads * mixer.value_dim
    return b.cache("cache_v", b.request.cache_type_v, (width, cells, b.request.n_streams), layer)


def store_keys(b: Build, k: Node, cache: Node, rows: Node) -> None:
    """List the write of (head, heads, tokens) into a cache, all streams as one."""
    g = b.graph
    flat = g.view(k, (k.shape[0] * k.shape[1], k.shape[2]), (k.strides[2],))
    if cache.shape[2] > 1:
        cache = g.reshape(cache, cache.shape[0], cache.shape[1] * cache.shape[2])
    g.expand(g.store("set_rows", (flat, rows, cache), cache))


def _store_keys(b: Build, k: Node, mixer: Attention) -> None:
    store_keys(b, k, _key_cache(b, mixer), b.k_rows(window=mixer.window_tokens is not None))


def _store_values(b: Build, v: Node, mixer: Attention) -> None:
    g, cache = b.graph, _value_cache(b, mixer)
    rows = b.v_rows(window=mixer.window_tokens is not None)
    if not b.request.transposed:
        store_keys(b, v, cache, rows)
        return
    width, n = v.shape[0] * v.shape[1], v.shape[2]
    flat = g.reshape(v, width, n) if v.strides[2] == 4 * width else g.cont(v, width, n)
    if width < cache.shape[0]:
        flat = g.op("pad", (flat,), (cache.shape[0], n, 1, 1), name="values padded to the widest layer")
    column = g.reshape(cache, 1, cache.n_elements)
    g.expand(g.store("set_rows", (g.reshape(flat, 1, flat.n_elements), rows, column), column))


def cached_keys(b: Build, mixer: Attention) -> Node:
    """Return the key cache as (head, heads, cells, streams)."""
    cache, h = _key_cache(b, mixer), mixer.key_dim
    row = row_bytes(cache.format, cache.shape[0])
    return b.graph.view(
        cache,
        (h, mixer.n_kv_heads, cache.shape[1], b.request.n_streams),
        (row_bytes(cache.format, h), row, row * cache.shape[1]),
    )


def _cached_values(b: Build, mixer: Attention) -> Node:
    """Return the value cache as (head, heads, cells, streams); transposed it is (cells, heads, head, streams)."""
    cache, h = _value_cache(b, mixer), mixer.value_dim
    width, cells, n_streams = cache.shape[0], cache.shape[1], b.request.n_streams
    if not b.request.transposed:
        row = row_bytes(cache.format, width)
        strides = (row_bytes(cache.format, h), row, row * cells)
        return b.graph.view(cache, (h, mixer.n_kv_heads, cells, n_streams), strides)
    transposed = tuple(row_bytes(cache.format, cells * n) for n in (h, 1, width))
    return b.graph.view(cache, (cells, mixer.n_kv_heads, h, n_streams), transposed)


def scores_and_values(  # noqa: PLR0913 - attention has this many parts
    b: Build,
    q: Node,
    k: Node,
    v: Node,
    *,
    window: bool = False,
    sinks: Node | None = None,
    decompress: Node | None = None,
    mask: Node | None = None,
) -> Node:
    """List attention proper; return (heads x value, tokens).

    ``decompress``: a matrix per head for the result. ``mask``: by default that of the cache.
    """
    g = b.graph
    n_streams = k.shape[3]
    transposed = v.strides[1] > v.strides[2]
    per_stream = q.shape[2] // n_streams
    q = g.view(
        q, (q.shape[0], q.shape[1], per_stream, n_streams), (q.strides[1], q.strides[2], q.strides[2] * per_stream)
    )
    q, k, v = (g.permute(t, 0, 2, 1, 3) for t in (q, k, v))
    mask = b.mask(window=window) if mask is None else mask
    if b.request.flash_attn:
        out = _flash(b, q, k, v, mask, sinks, decompress)
    else:
        out = _scores(b, q, k, v if transposed else g.cont(g.transpose(v)), mask, sinks, decompress)
    return g.expand(out)


def _flash(  # noqa: PLR0913 - attention has this many parts
    b: Build, q: Node, k: Node, v: Node, mask: Node, sinks: Node | None, decompress: Node | None
) -> Node:
    g = b.graph
    operands = (q, k, v, mask) if sinks is None else (q, k, v, mask, sinks)
    out = g.op("flash_attn", operands, (v.shape[0], q.shape[2], q.shape[1], q.shape[3]), "f32", name="flash attention")
    if decompress is not None:
        out = g.mul_mat(decompress, g.permute(out, 0, 2, 1, 3))
        out = g.cont(g.permute(out, 0, 2, 1, 3))
    return g.reshape(out, out.shape[0] * out.shape[1], out.shape[2] * out.shape[3])


def _scores(  # noqa: PLR0913 - attention has this many parts
    b: Build, q: Node, k: Node, v: Node, mask: Node, sinks: Node | None, decompress: Node | None
) -> Node:
    g = b.graph
    scores = g.mul_mat(k, q, "scores")
    if b.traits.score_softcap:
        scores = g.scale(g.unary(g.scale(scores), "tanh"))
    out = g.mul_mat(v, g.soft_max(scores, mask, sinks), "weighted values")
    if decompress is not None:
        out = g.mul_mat(decompress, out)
    out = g.permute(out, 0, 2, 1, 3)
    out = g.cont(out, out.shape[0] * out.shape[1], out.shape[2] * out.shape[3])
    if b.request.pinned and not b.request.kv_offload:
        out.device = b.host
    return out


def gated_attention(b: Build, x: Node, mixer: Attention) -> Node:
    """List attention whose query projection is twice as wide: the second half of each head gates the result."""
    g, n, h = b.graph, b.n_tokens, mixer.key_dim
    both = b.linear(x, "attn_q")
    k_flat, v_flat = b.linear(x, "attn_k"), b.linear(x, "attn_v")
    strides = (4 * h * 2, 4 * h * 2 * mixer.n_heads)
    q = _prepared(b, g.view(both, (h, mixer.n_heads, n), strides), "attn_q_norm", mixer)
    k = _prepared(b, g.reshape(k_flat, h, mixer.n_kv_heads, n), "attn_k_norm", mixer)
    gate = g.cont(g.view(both, (h, mixer.n_heads, n), strides, offset=4 * h), h * mixer.n_heads, n)
    out = attend(b, q, k, g.reshape(v_flat, mixer.value_dim, mixer.n_kv_heads, n), mixer)
    return b.linear(g.mul(out, g.unary(gate, "sigmoid")), "attn_output")
