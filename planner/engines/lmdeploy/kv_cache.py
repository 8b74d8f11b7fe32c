"""LMDeploy's KV blocks: bytes of a block on one rank, and the constant state of linear layers.

Source: LMDeploy v0.13.0 and v0.16.0, ``kernels/attention/block.h``, ``pytorch/engine/cache_engine.py``.
"""

from __future__ import annotations

from planner.engines.lmdeploy.settings import PYTORCH_KV, TURBOMIND_KV
from planner.frozen import dataclass
from planner.model import (
    Attention,
    CrossAttention,
    GatedDeltaNet,
    LatentAttention,
    Layer,
    Mamba,
    Mixer,
    NoMixer,
    ShortConv,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """Bytes of a token in all layers of one rank, and of one sequence's state in its linear layers."""

    token_bytes: int
    state_bytes: int


def cache_of(layers: tuple[Layer, ...], quant_policy: int, n_ranks: int, backend: str) -> Cache:
    """Return what one rank caches. KV heads are shared out, or copied where there are more ranks than heads."""
    table = TURBOMIND_KV if backend == "turbomind" else PYTORCH_KV
    bits, extra = table.get(quant_policy, (16, 0))
    counted: dict[Mixer, int] = {}
    for layer in layers:
        counted[layer.mixer] = counted.get(layer.mixer, 0) + 1
    token = sum(n * _token_bytes(mixer, bits, extra, n_ranks) for mixer, n in counted.items())
    state = sum(n * _state_bytes(mixer, n_ranks) for mixer, n in counted.items())
    return Cache(token_bytes=token, state_bytes=state)


def _token_bytes(mixer: Mixer, bits: int, extra: int, n_ranks: int) -> int:
    match mixer:
        case Attention() if mixer.kv_source_layer is None:
            heads = max(1, mixer.n_kv_heads // n_ranks)
            return heads * ((mixer.key_dim + mixer.value_dim) * bits // 8 + 2 * extra)
        case CrossAttention():
            return max(1, mixer.n_kv_heads // n_ranks) * (2 * mixer.head_dim * bits // 8 + 2 * extra)
        case LatentAttention():
            return (mixer.kv_lora_rank + mixer.rope_dim) * bits // 8 + extra
        case _:
            return 0


def _state_bytes(mixer: Mixer, n_ranks: int) -> int:
    match mixer:
        case GatedDeltaNet():
            n_value = mixer.n_value_heads * mixer.head_dim
            conv = mixer.conv_kernel * (2 * mixer.n_key_heads * mixer.head_dim + n_value) * 2
            return conv // n_ranks + mixer.n_value_heads * mixer.head_dim**2 * 4 // n_ranks
        case Mamba():
            return mixer.inner_dim * (mixer.state_dim * 4 + mixer.conv_kernel * 2) // n_ranks
        case ShortConv() | Attention() | CrossAttention() | LatentAttention() | NoMixer():
            return 0
