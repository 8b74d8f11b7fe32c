"""A model, a machine and a workload under transformers → bytes per device.

Nothing is reserved ahead: the cache grows with the sequences, so figures are those of the load asked for. ``low`` of
the KV cache is what the prompt leaves behind, ``expected`` what stands after the answer, ``high`` what the whole
``context_tokens`` would need; with ``answer_tokens: 0`` and ``context_tokens`` no longer than the prompt, all are the
prefill's exact bytes. ``compute`` is the peak of the prefill less the cache it holds then; its ``high`` covers
a decode step at that length, too. What sliding windows will cut at the first decode step stands as overhead until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from planner.budget import Budget, DeviceBudget, ImageTokens
from planner.engines.transformers.attention import FLASH_MAX_HEAD
from planner.engines.transformers.device_map import DISK, Placement, balanced_limits, place
from planner.engines.transformers.forms import ClassForm, Forms
from planner.engines.transformers.items import Call, device_items, host_items
from planner.engines.transformers.peak import Share
from planner.engines.transformers.prefill import prefill_of
from planner.engines.transformers.quantities import heads_of
from planner.engines.transformers.settings import TransformersSettings
from planner.engines.transformers.weights import Piece, part_weights, pieces
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Machine
from planner.memory.overhead import OverheadTable, overhead_bytes
from planner.model import Model
from planner.units import format_bytes, parse_bytes
from planner.vision import image_tokens
from planner.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformersData:
    """What the engine is known by beside code, from ``profiles/engines``."""

    forms: Forms
    overhead: OverheadTable


def budget(
    data: TransformersData, model: Model, workload: Workload, machine: Machine, settings: TransformersSettings
) -> Budget:
    """Return the bytes of each device for one batch of requests.

    Raises:
        UsageError: images for a model that takes none, or a size in ``max_memory`` that is none.
    """
    images = images_of(model, workload, settings)
    form = data.forms.of_model(model)
    asked, settings = settings, supported(settings, form)
    parts = part_weights(model, settings, form)
    if not parts:
        return Budget(devices=(), image_tokens=images, unknown=(f"{model.name}: the number of parameters is unknown",))
    prefill = prefill_of(model, workload, settings, images, form)
    call = Call(model=model, prefill=prefill, forms=data.forms, settings=settings, workload=workload, parts=parts)
    all_pieces = tuple(pieces(model, parts, settings))
    placement = _placement(all_pieces, machine, settings, data.overhead)
    return Budget(
        devices=_devices(call, all_pieces, placement, machine, data.overhead),
        image_tokens=images,
        settings=_shown(settings, placement, all_pieces),
        notes=(*_replaced(asked, settings), *_notes(call, workload)),
        refusals=_refusals(call, placement, all_pieces),
    )


def supported(settings: TransformersSettings, form: ClassForm) -> TransformersSettings:
    """Return settings with the attention that the modelling class has, where it has only one."""
    return settings if form.only is None else replace(settings, attn_implementation=form.only)


def _replaced(asked: TransformersSettings, settings: TransformersSettings) -> tuple[str, ...]:
    if asked.attn_implementation == settings.attn_implementation:
        return ()
    return (f"this model has no {asked.attn_implementation} attention; {settings.attn_implementation} is planned",)


def device_limits(
    data: TransformersData, model: Model, machine: Machine, settings: TransformersSettings
) -> dict[str, int] | None:
    """Return the bytes each device may take in a model spread over several, None where one device takes all."""
    form = data.forms.of_model(model)
    parts = part_weights(model, settings, form)
    if not parts or settings.device_map != "auto" or not machine.gpus:
        return None
    placement = _placement(tuple(pieces(model, parts, settings)), machine, settings, data.overhead)
    return dict(placement.limits) if len(set(placement.devices)) > 1 else None


def images_of(model: Model, workload: Workload, settings: TransformersSettings) -> tuple[ImageTokens, ...]:
    """Return what each image of one request becomes, equal ones computed once.

    Raises:
        UsageError: the model takes no images, or its processor refuses one.
    """
    if not workload.images:
        return ()
    vision = model.vision
    if vision is None:
        raise UsageError(f"{model.name} takes no images: leave them out, or choose a vision-language model")
    n_images = len(workload.images)
    known = {
        image: image_tokens(vision, image, "transformers", overrides=settings.processor, n_images=n_images)
        for image in dict.fromkeys(workload.images)
    }
    return tuple(known[image] for image in workload.images)


def _placement(
    all_pieces: tuple[Piece, ...], machine: Machine, settings: TransformersSettings, overhead: OverheadTable
) -> Placement:
    everything = sum(piece.n_bytes for piece in all_pieces)
    if settings.device_map == "cpu" or not machine.gpus:
        return Placement(devices=("Host",) * len(all_pieces), limits={"Host": everything})
    if settings.device_map == "single":
        return Placement(devices=("CUDA0",) * len(all_pieces), limits={"CUDA0": everything})
    free = {}
    for i, gpu in enumerate(machine.gpus):
        taken = overhead_bytes(gpu, "transformers", overhead).expected_bytes
        free[f"CUDA{i}"] = max(0, gpu.free_bytes - taken)
    free["Host"] = machine.host.free_bytes
    given = _given_limits(settings.max_memory)
    return place(all_pieces, balanced_limits(all_pieces, free, given, quantized=settings.load_in is not None))


def _given_limits(max_memory: Mapping[str, str] | None) -> dict[str, int] | None:
    """Return the user's sizes by device.

    Raises:
        UsageError: a key is neither a GPU's number nor ``cpu``, or a value is no size.
    """
    if max_memory is None:
        return None
    found = {}
    for key, size in max_memory.items():
        if key != "cpu" and not (key.isascii() and key.isdigit() and len(key) <= 3):
            raise UsageError(f"settings.max_memory: {key!r} is neither a GPU's number nor cpu")
        found["Host" if key == "cpu" else f"CUDA{int(key)}"] = parse_bytes(size)
    return found


def _devices(
    call: Call, all_pieces: tuple[Piece, ...], placement: Placement, machine: Machine, overhead: OverheadTable
) -> tuple[DeviceBudget, ...]:
    used = set(placement.devices)
    offloaded = "Host" in used and len(used) > 1
    found = []
    for i, gpu in enumerate(machine.gpus):
        name = f"CUDA{i}"
        mine = [all_pieces[j] for j in placement.indices(name)]
        guests = [all_pieces[j] for j in placement.indices("Host")] if offloaded and i == 0 else []
        items = device_items(call, mine, guests, overhead_bytes(gpu, "transformers", overhead)) if mine else ()
        found.append(
            DeviceBudget(
                device=name,
                name=gpu.name,
                total_bytes=gpu.total_bytes,
                free_bytes=gpu.free_bytes,
                items=items,
                layers=_span(mine),
                has_output=any(piece.name == "lm_head" for piece in mine),
            )
        )
    mine = [all_pieces[j] for j in placement.indices("Host")]
    host = DeviceBudget(
        device="Host",
        name=machine.host.cpu or "host memory",
        total_bytes=machine.host.total_bytes,
        free_bytes=machine.host.free_bytes,
        items=host_items(call, mine, computes=bool(mine) and not offloaded),
        layers=_span(mine),
        has_output=any(piece.name == "lm_head" for piece in mine),
    )
    return (*found, host)


def _span(mine: list[Piece]) -> tuple[int, int] | None:
    layers = [piece.layer_index for piece in mine if piece.layer_index is not None]
    return (layers[0], layers[-1]) if layers else None


def _shown(settings: TransformersSettings, placement: Placement, all_pieces: tuple[Piece, ...]) -> dict[str, object]:
    shown: dict[str, object] = {
        "dtype": settings.dtype,
        "attn_implementation": settings.attn_implementation,
        "logits": settings.logits,
        "padded": settings.padded,
        "device_map": settings.device_map,
    }
    if settings.load_in is not None:
        shown["load_in"] = settings.load_in
    if len(set(placement.devices)) > 1:
        shown["placement"] = {
            device: f"{len(placement.indices(device))} of {len(all_pieces)} modules"
            for device in dict.fromkeys(placement.devices)
        }
    if settings.max_memory is not None:
        shown["max_memory"] = dict(settings.max_memory)
    return shown


def _notes(call: Call, workload: Workload) -> tuple[str, ...]:
    p = call.prefill
    peak = call.peak(Share(layers=tuple(range(p.language.n_layers))))
    weights = sum(part.n_bytes for part in call.parts)
    least, most = (format_bytes(weights + peak.n_bytes * quarters // 4) for quarters in (5, 6))
    found = [
        f"prefill peak at {peak.at}: allocated {format_bytes(weights + peak.n_bytes)} in all",
        f"torch reserves in segments: nvidia-smi will show {least} to {most} and the CUDA contexts",
    ]
    if p.n_tokens > workload.context_tokens:
        found.append(f"the prompt takes {p.n_tokens} tokens with its images, more than the context asked for")
    if not p.traced:
        found.append("this modelling class was not traced: the compute figure is a bound")
    return tuple(found)


def _refusals(call: Call, placement: Placement, all_pieces: tuple[Piece, ...]) -> tuple[str, ...]:
    lost = [all_pieces[i] for i in placement.indices(DISK)]
    found = []
    if lost:
        size = format_bytes(sum(piece.n_bytes for piece in lost))
        found.append(f"{len(lost)} modules ({size}) fit on no device; accelerate would put them on disk")
    if call.settings.attn_implementation == "flash_attention_2":
        found += _flash_refusals(call)
    return tuple(found)


def _flash_refusals(call: Call) -> list[str]:
    """What speaks against flash_attention_2: the dtype, the modelling class, heads wider than the kernel takes."""
    found = []
    if call.settings.dtype == "fp32":
        found.append("flash_attention_2 takes fp16 and bf16 only; set dtype bf16, or attn_implementation sdpa")
    widest = max((heads_of(layer)[2] for layer in call.prefill.language.layers), default=0)
    if not call.prefill.form.flash:
        found.append("this modelling class has no flash_attention_2; set attn_implementation sdpa")
    elif widest > FLASH_MAX_HEAD:
        found.append(
            f"flash_attention_2 takes heads of up to {FLASH_MAX_HEAD}, this model has {widest}; set attn_implementation"
            " sdpa"
        )
    return found
