"""vLLM's paged KV cache: groups of layers, bytes of a block, blocks of a request, tokens of a pool.

Source: vLLM 0.10.2 to 0.33.0, ``v1/core/kv_cache_utils.py``, ``kv_cache_planning.py`` and ``kv_cache_interface.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from planner.engines.vllm.settings import KV_BYTES, Release
from planner.frozen import dataclass
from planner.model import Attention, CrossAttention, GatedDeltaNet, LatentAttention, Layer, Mamba, NoMixer, ShortConv

Kind = Literal["full", "sliding", "chunked", "cross", "state"]
_TURBO = {
    "turboquant_k8v4": (8, 4),
    "turboquant_4bit_nc": (4, 4),
    "turboquant_k3v4_nc": (3, 4),
    "turboquant_3bit_nc": (3, 3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """What one layer caches on one rank: bytes per token, or constant bytes of a state per sequence."""

    kind: Kind
    token_bytes: int
    window_tokens: int = 0
    state_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """How one rank's pool is cut: bytes of a block of the pool, tokens per block, and the groups that draw from it."""

    block_tokens: int
    bytes_per_block: int
    groups: tuple[LayerCache, ...]

    @property
    def bytes_per_token(self) -> float:
        """Average bytes a token takes in one group."""
        return self.bytes_per_block / self.block_tokens if self.block_tokens else 0.0


def head_bytes(kv_dtype: str, head_dim: int, n_parts: int = 2, dtype_bytes: int = 2) -> int:
    """Return the bytes of one head and token, K and V together (``n_parts`` 2)."""
    if kv_dtype in _TURBO:
        k_bits, v_bits = _TURBO[kv_dtype]
        key = head_dim if k_bits == 8 else -(-head_dim * k_bits // 8) + 2
        total = key + -(-head_dim * v_bits // 8) + 4
        return total + total % 2
    if kv_dtype == "nvfp4":
        return n_parts * (head_dim // 2 + head_dim // 16)
    if kv_dtype == "auto":
        return n_parts * head_dim * dtype_bytes
    bits, extra = KV_BYTES[kv_dtype]
    return n_parts * (head_dim * bits // 8 + extra)


def layer_caches(
    layers: Iterable[Layer], kv_dtype: str, n_ranks: int, *, hybrid: bool, dtype_bytes: int = 2
) -> list[LayerCache]:
    """Return what each layer caches on one of ``n_ranks`` ranks; layers without a cache are left out."""
    caches = (_layer_cache(layer, kv_dtype, n_ranks, hybrid=hybrid, dtype_bytes=dtype_bytes) for layer in layers)
    return [cache for cache in caches if cache is not None]


def _layer_cache(  # noqa: PLR0911 - one line per kind of layer
    layer: Layer, kv_dtype: str, n_ranks: int, *, hybrid: bool, dtype_bytes: int
) -> LayerCache | None:
    match layer.mixer:
        case Attention() as a if a.kv_source_layer is not None:
            return None
        case Attention() as a:
            slots = max(1, a.n_kv_heads // n_ranks)
            per_head = (
                head_bytes(kv_dtype, a.key_dim, 2, dtype_bytes) + head_bytes(kv_dtype, a.value_dim, 2, dtype_bytes)
            ) // 2
            token_bytes = slots * per_head
            if a.window_tokens is None or not hybrid:
                return LayerCache(kind="full", token_bytes=token_bytes)
            return LayerCache(kind=a.window_kind, token_bytes=token_bytes, window_tokens=a.window_tokens)
        case LatentAttention() as a:
            width = a.kv_lora_rank + a.rope_dim
            return LayerCache(kind="full", token_bytes=head_bytes(kv_dtype, width, 1, dtype_bytes))
        case CrossAttention() as a:
            slots = max(1, a.n_kv_heads // n_ranks)
            token_bytes = slots * head_bytes(kv_dtype, a.head_dim, 2, dtype_bytes)
            return LayerCache(kind="cross" if hybrid else "full", token_bytes=token_bytes)
        case GatedDeltaNet() as a:
            n_value = a.n_value_heads * a.head_dim
            conv = (a.conv_kernel - 1) * (2 * a.n_key_heads * a.head_dim + n_value) // n_ranks * dtype_bytes
            state = a.n_value_heads // n_ranks * a.head_dim * a.head_dim * 4
            return LayerCache(kind="state", token_bytes=0, state_bytes=conv + state)
        case Mamba() as a:
            conv = (a.conv_kernel - 1) * (a.inner_dim + 2 * a.n_groups * a.state_dim) // n_ranks * dtype_bytes
            return LayerCache(kind="state", token_bytes=0, state_bytes=conv + a.inner_dim * a.state_dim // n_ranks * 4)
        case ShortConv() | NoMixer():
            return None


def kv_layout(caches: list[LayerCache], block_tokens: int) -> KvLayout:
    """Return how a pool is cut for these layers.

    Layers of one kind form groups of equal size; every group has a page per block, so a block of the pool holds
    ``group size x page``. State layers enlarge the block until one attention page holds a state.
    """
    attention = [cache for cache in caches if cache.kind != "state"]
    states = [cache for cache in caches if cache.kind == "state"]
    if not attention:
        page = max((cache.state_bytes for cache in states), default=0)
        return KvLayout(block_tokens=block_tokens, bytes_per_block=page * len(states), groups=tuple(states[:1]))
    widest = max(cache.token_bytes for cache in attention)
    if states:
        state = max(cache.state_bytes for cache in states)
        block_tokens = 16 * -(-state // (16 * min(cache.token_bytes for cache in attention)))
    buckets: dict[LayerCache, int] = {}
    for cache in caches:
        buckets[cache] = buckets.get(cache, 0) + 1
    if len(buckets) == 1 or (not states and len({cache.kind for cache in attention}) == 1):
        total = sum(cache.token_bytes for cache in attention)
        return KvLayout(block_tokens=block_tokens, bytes_per_block=total * block_tokens, groups=(attention[0],))
    size = group_size(list(buckets.values()))
    groups = tuple(cache for cache, n in buckets.items() for _ in range(-(-n // size)))
    return KvLayout(block_tokens=block_tokens, bytes_per_block=size * widest * block_tokens, groups=groups)


def group_size(counts: list[int]) -> int:
    """Return the layers per group: the smallest bucket, or the largest where that is less than half as much again."""
    smallest, largest = min(counts), max(counts)
    return largest if largest < 1.5 * smallest else smallest


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """What a request holds beyond its window: tokens in flight, the encoder's tokens, blocks of a state layer."""

    batched_tokens: int = 0
    cross_tokens: int = 0
    state_blocks: int = 1  # two where prefixes of state layers are cached; more with speculative decoding


def request_blocks(layout: KvLayout, n_tokens: int, in_flight: InFlight) -> int:
    """Return the blocks of the pool that one request of ``n_tokens`` takes over all groups."""
    return sum(_group_blocks(group, layout.block_tokens, n_tokens, in_flight) for group in layout.groups)


def _group_blocks(group: LayerCache, block: int, n_tokens: int, in_flight: InFlight) -> int:
    match group.kind:
        case "full":
            return -(-n_tokens // block)
        case "sliding":
            return -(-min(group.window_tokens - 1 + in_flight.batched_tokens, n_tokens) // block) + 1
        case "chunked":
            return -(-min(group.window_tokens + in_flight.batched_tokens, n_tokens) // block)
        case "cross":
            return -(-in_flight.cross_tokens // block)
        case "state":
            return in_flight.state_blocks


def pool_tokens(layout: KvLayout, n_blocks: int, max_model_len: int, blocks_per_request: int, release: Release) -> int:
    """Return the "GPU KV cache size" in tokens that this release prints."""
    if release >= (0, 21) and len(layout.groups) > 1 and blocks_per_request:
        return n_blocks * max_model_len // blocks_per_request
    return n_blocks // max(1, len(layout.groups)) * layout.block_tokens


def n_blocks_of(layout: KvLayout, pool_bytes: int) -> int:
    """Return the whole blocks in a pool."""
    return max(0, pool_bytes) // layout.bytes_per_block if layout.bytes_per_block else 0
