"""vLLM's terms as the items of each device and of the host."""

from __future__ import annotations

from planner.budget import DeviceBudget, Item
from planner.engines.rank_weights import RankWeights
from planner.engines.span import Span, fixed, span_item
from planner.engines.vllm.ranks import WEIGHT_SPREAD, Pool, Rank
from planner.engines.vllm.settings import Resolved, VllmSettings
from planner.machine import Machine
from planner.units import GIB

_LOGS = "ranges of published logs"


def rank_device(
    rank: Rank, pool: Pool, resolved: Resolved, stages: tuple[tuple[int, int], ...], settings: VllmSettings
) -> DeviceBudget:
    """Return one rank's GPU; its ceiling is the share, or what one request needs where the share is too small."""
    first, last = stages[rank.stage]
    pool_asked = settings.kv_cache_memory_bytes
    used = rank.share_bytes if pool_asked is None else rank.inside.high + pool_asked
    needed = rank.inside.high + pool.blocks_per_request * rank.layout.bytes_per_block
    items = (*_weight_items(rank.weights, settings), _compute_item(rank), _kv_item(rank, pool, settings))
    return DeviceBudget(
        device=rank.device,
        name=rank.gpu.name,
        total_bytes=rank.gpu.total_bytes,
        free_bytes=rank.gpu.free_bytes,
        items=(*items, *_overhead_items(rank, resolved)),
        layers=(first, last - 1) if last > first else None,
        has_output=rank.stage == len(stages) - 1,
        ceiling_bytes=max(used, needed) + rank.outside.high,
    )


def _weight_items(weights: RankWeights, settings: VllmSettings) -> list[Item]:
    offloaded = min(int(settings.cpu_offload_gb * GIB), weights.total_bytes)
    expected = max(0, weights.language_bytes + weights.rope_bytes - offloaded)
    spread = int((weights.total_bytes - offloaded) * WEIGHT_SPREAD)
    language = span_item(
        "weights",
        "language",
        Span(low=max(0, expected - spread), expected=expected, high=expected + spread),
        basis="modelled",
        formula="sharded linears / ranks + norms + embedding + output + rotary tables - offloaded",
        source="vLLM, model_executor/layers/linear.py",
        rope_bytes=weights.rope_bytes,
        offloaded_bytes=offloaded,
    )
    return [language, *vision_items(weights, "vLLM, model_executor/models/vision.py")]


def vision_items(weights: RankWeights, source: str) -> list[Item]:
    """Return the tower's item, or none where there is no tower on this rank."""
    if not weights.vision_high_bytes:
        return []
    span = Span(low=weights.vision_low_bytes, expected=weights.vision_bytes, high=weights.vision_high_bytes)
    formula = "tower and projector: block linears / ranks + the rest whole"
    return [span_item("weights", "vision", span, basis="modelled", formula=formula, source=source)]


def _compute_item(rank: Rank) -> Item:
    return span_item(
        "compute",
        "language",
        rank.compute,
        basis="modelled",
        formula="max(sampler on max_num_seqs rows, text on max_num_batched_tokens, encoder on its budget)",
        source="vLLM profiling run; sampler constant fitted to eleven logs, encoder bounded",
        resident_bytes=0,
    )


def _kv_item(rank: Rank, pool: Pool, settings: VllmSettings) -> Item:
    per_block = rank.layout.bytes_per_block
    most = max(pool.n_blocks_high, pool.blocks_per_request)
    return span_item(
        "kv_cache",
        "language",
        Span(low=pool.n_blocks_low * per_block, expected=pool.n_blocks * per_block, high=most * per_block),
        basis="modelled" if settings.kv_cache_memory_bytes is None else "exact",
        formula="blocks x bytes per block; blocks = (R - weights - peak - non-torch - graphs) / bytes per block",
        source="vLLM, v1/core/kv_cache_utils.py",
        n_blocks=pool.n_blocks,
        block_tokens=rank.layout.block_tokens,
        bytes_per_block=per_block,
        tokens=pool.tokens,
        tokens_low=pool.tokens_low,
        blocks_per_request=pool.blocks_per_request,
        max_concurrency=round(pool.concurrency, 2),
        share_bytes=rank.share_bytes,
    )


def _overhead_items(rank: Rank, resolved: Resolved) -> list[Item]:
    inside = resolved.release >= (0, 20)
    context = rank.outside if inside else rank.outside - rank.graphs
    terms = (
        ("CUDA context and communicators, outside the share", context),
        ("memory outside torch, inside the share", rank.non_torch),
        (f"CUDA graphs, {'inside' if inside else 'outside'} the share", rank.graphs),
    )
    return [_overhead(name, span) for name, span in terms if span.high]


def _overhead(name: str, span: Span) -> Item:
    return span_item("overhead", "language", span, basis="assumed", formula=name, source=_LOGS)


def host(machine: Machine, settings: VllmSettings, ranks: list[Rank], resolved: Resolved) -> DeviceBudget:
    """Return what the host holds: offloaded weights, swapped blocks of older releases, the cache of prepared items."""
    offloaded = sum(min(int(settings.cpu_offload_gb * GIB), rank.weights.total_bytes) for rank in ranks)
    swap = 4.0 if settings.swap_space is None else settings.swap_space
    swapped = int(swap * GIB) * len(ranks) if resolved.release < (0, 12) else 0
    cache = Span(low=GIB // 2, expected=2 * GIB, high=4 * GIB + int(settings.mm_processor_cache_gb * GIB))
    source = "vLLM, config/multimodal.py and config/cache.py"
    weights = span_item(
        "weights",
        "language",
        fixed(offloaded),
        basis="modelled",
        formula="cpu_offload_gb per GPU, pinned",
        source=source,
    )
    blocks = span_item(
        "kv_cache", "language", fixed(swapped), basis="modelled", formula="swap_space GiB per GPU", source=source
    )
    processes = span_item(
        "overhead",
        "language",
        cache,
        basis="assumed",
        formula="processes; mm_processor_cache_gb when full",
        source=source,
    )
    return DeviceBudget(
        device="Host",
        name="host",
        total_bytes=machine.host.total_bytes,
        free_bytes=machine.host.free_bytes,
        items=tuple(item for item in (weights, blocks, processes) if item.high_bytes),
    )
