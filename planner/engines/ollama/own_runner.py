"""Ollama up to 0.24: its own runner for models with cross-attention, as far as its logs tell.

KV: full layers in 16 bit, cross layers in 32 bit over all tiles' tokens, to the printed digit for 11B (656.25 MiB at
2,048 tokens) and 90B (1.6 GiB). Tower: 2,853.34 MiB of graph, the same on GPU and CPU. Source: ollama issues 9311,
8310, 7664.
"""

from __future__ import annotations

from planner.budget import Basis, Budget, Component, DeviceBudget, ImageTokens, Item, Part
from planner.engines.ollama.settings import OllamaSettings, check_settings
from planner.engines.span import Span, fixed, span_item
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Attention, CrossAttention, Language, Model, Vision
from planner.quantization import tensor_bytes
from planner.units import MIB
from planner.vision import has_rule, image_tokens
from planner.workload import Workload

SOURCE = "logs of Ollama 0.4 to 0.6 (ollama issues 9311, 8310, 7664)"
BATCH = 512
PROCESSOR = "transformers"  # the counting by a model's own processor
VISION_GRAPH = Span(low=2700 * MIB, expected=2_991_943_844, high=2900 * MIB)  # 2853.34 MiB, allocated twice
SET_ASIDE = 457 * MIB  # what the runner itself leaves for each device's context
MANY_UNITS = 96  # devices with more multiprocessors have larger contexts than that


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The model in this runner: bytes of each layer's weights and cache, of the output, of the tower."""

    layer_bytes: tuple[int, ...]
    cache_bytes: tuple[int, ...]
    output_bytes: int
    embedding_bytes: int
    tower_bytes: int


def cache_bytes(language: Language, n_ctx: int, n_cross_tokens: int) -> tuple[int, ...]:
    """Return the bytes each layer caches."""
    return tuple(_layer_cache(layer.mixer, n_ctx, n_cross_tokens) for layer in language.layers)


def _layer_cache(mixer: object, n_ctx: int, n_cross_tokens: int) -> int:
    match mixer:
        case Attention():
            return mixer.n_kv_heads * (mixer.key_dim + mixer.value_dim) * 2 * n_ctx
        case CrossAttention():
            return mixer.n_kv_heads * mixer.head_dim * 2 * 4 * n_cross_tokens
        case _:
            return 0


def cross_tokens(vision: Vision | None) -> int:
    """Return the tokens that cross layers see: all tiles, with one class token each."""
    if vision is None:
        return 0
    tiles = vision.facts.get("max_num_tiles")
    side = vision.image_size // vision.patch_size
    return (side * side + 1) * (tiles if isinstance(tiles, int) else 4)


def parts_of(model: Model, n_ctx: int) -> Parts:
    """Return the model's parts for this runner."""
    by_layer: dict[int, int] = {}
    rest = {"output": 0, "embedding": 0}
    for tensor in model.language.tensors:
        size = tensor_bytes(tensor.format, tensor.shape)
        head, _, tail = tensor.name.partition(".")
        if head == "blk":
            index = int(tail.partition(".")[0])
            by_layer[index] = by_layer.get(index, 0) + size
        else:
            rest["embedding" if head == "token_embd" else "output"] += size
    n_layers = model.language.n_layers
    return Parts(
        layer_bytes=tuple(by_layer.get(i, 0) for i in range(n_layers)),
        cache_bytes=cache_bytes(model.language, n_ctx, cross_tokens(model.vision)),
        output_bytes=rest["output"],
        embedding_bytes=rest["embedding"],
        tower_bytes=tower_bytes(model),
    )


def tower_bytes(model: Model) -> int:
    """Return the tower's file in 16 bit; its position tables, an eighth of it, are kept in 32 (1.8 GiB in the logs)."""
    if model.vision is None or model.parameters is None:
        return 0
    return 2 * (model.parameters.vision + model.parameters.projector) * 108 // 100


def tower_span(tower_bytes: int) -> Span:
    """Return the tower's weights; logs print them to a tenth of a GiB."""
    return Span(low=tower_bytes * 96 // 100, expected=tower_bytes, high=tower_bytes * 103 // 100)


def context_of(gpu: Gpu) -> Span:
    """Return the device context."""
    high = SET_ASIDE if gpu.n_sms is None or gpu.n_sms <= MANY_UNITS else 640 * MIB
    return Span(low=100 * MIB, expected=300 * MIB, high=high)


def graph_span(language: Language, *, whole: bool) -> Span:
    """Return the text graph: logits of a batch and its input, 258.5 MiB for 11B; up to 669.5 with layers left out."""
    full = 4 * BATCH * (language.n_embd + language.n_vocab)
    if whole:
        return Span(low=full, expected=full, high=full * 6 // 5)
    return Span(low=full, expected=full * 2, high=int(full * 2.6))


def own_runner_budget(model: Model, workload: Workload, machine: Machine, settings: OllamaSettings) -> Budget:
    """Return the bytes per device: the tower on the first GPU, layers spread over what is free.

    Raises:
        UsageError: an impossible parameter.
    """
    check_settings(settings)
    n_ctx = max(settings.num_ctx or settings.context_length or workload.context_tokens, 2048)
    parts = parts_of(model, n_ctx)
    n_layers = model.language.n_layers
    wanted = n_layers + 1 if settings.num_gpu < 0 else min(settings.num_gpu, n_layers + 1)
    counts = _placed(parts, machine, model, wanted) if machine.gpus and wanted else [0] * len(machine.gpus)
    placed = sum(counts)
    devices = [*_gpu_budgets(model, machine, parts, counts, n_layers), _host(machine, parts, placed, n_layers)]
    return Budget(
        devices=tuple(devices),
        image_tokens=_images(model, workload),
        settings={"num_ctx": n_ctx, "num_gpu": placed, "num_batch": BATCH, "num_parallel": 1},
        notes=(f"{placed} of {n_layers + 1} layers on the GPU; figures of this runner are known from logs only",),
    )


def _images(model: Model, workload: Workload) -> tuple[ImageTokens, ...]:
    """Return what the images become, assuming that this runner cuts and resizes as the model's own processor does."""
    if model.vision is None or not has_rule(model.vision, PROCESSOR):
        return ()
    return tuple(image_tokens(model.vision, image, PROCESSOR) for image in workload.images)


def _room(gpu: Gpu, index: int, parts: Parts, graph: Span) -> int:
    """Return what this runner counts as room for layers on one GPU."""
    taken = SET_ASIDE + graph.high
    if index == 0 and parts.tower_bytes:
        taken += tower_span(parts.tower_bytes).high + VISION_GRAPH.high
    return gpu.free_bytes - taken


def _placed(parts: Parts, machine: Machine, model: Model, wanted: int) -> list[int]:
    """Return how many layers each GPU takes, in order; the output counts as the last layer.

    The runner counts repeating layers into what is free, each as large as the first with its share of the
    cache, and hands their number to llama.cpp, which takes the output and one repeating layer less.
    """
    n_layers = len(parts.layer_bytes)
    sizes = [parts.layer_bytes[0] + sum(parts.cache_bytes) // n_layers] * n_layers
    queue = [*sizes, parts.output_bytes][-wanted:]
    counts = _filled(queue, _rooms(parts, machine, graph_span(model.language, whole=wanted > len(sizes))))
    if sum(counts) == len(queue):
        return counts
    return _filled(sizes[-min(wanted, len(sizes)) :], _rooms(parts, machine, graph_span(model.language, whole=False)))


def _rooms(parts: Parts, machine: Machine, graph: Span) -> list[int]:
    return [_room(gpu, i, parts, graph) for i, gpu in enumerate(machine.gpus)]


def _filled(queue: list[int], rooms: list[int]) -> list[int]:
    counts, i = [0] * len(rooms), 0
    for device, room in enumerate(rooms):
        left = room
        while i < len(queue) and queue[i] <= left:
            left -= queue[i]
            counts[device] += 1
            i += 1
    return counts


def _gpu_budgets(model: Model, machine: Machine, parts: Parts, counts: list[int], n_layers: int) -> list[DeviceBudget]:
    start = n_layers + 1 - sum(counts)
    budgets = []
    for index, (gpu, count) in enumerate(zip(machine.gpus, counts, strict=True)):
        if count or (index == 0 and sum(counts)):
            budgets.append(_gpu(model, parts, gpu, index, (start, start + count), whole=sum(counts) == n_layers + 1))
        start += count
    return budgets


def _gpu(model: Model, parts: Parts, gpu: Gpu, index: int, taken: tuple[int, int], *, whole: bool) -> DeviceBudget:  # noqa: PLR0913 - one device's circumstances
    first, past = taken
    n_layers = model.language.n_layers
    output = past == n_layers + 1
    weights = sum(parts.layer_bytes[first:past]) + (parts.output_bytes if output else 0)
    cached = fixed(sum(parts.cache_bytes[first:past]))
    near = Span(low=weights, expected=weights, high=weights + weights // 100)
    items = [
        _item("weights", "language", near, "tensors of its layers"),
        _item("kv_cache", "language", cached, "full layers 16 bit, cross layers 32 bit"),
        _item("compute", "language", graph_span(model.language, whole=whole), "4 x batch x (embd + vocab)"),
        _item("overhead", "language", context_of(gpu), "device context"),
    ]
    if index == 0 and parts.tower_bytes:
        items += [
            _item("weights", "vision", tower_span(parts.tower_bytes), "2 bytes, positions 4"),
            _item("compute", "vision", VISION_GRAPH, "the tower's graph over four tiles"),
        ]
    last = min(past, n_layers)
    return DeviceBudget(
        device=f"CUDA{index}",
        name=gpu.name,
        total_bytes=gpu.total_bytes,
        free_bytes=gpu.free_bytes,
        items=tuple(item for item in items if item.high_bytes),
        layers=(first, last - 1) if last > first else None,
        has_output=output,
    )


def _host(machine: Machine, parts: Parts, placed: int, n_layers: int) -> DeviceBudget:
    left = n_layers + 1 - placed
    weights = sum(parts.layer_bytes[:left]) + parts.embedding_bytes + (0 if placed else parts.output_bytes)
    items = [
        _item("weights", "language", fixed(weights), "token embedding and the layers left out"),
        _item("kv_cache", "language", fixed(sum(parts.cache_bytes[:left])), "cache of the layers left out"),
        _item("compute", "language", Span(low=0, expected=64 * MIB, high=1024 * MIB), "host side of the graphs"),
    ]
    if not placed and parts.tower_bytes:
        items += [
            _item("weights", "vision", fixed(parts.tower_bytes), "the tower"),
            _item("compute", "vision", VISION_GRAPH, "the tower's graph over four tiles"),
        ]
    return DeviceBudget(
        device="Host",
        name=machine.host.cpu or "host",
        total_bytes=machine.host.total_bytes,
        free_bytes=machine.host.free_bytes,
        items=tuple(item for item in items if item.high_bytes),
        layers=(0, left - 1) if left > 0 else None,
        has_output=not placed,
    )


def _item(component: Component, part: Part, span: Span, formula: str) -> Item:
    basis: Basis = "assumed" if component == "overhead" else "modelled"
    return span_item(component, part, span, basis=basis, formula=formula, source=SOURCE)
