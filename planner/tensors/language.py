"""A model's tensor inventory: name and shape of every tensor its layers need, in GGUF's names and order.

One list serves weights, placement and file formats. Shapes have the fastest dimension first.
Source: llama.cpp 0.5.0-dev, ``load_arch_tensors`` of ``src/models/*.cpp``; compared with true file headers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, assert_never

from planner.model import (
    Attention,
    CrossAttention,
    GatedDeltaNet,
    LatentAttention,
    Mamba,
    NoMixer,
    ShortConv,
)
from planner.tensors.feed_forward import Entry, ffn_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.model import Indexer, Language, Layer, Mixer


def language_tensors(language: Language) -> tuple[Entry, ...]:
    """Return name and shape of every tensor of ``language``, those of multi-token prediction layers included.

    Facts it heeds: ``embedding_rows`` (where the embedding has more rows than the output), ``name.ffn_norm`` and
    ``name.output_norm`` (architectures that spell these differently), ``output_bias``, ``norm_bias``,
    ``parallel_blocks`` (one norm feeds attention and feed-forward), ``single_blocks`` (a layer is one or the other),
    ``optional_blocks`` (a layer may lack either), ``no_pre_norms`` (norms only after each block), ``image_weights``
    (every matrix twice, one for the tokens of images),
    ``layer_output_scale``, ``ssm_norms``, ``altup`` (copies of the residual stream) with ``laurel_rank``.
    """
    found = list(_head(language))
    for index, layer in enumerate(language.layers):
        prefix = f"blk.{index}."
        found += [(prefix + suffix, shape) for suffix, shape in layer_tensors(language, layer)]
    for index in range(language.n_layers, language.n_layers + language.n_mtp_layers):
        prefix = f"blk.{index}."
        found += [(prefix + suffix, shape) for suffix, shape in _prediction_layer(language)]
    return tuple(found)


def layer_tensors(language: Language, layer: Layer) -> tuple[Entry, ...]:
    """Return the tensors of one layer by their name after ``blk.N.``."""
    ffn_norm = str(language.facts.get("name.ffn_norm", "ffn_norm"))
    flags = frozenset(flag for flag in _FLAGS if language.facts.get(flag))
    usual = _layer(layer, (language.n_embd, language.n_embd_per_layer), ffn_norm, flags)
    n_copies, rank = language.facts.get("altup"), language.facts.get("laurel_rank")
    if not isinstance(n_copies, int) or not isinstance(rank, int):
        return usual
    return (*usual, *_altup(language.n_embd, n_copies, rank))


def _altup(n_embd: int, n_copies: int, rank: int) -> Iterator[Entry]:
    """Yield what keeps several copies of the stream, and the low-rank branch beside attention."""
    yield "altup_correct_coef.weight", (n_copies, n_copies)
    yield "altup_correct_scale.weight", (n_embd,)
    yield "altup_predict_coef.weight", (n_copies, n_copies * n_copies)
    yield "altup_router.weight", (n_embd, n_copies)
    yield "altup_router_norm.weight", (n_embd,)
    yield "laurel_l.weight", (n_embd, rank)
    yield "laurel_r.weight", (rank, n_embd)
    yield "laurel_post_norm.weight", (n_embd,)


_FLAGS = (
    "image_weights",
    "layer_output_scale",
    "no_pre_norms",
    "norm_bias",
    "optional_blocks",
    "parallel_blocks",
    "single_blocks",
    "ssm_norms",
)
_FOR_IMAGES = {
    "attn_qkv.weight": "vis_attn_qkv.weight",
    "attn_output.weight": "vis_attn_output.weight",
    "ffn_gate.weight": "vis_gate.weight",
    "ffn_up.weight": "vis_up.weight",
    "ffn_down.weight": "vis_down.weight",
}
_NO_FFN_NORM = ("parallel_blocks", "no_pre_norms", "single_blocks")


def _head(language: Language) -> Iterator[Entry]:
    """Yield what stands before the layers."""
    n_embd, n_vocab = language.n_embd, language.n_vocab
    rows = language.facts.get("embedding_rows", n_vocab)
    yield "token_embd.weight", (n_embd, int(rows) if isinstance(rows, int) else n_vocab)
    if not language.tied_embeddings:
        yield "output.weight", (n_embd, n_vocab)
        if language.facts.get("output_bias"):
            yield "output.bias", (n_vocab,)
    yield str(language.facts.get("name.output_norm", "output_norm")) + ".weight", (n_embd,)
    if language.facts.get("norm_bias"):
        yield "output_norm.bias", (n_embd,)
    names = ("rope_freqs.weight",) if len(language.rope_factors) == 1 else _LONG_AND_SHORT
    yield from ((name, (width,)) for name, width in zip(names, language.rope_factors, strict=False))
    if language.n_embd_per_layer:
        width = language.n_embd_per_layer * language.n_layers
        yield "per_layer_token_embd.weight", (width, n_vocab)
        yield "per_layer_model_proj.weight", (n_embd, width)
        yield "per_layer_proj_norm.weight", (language.n_embd_per_layer,)
    n_copies = language.facts.get("altup")
    if isinstance(n_copies, int):
        yield "altup_proj.weight", (n_embd, n_embd, n_copies - 1)
        yield "altup_unembd_proj.weight", (n_embd, n_embd, n_copies - 1)


_LONG_AND_SHORT = ("rope_factors_long.weight", "rope_factors_short.weight")


@lru_cache(maxsize=1024)
def _layer(layer: Layer, widths: tuple[int, int], ffn_norm: str, flags: frozenset[str]) -> tuple[Entry, ...]:
    """Return the tensors of a layer; layers repeat, so what was asked once is kept."""
    n_embd, n_embd_per_layer = widths
    without = "no_pre_norms" in flags or ("optional_blocks" in flags and isinstance(layer.mixer, NoMixer))
    found: list[Entry] = [] if without else _norm("attn_norm", n_embd, flags)
    found += _mixer(layer.mixer, n_embd, ssm_norms="ssm_norms" in flags)
    if layer.post_norms:
        found.append(("post_attention_norm.weight", (n_embd,)))
    if "layer_output_scale" in flags:
        found.append(("layer_output_scale.weight", (1,)))
    if layer.ffn is not None and flags.isdisjoint(_NO_FFN_NORM):
        found += _norm(ffn_norm, n_embd, flags)
    if layer.ffn is not None:
        found += ffn_tensors(layer.ffn, n_embd)
    if layer.post_norms:
        found.append(("post_ffw_norm.weight", (n_embd,)))
    if "image_weights" in flags:
        found += [(_FOR_IMAGES[name], shape) for name, shape in found if name in _FOR_IMAGES]
    if n_embd_per_layer:
        found += [
            ("inp_gate.weight", (n_embd, n_embd_per_layer)),
            ("proj.weight", (n_embd_per_layer, n_embd)),
            ("post_norm.weight", (n_embd,)),
        ]
    return tuple(found)


def _norm(name: str, n_embd: int, flags: frozenset[str]) -> list[Entry]:
    """Return the weight of a norm, and its bias where norms have one."""
    words = ("weight", "bias") if "norm_bias" in flags else ("weight",)
    return [(f"{name}.{word}", (n_embd,)) for word in words]


def _prediction_layer(language: Language) -> Iterator[Entry]:
    """Yield the tensors of a layer for multi-token prediction: full attention and what joins it to the model."""
    kinds = [layer for layer in language.layers if isinstance(layer.mixer, Attention | LatentAttention)]
    if not kinds:
        return
    yield from layer_tensors(language, kinds[-1])
    n_embd = language.n_embd
    yield "nextn.eh_proj.weight", (2 * n_embd, n_embd)
    yield "nextn.enorm.weight", (n_embd,)
    yield "nextn.hnorm.weight", (n_embd,)
    yield "nextn.shared_head_norm.weight", (n_embd,)


def _mixer(mixer: Mixer, n_embd: int, *, ssm_norms: bool) -> Iterator[Entry]:
    match mixer:
        case Attention():
            found = _attention(mixer, n_embd)
        case LatentAttention():
            found = _latent(mixer, n_embd)
        case CrossAttention():
            found = _cross(mixer, n_embd)
        case GatedDeltaNet():
            found = _delta_net(mixer, n_embd)
        case ShortConv():
            found = _short_conv(mixer, n_embd)
        case Mamba():
            found = _mamba1(mixer, n_embd, norms=ssm_norms) if mixer.version == 1 else _mamba2(mixer, n_embd)
        case NoMixer():
            found = iter(())
        case _:
            assert_never(mixer)
    return found


def _attention(mixer: Attention, n_embd: int) -> Iterator[Entry]:
    query = mixer.n_heads * mixer.key_dim
    key, value = mixer.n_kv_heads * mixer.key_dim, mixer.n_kv_heads * mixer.value_dim
    stored_query = query * (2 if mixer.gated else 1)
    if mixer.qkv == "fused":
        yield "attn_qkv.weight", (n_embd, stored_query + key + value)
    else:
        yield "attn_q.weight", (n_embd, stored_query)
        yield "attn_k.weight", (n_embd, key)
        if mixer.value_tensor:
            yield "attn_v.weight", (n_embd, value)
    yield "attn_output.weight", (mixer.n_heads * mixer.value_dim, n_embd)
    yield from _attention_vectors(mixer, n_embd, (stored_query, key, value))


def _attention_vectors(mixer: Attention, n_embd: int, widths: tuple[int, int, int]) -> Iterator[Entry]:
    """Yield biases, query and key norms, and sinks."""
    if mixer.qkv_bias and mixer.qkv == "fused":
        yield "attn_qkv.bias", (sum(widths),)
    elif mixer.qkv_bias:
        for letter, width in zip("qkv", widths, strict=True):
            if letter != "v" or mixer.value_tensor:
                yield f"attn_{letter}.bias", (width,)
    if mixer.output_bias:
        yield "attn_output.bias", (n_embd,)
    if mixer.qk_norm != "none":
        for letter, n_heads in (("q", mixer.n_heads), ("k", mixer.n_kv_heads)):
            shapes = {"head": (mixer.key_dim,), "heads": (mixer.key_dim, n_heads), "model": (n_heads * mixer.key_dim,)}
            yield f"attn_{letter}_norm.weight", shapes[mixer.qk_norm]
    if mixer.output_gate != "none":
        yield "attn_gate.weight", (n_embd, mixer.n_heads * (mixer.value_dim if mixer.output_gate == "element" else 1))
    if mixer.sinks:
        yield "attn_sinks.weight", (mixer.n_heads,)


def _latent(mixer: LatentAttention, n_embd: int) -> Iterator[Entry]:
    n_heads, lora = mixer.n_heads, mixer.kv_lora_rank
    query = n_heads * (mixer.nope_dim + mixer.rope_dim)
    if mixer.q_lora_rank:
        yield "attn_q_a.weight", (n_embd, mixer.q_lora_rank)
        yield "attn_q_a_norm.weight", (mixer.q_lora_rank,)
        yield "attn_q_b.weight", (mixer.q_lora_rank, query)
    else:
        yield "attn_q.weight", (n_embd, query)
    yield "attn_kv_a_mqa.weight", (n_embd, lora + mixer.rope_dim)
    yield "attn_kv_a_norm.weight", (lora,)
    if mixer.absorbed:
        yield "attn_k_b.weight", (mixer.nope_dim, lora, n_heads)
        yield "attn_v_b.weight", (lora, mixer.value_dim, n_heads)
    else:
        yield "attn_kv_b.weight", (lora, n_heads * (mixer.nope_dim + mixer.value_dim))
    yield "attn_output.weight", (n_heads * mixer.value_dim, n_embd)
    if mixer.output_gate:
        yield "attn_gate.weight", (n_embd, n_heads)
    if mixer.indexer is not None and mixer.indexer.own:
        yield from _indexer(mixer.indexer, mixer.q_lora_rank, n_embd)


def _indexer(indexer: Indexer, q_lora_rank: int, n_embd: int) -> Iterator[Entry]:
    yield "indexer.k_norm.weight", (indexer.head_dim,)
    yield "indexer.k_norm.bias", (indexer.head_dim,)
    yield "indexer.proj.weight", (n_embd, indexer.n_heads)
    yield "indexer.attn_k.weight", (n_embd, indexer.head_dim)
    yield "indexer.attn_q_b.weight", (q_lora_rank, indexer.n_heads * indexer.head_dim)


def _cross(mixer: CrossAttention, n_embd: int) -> Iterator[Entry]:
    query, key = mixer.n_heads * mixer.head_dim, mixer.n_kv_heads * mixer.head_dim
    yield "cross_attn_q_proj.weight", (n_embd, query)
    yield "cross_attn_k_proj.weight", (n_embd, key)
    yield "cross_attn_v_proj.weight", (n_embd, key)
    yield "cross_attn_o_proj.weight", (query, n_embd)
    yield "cross_attn_q_norm.weight", (mixer.head_dim,)
    yield "cross_attn_k_norm.weight", (mixer.head_dim,)
    yield "cross_attn_attn_gate", (1,)
    yield "cross_attn_mlp_gate", (1,)


def _channel_delta_net(mixer: GatedDeltaNet, n_embd: int) -> Iterator[Entry]:
    n_heads, head = mixer.n_value_heads, mixer.head_dim
    inner = n_heads * head
    for letter in "qkv":
        yield f"attn_{letter}.weight", (n_embd, inner)
        yield f"ssm_conv1d_{letter}.weight", (mixer.conv_kernel, 1, inner)
    yield "ssm_f_a.weight", (n_embd, inner)
    yield "ssm_g_a.weight", (n_embd, inner)
    yield "ssm_beta.weight", (n_embd, n_heads)
    yield "ssm_a", (1, n_heads)
    yield "ssm_dt.bias", (inner,)
    yield "ssm_norm.weight", (head,)
    yield "attn_output.weight", (inner, n_embd)


def _delta_net(mixer: GatedDeltaNet, n_embd: int) -> Iterator[Entry]:
    if mixer.decay != "head":
        yield from _channel_delta_net(mixer, n_embd)
        return
    n_values, value = mixer.n_value_heads, mixer.n_value_heads * mixer.head_dim
    channels = 2 * mixer.n_key_heads * mixer.head_dim + value
    yield "attn_qkv.weight", (n_embd, channels)
    yield "attn_gate.weight", (n_embd, value)
    yield "ssm_conv1d.weight", (mixer.conv_kernel, channels)
    yield "ssm_dt.bias", (n_values,)
    yield "ssm_a", (n_values,)
    if mixer.joint_gates:
        yield "ssm_ba.weight", (n_embd, 2 * n_values)
    else:
        yield "ssm_beta.weight", (n_embd, n_values)
        yield "ssm_alpha.weight", (n_embd, n_values)
    yield "ssm_norm.weight", (mixer.head_dim,)
    yield "ssm_out.weight", (value, n_embd)


def _short_conv(mixer: ShortConv, n_embd: int) -> Iterator[Entry]:
    yield "shortconv.conv.weight", (mixer.conv_kernel, n_embd)
    yield "shortconv.in_proj.weight", (n_embd, 3 * n_embd)
    yield "shortconv.out_proj.weight", (n_embd, n_embd)


def _mamba1(mixer: Mamba, n_embd: int, *, norms: bool) -> Iterator[Entry]:
    inner, state, rank = mixer.inner_dim, mixer.state_dim, mixer.dt_rank
    yield "ssm_in.weight", (n_embd, 2 * inner)
    yield "ssm_conv1d.weight", (mixer.conv_kernel, inner)
    yield "ssm_conv1d.bias", (inner,)
    yield "ssm_x.weight", (inner, rank + 2 * state)
    if norms:
        yield "ssm_dt_norm.weight", (rank,)
    yield "ssm_dt.weight", (rank, inner)
    yield "ssm_dt.bias", (inner,)
    if norms:
        yield "ssm_b_norm.weight", (state,)
        yield "ssm_c_norm.weight", (state,)
    yield "ssm_a", (state, inner)
    yield "ssm_d", (inner,)
    yield "ssm_out.weight", (inner, n_embd)


def _mamba2(mixer: Mamba, n_embd: int) -> Iterator[Entry]:
    inner, n_heads = mixer.inner_dim, mixer.dt_rank
    channels = inner + 2 * mixer.n_groups * mixer.state_dim
    yield "ssm_in.weight", (n_embd, inner + channels + n_heads)
    yield "ssm_conv1d.weight", (mixer.conv_kernel, channels)
    yield "ssm_conv1d.bias", (channels,)
    yield "ssm_dt.bias", (n_heads,)
    yield "ssm_a", (1, n_heads)
    yield "ssm_d", (1, n_heads)
    yield "ssm_norm.weight", (inner // max(mixer.n_groups, 1), max(mixer.n_groups, 1))
    yield "ssm_out.weight", (inner, n_embd)
