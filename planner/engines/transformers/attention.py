"""Which kernel takes a layer's attention, and which masks are built.

Flash wants 16 bit, no mask and heads up to 256; the memory efficient kernel takes masks but no grouped heads; what
neither takes is computed in full. Source: transformers 5.23.0 ``masking_utils`` and ``integrations/sdpa_attention``,
torch 2.13 ``sdp_utils``.
"""

from __future__ import annotations

from typing import Literal

from planner.engines.transformers.prefill import Prefill
from planner.engines.transformers.quantities import heads_of
from planner.engines.transformers.settings import AttentionImplementation
from planner.model import Attention, LatentAttention, Layer, Mixer

Path = Literal["flash", "efficient", "masked", "math", "eager", "fa2"]
FLASH_MAX_HEAD = 256


def attention_path(p: Prefill, layer: Layer, implementation: AttentionImplementation) -> Path:
    """Return the kernel that computes ``layer``'s attention in this prefill."""
    if implementation == "eager":
        return "eager"
    if implementation == "flash_attention_2":
        return "fa2"
    if has_mask(p, layer):
        return "masked"  # keys and values are repeated to all heads beforehand
    n_heads, n_kv_heads, dim = heads_of(layer)
    if dim > FLASH_MAX_HEAD or isinstance(layer.mixer, LatentAttention):
        return "efficient"  # repeated here, too: no kernel takes grouped heads of that size
    if p.element_bytes == 2:
        return "flash"
    return "math" if n_heads != n_kv_heads else "efficient"


def has_mask(p: Prefill, layer: Layer) -> bool:
    """Whether sdpa gets a mask: padding, image tokens that see each other, or a window shorter than the prompt."""
    return _masked_throughout(p) or _masked_window(p, window_of(layer.mixer))


def window_of(mixer: Mixer) -> int | None:
    """Return the tokens of a sliding window, None for layers that see the whole prompt."""
    return mixer.window_tokens if isinstance(mixer, Attention) else None


def _masked_window(p: Prefill, window: int | None) -> bool:
    """Whether a layer with that window gets a mask of its own."""
    if window is None:
        return False
    return p.n_tokens > window or (p.form.masked_with_images == "windowed" and p.n_images > 0)


def mask_bytes(p: Prefill, implementation: AttentionImplementation) -> int:
    """Return the bytes of the masks that stay for all layers: B·S² each, added (eager) or boolean (sdpa)."""
    one = p.n_rows * p.n_tokens
    if implementation == "flash_attention_2":
        return 0
    if implementation == "eager":
        return one * p.form.masks * p.element_bytes
    kinds = {layer.mixer.window_tokens for layer in p.language.layers if isinstance(layer.mixer, Attention)}
    windowed = sum(1 for window in kinds if _masked_window(p, window))
    return one * (p.form.masks if _masked_throughout(p) else windowed)


def _masked_throughout(p: Prefill) -> bool:
    return p.padded or (p.form.masked_with_images == "always" and p.n_images > 0)
