"""Bytes of the KV cache and of recurrent state per device, allocated in full at load.

Source: llama-kv-cache.cpp, llama-kv-cache-iswa.cpp, llama-memory-recurrent.cpp (llama.cpp 0.5.0-dev); exact in
every row of the measured tables.
"""

from __future__ import annotations

from planner.engines.llama_cpp.layout import HOST, Layout
from planner.engines.llama_cpp.settings import Resolved
from planner.engines.llama_cpp.weights import stored_bytes
from planner.frozen import dataclass
from planner.model import Attention, GatedDeltaNet, Language, LatentAttention, Mamba, Mixer, NoMixer, ShortConv
from planner.units import align


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """Rows of one layer's cache: elements of a K row and of a V row (0: none), cells of a stream."""

    k_elements: int
    v_elements: int
    n_cells: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheSettings:
    """What the cache depends on beside the model."""

    resolved: Resolved
    cache_type_k: str
    cache_type_v: str
    flash_attn: bool
    offload: bool
    swa_full: bool


def window_cells(window_tokens: int, resolved: Resolved, *, swa_full: bool) -> int:
    """Return the cells of a sliding-window stream: each sequence's window plus one ubatch, padded to 256."""
    if swa_full:
        return resolved.n_ctx_seq
    n_sequences = resolved.n_seqs if resolved.kv_unified else 1
    return align(min(resolved.n_ctx_seq, window_tokens * n_sequences + resolved.n_ubatch), 256)


def cache_shape(mixer: Mixer, resolved: Resolved, *, swa_full: bool, widest_v: int | None = None) -> CacheShape | None:
    """Return the cache one layer holds, or None when it holds none.

    ``widest_v``: without flash attention the engine pads all V rows to the widest layer's.
    """
    if isinstance(mixer, LatentAttention):
        return _latent_shape(mixer, resolved.n_ctx_seq)
    if not isinstance(mixer, Attention) or mixer.kv_source_layer is not None:
        return None
    cells = resolved.n_ctx_seq
    if mixer.window_tokens is not None:
        cells = window_cells(mixer.window_tokens, resolved, swa_full=swa_full)
    v_elements = mixer.n_kv_heads * mixer.value_dim
    return CacheShape(k_elements=mixer.n_kv_heads * mixer.key_dim, v_elements=widest_v or v_elements, n_cells=cells)


def _latent_shape(mixer: LatentAttention, n_cells: int) -> CacheShape:
    if mixer.absorbed:
        return CacheShape(k_elements=mixer.kv_lora_rank + mixer.rope_dim, v_elements=0, n_cells=n_cells)
    key = mixer.n_heads * (mixer.nope_dim + mixer.rope_dim)
    return CacheShape(k_elements=key, v_elements=mixer.n_heads * mixer.value_dim, n_cells=n_cells)


def state_elements(mixer: Mixer, n_embd: int) -> tuple[int, int]:
    """Return the 32-bit elements of convolution and of recurrent state that one sequence holds in this layer."""
    if isinstance(mixer, GatedDeltaNet):
        inner = mixer.n_value_heads * mixer.head_dim
        width = inner + 2 * mixer.n_key_heads * mixer.head_dim
        return (mixer.conv_kernel - 1) * width, mixer.head_dim * inner
    if isinstance(mixer, Mamba):
        width = mixer.inner_dim + 2 * mixer.n_groups * mixer.state_dim
        return (mixer.conv_kernel - 1) * width, mixer.state_dim * mixer.inner_dim
    if isinstance(mixer, ShortConv):
        return (mixer.conv_kernel - 1) * n_embd, 0
    return 0, 0


def widest_value_row(language: Language) -> int | None:
    """Return the V elements of the widest layer where layers differ, else None."""
    widths = {
        layer.mixer.n_kv_heads * layer.mixer.value_dim
        for layer in language.layers
        if isinstance(layer.mixer, Attention)
    }
    if _keeps_empty_layers(language):
        widths.add(0)
    return max(widths) if len(widths) > 1 else None


def _keeps_empty_layers(language: Language) -> bool:
    """Whether the cache counts layers without attention: their rows are empty unless padded to the widest layer's."""
    without = any(isinstance(layer.mixer, NoMixer) for layer in language.layers)
    return bool(language.facts.get("optional_blocks")) and without


def kv_cache_bytes(language: Language, layout: Layout, cache: CacheSettings) -> dict[int, int]:
    """Return the bytes of KV cache and recurrent state per device (``HOST`` included)."""
    totals = dict.fromkeys((*range(layout.n_gpus), HOST), 0)
    widest_v = None if cache.flash_attn else widest_value_row(language)
    known: dict[tuple[int, bool], int] = {}  # layers of one kind share their description
    for index, layer in enumerate(language.layers):
        device = layout.slots[index] if cache.offload else HOST
        key = id(layer.mixer), device != HOST
        if key not in known:
            known[key] = layer_cache_bytes(layer.mixer, language.n_embd, cache, widest_v, on_gpu=device != HOST)
            if widest_v and isinstance(layer.mixer, NoMixer) and language.facts.get("optional_blocks"):
                rows = widest_v, cache.resolved.n_ctx_seq, cache.resolved.n_streams
                known[key] += stored_bytes(cache.cache_type_v, rows, on_gpu=device != HOST)
        totals[device] += known[key]
    return totals


def layer_cache_bytes(
    mixer: Mixer, n_embd: int, cache: CacheSettings, widest_v: int | None = None, *, on_gpu: bool = True
) -> int:
    """Return what one layer's cache or state takes on its device."""
    total = sum(
        align(4 * n_elements * cache.resolved.n_seqs, 128) for n_elements in state_elements(mixer, n_embd) if n_elements
    )
    shape = cache_shape(mixer, cache.resolved, swa_full=cache.swa_full, widest_v=widest_v)
    if shape is None:
        return total
    n_cells, n_streams = shape.n_cells, cache.resolved.n_streams
    if isinstance(mixer, LatentAttention) and mixer.indexer is not None and mixer.indexer.own:
        total += stored_bytes(cache.cache_type_k, (mixer.indexer.head_dim, n_cells, n_streams), on_gpu=on_gpu)
    for format_name, n_elements in ((cache.cache_type_k, shape.k_elements), (cache.cache_type_v, shape.v_elements)):
        if n_elements:
            total += stored_bytes(format_name, (n_elements, n_cells, n_streams), on_gpu=on_gpu)
    return total
