"""A model, a machine and a workload under LMDeploy → bytes per device.

The cache is a share of the memory that is *free* once weights (and, up to 0.14, engine buffers) are there, the smallest
over the ranks; the rest of the free memory is slack for what comes later. Quantising weights therefore barely lowers
what is used. Source: LMDeploy v0.2.0 to v0.16.0, ``BlockManager``, ``SequenceManager``; PyTorch: ``executor/base.py``.
"""

from __future__ import annotations

from planner.budget import Basis, Budget, Component, DeviceBudget, ImageTokens, Item, Part
from planner.engines.context import context_span
from planner.engines.lmdeploy.buffers import (
    COMMUNICATORS,
    CONTEXT,
    encoder_buffers,
    pytorch_reserve,
    run_time_buffers,
    static_buffers,
)
from planner.engines.lmdeploy.kv_cache import Cache, cache_of
from planner.engines.lmdeploy.rules import LmdeployRules, native_tower, refusals, weight_word
from planner.engines.lmdeploy.settings import LmdeploySettings, Resolved, check_settings, resolve, shown
from planner.engines.rank_weights import language_bytes, vision_bytes
from planner.engines.span import Span, fixed, span_item
from planner.engines.weight_formats import checkpoint_note, weight_format
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Model
from planner.units import GIB, format_bytes
from planner.vision import image_tokens
from planner.workload import Workload

NO_RULES = LmdeployRules()
SOURCE = "LMDeploy, src/turbomind/models/llama/BlockManager.cc"
WEIGHT_SPREAD = 0.01
_SOURCES = {
    "weights": "LMDeploy, turbomind/deploy and pytorch/models; vl/model for the tower",
    "compute": "LMDeploy, src/turbomind and pytorch/engine/executor/base.py; bounds estimated",
    "overhead": "ranges of published logs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One GPU's terms. ``before`` stands when the cache is sized, ``after`` comes on top."""

    gpu: Gpu
    device: str
    language: Span
    vision: Span
    context: Span
    buffers: Span
    buffers_first: bool  # they stand before the cache is sized
    encoder: Span

    @property
    def before(self) -> Span:
        """What is taken when the cache is sized."""
        taken = self.context + self.language + self.vision
        return taken + self.buffers if self.buffers_first else taken

    @property
    def after(self) -> Span:
        """What comes after the cache: the encoder's temporaries, and the buffers where they come late."""
        return self.encoder if self.buffers_first else self.encoder + self.buffers


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """The cache in blocks per rank, as low, expected and high."""

    blocks: Span
    block_bytes: int
    block_tokens: int

    @property
    def tokens(self) -> Span:
        """Tokens it holds."""
        n = self.block_tokens
        return self.blocks.scaled(n, n, n)


def budget(  # noqa: PLR0913 - the engine's whole question
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: LmdeploySettings,
    version: str,
    backend: str = "turbomind",
    rules: LmdeployRules = NO_RULES,
) -> Budget:
    """Return the bytes of each GPU, with what the engine would refuse or cut at start.

    Raises:
        UsageError: an impossible setting or version.
    """
    check_settings(settings)
    if settings.tp > len(machine.gpus) or not machine.gpus:
        return Budget(
            devices=(), refusals=(f"tp {settings.tp} needs {settings.tp} GPUs; there are {len(machine.gpus)}",)
        )
    chosen = "pytorch" if backend.endswith("pytorch") else "turbomind"
    gpus = machine.gpus[: settings.tp]
    resolved = resolve(settings, workload, gpus[0], version, "pytorch" if chosen == "pytorch" else "turbomind")
    images = images_of(model, workload)
    native = chosen == "pytorch" or native_tower(rules, model.family, version)
    ranks = [_rank(model, images, gpu, i, settings, resolved, native=native, rules=rules) for i, gpu in enumerate(gpus)]
    cache = cache_of(model.language.layers, settings.quant_policy, resolved.n_ranks, chosen)
    pool = pool_of(model, ranks, cache, settings, resolved)
    return Budget(
        devices=(*(_device(rank, pool, cache, model, resolved) for rank in ranks), _host(machine)),
        image_tokens=images,
        settings=shown(settings, resolved),
        notes=(
            *_notes(pool, native=native, n_gpus=len(gpus), has_vision=model.vision is not None),
            *checkpoint_note(model),
        ),
        refusals=refusals(model, settings, resolved, version, rules),
        shortfalls=tuple(_shortfalls(workload, pool, resolved)),
    )


def images_of(model: Model, workload: Workload) -> tuple[ImageTokens, ...]:
    """Return the tokens of each image of one request, by the model's own processor."""
    if not workload.images or model.vision is None or "processor" not in model.vision.rules:
        return ()
    return tuple(
        image_tokens(model.vision, size, "lmdeploy", n_images=len(workload.images)) for size in workload.images
    )


def _rank(  # noqa: PLR0913 - one rank's circumstances
    model: Model,
    images: tuple[ImageTokens, ...],
    gpu: Gpu,
    index: int,
    settings: LmdeploySettings,
    resolved: Resolved,
    *,
    native: bool,
    rules: LmdeployRules,
) -> Rank:
    context = context_span(gpu, "lmdeploy", rules.overhead, CONTEXT)
    word = weight_word(model, settings)
    n_layers = model.language.n_layers
    own = language_bytes(
        model.language,
        first=0,
        last=n_layers,
        n_ranks=resolved.n_ranks,
        format_name=weight_format(word) if word else "bf16",
        dtype_bytes=2,
        head=True,
        tail=True,
    )
    spread = int(own * WEIGHT_SPREAD)
    early = resolved.backend == "turbomind" and (0, 7) <= resolved.release < (0, 15)
    if resolved.backend == "pytorch":
        buffers = fixed(pytorch_reserve(model.language, settings, resolved)) + Span(low=0, expected=0, high=GIB)
    else:
        buffers = static_buffers(model.language, settings, resolved) + run_time_buffers(
            model.language, settings, resolved
        )
    return Rank(
        gpu=gpu,
        device=f"CUDA{index}",
        language=Span(low=own - spread, expected=own, high=own + spread),
        vision=tower_span(
            model, settings, index, resolved.n_ranks, native=native, split_projectors=rules.split_projectors
        ),
        context=context + COMMUNICATORS if resolved.n_ranks > 1 else context,
        buffers=buffers,
        buffers_first=early,
        encoder=_encoder(model, images, settings, index, native=native),
    )


def tower_span(  # noqa: PLR0913 - one rank's circumstances
    model: Model,
    settings: LmdeploySettings,
    index: int,
    n_ranks: int,
    *,
    native: bool,
    split_projectors: frozenset[str],
) -> Span:
    """Return the tower on one rank: split by the engine, or a PyTorch module placed by accelerate.

    The module is spread by blocks when several GPUs are there, and small towers end up whole on the first.
    ``split_projectors`` are written with parallel linears.
    """
    if model.vision is None or settings.language_model_only:
        return fixed(0)
    expected, low, high = vision_bytes(model, n_ranks if native else 1, 2, split_projectors=split_projectors)
    if native or n_ranks == 1:
        return Span(low=low, expected=expected, high=high)
    return Span(low=0, expected=expected if index == 0 else 0, high=high)


def _encoder(
    model: Model, images: tuple[ImageTokens, ...], settings: LmdeploySettings, index: int, *, native: bool
) -> Span:
    if model.vision is None or settings.language_model_only or not images:
        return fixed(0)
    largest = max(images, key=lambda image: sum(image.encoder_sequences))
    sequences = largest.encoder_sequences or (largest.tokens,)
    span = encoder_buffers(model.vision, sequences, settings.vision_max_batch_size)
    return span if index == 0 or native else Span(low=0, expected=0, high=span.high)


def pool_of(model: Model, ranks: list[Rank], cache: Cache, settings: LmdeploySettings, resolved: Resolved) -> Pool:
    """Return the cache: a share of what is free on the poorest rank, in whole blocks."""
    reserve = pytorch_reserve(model.language, settings, resolved) if resolved.backend == "pytorch" else 0
    block = max(1, cache.token_bytes) * resolved.block_tokens
    states = cache.state_bytes * resolved.max_batch_size

    def blocks(which: str) -> int:
        if resolved.n_blocks_asked is not None:
            return resolved.n_blocks_asked
        left = min(rank.gpu.free_bytes - getattr(rank.before, which) - reserve for rank in ranks)
        share = int((min(r.gpu.total_bytes for r in ranks) if resolved.of_total else max(0, left)) * resolved.share)
        return max(0, share - states) // block

    return Pool(
        blocks=Span(low=blocks("high"), expected=blocks("expected"), high=blocks("low")),
        block_bytes=block,
        block_tokens=resolved.block_tokens,
    )


def _shortfalls(workload: Workload, pool: Pool, resolved: Resolved) -> list[str]:
    """TurboMind cuts a session to the cache and says so; a load that does not fit at once waits."""
    held, at_once = pool.tokens.low, max(workload.sequences, workload.batch)
    if held < resolved.session_len:
        return [f"the cache may hold only {held} tokens: session_len {resolved.session_len} would be cut to that"]
    if held < at_once * workload.context_tokens:
        room = held // max(1, workload.context_tokens)
        return [
            f"the cache holds {room} requests of {workload.context_tokens} tokens at once, {at_once} were asked for"
        ]
    if at_once > resolved.max_batch_size:
        return [f"max_batch_size {resolved.max_batch_size} is below the {at_once} requests asked for at once"]
    return []


def _device(rank: Rank, pool: Pool, cache: Cache, model: Model, resolved: Resolved) -> DeviceBudget:
    pool_bytes = pool.blocks.scaled(pool.block_bytes, pool.block_bytes, pool.block_bytes)
    items = [
        _item(
            "weights", "language", rank.language, "linears / ranks + embedding and output / ranks + norms", "modelled"
        ),
        _item("weights", "vision", rank.vision, "tower and projector; in PyTorch: whole on the first GPU", "modelled"),
        span_item(
            "kv_cache",
            "language",
            pool_bytes,
            basis="modelled",
            formula="blocks x block tokens x bytes per token; blocks = share x free / block, least over the ranks",
            source=SOURCE,
            tokens=pool.tokens.expected,
            tokens_low=pool.tokens.low,
            bytes_per_token=cache.token_bytes,
            block_bytes=pool.block_bytes,
            share=resolved.share,
        ),
        _item("compute", "language", rank.buffers, "engine buffers and one prefill's temporaries", "modelled"),
        _item("compute", "vision", rank.encoder, "the tower's temporaries for the largest image", "modelled"),
        _item("overhead", "language", rank.context, "CUDA context, communicators", "assumed"),
    ]
    ceiling = rank.before.high + pool_bytes.low + rank.after.high
    return DeviceBudget(
        device=rank.device,
        name=rank.gpu.name,
        total_bytes=rank.gpu.total_bytes,
        free_bytes=rank.gpu.free_bytes,
        items=tuple(item for item in items if item.high_bytes),
        layers=(0, model.language.n_layers - 1) if model.language.n_layers else None,
        has_output=True,
        ceiling_bytes=max(ceiling, rank.before.expected + pool_bytes.expected + rank.after.expected),
    )


def _item(component: Component, part: Part, span: Span, formula: str, basis: Basis) -> Item:
    return span_item(component, part, span, basis=basis, formula=formula, source=_SOURCES[component])


def _host(machine: Machine) -> DeviceBudget:
    span = Span(low=GIB, expected=3 * GIB, high=6 * GIB)
    item = _item("overhead", "language", span, "Python processes and the checkpoint's pages while loading", "assumed")
    total, free = machine.host.total_bytes, machine.host.free_bytes
    return DeviceBudget(device="Host", name="host", total_bytes=total, free_bytes=free, items=(item,))


def _notes(pool: Pool, *, native: bool, n_gpus: int, has_vision: bool) -> tuple[str, ...]:
    held = f"cache: {pool.tokens.expected} tokens expected, at least {pool.tokens.low}"
    notes = [f"{held}; {format_bytes(pool.block_bytes)} per block of {pool.block_tokens}"]
    if has_vision and not native and n_gpus > 1:
        notes.append(
            "the vision tower runs in PyTorch beside TurboMind, most likely whole on the first GPU; "
            "the cache takes the poorest GPU's share on all of them"
        )
    return tuple(notes)
