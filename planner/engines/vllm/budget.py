"""A model, a machine and a workload under vLLM → bytes per device.

``R = ceil(total x gpu_memory_utilization)`` is filled: weights, what the profiling run saw outside and inside torch,
from 0.20 an estimate of the CUDA graphs, and a KV pool from the rest. Outside R stand the CUDA context, from 0.11 the
communicators, and before 0.20 the graphs. Source: vLLM 0.10.2 to 0.33.0, ``v1/worker/{utils,gpu_worker}.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from planner.budget import Budget, DeviceBudget, ImageTokens, Item
from planner.engines.largest_image import EncoderItem, largest_image
from planner.engines.vllm.rules import VllmRules, refusals as start_refusals
from planner.engines.vllm.kv_cache import KvLayout, kv_layout, layer_caches, n_blocks_of, pool_tokens, request_blocks
from planner.engines.vllm.profile import (
    Span,
    encoder_items,
    encoder_span,
    fixed,
    graph_span,
    largest,
    sampler_span,
    text_span,
)
from planner.engines.vllm.settings import Resolved, VllmSettings, resolve, shown
from planner.engines.vllm.weights import RankWeights, rank_weights, stage_layers
from planner.engines.weight_formats import UNQUANTIZED, weight_format
from planner.machine import Gpu, Machine
from planner.model import Model

from planner.units import GIB, MIB, format_bytes
from planner.vision import image_tokens
from planner.workload import Workload

SOURCE = "vLLM, v1/worker/gpu_worker.py"
WEIGHT_SPREAD = 0.012  # four of 29 published loads are off by 1.0 to 3.1 %, the rest within 0.5 %
CONTEXT = Span(low=250 * MIB, expected=400 * MIB, high=640 * MIB)  # CUDA context with torch, before the snapshot
ONE_RANK = Span(low=10 * MIB, expected=90 * MIB, high=250 * MIB)  # logs at one GPU: 0.01 to 0.14 GiB
MORE_RANKS = Span(low=100 * MIB, expected=450 * MIB, high=1024 * MIB)  # logs at two to four: 0.12 to 0.73 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One rank's terms before the pool is sized. ``share_bytes`` is R."""

    gpu: Gpu
    device: str
    stage: int
    weights: RankWeights
    layout: KvLayout
    share_bytes: int
    inside: Span  # everything in R but the pool
    outside: Span
    compute: Span
    non_torch: Span
    graphs: Span

    def pool_bytes(self, inside_bytes: int) -> int:
        """Return what is left of R for the pool."""
        return self.share_bytes - inside_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The KV pool over all ranks: every rank takes the smallest number of blocks."""

    n_blocks_low: int
    n_blocks: int
    n_blocks_high: int
    tokens: int
    tokens_low: int
    blocks_per_request: int
    concurrency: float
    bytes_per_token: float


NO_RULES = VllmRules()


def budget(
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: VllmSettings,
    version: str,
    rules: VllmRules = NO_RULES,
) -> Budget:  # noqa: PLR0913 - the engine's whole question
    """Return the bytes of each GPU, with what the engine would refuse at start.

    Raises:
        UsageError: an impossible setting or version.
    """
    gpus = machine.gpus
    if not gpus:
        return Budget(devices=(), refusals=("vLLM needs a GPU; this machine has none",))
    resolved = resolve(settings, workload, _poorest(gpus, settings), version)
    refusals = list(start_refusals(model, settings, resolved, version, rules))
    if resolved.n_ranks > len(gpus):
        asked = f"tensor_parallel_size {resolved.n_tensor_ranks} x pipeline_parallel_size {resolved.n_pipeline_ranks}"
        return Budget(devices=(), refusals=(*refusals, f"{asked} needs {resolved.n_ranks} GPUs; there are {len(gpus)}"))
    ranks = ranks_of(model, workload, machine, settings, resolved)
    pool = pool_of(model, workload, ranks, settings, resolved)
    refusals += _pool_refusals(workload, ranks, pool, resolved)
    devices = tuple(
        _device(rank, pool, resolved, stage_layers(model.language.n_layers, resolved.n_pipeline_ranks), settings)
        for rank in ranks
    )
    return Budget(
        devices=(*devices, _host(machine, settings, ranks, resolved)),
        image_tokens=images_of(model, workload),
        settings=shown(settings, resolved),
        notes=_notes(workload, pool, resolved, settings),
        refusals=tuple(refusals),
    )


def _poorest(gpus: tuple[Gpu, ...], settings: VllmSettings) -> Gpu:
    n_ranks = max(1, settings.tensor_parallel_size * settings.pipeline_parallel_size)
    return min(gpus[:n_ranks], key=lambda gpu: gpu.total_bytes)


def ranks_of(
    model: Model, workload: Workload, machine: Machine, settings: VllmSettings, resolved: Resolved
) -> list[Rank]:
    """Return every rank: pipeline stages outermost, tensor ranks within."""
    compute = profile_span(model, workload, settings, resolved)
    ranks = []
    for index in range(resolved.n_ranks):
        stage = index // resolved.n_tensor_ranks
        ranks.append(_rank(model, machine.gpus[index], index, stage, compute, settings, resolved))
    return ranks


def _rank(
    model: Model, gpu: Gpu, index: int, stage: int, compute: Span, settings: VllmSettings, resolved: Resolved
) -> Rank:  # noqa: PLR0913 - one rank's circumstances
    n_ranks, n_stages = resolved.n_tensor_ranks, resolved.n_pipeline_ranks
    weights = rank_weights(
        model,
        stage=stage,
        n_stages=n_stages,
        n_ranks=n_ranks,
        format_name=_format(model, settings),
        dtype_bytes=resolved.dtype_bytes,
        vision=has_tower(model, settings) and (stage == 0 or resolved.release < (0, 33)),
        data_parallel=settings.mm_encoder_tp_mode == "data",
    )
    first, last = stage_layers(model.language.n_layers, n_stages)[stage]
    caches = layer_caches(
        model.language.layers[first:last],
        settings.kv_cache_dtype,
        n_ranks,
        hybrid=hybrid(settings, resolved),
        dtype_bytes=resolved.dtype_bytes,
    )
    graphs = graph_span(last - first, enforce_eager=settings.enforce_eager)
    non_torch = ONE_RANK if resolved.n_ranks == 1 else MORE_RANKS
    estimated = graphs if resolved.release >= (0, 20) else fixed(0)
    offloaded = min(int(settings.cpu_offload_gb * GIB), weights.total_bytes)
    inside = weight_span(weights, offloaded) + compute + estimated
    outside = CONTEXT + (fixed(0) if resolved.release >= (0, 20) else graphs)
    if resolved.n_ranks > 1 and resolved.release >= (0, 11):
        outside, non_torch = outside + MORE_RANKS, ONE_RANK
    share = math.ceil(gpu.total_bytes * resolved.gpu_memory_utilization)
    return Rank(
        gpu=gpu,
        device=f"CUDA{index}",
        stage=stage,
        weights=weights,
        layout=kv_layout(caches, resolved.block_tokens),
        share_bytes=share,
        inside=inside + non_torch,
        outside=outside,
        compute=compute,
        non_torch=non_torch,
        graphs=graphs,
    )


def has_tower(model: Model, settings: VllmSettings) -> bool:
    """Whether the vision tower is loaded: not for text only, nor where every kind of item is limited to none."""
    limits = settings.limit_mm_per_prompt
    none_asked = bool(limits) and "image" in (limits or {}) and not any((limits or {}).values())
    return model.vision is not None and not settings.language_model_only and not none_asked


def hybrid(settings: VllmSettings, resolved: Resolved) -> bool:
    """Whether windowed layers have groups of their own; before 0.10 they are stored as full attention."""
    return not settings.disable_hybrid_kv_cache_manager and resolved.release >= (0, 10)


def weight_span(weights: RankWeights, offloaded_bytes: int = 0) -> Span:
    """Return the rank's weights with the spread that published loads show."""
    expected = weights.total_bytes - offloaded_bytes
    spread = int(expected * WEIGHT_SPREAD)
    return Span(
        low=max(0, expected - spread - (weights.vision_bytes - weights.vision_low_bytes)),
        expected=expected,
        high=expected + spread + weights.vision_high_bytes - weights.vision_bytes,
    )


def profile_span(model: Model, workload: Workload, settings: VllmSettings, resolved: Resolved) -> Span:
    """Return the peak of the profiling run."""
    spans = [sampler_span(model.language, resolved), text_span(model.language, resolved)]
    item = largest_item(model, settings)
    if item is not None and model.vision is not None and not settings.skip_mm_profiling:
        limit = (settings.limit_mm_per_prompt or {}).get("image", 999 if resolved.release >= (0, 10) else 1)
        n_items = encoder_items(item, resolved, max(limit, len(workload.images)))
        spans.append(encoder_span(model.vision, model.language, item, n_items))
    return largest(spans)


def largest_item(model: Model, settings: VllmSettings) -> EncoderItem | None:
    """Return the largest image a request may hold, as its processor's limits stand."""
    return largest_image(model, settings.mm_processor_kwargs or {}) if has_tower(model, settings) else None


def pool_of(model: Model, workload: Workload, ranks: list[Rank], settings: VllmSettings, resolved: Resolved) -> Pool:
    """Return the pool: the fewest blocks any rank has, and what they hold."""
    low, expected, high = (
        min(_blocks(rank, which, settings) for rank in ranks) for which in ("high", "expected", "low")
    )
    layout = ranks[0].layout
    needed = max(request_blocks_of(model, workload, rank.layout, resolved, resolved.max_model_len) for rank in ranks)
    usable = max(0, expected - (1 if resolved.release >= (0, 33) else 0))
    return Pool(
        n_blocks_low=low,
        n_blocks=expected,
        n_blocks_high=high,
        tokens=pool_tokens(layout, expected, resolved.max_model_len, needed, resolved.release),
        tokens_low=pool_tokens(layout, low, resolved.max_model_len, needed, resolved.release),
        blocks_per_request=needed,
        concurrency=usable / needed if needed else 0.0,
        bytes_per_token=layout.bytes_per_token,
    )


def request_blocks_of(model: Model, workload: Workload, layout: KvLayout, resolved: Resolved, n_tokens: int) -> int:
    """Return the blocks one request of ``n_tokens`` needs."""
    cross = sum(t.cross_tokens or 0 for t in images_of(model, workload))
    return request_blocks(layout, n_tokens, batched_tokens=resolved.max_num_batched_tokens, cross_tokens=cross)


def images_of(model: Model, workload: Workload) -> tuple[ImageTokens, ...]:
    """Return the tokens of each image of one request, by the model's own processor."""
    if not workload.images or model.vision is None or "processor" not in model.vision.rules:
        return ()
    return tuple(image_tokens(model.vision, size, "vllm") for size in workload.images)


def _blocks(rank: Rank, which: str, settings: VllmSettings) -> int:
    pool = settings.kv_cache_memory_bytes
    return n_blocks_of(rank.layout, rank.pool_bytes(getattr(rank.inside, which)) if pool is None else pool)


def _format(model: Model, settings: VllmSettings) -> str:
    if settings.quantization is not None:
        return weight_format(settings.quantization)
    if model.quantization is not None and model.quantization.lower() not in UNQUANTIZED:
        return weight_format(model.quantization)
    return "bf16" if settings.dtype not in {"float", "float32"} else "fp32"


def _pool_refusals(workload: Workload, ranks: list[Rank], pool: Pool, resolved: Resolved) -> list[str]:
    """What the start check says, judged on the low side of the pool; and the load that the pool must hold at once."""
    found = []
    for rank in ranks:
        free_after_context = rank.gpu.free_bytes - rank.outside.high
        if free_after_context < rank.share_bytes:
            said = (
                f"gpu_memory_utilization {resolved.gpu_memory_utilization:g} asks for {format_bytes(rank.share_bytes)}"
            )
            found.append(
                f"{rank.device}: {said}, with the CUDA context {format_bytes(rank.share_bytes + rank.outside.high)}; {format_bytes(rank.gpu.free_bytes)} is free"
            )
    if pool.n_blocks_low < pool.blocks_per_request:
        missing = (pool.blocks_per_request - pool.n_blocks_low) * ranks[0].layout.bytes_per_block
        found.append(
            f"the KV pool may be {format_bytes(missing)} too small for one request of max_model_len {resolved.max_model_len}; "
            "raise gpu_memory_utilization, or lower max_model_len or max_num_seqs"
        )
    elif (
        pool.tokens_low < workload.sequences * workload.context_tokens
        and pool.n_blocks_low < workload.sequences * pool.blocks_per_request
    ):
        found.append(
            f"the KV pool holds {pool.n_blocks_low // pool.blocks_per_request} requests of {resolved.max_model_len} tokens at once, "
            f"{workload.sequences} were asked for; the others would wait"
        )
    return found


def _device(
    rank: Rank, pool: Pool, resolved: Resolved, stages: tuple[tuple[int, int], ...], settings: VllmSettings
) -> DeviceBudget:
    items = [
        *_weight_items(rank, settings),
        _compute_item(rank),
        _kv_item(rank, pool, settings),
        *_overhead_items(rank, resolved),
    ]
    first, last = stages[rank.stage]
    used = (
        rank.share_bytes
        if settings.kv_cache_memory_bytes is None
        else rank.inside.high + settings.kv_cache_memory_bytes
    )
    return DeviceBudget(
        device=rank.device,
        name=rank.gpu.name,
        total_bytes=rank.gpu.total_bytes,
        free_bytes=rank.gpu.free_bytes,
        items=tuple(items),
        layers=(first, last - 1) if last > first else None,
        has_output=rank.stage == len(stages) - 1,
        ceiling_bytes=max(used, rank.inside.high + pool.blocks_per_request * rank.layout.bytes_per_block)
        + rank.outside.high,
    )


def _weight_items(rank: Rank, settings: VllmSettings) -> list[Item]:
    w = rank.weights
    offloaded = min(int(settings.cpu_offload_gb * GIB), w.total_bytes)
    expected = max(0, w.language_bytes + w.rope_bytes - offloaded)
    spread = int((w.total_bytes - offloaded) * WEIGHT_SPREAD)
    items = [
        Item(
            component="weights",
            part="language",
            resident_bytes=expected,
            low_bytes=max(0, expected - spread),
            expected_bytes=expected,
            high_bytes=expected + spread,
            basis="modelled",
            formula="sharded linears / ranks + norms + embedding + output + rotary tables - offloaded",
            source="vLLM, model_executor/layers/linear.py",
            inputs={"rope_bytes": w.rope_bytes, "offloaded_bytes": offloaded},
        )
    ]
    if w.vision_high_bytes:
        items.append(
            Item(
                component="weights",
                part="vision",
                resident_bytes=w.vision_bytes,
                low_bytes=w.vision_low_bytes,
                expected_bytes=w.vision_bytes,
                high_bytes=w.vision_high_bytes,
                basis="modelled",
                formula="tower and projector: block linears / ranks + the rest whole",
                source="vLLM, model_executor/models/vision.py",
            )
        )
    return items


def _compute_item(rank: Rank) -> Item:
    return Item(
        component="compute",
        part="language",
        resident_bytes=0,
        low_bytes=rank.compute.low,
        expected_bytes=rank.compute.expected,
        high_bytes=rank.compute.high,
        basis="modelled",
        formula="max(sampler on max_num_seqs rows, text on max_num_batched_tokens, encoder on its budget)",
        source="vLLM profiling run; sampler constant fitted to eleven logs, encoder bounded",
    )


def _kv_item(rank: Rank, pool: Pool, settings: VllmSettings) -> Item:
    per_block = rank.layout.bytes_per_block
    return Item(
        component="kv_cache",
        part="language",
        resident_bytes=pool.n_blocks * per_block,
        low_bytes=pool.n_blocks_low * per_block,
        expected_bytes=pool.n_blocks * per_block,
        high_bytes=max(pool.n_blocks_high, pool.blocks_per_request) * per_block,
        basis="modelled" if settings.kv_cache_memory_bytes is None else "exact",
        formula="blocks x bytes per block; blocks = (R - weights - peak - non-torch - graphs) / bytes per block",
        source="vLLM, v1/core/kv_cache_utils.py",
        inputs={
            "n_blocks": pool.n_blocks,
            "block_tokens": rank.layout.block_tokens,
            "bytes_per_block": per_block,
            "tokens": pool.tokens,
            "tokens_low": pool.tokens_low,
            "blocks_per_request": pool.blocks_per_request,
            "max_concurrency": round(pool.concurrency, 2),
            "share_bytes": rank.share_bytes,
        },
    )


def _overhead_items(rank: Rank, resolved: Resolved) -> list[Item]:
    graphs = "inside" if resolved.release >= (0, 20) else "outside"
    terms = [
        (
            "CUDA context and communicators, outside the share",
            _minus(rank.outside, rank.graphs) if graphs == "outside" else rank.outside,
        )
    ]
    terms += [
        ("memory outside torch, inside the share", rank.non_torch),
        (f"CUDA graphs, {graphs} the share", rank.graphs),
    ]
    return [
        Item(
            component="overhead",
            part="language",
            resident_bytes=span.expected,
            low_bytes=span.low,
            expected_bytes=span.expected,
            high_bytes=span.high,
            basis="assumed",
            formula=name,
            source="ranges of published logs",
        )
        for name, span in terms
        if span.high
    ]


def _minus(whole: Span, part: Span) -> Span:
    return Span(low=whole.low - part.low, expected=whole.expected - part.expected, high=whole.high - part.high)


def _host(machine: Machine, settings: VllmSettings, ranks: list[Rank], resolved: Resolved) -> DeviceBudget:
    offloaded = sum(min(int(settings.cpu_offload_gb * GIB), rank.weights.total_bytes) for rank in ranks)
    swap = (settings.swap_space if settings.swap_space is not None else 4.0) if resolved.release < (0, 12) else 0.0
    terms = [
        ("weights", "cpu_offload_gb of weights per GPU, pinned", offloaded, offloaded, "modelled"),
        ("kv_cache", "swap_space GiB per GPU", int(swap * GIB) * len(ranks), int(swap * GIB) * len(ranks), "modelled"),
        (
            "overhead",
            "item cache (mm_processor_cache_gb) when full; processes",
            2 * GIB,
            4 * GIB + int(settings.mm_processor_cache_gb * GIB),
            "assumed",
        ),
    ]
    items = tuple(
        Item(
            component=component,  # type: ignore[arg-type]
            part="language",
            resident_bytes=expected,
            low_bytes=0 if basis == "assumed" else expected,
            expected_bytes=expected,
            high_bytes=high,
            basis=basis,  # type: ignore[arg-type]
            formula=formula,
            source="vLLM, config/multimodal.py and config/cache.py",
        )
        for component, formula, expected, high, basis in terms
        if high
    )
    return DeviceBudget(
        device="Host",
        name="host",
        total_bytes=machine.host.total_bytes,
        free_bytes=machine.host.free_bytes,
        items=items,
    )


def _notes(workload: Workload, pool: Pool, resolved: Resolved, settings: VllmSettings) -> tuple[str, ...]:
    held = f"KV pool: {pool.tokens} tokens expected, at least {pool.tokens_low}"
    notes = [f"{held}; {pool.concurrency:.2f} requests of {resolved.max_model_len} tokens at once"]
    if settings.max_model_len is None:
        notes.append(
            f"max_model_len is set to the context asked, {workload.context_tokens} tokens; vLLM's own default is the model's"
        )
    if settings.skip_mm_profiling:
        notes.append(
            "skip_mm_profiling: nothing is reserved for encoding images; leave room by a lower gpu_memory_utilization"
        )
    return tuple(notes)
