"""What Ollama 0.30 and later hand to llama-server, decided from the model, the machine and Ollama's own words.

Source: Ollama 0.33.0-rc2, ``llm/llama_server.go``, ``server/sched.go``, ``server/routes.go``, ``ml/device.go``.
"""

from __future__ import annotations

from planner.engines.ollama.settings import OllamaRules, OllamaSettings, check_settings
from planner.engines.versions import parse_version
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Attention, Model
from planner.quantization import tensor_bytes
from planner.units import GIB, MIB, format_bytes
from planner.workload import Workload

MIN_VISION_CONTEXT = 2048
IMAGE_FLOOR_TOKENS = 1024
PROJECTOR_MARGIN = GIB
_TIERS = ((47 * GIB, 262144), (23 * GIB, 32768), (0, 4096))
_SURCHARGE = {1024: 768 * MIB, 2048: 2 * GIB}
_SHARE = {512: 0.80, 1024: 0.75, 2048: 0.60}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStart:
    """llama-server's settings under their own words, what led to them, and the one GPU that was chosen (or all)."""

    settings: dict[str, object]
    notes: tuple[str, ...]
    num_ctx: int
    parallel: int
    gpu_index: int | None = None  # None: every GPU


def llama_server_settings(  # noqa: PLR0913 - all that the choice depends on
    model: Model, workload: Workload, machine: Machine, settings: OllamaSettings, version: str, rules: OllamaRules
) -> ServerStart:
    """Return what Ollama starts llama-server with.

    Raises:
        UsageError: an impossible value or version.
    """
    check_settings(settings)
    num_ctx, context_notes = resolved_context(model, workload, machine, settings, version)
    parallel, slot_notes = slots(model.language.architecture, workload, settings, version, rules)
    flash = flash_attention(machine, settings)
    chosen = chosen_gpu(model, machine, settings, num_ctx * parallel)
    gpus = machine.gpus if chosen is None else (machine.gpus[chosen],)
    batch = settings.num_batch or automatic_batch(model, gpus, num_ctx * parallel, flash=flash)
    on_cpu = projector_on_cpu(model, machine, settings)
    words: dict[str, object] = {
        "program": "llama-server",
        "ctx_size": num_ctx * parallel,
        "parallel": parallel,
        "kv_unified": False,
        "batch_size": batch,
        "ubatch_size": batch,
        "flash_attn": flash,
        "cache_type_k": settings.kv_cache_type,
        "cache_type_v": settings.kv_cache_type,
    }
    words |= _placement_words(model, settings, on_cpu=on_cpu)
    if model.vision is not None and model.language.architecture in rules.image_floor:
        words["image_min_tokens"] = IMAGE_FLOOR_TOKENS
    build = carried_build(version, rules)
    pinned = [f"Ollama {version} carries llama.cpp {build} or later; it is planned as 0.5"] if build else []
    notes = [*context_notes, *slot_notes, *([f"the projector runs on the CPU: {on_cpu}"] if on_cpu else []), *pinned]
    return ServerStart(settings=words, notes=tuple(notes), num_ctx=num_ctx, parallel=parallel, gpu_index=chosen)


def carried_build(version: str, rules: OllamaRules) -> str | None:
    """Return the llama.cpp build that the release carries, as far as pins were read."""
    at = parse_version(version)
    known = [release for release in rules.llama_cpp if not at < parse_version(release)]
    return rules.llama_cpp[max(known, key=parse_version)] if known else None


def _placement_words(model: Model, settings: OllamaSettings, *, on_cpu: str | None) -> dict[str, object]:
    words: dict[str, object] = {}
    if settings.num_gpu >= 0:
        words["n_gpu_layers"] = settings.num_gpu
        words["fit"] = "off"
    if settings.main_gpu is not None:
        words["main_gpu"] = settings.main_gpu
    if settings.use_mmap is False:
        words["load_mode"] = "none"
    if on_cpu:
        words["no_mmproj_offload"] = True
    else:
        words["fit_target"] = [fit_target_mib(model)]
    return words


def default_context(machine: Machine, gpu_overhead: int, version: str) -> int:
    """Return num_ctx where nothing asks for one: by total VRAM since 0.15.5, 4096 since 0.6, 2048 before."""
    at = parse_version(version)
    if at < parse_version("0.15.5"):
        return 4096 if parse_version("0.6.0") <= at else 2048
    total = sum(max(0, gpu.total_bytes - gpu_overhead) for gpu in machine.gpus)
    return next(tokens for least, tokens in _TIERS if total >= least)


def resolved_context(
    model: Model, workload: Workload, machine: Machine, settings: OllamaSettings, version: str
) -> tuple[int, list[str]]:
    """Return num_ctx and what changed it: the context asked, raised to 2048 for images, cut to the training context."""
    asked = settings.num_ctx or settings.context_length or workload.context_tokens
    default = default_context(machine, settings.gpu_overhead, version)
    notes = []
    if settings.num_ctx is None and settings.context_length is None and default != asked:
        notes.append(f"num_ctx is set to the context asked, {asked}; left alone, Ollama would take {default} here")
    if model.vision is not None and asked < MIN_VISION_CONTEXT:
        notes.append(f"num_ctx {asked} is raised to {MIN_VISION_CONTEXT}, the least for a model with vision")
        asked = MIN_VISION_CONTEXT
    trained = model.language.n_context_train
    if trained and asked > trained:
        notes.append(f"num_ctx {asked} is cut to the {trained} tokens the model was trained for")
        asked = trained
    return asked, notes


def slots(
    architecture: str, workload: Workload, settings: OllamaSettings, version: str, rules: OllamaRules
) -> tuple[int, list[str]]:
    """Return the slots: OLLAMA_NUM_PARALLEL, or the sequences asked, or one where the architecture allows no more."""
    wanted = settings.num_parallel or workload.sequences
    since = rules.one_slot.get(architecture)
    if since is not None and wanted > 1 and not parse_version(version) < parse_version(since):
        return 1, [f"Ollama gives {architecture} one slot, not {wanted}: requests wait for each other"]
    return wanted, []


def flash_attention(machine: Machine, settings: OllamaSettings) -> str:
    """Return on, off or auto: auto only where every GPU can (CUDA from 6.0 on without 7.2, Metal, ROCm, Vulkan)."""
    if settings.flash_attention is not None:
        return "on" if settings.flash_attention else "off"
    return "auto" if all(_has_flash_attention(gpu) for gpu in machine.gpus) else "off"


def _has_flash_attention(gpu: Gpu) -> bool:
    if gpu.backend != "cuda" or gpu.compute_capability is None:
        return gpu.backend in {"cuda", "metal", "rocm", "vulkan", "cpu"}
    return gpu.compute_capability >= (6, 0) and gpu.compute_capability != (7, 2)


def file_size(model: Model) -> int:
    """Return the bytes of the model's file, or of its tensors where only they are known."""
    return model.file_bytes or sum(tensor_bytes(t.format, t.shape) for t in model.language.tensors)


def projector_size(model: Model) -> int:
    """Return the bytes of the projector's tensors, as Ollama counts them; 0 without one."""
    if model.vision is None:
        return 0
    stored = sum(tensor_bytes(t.format, t.shape) for t in model.vision.tensors)
    return stored or model.projector_file_bytes or 0


def predicted_bytes(model: Model, n_tokens: int) -> int:
    """Return Ollama's own guess: the file, and K and V of every layer at the fewest KV heads, 2 bytes each."""
    found = [layer.mixer for layer in model.language.layers if isinstance(layer.mixer, Attention)]
    heads = min((a.n_kv_heads for a in found), default=0)
    dim = max((a.key_dim for a in found), default=0)
    return file_size(model) + 2 * model.language.n_layers * heads * dim * n_tokens * 2


def chosen_gpu(model: Model, machine: Machine, settings: OllamaSettings, n_tokens: int) -> int | None:
    """Return the one GPU that holds the guess within 80 % of what is free, the freest of them; None: all are used."""
    if settings.sched_spread or len(machine.gpus) < 2:
        return None
    guess = predicted_bytes(model, n_tokens)
    fitting = [i for i, gpu in enumerate(machine.gpus) if guess <= 0.8 * (gpu.free_bytes - settings.gpu_overhead)]
    return max(fitting, key=lambda i: (machine.gpus[i].free_bytes, -i), default=None)


def automatic_batch(model: Model, gpus: tuple[Gpu, ...], n_tokens: int, *, flash: str) -> int:
    """Return num_batch where none is given; it is both -b and -ub.

    512, 1024 or 2048 by context; lowered while the guess is above 80, 75 or 60 % of free memory, or what the larger
    batch takes on top does not fit. Without flash attention on CUDA 512, or 256 on small cards with a long context.
    """
    cuda = any(gpu.backend == "cuda" for gpu in gpus)
    if cuda and flash == "off":
        small = any(gpu.total_bytes <= 8 * GIB for gpu in gpus)
        return 256 if small and n_tokens > 4096 else 512
    batch = 512 if n_tokens <= 4096 else 1024 if n_tokens <= 32768 else 2048
    free, guess = sum(gpu.free_bytes for gpu in gpus), predicted_bytes(model, n_tokens)
    while batch > 512 and (guess > _SHARE[batch] * free or guess + _SURCHARGE[batch] > free):
        batch //= 2
    return batch


def projector_on_cpu(model: Model, machine: Machine, settings: OllamaSettings) -> str | None:
    """Return why the projector is kept off the GPU, or None."""
    if model.vision is None:
        return None
    if settings.num_gpu == 0 or not machine.gpus:
        return "no layer is on a GPU"
    if 0 < settings.num_gpu < model.language.n_layers + 1:
        return f"num_gpu {settings.num_gpu} puts only part of the {model.language.n_layers + 1} layers on the GPU"
    needed = projector_size(model) + PROJECTOR_MARGIN
    short = next((gpu for gpu in machine.gpus if gpu.free_bytes < needed), None)
    if short is None:
        return None
    return f"{short.name or 'a GPU'} has {format_bytes(short.free_bytes)} free, less than {format_bytes(needed)}"


def fit_target_mib(model: Model) -> int:
    """Return LLAMA_ARG_FIT_TARGET: 1 GiB, and the projector's bytes where there is one, in whole MiB."""
    return -(-(projector_size(model) + PROJECTOR_MARGIN) // MIB)
