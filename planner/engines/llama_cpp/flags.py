"""The command line that makes llama.cpp do exactly what was planned (flags of llama.cpp 0.5.0-dev)."""

from __future__ import annotations

import shlex

from planner.engines.engine import Emitted
from planner.engines.llama_cpp.settings import LlamaCppSettings, resolve
from planner.machine import Machine
from planner.model import Model
from planner.workload import Workload

_DEFAULTS = LlamaCppSettings()


def emit(model: Model, workload: Workload, machine: Machine, settings: LlamaCppSettings) -> Emitted:
    """Return the command for these settings; flags that equal the engine's defaults are left out."""
    words = [settings.program, "-m", model_file(model)]
    if model.vision is not None:
        words += ["--mmproj", projector_file(model)]
    words += _sizes(model, workload, settings)
    words += _placement(model, machine, settings)
    words += _attention(settings)
    words += _images(settings)
    return Emitted(command=shlex.join(words))


def model_file(model: Model) -> str:
    """Return the model's file, or the name a file of this profile would have."""
    if model.source.endswith(".gguf"):
        return model.source
    return f"{model.name}-{model.quantization}.gguf" if model.quantization else f"{model.name}.gguf"


def projector_file(model: Model) -> str:
    """Return the projector's file, or the name one for this profile would have."""
    return model.projector_source or f"mmproj-{model.name}-F16.gguf"


def _sizes(model: Model, workload: Workload, settings: LlamaCppSettings) -> list[str]:
    run = resolve(settings, workload, model.language.n_context_train)
    words = ["-c", str(run.n_ctx_asked)]
    if settings.program == "llama-server" or run.n_seqs > 1:
        words += ["-np", str(run.n_seqs)]
    if run.kv_unified:
        words.append("-kvu")
    if settings.batch_size != _DEFAULTS.batch_size:
        words += ["-b", str(settings.batch_size)]
    if settings.ubatch_size != _DEFAULTS.ubatch_size:
        words += ["-ub", str(settings.ubatch_size)]
    return words


def _placement(model: Model, machine: Machine, settings: LlamaCppSettings) -> list[str]:
    if settings.device == "none":
        return ["--device", "none"]
    if not machine.gpus:
        return []
    n_places = model.language.n_layers + model.language.n_mtp_layers + 1
    n_offloaded = n_places if settings.n_gpu_layers < 0 else min(settings.n_gpu_layers, n_places)
    words = ["-ngl", str(n_offloaded), "--fit", "off"]
    if settings.split_mode != "layer":
        words += ["-sm", settings.split_mode]
    if settings.main_gpu:
        words += ["-mg", str(settings.main_gpu)]
    if settings.tensor_split is not None and len(machine.gpus) > 1:
        words += ["-ts", ",".join(f"{share:g}" for share in settings.tensor_split)]
    for override in settings.override_tensor or ():
        words += ["-ot", override]
    if settings.n_cpu_moe:
        words += ["-ncmoe", str(settings.n_cpu_moe)]
    flags = {
        "-cmoe": settings.cpu_moe,
        "-nkvo": settings.no_kv_offload,
        "--no-op-offload": settings.no_op_offload,
        "--no-mmproj-offload": settings.no_mmproj_offload and model.vision is not None,
    }
    return words + [flag for flag, on in flags.items() if on]


def _attention(settings: LlamaCppSettings) -> list[str]:
    words: list[str] = []
    if settings.flash_attn != "auto":
        words += ["-fa", settings.flash_attn]
    if settings.cache_type_k != "f16":
        words += ["-ctk", settings.cache_type_k]
    if settings.cache_type_v != "f16":
        words += ["-ctv", settings.cache_type_v]
    if settings.swa_full:
        words.append("--swa-full")
    if settings.load_mode != "auto":
        words += ["--load-mode", settings.load_mode]
    return words


def _images(settings: LlamaCppSettings) -> list[str]:
    words: list[str] = []
    if settings.image_min_tokens is not None:
        words += ["--image-min-tokens", str(settings.image_min_tokens)]
    if settings.image_max_tokens is not None:
        words += ["--image-max-tokens", str(settings.image_max_tokens)]
    return words
