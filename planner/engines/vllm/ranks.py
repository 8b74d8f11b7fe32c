"""The ranks of a vLLM start: what each holds inside its share and outside it, and the pool that is left.

Source: vLLM 0.10.2 to 0.33.0, ``v1/worker/{utils,gpu_worker}.py``.
"""

from __future__ import annotations

import math
from dataclasses import replace

from planner.budget import ImageTokens
from planner.engines.context import context_span
from planner.engines.largest_image import EncoderItem, largest_image
from planner.engines.rank_weights import RankWeights, rank_weights, stage_layers
from planner.engines.span import Span, fixed, largest
from planner.engines.vllm.kv_cache import (
    InFlight,
    KvLayout,
    kv_layout,
    layer_caches,
    n_blocks_of,
    pool_tokens,
    request_blocks,
)
from planner.engines.vllm.outside import CONTEXT, graph_span, outside_torch, used_by_others
from planner.engines.vllm.profile import dummy_video, encoder_items, encoder_span, sampler_span, text_span
from planner.engines.vllm.rules import VllmRules
from planner.engines.vllm.settings import Resolved, VllmSettings
from planner.engines.weight_formats import UNQUANTIZED, weight_format
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Model
from planner.units import GIB
from planner.vision import image_tokens
from planner.workload import Workload

NO_RULES = VllmRules()
WEIGHT_SPREAD = 0.012  # four of 29 published loads are off by 1.0 to 3.1 %, the rest within 0.5 %


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One rank's terms before the pool is sized. ``share_bytes`` is R, less what others use where R must pay for it."""

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


def ranks_of(  # noqa: PLR0913 - all ranks' circumstances
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: VllmSettings,
    resolved: Resolved,
    rules: VllmRules,
) -> list[Rank]:
    """Return every rank: pipeline stages outermost, tensor ranks within."""
    compute = profile_span(model, workload, settings, resolved, rules)
    ranks = []
    for index in range(resolved.n_ranks):
        stage, gpu = index // resolved.n_tensor_ranks, machine.gpus[index]
        context = context_span(gpu, "vllm", rules.overhead, CONTEXT)
        ranks.append(_rank(model, gpu, index, stage, compute, context, settings, resolved, rules.split_projectors))
    return ranks


def _rank(  # noqa: PLR0913 - one rank's circumstances
    model: Model,
    gpu: Gpu,
    index: int,
    stage: int,
    compute: Span,
    context: Span,
    settings: VllmSettings,
    resolved: Resolved,
    split_projectors: frozenset[str],
) -> Rank:
    n_ranks, n_stages = resolved.n_tensor_ranks, resolved.n_pipeline_ranks
    weights = rank_weights(
        model,
        stage=stage,
        n_stages=n_stages,
        n_ranks=n_ranks,
        format_name=_format(model, settings),
        dtype_bytes=resolved.dtype_bytes,
        vision=has_tower(model, settings) and (stage == 0 or resolved.release < (0, 33)),
        split_projectors=split_projectors,
        data_parallel=settings.mm_encoder_tp_mode == "data",
    )
    weights = replace(weights, rope_bytes=weights.rope_bytes + deepstack_bytes(model, settings, resolved, stage))
    first, last = stage_layers(model.language.n_layers, n_stages)[stage]
    caches = layer_caches(
        model.language.layers[first:last],
        settings.kv_cache_dtype,
        n_ranks,
        hybrid=hybrid(settings, resolved),
        dtype_bytes=resolved.dtype_bytes,
    )
    graphs = graph_span(last - first, resolved, enforce_eager=settings.enforce_eager)
    non_torch, outside = outside_torch(context, compute, resolved)
    estimated = graphs if resolved.release >= (0, 20) else fixed(0)
    offloaded = min(int(settings.cpu_offload_gb * GIB), weights.total_bytes)
    inside = weight_span(weights, offloaded) + compute + estimated
    outside = outside + (fixed(0) if resolved.release >= (0, 20) else graphs)
    share = math.ceil(gpu.total_bytes * resolved.gpu_memory_utilization) - used_by_others(gpu, resolved)
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


def deepstack_bytes(model: Model, settings: VllmSettings, resolved: Resolved, stage: int) -> int:
    """Return the buffers through which inner layers of the tower reach the first layers: a batch of tokens for each."""
    if stage or not has_tower(model, settings):
        return 0
    batch = resolved.max_num_batched_tokens * model.language.n_embd * resolved.dtype_bytes
    return model.language.n_deepstack_layers * batch


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


def profile_span(
    model: Model, workload: Workload, settings: VllmSettings, resolved: Resolved, rules: VllmRules
) -> Span:
    """Return the peak of the profiling run; to 0.6.3 torch's cache counts, and phases may not reuse one another's."""
    spans = [sampler_span(model.language, resolved), text_span(model.language, resolved)]
    item = largest_item(model, settings, resolved, rules)
    if item is not None and model.vision is not None and not settings.skip_mm_profiling:
        limit = (settings.limit_mm_per_prompt or {}).get("image", 999 if resolved.release >= (0, 10) else 1)
        n_items = encoder_items(item, resolved, max(limit, len(workload.images)))
        spans.append(encoder_span(model.vision, model.language, item, n_items, resolved.release))
    peak = largest(spans)
    if resolved.release >= (0, 6, 4):
        return peak
    return Span(low=peak.low, expected=peak.expected, high=sum(span.high for span in spans))


def largest_item(
    model: Model, settings: VllmSettings, resolved: Resolved, rules: VllmRules = NO_RULES
) -> EncoderItem | None:
    """Return the largest image a request may hold, as its processor's limits stand, or the longest dummy video.

    The engine before V1 makes up both at once.
    """
    image = largest_image(model, settings.mm_processor_kwargs or {}) if has_tower(model, settings) else None
    if (
        image is None
        or model.family not in rules.video_frames
        or (settings.limit_mm_per_prompt or {}).get("video") == 0
    ):
        return image
    room = resolved.max_model_len - (image.tokens if resolved.release < (0, 11) else 0)
    video = dummy_video(image, room, rules.video_frames[model.family], resolved.release)
    if resolved.old_core:
        return replace(image, tokens=image.tokens + video.tokens, patches=image.patches + video.patches)
    return max(image, video, key=lambda item: item.tokens)


def pool_of(model: Model, workload: Workload, ranks: list[Rank], settings: VllmSettings, resolved: Resolved) -> Pool:
    """Return the pool: the fewest blocks any rank has, and what they hold."""
    low, expected, high = (
        min(_blocks(rank, which, settings) for rank in ranks) for which in ("high", "expected", "low")
    )
    layout = ranks[0].layout
    needed = max(request_blocks_of(model, workload, rank.layout, settings, resolved) for rank in ranks)
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


def request_blocks_of(
    model: Model, workload: Workload, layout: KvLayout, settings: VllmSettings, resolved: Resolved
) -> int:
    """Return the blocks one request of ``max_model_len`` tokens needs."""
    cross = sum(t.cross_tokens or 0 for t in images_of(model, workload))
    batches = 2 if resolved.release >= (0, 16) else 1  # asynchronous scheduling keeps a second batch in flight
    in_flight = InFlight(
        batched_tokens=batches * resolved.max_num_batched_tokens,
        cross_tokens=cross,
        state_blocks=2 if settings.enable_prefix_caching else 1,
    )
    return request_blocks(layout, resolved.max_model_len, in_flight)


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
