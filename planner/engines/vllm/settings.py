"""vLLM's options under their own names, and what a release makes of those that are not given.

Source: vLLM 0.8.5, 0.10.2, 0.11.0, 0.20.0 and 0.33.0, ``config/cache.py`` and ``engine/arg_utils.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from planner.engines.versions import parse_version
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Gpu
from planner.units import GIB
from planner.workload import Workload

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
class Resolved:
    """What a start runs with: sizes in tokens, requests and ranks, the share of the device, and the release's rules."""

    gpu_memory_utilization: float
    max_model_len: int
    max_num_seqs: int
    max_num_batched_tokens: int
    n_tensor_ranks: int
    n_pipeline_ranks: int
    block_tokens: int
    release: tuple[int, int]
    dtype_bytes: int

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


def default_utilization(release: tuple[int, int]) -> float:
    """Return the default share of the device: 0.92 from 0.20.0 on, 0.9 before."""
    return 0.92 if release >= (0, 20) else 0.9


def default_batch(gpu: Gpu, release: tuple[int, int]) -> tuple[int, int]:
    """Return default ``(max_num_batched_tokens, max_num_seqs)`` of ``vllm serve`` on this GPU."""
    if release < (0, 8):
        return 512, 256
    if release >= (0, 33) and gpu.total_bytes >= 160 * GIB:
        return 16384, 1024
    if gpu.total_bytes >= 70 * GIB and not any(word in gpu.name.lower() for word in ("a100", "gb10")):
        return (8192, 1024) if release >= (0, 10) else (8192, 256)
    return 2048, 256


def resolve(settings: VllmSettings, workload: Workload, gpu: Gpu, version: str) -> Resolved:
    """Return what this release runs with on this GPU; ``max_model_len`` is the context asked where it is not given.

    Raises:
        UsageError: an impossible value or version.
    """
    check_settings(settings)
    release = release_of(version)
    tokens, seqs = default_batch(gpu, release)
    seqs = settings.max_num_seqs or seqs
    length = settings.max_model_len or workload.context_tokens
    if settings.max_num_batched_tokens is not None:
        tokens = settings.max_num_batched_tokens
    elif not chunked_prefill(settings, release):
        tokens = max(tokens, length)
    tokens = min(tokens, seqs * length) if settings.max_num_batched_tokens is None else tokens
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
    )


def chunked_prefill(settings: VllmSettings, release: tuple[int, int]) -> bool:
    """Whether a long prompt is prefilled in pieces: always from 0.9 on unless switched off, before only when asked."""
    if settings.enable_chunked_prefill is not None:
        return settings.enable_chunked_prefill
    return release >= (0, 8)


def release_of(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version.

    Raises:
        UsageError: it is no version.
    """
    numbers = (*parse_version(version).numbers, 0)
    return numbers[0], numbers[1]


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
