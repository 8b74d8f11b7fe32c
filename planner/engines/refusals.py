"""What engines refuse at start, as predicates: each returns one line saying why, or None.

llama.cpp 0.5.0-dev: ``src/llama-context.cpp``. vLLM 0.33.0: ``config/model.py``, ``distributed/utils.py``.
LMDeploy 0.18.0: ``pytorch/config.py``, ``turbomind/builders``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from planner.model import Attention, CrossAttention, DenseFfn, Language, LatentAttention, MoeFfn
from planner.quantization import FORMATS


def quantized_v_needs_flash_attention(cache_type_v: str, flash_attn: str) -> str | None:
    """A quantised V cache with flash attention switched off (llama.cpp refuses the context; ``auto`` turns it on)."""
    if flash_attn != "off" or not FORMATS[cache_type_v].quantized:
        return None
    return f"cache_type_v {cache_type_v} needs flash attention; set flash_attn auto or on, or cache_type_v f16"


def cache_block_divides_head(language: Language, cache_type_k: str, cache_type_v: str, flash_attn: str) -> str | None:
    """A block of the cache type that does not divide a layer's head size (llama.cpp, unless flash attention is off)."""
    if flash_attn == "off":
        return None
    for side, name, dims in (("k", cache_type_k, _key_dims(language)), ("v", cache_type_v, _value_dims(language))):
        block = FORMATS[name].block_elements
        wrong = next((dim for dim in dims if dim % block), None)
        if wrong is not None:
            return f"cache_type_{side} {name} has blocks of {block}, which do not divide the head size {wrong}; use f16"
    return None


def latent_needs_equal_types(language: Language, cache_type_k: str, cache_type_v: str) -> str | None:
    """Different K and V types under latent attention (llama.cpp)."""
    latent = any(isinstance(layer.mixer, LatentAttention) for layer in language.layers)
    if not latent or cache_type_k == cache_type_v:
        return None
    asked = f"cache_type_k {cache_type_k} and cache_type_v {cache_type_v}"
    return f"latent attention (MLA) keeps K and V in one cache: {asked} must be equal"


def image_needs_ubatch(n_ubatch: int, image_tokens: int, *, non_causal: bool) -> str | None:
    """An image decoded without a causal mask must lie in one ubatch (llama.cpp asserts)."""
    if not non_causal or image_tokens <= n_ubatch:
        return None
    asked = f"ubatch_size {n_ubatch} must be at least {image_tokens}"
    return f"an image of {image_tokens} tokens is decoded in one piece: {asked}"


def heads_divide(language: Language, n_ranks: int, option: str) -> str | None:
    """Attention heads that tensor parallelism cannot share out evenly."""
    wrong = next((n for n in _head_counts(language) if n % n_ranks), None)
    if wrong is None:
        return None
    return f"{option} {n_ranks} does not divide the {wrong} attention heads; use {_divisors(wrong, n_ranks)}"


def kv_heads_divide(language: Language, n_ranks: int, option: str) -> str | None:
    """KV heads that can neither be shared out nor copied evenly."""
    for n in dict.fromkeys(_kv_head_counts(language)):
        if n % n_ranks if n >= n_ranks else n_ranks % n:
            return f"{option} {n_ranks} and {n} KV heads: one must divide the other"
    return None


def groups_divide(language: Language, group: int, n_ranks: int, option: str) -> str | None:
    """A quantised feed-forward block whose groups do not divide among the ranks (AWQ and GPTQ)."""
    for width in dict.fromkeys(_ffn_widths(language)):
        if width % n_ranks or (width // n_ranks) % group:
            said = f"{width} feed-forward inputs in groups of {group} do not divide by it"
            return f"{option} {n_ranks}: {said}; such a checkpoint runs on fewer GPUs"
    return None


def share_in_range(value: float, option: str) -> str | None:
    """A share of memory outside (0, 1)."""
    return None if 0 < value < 1 else f"{option} {value:g} must be above 0 and below 1"


def first_reasons(reasons: Iterable[str | None]) -> tuple[str, ...]:
    """Return the reasons that there are."""
    return tuple(reason for reason in reasons if reason is not None)


def _attentions(language: Language) -> Iterator[Attention | LatentAttention | CrossAttention]:
    for layer in language.layers:
        if isinstance(layer.mixer, Attention | LatentAttention | CrossAttention):
            yield layer.mixer


def _head_counts(language: Language) -> tuple[int, ...]:
    return tuple(dict.fromkeys(mixer.n_heads for mixer in _attentions(language)))


def _kv_head_counts(language: Language) -> Iterator[int]:
    return (mixer.n_kv_heads for mixer in _attentions(language) if not isinstance(mixer, LatentAttention))


def _key_dims(language: Language) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_dim(mixer, value=False) for mixer in _attentions(language)))


def _value_dims(language: Language) -> tuple[int, ...]:
    return tuple(dict.fromkeys(_dim(mixer, value=True) for mixer in _attentions(language)))


def _dim(mixer: Attention | LatentAttention | CrossAttention, *, value: bool) -> int:
    match mixer:
        case Attention():
            return mixer.value_dim if value else mixer.key_dim
        case LatentAttention():
            return mixer.kv_lora_rank + (0 if value else mixer.rope_dim)
        case CrossAttention():
            return mixer.head_dim


def _ffn_widths(language: Language) -> Iterator[int]:
    for layer in language.layers:
        match layer.ffn:
            case DenseFfn():
                yield layer.ffn.n_ff
            case MoeFfn():
                yield layer.ffn.n_ff_expert
            case None:
                pass


def _divisors(n_heads: int, at_most: int) -> str:
    found = [str(n) for n in range(1, min(at_most, n_heads) + 1) if n_heads % n == 0]
    return " or ".join(found[-2:])
