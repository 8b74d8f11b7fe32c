"""A model, a machine and a workload under SGLang → bytes per device.

Weights and cache fill a static share of what was free before loading; what comes at run time must fit the rest, for
nothing is profiled. Source: SGLang 0.5.23, ``srt/model_executor``, ``srt/mem_cache``; 16.47 against 16.46 GiB logged.
"""

from __future__ import annotations

from planner.budget import Basis, Budget, Component, DeviceBudget, ImageTokens, Item, Part
from planner.engines.context import context_span
from planner.engines.options import missing_options
from planner.engines.rank_weights import RankWeights, rank_weights, stage_layers
from planner.engines.refusals import first_reasons, groups_divide, heads_divide, kv_heads_divide
from planner.engines.sglang.settings import (
    KV_BITS,
    SglangRules,
    SglangSettings,
    check_settings,
    chunk_and_batch,
    static_share,
)
from planner.engines.sglang.slack import most_requests, slack
from planner.engines.span import Span, fixed, span_item
from planner.engines.vllm.kv_cache import layer_caches
from planner.engines.weight_formats import GROUPED, UNQUANTIZED, checkpoint_note, weight_format
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Model
from planner.units import GIB, MIB
from planner.vision import image_tokens
from planner.workload import Workload

SOURCE = "SGLang 0.5.23, srt/model_executor"
NO_RULES = SglangRules()
CONTEXT = Span(low=250 * MIB, expected=450 * MIB, high=700 * MIB)
COMMUNICATORS = Span(low=100 * MIB, expected=450 * MIB, high=1024 * MIB)
ENCODER_CACHE = 100 * MIB
SWA_RATIO = 0.8
WEIGHT_SPREAD = 0.012


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One GPU's terms; ``cell_bytes`` are what one token takes in its cache."""

    gpu: Gpu
    device: str
    stage: int
    weights: RankWeights
    cell_bytes: int
    before: Span
    free_before: Span
    slack: Span  # what comes beside weights and cache, in the rest of the share

    def pool(self, share: float, weights_bytes: int, free_bytes: int, *, vision: bool) -> int:
        """Return the bytes of the cache."""
        return max(0, int(free_bytes * share) - weights_bytes - (ENCODER_CACHE if vision else 0))


def budget(  # noqa: PLR0913 - the engine's whole question
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: SglangSettings,
    version: str,
    rules: SglangRules = NO_RULES,
) -> Budget:
    """Return the bytes of each GPU, with what the engine would refuse at start.

    Raises:
        UsageError: an impossible setting.
    """
    check_settings(settings)
    n_ranks = settings.tp_size * settings.pp_size
    if n_ranks > len(machine.gpus):
        return Budget(devices=(), refusals=(f"tp_size x pp_size needs {n_ranks} GPUs; there are {len(machine.gpus)}",))
    gpus = machine.gpus[:n_ranks]
    share = static_share(model, settings, min(gpu.total_bytes for gpu in gpus), rules)
    images = images_of(model, workload)
    ranks = [_rank(model, workload, images, gpu, i, settings, rules, share) for i, gpu in enumerate(gpus)]
    tokens = _tokens(ranks, share, settings, vision=model.vision is not None)
    return Budget(
        devices=(*(_device(model, rank, tokens, share, settings) for rank in ranks), _host(machine)),
        image_tokens=images,
        settings={
            "mem_fraction_static": share,
            "context_length": settings.context_length or workload.context_tokens,
            "tp_size": settings.tp_size,
            "pp_size": settings.pp_size,
            "chunked_prefill_size": chunk_and_batch(settings, gpus[0].total_bytes)[0],
            "kv_cache_dtype": settings.kv_cache_dtype,
        },
        notes=(*_notes(tokens, share, version), *checkpoint_note(model)),
        refusals=_refusals(model, workload, settings, version, rules),
        shortfalls=tuple(_short(workload, ranks, tokens, share)),
    )


def images_of(model: Model, workload: Workload) -> tuple[ImageTokens, ...]:
    """Return the tokens of each image of one request, by the model's own processor."""
    if not workload.images or model.vision is None or "processor" not in model.vision.rules:
        return ()
    return tuple(image_tokens(model.vision, size, "sglang", n_images=len(workload.images)) for size in workload.images)


def cell_bytes(model: Model, settings: SglangSettings, stage: int) -> int:
    """Return the bytes one token takes in one rank's cache; windowed layers keep 0.8 of the tokens."""
    first, last = stage_layers(model.language.n_layers, settings.pp_size)[stage]
    caches = layer_caches(model.language.layers[first:last], "auto", settings.tp_size, hybrid=True)
    windowed = [c for c in caches if c.kind in {"sliding", "chunked"}]
    full = sum(c.token_bytes for c in caches if c.kind in {"full", "cross"})
    return int((full + SWA_RATIO * sum(c.token_bytes for c in windowed)) * KV_BITS[settings.kv_cache_dtype] / 16)


def _rank(  # noqa: PLR0913 - one rank's circumstances
    model: Model,
    workload: Workload,
    images: tuple[ImageTokens, ...],
    gpu: Gpu,
    index: int,
    settings: SglangSettings,
    rules: SglangRules,
    share: float,
) -> Rank:
    stage = index // settings.tp_size
    word = settings.quantization or model.quantization
    plain = word is None or word.lower() in UNQUANTIZED | {"f16", "f32"}
    weights = rank_weights(
        model,
        stage=stage,
        n_stages=settings.pp_size,
        n_ranks=settings.tp_size,
        format_name="bf16" if plain or word is None else weight_format(word),
        dtype_bytes=2,
        vision=model.vision is not None,
        split_projectors=rules.split_projectors,
        data_parallel=settings.mm_enable_dp_encoder,
    )
    context = context_span(gpu, "sglang", rules.overhead, CONTEXT)
    before = context + (COMMUNICATORS if settings.tp_size * settings.pp_size > 1 else fixed(0))
    free = Span(
        low=gpu.free_bytes - before.high, expected=gpu.free_bytes - before.expected, high=gpu.free_bytes - before.low
    )
    pool_bytes = int(free.expected * share) - weights.total_bytes
    return Rank(
        gpu=gpu,
        device=f"CUDA{index}",
        stage=stage,
        weights=weights,
        cell_bytes=max(1, cell_bytes(model, settings, stage)),
        before=before,
        free_before=free,
        slack=slack(
            model,
            workload,
            images,
            gpu,
            settings,
            n_requests=most_requests(model, workload, settings, stage, pool_bytes),
        ),
    )


def _weights(rank: Rank) -> Span:
    w = rank.weights
    spread = int(w.total_bytes * WEIGHT_SPREAD)
    high = w.total_bytes + spread + w.vision_high_bytes - w.vision_bytes
    return Span(low=w.total_bytes - spread - (w.vision_bytes - w.vision_low_bytes), expected=w.total_bytes, high=high)


def _tokens(ranks: list[Rank], share: float, settings: SglangSettings, *, vision: bool) -> Span:
    """Return the tokens of the pool, the least over the ranks, in whole pages."""

    def least(weights: str, free: str) -> int:
        found = (
            r.pool(share, getattr(_weights(r), weights), getattr(r.free_before, free), vision=vision) // r.cell_bytes
            for r in ranks
        )
        return min(found) // settings.page_size * settings.page_size

    return Span(low=least("high", "low"), expected=least("expected", "expected"), high=least("low", "high"))


def _refusals(
    model: Model, workload: Workload, settings: SglangSettings, version: str, rules: SglangRules
) -> tuple[str, ...]:
    defaults = SglangSettings()
    changed = {n: None for n in SglangSettings.__slots__ if getattr(settings, n) != getattr(defaults, n)}
    word = settings.quantization or model.quantization
    grouped = word is not None and word.lower() not in UNQUANTIZED | {"f16", "f32"} and weight_format(word) in GROUPED
    length = settings.context_length or workload.context_tokens
    trained = model.language.n_context_train
    too_long = f"context_length {length} is beyond the model's {trained} positions" if length > trained else None
    return missing_options(rules.options, changed, "SGLang", version) + first_reasons(
        (
            heads_divide(model.language, settings.tp_size, "tp_size"),
            kv_heads_divide(model.language, settings.tp_size, "tp_size"),
            groups_divide(model.language, 128, settings.tp_size, "tp_size") if grouped else None,
            too_long,
        )
    )


def _short(workload: Workload, ranks: list[Rank], tokens: Span, share: float) -> list[str]:
    found = [
        f"{rank.device}: weights alone are above the static share {share:g}; raise mem_fraction_static"
        for rank in ranks
        if _weights(rank).high > share * rank.free_before.low
    ]
    asked = workload.sequences * workload.context_tokens
    if not found and tokens.low < asked:
        found.append(f"the cache may hold only {tokens.low} tokens, {asked} were asked for at once")
    return found


def _device(model: Model, rank: Rank, tokens: Span, share: float, settings: SglangSettings) -> DeviceBudget:
    w = rank.weights
    language = w.language_bytes + w.rope_bytes
    spread = int(w.total_bytes * WEIGHT_SPREAD)
    stages = stage_layers(model.language.n_layers, settings.pp_size)
    first, last = stages[rank.stage]
    cell = rank.cell_bytes
    before = rank.before
    items = [
        _item(
            "weights",
            "language",
            Span(low=language - spread, expected=language, high=language + spread),
            "rank's linears",
        ),
        _item(
            "weights",
            "vision",
            Span(low=w.vision_low_bytes, expected=w.vision_bytes, high=w.vision_high_bytes),
            "tower",
        ),
        span_item(
            "kv_cache",
            "language",
            tokens.scaled(cell, cell, cell),
            basis="modelled",
            formula="tokens x bytes per token; tokens = (share x free before - weights - 100 MiB) / bytes per token",
            source=SOURCE,
            tokens=tokens.expected,
            tokens_low=tokens.low,
            bytes_per_token=cell,
            mem_fraction_static=share,
        ),
        _item("compute", "language", rank.slack, "prefill chunk, logits, graphs, request table, an image's encoding"),
        _item("overhead", "language", before, "CUDA context, communicators"),
    ]
    static = int(rank.free_before.expected * share)
    return DeviceBudget(
        device=rank.device,
        name=rank.gpu.name,
        total_bytes=rank.gpu.total_bytes,
        free_bytes=rank.gpu.free_bytes,
        items=tuple(item for item in items if item.high_bytes),
        layers=(first, last - 1) if last > first else None,
        has_output=rank.stage == len(stages) - 1,
        ceiling_bytes=max(static, _weights(rank).high) + before.high + rank.slack.high,
    )


def _item(component: Component, part: Part, span: Span, formula: str) -> Item:
    basis: Basis = "assumed" if component == "overhead" else "modelled"
    return span_item(component, part, span, basis=basis, formula=formula, source=SOURCE)


def _host(machine: Machine) -> DeviceBudget:
    item = _item("overhead", "language", Span(low=GIB, expected=3 * GIB, high=6 * GIB), "Python processes")
    total, free = machine.host.total_bytes, machine.host.free_bytes
    return DeviceBudget(device="Host", name="host", total_bytes=total, free_bytes=free, items=(item,))


def _notes(tokens: Span, share: float, version: str) -> tuple[str, ...]:
    notes = [
        f"cache: {tokens.expected} tokens expected, at least {tokens.low}, at mem_fraction_static {share:g}",
        "SGLang profiles no image: its encoding must fit beside the static share",
    ]
    if version != "0.5.23":
        notes.append(f"the share is computed as in 0.5.23, not as in {version}; give mem_fraction_static to be sure")
    return tuple(notes)
