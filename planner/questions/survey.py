"""Which catalogue models fit a machine: every model in its best file type, judged on bounds, best first.

The survey is quick because it simulates nothing: weights and cache are exact, every buffer is a high bound. What it
says fits, fits; what it leaves out may still fit by a hair, and ``vlplan recommend MODEL`` knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from planner.catalog import list_profiles, load_model
from planner.catalog.engines import llama_cpp_data, load_engine
from planner.deployment.request import OFFERED
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
from planner.machine import Machine
from planner.model import Model
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


def survey(machine: Machine, workload: Workload, *, images_only: bool = False) -> list[Fitting]:
    """Return the catalogue's models that llama.cpp loads and that fit, largest on the GPUs first.

    ``images_only``: only models that take images, as when the workload has some.
    """
    found = list(_fittings(machine, workload, images_only=images_only or bool(workload.images)))
    return sorted(found, key=lambda f: (-f.on_gpu, -f.n_parameters, OFFERED.index(f.quantization), f.model))


def _fittings(machine: Machine, workload: Workload, *, images_only: bool) -> Iterator[Fitting]:
    loads = load_engine("llama.cpp").loads
    for profile in list_profiles("gguf"):
        if images_only and profile.vision is None:
            continue
        if profile.language.context and profile.language.context < workload.context_tokens:
            continue
        n_parameters = profile.parameters.total if profile.parameters else 0
        for quantization in _worth_trying(n_parameters, machine):
            model = load_model(profile.name, quantization, "gguf")
            if loads(model).verdict == "unsupported":
                break
            fitting = _fitting(model, n_parameters, machine, workload)
            if fitting is not None:
                yield fitting
                break


_BITS = {"F16": 16, "Q8_0": 8, "Q6_K": 6, "Q5_K_M": 5, "Q4_K_M": 4, "Q4_0": 4}


def _worth_trying(n_parameters: int, machine: Machine) -> Sequence[str]:
    """Return the file types whose bits alone do not already exceed all memory; Q8_0 stands for what is lossless."""
    most = sum(gpu.free_bytes for gpu in machine.gpus) or machine.host.free_bytes
    words = [word for word in OFFERED if word != "F16"]
    return [word for word in words if n_parameters * _BITS[word] // 8 <= most]


def _fitting(model: Model, n_parameters: int, machine: Machine, workload: Workload) -> Fitting | None:
    try:
        images = _image_tokens(model, workload)
    except UsageError:
        return None
    if images >= workload.context_tokens:
        return None
    run = resolve_run(model, workload, machine, LlamaCppSettings())
    headroom = _headroom(run, workload)
    if headroom is None or headroom < 0:
        return None
    return Fitting(
        model=model.name,
        quantization=model.quantization or "",
        n_parameters=n_parameters,
        images=model.vision is not None,
        on_gpu=bool(machine.gpus),
        context_tokens=workload.context_tokens,
        image_tokens=images,
        headroom_bytes=headroom,
    )


def _image_tokens(model: Model, workload: Workload) -> int:
    if model.vision is None or not workload.images:
        return 0
    found = [image_tokens(model.vision, image, "llama.cpp") for image in workload.images]
    return sum(image.tokens + image.extra_tokens for image in found)


def _headroom(run: Run, workload: Workload) -> int | None:
    """Return what the fullest device keeps when every buffer is at its bound, None where a bound is not known."""
    if not run.language.layers:
        return None
    weights, cache = weights_bytes(run.language, run.layout), kv_cache_bytes(run.language, run.layout, run.cache)
    compute = bound_bytes(graph_request(run, GraphTraits(), settle=False))
    encoder = _encoder_bytes(run, workload.images)
    overhead = llama_cpp_data().overhead
    gpus = run.machine.gpus
    spare = [
        gpu.free_bytes - weights[i] - cache[i] - compute[i] - overhead_item(gpu, overhead).high_bytes
        for i, gpu in enumerate(gpus)
    ]
    host = run.machine.host.free_bytes - weights[HOST] - cache[HOST] - compute[-1]
    if spare:
        spare[0] -= encoder
    else:
        host -= encoder
    return min([*spare, host])


def _encoder_bytes(run: Run, images: Sequence[ImageSize]) -> int:
    vision = run.model.vision
    if vision is None:
        return 0
    sides = [(vision.image_size, vision.image_size), *((image.width, image.height) for image in images)]
    compute = max(assumed_compute_bytes(vision, min(w, 2048), min(h, 2048)) for w, h in sides)
    return encoder_weights(vision, on_gpu=bool(run.machine.gpus)).loaded_bytes + compute
