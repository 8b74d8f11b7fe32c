"""vLLM's options under their own names, and what a release makes of those that are not given.

Source: vLLM 0.5.0 to 0.20.1, release by release, and 0.33.0, ``config/{cache,scheduler}.py``, ``engine/arg_utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from planner.engines.versions import parse_version
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Gpu
from planner.model import Attention, CrossAttention, Model
from planner.units import GIB
from planner.workload import Workload

Release = tuple[int, ...]
LONG_CONTEXT = 32768  # beyond it the engine before V1 cuts prompts by itself

KV_BYTES: dict[str, tuple[int, int]] = {
    # bits per element, extra bytes per head, token and K or V
    "auto": (16, 0),
    "bfloat16": (16, 0),
    "float16": (16, 0),
    "fp8": (8, 0),
    "fp8_e4m3": (8, 0),
    "fp8_e5m2": (8, 0),
    "fp8_per_token_head": (8, 4),
    "int8_per_token_head": (8, 4),
    "int4_per_token_head": (4, 4),
    "nvfp4": (4, 0),  # and one scale byte per 16 elements
    "turboquant_k8v4": (0, 0),  # these four: see planner.engines.vllm.kv_cache
    "turboquant_4bit_nc": (0, 0),
    "turboquant_k3v4_nc": (0, 0),
    "turboquant_3bit_nc": (0, 0),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """Options of ``vllm serve`` with underscores; ``None`` leaves the choice to the release and the GPU."""

    gpu_memory_utilization: float | None = None
    kv_cache_memory_bytes: int | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    dtype: Literal["auto", "half", "float16", "bfloat16", "float", "float32"] = "auto"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    block_size: int | None = None
    enforce_eager: bool = False
    cpu_offload_gb: float = 0.0
    swap_space: float | None = None
    limit_mm_per_prompt: dict[str, int] | None = None
    mm_processor_kwargs: dict[str, Any] | None = None
    mm_processor_cache_gb: float = 4.0
    mm_encoder_tp_mode: Literal["weights", "data"] = "weights"
    skip_mm_profiling: bool = False
    language_model_only: bool = False
    disable_hybrid_kv_cache_manager: bool = False
    enable_chunked_prefill: bool | None = None
    enable_prefix_caching: bool | None = None
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """What of a model decides defaults: it takes images, some layer has a window, or attends to the image aside."""

    multimodal: bool = False
    windowed: bool = False
    crossed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a start runs with: sizes in tokens, requests and ranks, the share of the device, and the release's rules."""

    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    n_tensor_ranks: int
    n_pipeline_ranks: int
    block_tokens: int
    release: Release
    dtype_bytes: int
    old_core: bool = False  # the engine before V1

    @property
    def n_ranks(self) -> int:
        """Number of GPUs."""
        return self.n_tensor_ranks * self.n_pipeline_ranks


def check_settings(settings: VllmSettings) -> None:
    """Refuse values that can mean nothing.

    Raises:
        UsageError: one line naming the option, its value and what is allowed.
    """
    share = settings.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise UsageError(f"gpu_memory_utilization {share}: must be above 0 and at most 1")
    for name in ("tensor_parallel_size", "pipeline_parallel_size"):
        if not 1 <= getattr(settings, name) <= 1024:
            raise UsageError(f"{name} {getattr(settings, name)}: must be between 1 and 1024")
    for name in ("max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size", "kv_cache_memory_bytes"):
        value = getattr(settings, name)
        if value is not None and not 1 <= value <= 1 << 50:
            raise UsageError(f"{name} {value}: must be at least 1")
    if settings.kv_cache_dtype not in KV_BYTES:
        raise UsageError(f"kv_cache_dtype {settings.kv_cache_dtype!r}: one of {', '.join(KV_BYTES)}")
    if not 0 <= settings.cpu_offload_gb <= 1 << 20:
        raise UsageError(f"cpu_offload_gb {settings.cpu_offload_gb}: must be 0 or more GiB")


def traits_of(model: Model) -> Traits:
    """Return what of this model decides defaults."""
    mixers = [layer.mixer for layer in model.language.layers]
    return Traits(
        multimodal=model.vision is not None,
        windowed=any(isinstance(mixer, Attention) and mixer.window_tokens is not None for mixer in mixers),
        crossed=any(isinstance(mixer, CrossAttention) for mixer in mixers),
    )


def default_utilization(release: Release) -> float:
    """Return the default share of the device: 0.92 from 0.20.0 on, 0.9 before."""
    return 0.92 if release >= (0, 20) else 0.9


def default_batch(gpu: Gpu, release: Release) -> tuple[int, int]:
    """Return default ``(max_num_batched_tokens, max_num_seqs)`` of ``vllm serve`` under V1 on this GPU."""
    if release >= (0, 33) and gpu.total_bytes >= 160 * GIB:
        return 16384, 1024
    large = _large(gpu, release)
    return 8192 if large else 2048, 1024 if large or release < (0, 8, 4) else 256


def _large(gpu: Gpu, release: Release) -> bool:
    """Whether this release gives this GPU the larger batch: by name, then by memory, then by memory without A100."""
    name = gpu.name.lower()
    if release < (0, 8, 5):
        return "h100" in name or "h200" in name
    if gpu.total_bytes < 70 * GIB or "gb10" in name:
        return False
    return release < (0, 9) or "a100" not in name


def old_batch(chunked: bool, length: int, release: Release, traits: Traits) -> tuple[int, int]:  # noqa: FBT001 - one of four facts
    """Return the same of the engine before V1: a whole prompt unless it is cut, and room for one image's tokens."""
    tokens = (2048 if release >= (0, 6, 5) else 512) if chunked else max(length, 2048)
    if traits.multimodal and release >= (0, 6, 1):
        tokens = max(tokens, 5120 if release >= (0, 6, 3) else 4096)
    return tokens, 256


def before_v1(settings: VllmSettings, gpu: Gpu, release: Release, traits: Traits) -> bool:
    """Whether the engine before V1 runs: to 0.7, and to 0.10 for old GPUs, cross-attention and uncut prompts."""
    if release < (0, 8) or release >= (0, 11):
        return release < (0, 8)
    old_gpu = gpu.compute_capability is not None and gpu.compute_capability < (8, 0)
    return old_gpu or traits.crossed or settings.enable_chunked_prefill is False


def resolve(
    settings: VllmSettings, workload: Workload, gpu: Gpu, version: str, traits: Traits | None = None
) -> Resolved:
    """Return what this release runs with on this GPU; ``max_model_len`` is the context asked where it is not given.

    Raises:
        UsageError: an impossible value or version.
    """
    check_settings(settings)
    traits = traits or Traits()
    release = release_of(version)
    old = before_v1(settings, gpu, release, traits)
    length = settings.max_model_len or workload.context_tokens
    chunked = chunked_prefill(settings, release, length, traits, old_core=old)
    tokens, seqs = old_batch(chunked, length, release, traits) if old else default_batch(gpu, release)
    seqs = settings.max_num_seqs or seqs
    if settings.max_num_batched_tokens is not None:
        tokens = settings.max_num_batched_tokens
    elif not old:
        tokens = min(tokens if chunked else max(tokens, length), seqs * length)
    return Resolved(
        gpu_memory_utilization=settings.gpu_memory_utilization or default_utilization(release),
        max_model_len=length,
        max_num_seqs=min(seqs, tokens),
        max_num_batched_tokens=tokens,
        n_tensor_ranks=settings.tensor_parallel_size,
        n_pipeline_ranks=settings.pipeline_parallel_size,
        block_tokens=settings.block_size or 16,
        release=release,
        dtype_bytes=4 if settings.dtype in {"float", "float32"} else 2,
        old_core=old,
    )


def chunked_prefill(settings: VllmSettings, release: Release, length: int, traits: Traits, *, old_core: bool) -> bool:
    """Whether a long prompt is prefilled in pieces: always under V1 unless switched off.

    Before V1 from 0.5.3 beyond 32,768 positions, not with windows, from 0.6.3 not for models that take images.
    """
    if settings.enable_chunked_prefill is not None:
        return settings.enable_chunked_prefill
    if not old_core:
        return True
    if release < (0, 5, 3) or traits.windowed or (traits.multimodal and release >= (0, 6, 3)):
        return False
    return length > LONG_CONTEXT


def release_of(version: str) -> Release:
    """Return the first three numbers of a version.

    Raises:
        UsageError: it is no version.
    """
    return (*parse_version(version).numbers, 0, 0)[:3]


def shown(settings: VllmSettings, resolved: Resolved) -> Mapping[str, object]:
    """Return the settings as resolved, in vLLM's own words."""
    said: dict[str, object] = {
        "gpu_memory_utilization": resolved.gpu_memory_utilization,
        "max_model_len": resolved.max_model_len,
        "max_num_seqs": resolved.max_num_seqs,
        "max_num_batched_tokens": resolved.max_num_batched_tokens,
        "tensor_parallel_size": resolved.n_tensor_ranks,
        "pipeline_parallel_size": resolved.n_pipeline_ranks,
        "kv_cache_dtype": settings.kv_cache_dtype,
        "block_size": resolved.block_tokens,
        "dtype": settings.dtype,
    }
    defaults = VllmSettings()
    for name in VllmSettings.__slots__:
        value = getattr(settings, name)
        if name not in said and value != getattr(defaults, name):
            said[name] = value
    return said
