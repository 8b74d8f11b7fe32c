"""The speed of a whole plan: a budget says what lies where, the stages say how long that takes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.model import MoeFfn
from planner.speed.costs import (
    attention_width,
    cache_bytes_per_token,
    convolved_weights,
    is_quantized,
    language_cost,
    projector_file,
    query_heads_per_kv_head,
    stored,
    tower_cost,
)
from planner.speed.decode import DecodeWork, decode_time
from planner.speed.encode import TowerWork, encode_time
from planner.speed.loading import image_decode_time, link_bytes_per_s, load_time
from planner.speed.parts import Part, gpu_of, n_ranks, parts_of, weight_bytes
from planner.speed.prefill import PrefillWork, prefill_time
from planner.speed.table import engine_factors, gpu_device, host_device

if TYPE_CHECKING:
    from planner.budget import Budget
    from planner.machine import Gpu, Machine
    from planner.model import Model, Vision
    from planner.speed.costs import LanguageCost
    from planner.speed.stage import StageTime
    from planner.speed.table import SpeedTable
    from planner.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSpeed:
    """The stages of one request and what they add up to.

    ``decode`` is one step, which gives each of ``n_streams`` sequences a token.
    """

    load: StageTime
    image_decode: StageTime
    encode: StageTime | None
    prefill: StageTime
    decode: StageTime
    n_prompt_tokens: int
    n_streams: int

    @property
    def first_token_s(self) -> tuple[float, float, float]:
        """Seconds from the request to the first token, low to high: images decoded, encoded, prompt processed."""
        stages = [self.image_decode, self.prefill, *([self.encode] if self.encode else [])]
        low, expected, high = zip(*((one.low_s, one.expected_s, one.high_s) for one in stages), strict=True)
        return sum(low), sum(expected), sum(high)

    @property
    def tokens_per_s(self) -> tuple[float, float, float]:
        """Tokens per second of one sequence, low to high."""
        return self.decode.per_second(1)

    def as_mapping(self) -> dict[str, dict[str, float | str]]:
        """Return every figure with its range, what bounds it and how it is known, for an answer in JSON."""
        prefill = self.prefill.per_second(self.n_prompt_tokens)
        found = {
            "decode_tokens_per_s": _row(self.tokens_per_s, self.decode),
            "all_streams_tokens_per_s": _row(self.decode.per_second(self.n_streams), self.decode),
            "prefill_tokens_per_s": _row(prefill, self.prefill),
            "first_token_s": _row(self.first_token_s, self.prefill),
        }
        stages = [self.load, self.image_decode, *([self.encode] if self.encode else []), self.prefill]
        return found | {f"{one.name}_s": _row((one.low_s, one.expected_s, one.high_s), one) for one in stages}


def _row(values: tuple[float, float, float], time: StageTime) -> dict[str, float | str]:
    low, expected, high = values
    return {"low": low, "expected": expected, "high": high, "bound_by": time.bound_by, "basis": time.basis}


def plan_speed(  # noqa: PLR0913 - a plan is this many nouns
    model: Model,
    machine: Machine,
    workload: Workload,
    budget: Budget,
    *,
    engine: str,
    table: SpeedTable,
    kv_element_bytes: float = 2.0,
) -> PlanSpeed:
    """Return how fast ``budget``'s placement is.

    Args:
        model: its tensors tell what a token reads.
        machine: the devices; ``CUDA1`` of the budget is the second GPU.
        workload: prompt, images and answer; sequences and batch are decoded together.
        budget: which layers, output and tower are on which device. Weights that a GPU lacks although it has the layers
            are experts on the host.
        engine: its name.
        table: the factors.
        kv_element_bytes: of the cache's type, 34/32 for q8_0.
    """
    cost = language_cost(model.language)
    parts = parts_of(cost, machine, budget, engine, table)
    n_prompt = workload.prompt_tokens + sum(image.tokens + image.extra_tokens for image in budget.image_tokens)
    n_streams = max(1, workload.sequences) * max(1, workload.batch)
    n_past = min(workload.context_tokens, n_prompt + workload.answer_tokens // 2)
    works = [_decode_work(part, model, n_past, kv_element_bytes / n_ranks(parts)) for part in parts]
    link = parts[0].device.kind.rank_link if n_ranks(parts) > 1 else None
    return PlanSpeed(
        load=load_time(_file_bytes(model, cost), _copied(machine, budget), table=table),
        image_decode=image_decode_time(workload.images, table=table),
        encode=_encode(model, machine, budget, engine, table),
        prefill=_prefill(parts, model, n_prompt * max(1, workload.batch), budget, table),
        decode=decode_time(works, engine=engine, table=table, sequences=n_streams, tensor_parallel=link),
        n_prompt_tokens=n_prompt,
        n_streams=n_streams,
    )


def _decode_work(part: Part, model: Model, n_past: int, element_bytes: float) -> DecodeWork:
    layers = [model.language.layers[index] for index in part.layers]
    mixers = [layer.mixer for layer in layers]
    return DecodeWork(
        device=part.device,
        n_layers=len(part.layers),
        weight_bytes=part.used.n_bytes,
        n_weights=part.used.n_weights,
        n_superblock_weights=part.used.n_superblock_weights,
        kv_bytes=sum(cache_bytes_per_token(mixer, n_past, element_bytes) for mixer in mixers),
        kv_repeat=max((query_heads_per_kv_head(mixer) for mixer in mixers), default=1),
        n_expert_layers=sum(isinstance(layer.ffn, MoeFfn) for layer in layers),
        n_hops=part.n_hops,
    )


def _prefill(parts: list[Part], model: Model, n_tokens: int, budget: Budget, table: SpeedTable) -> StageTime:
    """Return the prompt's time. Beside a GPU the host's weights are carried to it for every micro-batch."""
    first = next((part for part in parts if part.gpu is not None), None)
    works = [_prefill_work(part, model, n_tokens, first, table) for part in parts]
    ranks = n_ranks(parts)
    if ranks > 1:  # equal shards at the same time
        works = [replace(works[0], attention_width=works[0].attention_width // ranks)]
    ubatch = budget.settings.get("ubatch_size", 512)
    return prefill_time(works, n_tokens=n_tokens, table=table, ubatch=ubatch if isinstance(ubatch, int) else 512)


def _prefill_work(part: Part, model: Model, n_tokens: int, first: Part | None, table: SpeedTable) -> PrefillWork:
    rate = None if first is None or first.gpu is None else link_bytes_per_s(first.gpu, table)
    carried = part.gpu is None and first is not None and rate is not None
    used = part.used - part.output
    layers = [model.language.layers[index] for index in part.layers]
    mixers = [layer.mixer for layer in layers]
    return PrefillWork(
        device=first.device if carried and first is not None else part.device,
        n_layers=len(part.layers),
        n_weights=used.n_weights,
        weight_bytes=part.held.n_bytes - part.output.n_bytes,
        quantized=is_quantized(used),
        n_embd=model.language.n_embd,
        experts=part.held.n_bytes > part.used.n_bytes,
        attention_width=sum(attention_width(mixer, n_tokens) for mixer in mixers),
        link_bytes_per_s=rate if carried else None,
    )


def _encode(model: Model, machine: Machine, budget: Budget, engine: str, table: SpeedTable) -> StageTime | None:
    """Return the time of all images of one request on the device that holds the tower; None without images."""
    vision = model.vision
    if vision is None:
        return None
    convolved = convolved_weights(vision, model.language.n_embd)
    patches = [n for image in budget.image_tokens for n in image.encoder_sequences]
    sequences = [image.tokens for image in budget.image_tokens] if convolved else patches
    if not sequences:
        return None
    holder = max(budget.devices, key=lambda device: weight_bytes(device, "vision", "projector"))
    gpu = gpu_of(holder, machine)
    tower, projector = tower_cost(vision, model.language.n_embd)
    n_tokens = sum(image.cross_tokens or image.tokens for image in budget.image_tokens)
    tabled = vision.projector in engine_factors(engine, table).position_tables
    work = TowerWork(
        device=host_device(machine.host, table) if gpu is None else gpu_device(gpu, table),
        n_layers=vision.n_layers,
        n_embd=vision.n_embd,
        n_heads=vision.n_heads,
        n_weights=convolved or tower.n_weights,
        weight_bytes=tower.n_bytes + projector.n_bytes,
        quantized=is_quantized(tower),
        n_projector_weights=projector.n_weights,
        patches_per_token=max(1.0, sum(sequences) / max(1, n_tokens)),
        window_patches=_window_patches(vision),
        n_full_layers=_full_layers(vision),
        table_width=model.language.n_embd if tabled else 0,
    )
    return encode_time(work, sequences, engine=engine, table=table, flash=_flash(budget))


def _flash(budget: Budget) -> bool:
    """Return whether a tower's attention runs without its scores in memory."""
    return budget.settings.get("flash_attn") != "off" and budget.settings.get("attn_implementation") != "eager"


def _window_patches(vision: Vision) -> int:
    """Return the patches of an attention window where most layers have one, else 0."""
    side = vision.facts.get("window_size")
    return (side // vision.patch_size) ** 2 if isinstance(side, int) and side >= vision.patch_size else 0


def _full_layers(vision: Vision) -> int:
    """Return how many layers of a tower with windows see the whole image."""
    layers = vision.facts.get("full_attention_layers")
    return len(layers) if isinstance(layers, tuple) else 0


def _file_bytes(model: Model, cost: LanguageCost) -> int:
    if model.file_bytes:
        return model.file_bytes + (model.projector_file_bytes or 0)
    head = cost.output if cost.tied else cost.output + cost.embedding
    language = sum((layer.dense + layer.experts for layer in cost.layers), head)
    vision = projector_file(model.vision, model.language.n_embd) if model.vision else ()
    return language.n_bytes + stored(vision).n_bytes


def _copied(machine: Machine, budget: Budget) -> list[tuple[Gpu, int]]:
    pairs = ((gpu_of(device, machine), device) for device in budget.devices)
    return [(gpu, weight_bytes(device, "language", "vision", "projector")) for gpu, device in pairs if gpu is not None]
