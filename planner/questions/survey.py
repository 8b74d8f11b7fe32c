"""Which catalogue models fit a machine: every model in its best file type, best first.

The survey is quick because it simulates only where it must: weights and cache are exact, buffers a high bound; the
exact budget is asked where the bound does not fit and weights and cache alone would.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from planner.catalog import list_profiles, load_model
from planner.catalog.engines import llama_cpp_data, load_engine
from planner.engines.llama_cpp.bound import bound_bytes
from planner.engines.llama_cpp.encoder.bounds import assumed_compute_bytes
from planner.engines.llama_cpp.encoder.weights import encoder_weights
from planner.engines.llama_cpp.engine import overhead_item
from planner.engines.llama_cpp.kv_cache import kv_cache_bytes
from planner.engines.llama_cpp.layout import HOST
from planner.engines.llama_cpp.run import Run, graph_request, resolve_run
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.engines.llama_cpp.traits import GraphTraits
from planner.engines.llama_cpp.weights import weights_bytes
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Machine
from planner.model import Model
from planner.units import align
from planner.vision import image_tokens
from planner.workload import ImageSize, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitting:
    """A model that fits: in which file type, how much is spare on the fullest device, and where it lies."""

    model: str
    quantization: str
    n_parameters: int
    images: bool
    on_gpu: bool
    context_tokens: int
    image_tokens: int
    headroom_bytes: int


def survey(machine: Machine, workload: Workload, *, images_only: bool = False, grow: bool = False) -> list[Fitting]:
    """Return the catalogue's models that llama.cpp loads and that fit, largest on the GPUs first.

    ``images_only``: only models that take images, as when the workload has some. ``grow``: the workload's context is
    the least; a model whose images, prompt and answer need more gets more.
    """
    found = list(_fittings(machine, workload, images_only=images_only or bool(workload.images), grow=grow))
    return sorted(found, key=lambda f: (-f.on_gpu, -f.n_parameters, -_BITS.get(f.quantization, 0), f.model))


def _fittings(machine: Machine, workload: Workload, *, images_only: bool, grow: bool) -> Iterator[Fitting]:
    loads = load_engine("llama.cpp").loads
    for profile in list_profiles("gguf"):
        if images_only and profile.vision is None:
            continue
        n_parameters = profile.parameters.total if profile.parameters else 0
        for quantization in _worth_trying(profile.quantizations, n_parameters, machine):
            model = load_model(profile.name, quantization, "gguf")
            own = _own_workload(model, workload, grow=grow)
            if own is None or loads(model).verdict == "unsupported":
                break
            fitting = _fitting(model, n_parameters, machine, own)
            if fitting is not None:
                yield fitting
                break


def _own_workload(model: Model, workload: Workload, *, grow: bool) -> Workload | None:
    """Return the workload with the context this model needs, None where its images or its training forbid it."""
    try:
        images = _image_tokens(model, workload)
    except UsageError:
        return None
    needed = images + workload.prompt_tokens + workload.answer_tokens
    context = max(workload.context_tokens, align(needed, 1024)) if grow else workload.context_tokens
    trained = model.language.n_context_train or context
    return replace(workload, context_tokens=context) if images < context <= trained else None


_BITS = {"F16": 16, "Q8_0": 8, "Q6_K": 6, "Q5_K_M": 5, "Q4_K_M": 4, "Q4_0": 4}


def _worth_trying(file_types: Sequence[str], n_parameters: int, machine: Machine) -> Sequence[str]:
    """Return the file types whose bits alone do not already exceed all memory; Q8_0 stands for what is lossless."""
    most = sum(gpu.free_bytes for gpu in machine.gpus) or machine.host.free_bytes
    words = [word for word in file_types if word != "F16"]
    return [word for word in words if n_parameters * _BITS.get(word, 0) // 8 <= most]


def _fitting(model: Model, n_parameters: int, machine: Machine, workload: Workload) -> Fitting | None:
    headroom = _headroom(model, workload, machine)
    if headroom is None or headroom < 0:
        return None
    return Fitting(
        model=model.name,
        quantization=model.quantization or "",
        n_parameters=n_parameters,
        images=model.vision is not None,
        on_gpu=bool(machine.gpus),
        context_tokens=workload.context_tokens,
        image_tokens=_image_tokens(model, workload),
        headroom_bytes=headroom,
    )


def _image_tokens(model: Model, workload: Workload) -> int:
    if model.vision is None or not workload.images:
        return 0
    found = [image_tokens(model.vision, image, "llama.cpp") for image in workload.images]
    return sum(image.tokens + image.extra_tokens for image in found)


def _headroom(model: Model, workload: Workload, machine: Machine) -> int | None:
    """Return what the fullest device keeps at most memory, None where the model's layers are not known."""
    run = resolve_run(model, workload, machine, LlamaCppSettings())
    if not run.language.layers:
        return None
    without_buffers = _spare(run)
    if min(without_buffers) < 0:
        return min(without_buffers)
    compute = bound_bytes(graph_request(run, GraphTraits(), settle=False))
    bounded = [spare - most for spare, most in zip(without_buffers, compute, strict=True)]
    bounded[0] -= _encoder_bound(run, workload.images)
    return min(bounded) if min(bounded) >= 0 else _exact_headroom(model, workload, machine)


def _spare(run: Run) -> list[int]:
    """Return what weights, cache and overhead leave of every GPU and the host, in that order."""
    weights, cache = weights_bytes(run.language, run.layout), kv_cache_bytes(run.language, run.layout, run.cache)
    overhead = llama_cpp_data().overhead
    spare = [
        gpu.free_bytes - weights[i] - cache[i] - overhead_item(gpu, overhead).high_bytes
        for i, gpu in enumerate(run.machine.gpus)
    ]
    spare.append(run.machine.host.free_bytes - weights[HOST] - cache[HOST])
    if run.model.vision is not None:
        spare[0] -= encoder_weights(run.model.vision, on_gpu=bool(run.machine.gpus)).loaded_bytes
    return spare


def _encoder_bound(run: Run, images: Sequence[ImageSize]) -> int:
    vision = run.model.vision
    if vision is None:
        return 0
    sides = [(vision.image_size, vision.image_size), *((image.width, image.height) for image in images)]
    return max(assumed_compute_bytes(vision, width, height) for width, height in sides)


def _exact_headroom(model: Model, workload: Workload, machine: Machine) -> int | None:
    found = load_engine("llama.cpp").budget(model, workload, machine, LlamaCppSettings())
    return None if found.refusals else min(device.headroom_bytes for device in found.devices)
