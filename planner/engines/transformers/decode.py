"""The peak of one decode step beside the cache: what a layer copies while it attends to one token more.

Source: transformers 5.23.0, ``cache_utils`` and ``integrations/sdpa_attention``; torch 2.13 operators; storages of
decode steps followed.
"""

from __future__ import annotations

from dataclasses import replace

from planner.engines.transformers.attention import attention_path
from planner.engines.transformers.kv_cache import layer_cache_bytes
from planner.engines.transformers.prefill import Prefill
from planner.engines.transformers.quantities import heads_of
from planner.engines.transformers.settings import AttentionImplementation
from planner.engines.transformers.weights import ffn_width
from planner.model import Attention, CrossAttention, LatentAttention, Layer
from planner.units import MIB

SOFTMAX_BYTES = 10  # scores in 16 bit with their copy in 32 bit and the result; 32 bit has 8
MATH_BYTES = 13  # scores, softmax and result in 32 bit, with a mark for each
STATES = 3  # copies of a recurrent state


def decode_step_bytes(p: Prefill, implementation: AttentionImplementation, n_tokens: int) -> int:
    """Return a bound of a decode step's peak beside the cache, once each sequence has ``n_tokens``.

    The larger of what a layer copies with one token's activations, and the logits with their copy in 32 bit.
    """
    at_length = replace(p, n_tokens=n_tokens)
    layers = max((_layer_bytes(at_length, implementation, layer) for layer in p.language.layers), default=0)
    width = max((ffn_width(layer) for layer in p.language.layers), default=0)
    token = (8 * p.language.n_embd + 4 * width) * p.element_bytes
    inputs = n_tokens * (8 + 2 * p.element_bytes)  # the mask given, and one for each kind of layer
    rows = sum(_row(p, layer) for layer in p.language.layers)
    head = p.n_batch * p.language.n_vocab * (p.element_bytes + 4)
    return max(layers, head) + rows + p.n_batch * (token + inputs) + MIB


def _layer_bytes(p: Prefill, implementation: AttentionImplementation, layer: Layer) -> int:
    """What one layer copies: its cache one token longer (growth), or keys and values for all heads (attention)."""
    return max(_growth(p, layer), _attention(p, implementation, layer))


def _growth(p: Prefill, layer: Layer) -> int:
    """Keys are copied one token longer while the old ones live, then values; layers with a window copy both first.

    A recurrent state is copied whole. Cross-attention does not grow: half of it is a bound.
    """
    mixer = layer.mixer
    held = layer_cache_bytes(p, layer, p.n_tokens)
    if isinstance(mixer, LatentAttention):
        return held
    if isinstance(mixer, CrossAttention):
        return held // 2
    if not isinstance(mixer, Attention):
        return STATES * held
    return held + _row(p, layer) if mixer.window_tokens is not None else held // 2


def _row(p: Prefill, layer: Layer) -> int:
    """Return one token's keys and values where the layer has a window: its storage is one row longer than the cache."""
    windowed = isinstance(layer.mixer, Attention) and layer.mixer.window_tokens is not None
    return layer_cache_bytes(p, layer, 1, whole_window=True) if windowed else 0


def _attention(p: Prefill, implementation: AttentionImplementation, layer: Layer) -> int:
    mixer = layer.mixer
    n_heads, n_kv_heads, dim = heads_of(layer)
    path = attention_path(p, layer, implementation)
    window = mixer.window_tokens if isinstance(mixer, Attention) else None
    seen = p.n_cross_tokens if isinstance(mixer, CrossAttention) else min(p.n_tokens, window or p.n_tokens)
    rows = p.n_batch * n_heads * seen
    scores = rows * {"eager": SOFTMAX_BYTES, "math": MATH_BYTES}.get(path, 0)
    if isinstance(mixer, LatentAttention):
        expanded = (mixer.nope_dim + mixer.value_dim) + (mixer.nope_dim + mixer.rope_dim)
        if path == "eager" and p.n_batch > 1:
            expanded += mixer.value_dim  # values lie between keys: several sequences of them are copied out to multiply
        return rows * expanded * p.element_bytes + scores
    if n_heads == n_kv_heads:
        return scores
    copies = {"math": 3, "eager": 2}.get(path, 0)
    if path == "eager" and n_kv_heads == 1:
        copies = int(p.n_batch > 1)  # seen by all heads as it lies; several sequences are copied out to multiply
    return copies * rows * dim * p.element_bytes + scores
