"""Numbers of elements of the tensors that only some kinds of attention allocate, by the moments' names.

B batch, S tokens of one prompt, N = B·S, H heads, d head size. Source: transformers 5.23.0 modelling code, torch 2.13.
"""

from __future__ import annotations

from planner.engines.transformers.prefill import Prefill
from planner.engines.transformers.quantities import Quantity, embd, heads_of, key, query, scores
from planner.model import Attention, CrossAttention, GatedDeltaNet, LatentAttention, Layer
from planner.units import align


def fused_rest(p: Prefill, layer: Layer) -> int:
    """What one fused projection keeps alive beside the queries taken from it: N·(H + 2·Hkv)·d."""
    fused = isinstance(layer.mixer, Attention) and layer.mixer.qkv == "fused"
    return query(p, layer) + 2 * key(p, layer) if fused else 0


def gate(p: Prefill, layer: Layer) -> int:
    """The gate over the attention's result, where the query projection is twice as wide: N·H·d."""
    return query(p, layer) if isinstance(layer.mixer, Attention) and layer.mixer.gated else 0


def latent_row(p: Prefill, layer: Layer) -> int:
    """Compressed keys and values with their rotary part: N·(rank + rope)."""
    mixer = layer.mixer
    return p.n_rows * (mixer.kv_lora_rank + mixer.rope_dim) if isinstance(mixer, LatentAttention) else 0


def latent_rope(p: Prefill, layer: Layer) -> int:
    """The rotary part of all queries: N·H·rope."""
    mixer = layer.mixer
    return p.n_rows * mixer.n_heads * mixer.rope_dim if isinstance(mixer, LatentAttention) else 0


def latent_expanded(p: Prefill, layer: Layer) -> int:
    """Keys without rotary part and values of all heads: N·H·(nope + v)."""
    mixer = layer.mixer
    return p.n_rows * mixer.n_heads * (mixer.nope_dim + mixer.value_dim) if isinstance(mixer, LatentAttention) else 0


def delta_value(p: Prefill, layer: Layer) -> int:
    """Values of linear attention: N·Hv·d."""
    mixer = layer.mixer
    return p.n_rows * mixer.n_value_heads * mixer.head_dim if isinstance(mixer, GatedDeltaNet) else 0


def delta_channels(p: Prefill, layer: Layer) -> int:
    """Queries, keys and values of linear attention through their convolution: N·(2·Hk + Hv)·d."""
    mixer = layer.mixer
    if not isinstance(mixer, GatedDeltaNet):
        return 0
    return p.n_rows * (2 * mixer.n_key_heads + mixer.n_value_heads) * mixer.head_dim


def delta_chunked(p: Prefill, layer: Layer) -> int:
    """Values of linear attention, prompts padded to chunks of 64: B·⌈S/64⌉·64·Hv·d."""
    mixer = layer.mixer
    return delta_pairs(p, layer) // 64 * mixer.head_dim if isinstance(mixer, GatedDeltaNet) else 0


def delta_pairs(p: Prefill, layer: Layer) -> int:
    """Decay between the tokens of each chunk of 64: B·⌈S/64⌉·64·Hv·64."""
    mixer = layer.mixer
    return p.n_batch * align(p.n_tokens, 64) * mixer.n_value_heads * 64 if isinstance(mixer, GatedDeltaNet) else 0


def padded_embd(p: Prefill, layer: Layer) -> int:
    """Hidden states with padding set to zero, where the batch is padded: N·h."""
    return embd(p, layer) if p.padded else 0


def delta_heads(p: Prefill, layer: Layer) -> int:
    """One element per token and head of linear attention, prompts padded to chunks of 64."""
    return delta_pairs(p, layer) // 64


def delta_chunk(p: Prefill, layer: Layer) -> int:
    """One chunk's values of linear attention: B·64·Hv·d."""
    mixer = layer.mixer
    return p.n_batch * 64 * mixer.n_value_heads * mixer.head_dim if isinstance(mixer, GatedDeltaNet) else 0


def delta_state(p: Prefill, layer: Layer) -> int:
    """The state of linear attention: B·Hv·d²."""
    mixer = layer.mixer
    return p.n_batch * mixer.n_value_heads * mixer.head_dim**2 if isinstance(mixer, GatedDeltaNet) else 0


def layer_scores(p: Prefill, layer: Layer) -> int:
    """Scores of this layer's attention, over the text or over the tower's output."""
    return cross_scores(p, layer) if isinstance(layer.mixer, CrossAttention) else scores(p, layer)


def cross_mask(p: Prefill, _: Layer) -> int:
    """The mask of cross-attention: N positions by the tower's output."""
    return p.n_rows * p.n_cross_tokens


def aligned_cross_mask(p: Prefill, _: Layer) -> int:
    """Its copy where the rows are no multiple of 16 elements."""
    return p.n_rows * align(p.n_cross_tokens, 16) if p.n_cross_tokens % 16 else 0


def cross_scores(p: Prefill, layer: Layer) -> int:
    """Scores of cross-attention over all heads."""
    return cross_mask(p, layer) * heads_of(layer)[0]


def cross_repeated(p: Prefill, layer: Layer) -> int:
    """Keys and values of cross-attention copied out to all query heads."""
    n_heads, _, dim = heads_of(layer)
    return 2 * p.n_batch * p.n_cross_tokens * n_heads * dim


def cross_embd(p: Prefill, _: Layer) -> int:
    """The tower's output at the language model's width."""
    return p.n_batch * p.n_cross_tokens * p.language.n_embd


def per_layer_rows(p: Prefill, _: Layer) -> int:
    """One element per token and layer, where layers have embeddings of their own: N·L."""
    return p.n_rows * p.language.n_layers if p.language.n_embd_per_layer else 0


def per_layer_embd(p: Prefill, layer: Layer) -> int:
    """The embeddings of all layers: N·L·e."""
    return per_layer_rows(p, layer) * p.language.n_embd_per_layer


MIXERS: tuple[Quantity, ...] = (
    per_layer_rows,
    per_layer_embd,
    fused_rest,
    gate,
    latent_row,
    latent_rope,
    latent_expanded,
    delta_value,
    delta_channels,
    delta_chunked,
    delta_pairs,
    padded_embd,
    delta_heads,
    delta_chunk,
    delta_state,
    layer_scores,
    cross_mask,
    aligned_cross_mask,
    cross_scores,
    cross_repeated,
    cross_embd,
)
