"""The KV cache that a prompt leaves behind, layer by layer.

Source: transformers 5.23.0, ``cache_utils.DynamicCache``.
"""

from __future__ import annotations

from collections.abc import Iterable

from planner.engines.transformers.prefill import Prefill
from planner.model import Attention, CrossAttention, GatedDeltaNet, LatentAttention, Layer, Mamba, NoMixer, ShortConv


def layer_cache_bytes(  # noqa: PLR0911 - one return per kind of layer
    p: Prefill, layer: Layer, n_tokens: int, *, whole_window: bool = False
) -> int:
    """Return the cache bytes of one layer for ``n_batch`` sequences of ``n_tokens``.

    Full attention: 2·Hkv·d per token. Sliding: the last window - 1 tokens count, though until the first decode step
    the views keep the whole prompt alive (``whole_window``). Chunked: the same with the chunk. Cross-attention: the
    tower's output, whatever the text. Latent attention: the compressed row, or (modelling code that comes
    with the checkpoint) expanded keys and values. Linear attention and state spaces:
    their state in 32 bit. A layer that reads another layer's cache has none.
    """
    mixer = layer.mixer
    match mixer:
        case Attention():
            if mixer.kv_source_layer is not None:
                return 0
            kept = n_tokens if whole_window else _kept_tokens(mixer, n_tokens)
            return p.n_batch * kept * mixer.n_kv_heads * (mixer.key_dim + mixer.value_dim) * p.element_bytes
        case CrossAttention():
            return 2 * p.n_batch * p.n_cross_tokens * mixer.n_kv_heads * mixer.head_dim * p.element_bytes
        case LatentAttention():
            expanded = mixer.n_heads * (mixer.nope_dim + mixer.rope_dim + mixer.value_dim)
            width = mixer.kv_lora_rank + mixer.rope_dim if p.form.known else expanded
            return p.n_batch * n_tokens * width * p.element_bytes
        case GatedDeltaNet():
            state = mixer.n_value_heads * mixer.head_dim**2 * 4
            channels = (2 * mixer.n_key_heads + mixer.n_value_heads) * mixer.head_dim
            return p.n_batch * (state + channels * mixer.conv_kernel * p.element_bytes)
        case ShortConv():
            return p.n_batch * p.language.n_embd * mixer.conv_kernel * p.element_bytes
        case Mamba():
            channels = mixer.inner_dim + 2 * mixer.n_groups * mixer.state_dim
            return p.n_batch * (mixer.inner_dim * mixer.state_dim + channels * mixer.conv_kernel) * p.element_bytes
        case NoMixer():
            return 0


def _kept_tokens(mixer: Attention, n_tokens: int) -> int:
    if mixer.window_tokens is None:
        return n_tokens
    return min(n_tokens, mixer.window_tokens - 1)


def kv_cache_bytes(p: Prefill, indices: Iterable[int], n_tokens: int) -> int:
    """Return the cache of the layers ``indices`` once each sequence has ``n_tokens``."""
    return sum(layer_cache_bytes(p, p.language.layers[i], n_tokens) for i in indices)


def held_cache_bytes(p: Prefill, indices: Iterable[int]) -> int:
    """Return what the layers ``indices`` hold during the prefill, windows not yet cut."""
    layers = (p.language.layers[i] for i in indices)
    return sum(layer_cache_bytes(p, layer, p.n_tokens, whole_window=True) for layer in layers)
