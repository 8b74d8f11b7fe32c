"""llama.cpp as an engine: from model, workload, machine and flags to a budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from planner.budget import Budget, DeviceBudget, ImageTokens, Item
from planner.engines import refusals
from planner.engines.engine import DevicePeak
from planner.engines.llama_cpp.budget import assemble
from planner.engines.llama_cpp.compute import compute_buffers
from planner.engines.llama_cpp.encoder.kinds import EncoderKind
from planner.engines.llama_cpp.encoding import encoding_of
from planner.engines.llama_cpp.layout import HOST, place_weights
from planner.engines.llama_cpp.older_builds import as_older, with_all_rows
from planner.engines.llama_cpp.run import Run, device_names, graph_request, resolve_run
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.engines.llama_cpp.traits import GraphTraits
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.memory.overhead import OverheadTable, overhead_bytes
from planner.model import Model
from planner.vision import image_tokens
from planner.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppData:
    """What the engine is known by beside code, from ``profiles/engines``; ``older_build``: before May 2026."""

    traits: Mapping[str, GraphTraits]
    encoders: Mapping[str, EncoderKind]
    overhead: OverheadTable
    older_build: bool = False


def budget(
    data: LlamaCppData, model: Model, workload: Workload, machine: Machine, settings: LlamaCppSettings
) -> Budget:
    """Return llama.cpp's memory for these settings.

    Raises:
        UsageError: a setting the command line would refuse, or images for a model that takes none.
    """
    if settings.device == "none" and machine.gpus:
        return _without_gpus(data, model, workload, machine, settings)
    run = resolve_run(model, workload, machine, settings)
    run = with_all_rows(run) if data.older_build else run
    images = images_of(model, workload, settings)
    found = assemble(
        run,
        traits=data.traits.get(model.language.architecture),
        overhead=lambda gpu, index: tuple(_overheads(run, gpu, index, data.overhead)),
        encoding=encoding_of(run, images, data.encoders),
        images=images,
        refused=tuple(_refused(run, images)),
    )
    return as_older(found, run) if data.older_build else found


def _without_gpus(
    data: LlamaCppData, model: Model, workload: Workload, machine: Machine, settings: LlamaCppSettings
) -> Budget:
    """Return the budget of a process that sees no GPU, with the GPUs listed as empty."""
    found = budget(data, model, workload, replace(machine, gpus=()), settings)
    gpus = tuple(
        DeviceBudget(device=name, name=gpu.name, total_bytes=gpu.total_bytes, free_bytes=gpu.free_bytes, items=())
        for name, gpu in zip(device_names(machine.gpus), machine.gpus, strict=True)
    )
    return replace(found, devices=(*gpus, *found.devices))


def peaks(
    data: LlamaCppData, model: Model, workload: Workload, machine: Machine, settings: LlamaCppSettings
) -> tuple[DevicePeak, ...]:
    """Return which operation makes each device's compute peak; nothing where the graph is not known."""
    run = resolve_run(model, workload, machine, settings)
    traits = data.traits.get(model.language.architecture)
    found = None if traits is None else compute_buffers(graph_request(run, traits), explain=True)
    if found is None:
        return ()
    names = (*device_names(machine.gpus), "Host")
    return tuple(
        DevicePeak(device=name, operation=peak.operation, layer=peak.layer, live=peak.live)
        for name, peak in zip(names, found.peaks, strict=True)
        if peak is not None
    )


def images_of(model: Model, workload: Workload, settings: LlamaCppSettings) -> tuple[ImageTokens, ...]:
    """Return what each image of one request becomes, equal ones computed once."""
    if not workload.images:
        return ()
    vision = model.vision
    if vision is None:
        raise UsageError(f"{model.name} takes no images (no projector): leave them out, or name a projector file")
    known = {
        image: image_tokens(
            vision,
            image,
            "llama.cpp",
            image_max_tokens=settings.image_max_tokens,
            image_min_tokens=settings.image_min_tokens,
        )
        for image in dict.fromkeys(workload.images)
    }
    return tuple(known[image] for image in workload.images)


def _overheads(run: Run, gpu: Gpu, index: int, table: OverheadTable) -> Iterator[Item]:
    """Yield what lies on a GPU outside the engine's buffers: the process, and staging of experts kept on the host."""
    yield overhead_item(gpu, table)
    largest = 0 if run.settings.no_op_offload or index else _largest_host_experts(run)
    if largest:
        staging = table.expert_staging
        yield Item(
            component="overhead",
            part="language",
            resident_bytes=0,
            low_bytes=0,
            expected_bytes=min(staging.expected_bytes, 2 * largest),
            high_bytes=min(staging.high_bytes, 4 * largest),
            basis="assumed",
            formula="pool through which experts in host memory are staged for large batches: up to four times the "
            "largest of their tensors in 16 bits, at most what was ever seen",
            source=table.expert_staging_source,
            inputs={"largest_tensor_in_f16_bytes": largest},
        )


def _largest_host_experts(run: Run) -> int:
    """Return the bytes in 16 bits of the largest expert tensor that lies on the host beside a GPU, 0 if none does."""
    placed = place_weights(run.language, run.layout)
    held = (tensor.n_elements for tensor, device in placed if device == HOST and "_exps." in tensor.name)
    return 2 * max(held, default=0)


def overhead_item(gpu: Gpu, table: OverheadTable, engine: str = "llama.cpp") -> Item:
    """Return the device memory of one process outside the engine's buffers, as a range."""
    found = overhead_bytes(gpu, engine, table)
    return Item(
        component="overhead",
        part="language",
        resident_bytes=found.expected_bytes,
        low_bytes=found.low_bytes,
        expected_bytes=found.expected_bytes,
        high_bytes=found.high_bytes,
        basis=found.basis,
        formula="context of one process and its libraries on this GPU, outside the engine's buffers",
        source=found.source,
    )


def _refused(run: Run, images: tuple[ImageTokens, ...]) -> Iterator[str]:
    settings = run.settings
    type_k, type_v = settings.cache_type_k, settings.cache_type_v
    longest = max((max(image.chunk_tokens, default=0) for image in images), default=0)
    checks = (
        refusals.quantized_v_needs_flash_attention(type_v, settings.flash_attn),
        refusals.cache_block_divides_head(run.language, type_k, type_v, settings.flash_attn),
        refusals.latent_needs_equal_types(run.language, type_k, type_v),
        refusals.image_needs_ubatch(run.resolved.n_ubatch, longest, non_causal=_non_causal(run)),
    )
    yield from (reason for reason in checks if reason)


def _non_causal(run: Run) -> bool:
    """Whether the engine decodes an image's tokens without a causal mask (mtmd.cpp)."""
    vision = run.model.vision
    return vision is not None and bool(vision.facts.get("non_causal"))
