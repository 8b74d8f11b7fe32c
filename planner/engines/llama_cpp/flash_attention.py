"""What ``--flash-attn auto`` settles on.

The engine builds the graph with flash attention and keeps it if every such operation can run on its layer's device; a
quantised V cache switches it on whatever the device. Source: llama-context.cpp (``auto_fa``), llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from planner.engines.llama_cpp.backend import head_sizes_supported
from planner.engines.llama_cpp.layout import HOST, Layout
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.model import Attention, Language, LatentAttention, Mixer
from planner.quantization import FORMATS


def flash_attn_used(language: Language, settings: LlamaCppSettings, layout: Layout) -> bool:
    """Return whether attention runs as one operation in the end."""
    if settings.flash_attn != "auto":
        return settings.flash_attn == "on"
    if FORMATS[settings.cache_type_v].quantized:
        return True
    on_gpu = {layer.mixer for layer, device in zip(language.layers, layout.slots, strict=False) if device != HOST}
    return all(mixer_supported(mixer) for mixer in on_gpu)


def mixer_supported(mixer: Mixer) -> bool:
    """Whether CUDA runs flash attention for a layer's head sizes; layers without attention have nothing to refuse."""
    if isinstance(mixer, LatentAttention):
        if mixer.absorbed:
            key, value, grouped = mixer.kv_lora_rank + mixer.rope_dim, mixer.kv_lora_rank, mixer.n_heads
        else:
            key, value, grouped = mixer.nope_dim + mixer.rope_dim, mixer.value_dim, 1
        return head_sizes_supported(key, value, grouped, may_group=grouped > 1)
    if isinstance(mixer, Attention):
        grouped = mixer.n_heads // mixer.n_kv_heads
        return head_sizes_supported(mixer.key_dim, mixer.value_dim, grouped, may_group=grouped > 1)
    return True
