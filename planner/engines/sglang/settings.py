"""SGLang's options under their own names, its defaults by GPU, and the share it takes for weights and cache.

Source: SGLang 0.5.23, ``srt/arg_groups/memory_hook.py``; sizes there are MiB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

from planner.engines.options import Options
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.memory.overhead import OverheadTable
from planner.model import Model
from planner.units import MIB

KV_BITS = {"auto": 16, "bf16": 16, "bfloat16": 16, "fp8_e5m2": 8, "fp8_e4m3": 8}
# below so many MiB: chunked prefill, decode batch with fewer than four ranks, with more
_TIERS = (
    (20480, 2048, 8, 8),
    (35840, 4096, 48, 160),
    (61440, 4096, 32, 160),
    (92160, 8192, 256, 512),
    (163840, 8192, 256, 512),
    (1 << 40, 16384, 512, 512),
)
_PREFILL_SIZES = {2048: 42, 4096: 50, 8192: 58, 16384: 74}


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangSettings:
    """Options of the server with underscores; ``None`` leaves the choice to the release and the GPU."""

    tp_size: int = 1
    pp_size: int = 1
    context_length: int | None = None
    mem_fraction_static: float | None = None
    max_running_requests: int | None = None
    chunked_prefill_size: int | None = None
    kv_cache_dtype: Literal["auto", "bf16", "bfloat16", "fp8_e5m2", "fp8_e4m3"] = "auto"
    quantization: str | None = None
    dtype: Literal["auto", "half", "float16", "bfloat16"] = "auto"
    page_size: int = 1
    disable_cuda_graph: bool = False
    cuda_graph_max_bs: int | None = None
    mm_enable_dp_encoder: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SglangRules:
    """Lists read from ``profiles/engines/sglang.yaml``, by family."""

    default_tower_layers: frozenset[str] = frozenset()
    text_width_as_tower: frozenset[str] = frozenset()
    prefill_graphs: frozenset[str] = frozenset()
    split_projectors: frozenset[str] = frozenset()  # written with parallel linears
    trust_remote_code: frozenset[str] = frozenset()
    options: Options = field(default_factory=dict)
    overhead: OverheadTable | None = None


def sglang_rules(data: Mapping[str, Any], options: Options, overhead: OverheadTable | None = None) -> SglangRules:
    """Return the rules that ``profiles/engines/sglang.yaml`` holds."""
    names = ("default_tower_layers", "text_width_as_tower", "prefill_graphs", "split_projectors", "trust_remote_code")
    return SglangRules(options=options, overhead=overhead, **{name: frozenset(data[name]) for name in names})


def check_settings(settings: SglangSettings) -> None:
    """Refuse values that can mean nothing.

    Raises:
        UsageError: one line naming the option, its value and what is allowed.
    """
    share = settings.mem_fraction_static
    if share is not None and not 0 < share < 1:
        raise UsageError(f"mem_fraction_static {share}: must be above 0 and below 1")
    for name in ("tp_size", "pp_size", "page_size"):
        if not 1 <= getattr(settings, name) <= 1024:
            raise UsageError(f"{name} {getattr(settings, name)}: must be between 1 and 1024")
    for name in ("context_length", "max_running_requests", "chunked_prefill_size", "cuda_graph_max_bs"):
        value = getattr(settings, name)
        if value is not None and not 1 <= value <= 1 << 30:
            raise UsageError(f"{name} {value}: must be at least 1")


def defaults_by_gpu(total_bytes: int, n_ranks: int) -> tuple[int, int]:
    """Return the default chunked prefill in tokens and the largest decode batch."""
    mib = total_bytes // MIB
    _, chunk, few, many = next(tier for tier in _TIERS if mib < tier[0])
    return chunk, few if n_ranks < 4 else many


def chunk_and_batch(settings: SglangSettings, total_bytes: int) -> tuple[int, int]:
    """Return chunked prefill and largest decode batch as this start has them."""
    chunk, batch = defaults_by_gpu(total_bytes, settings.tp_size)
    batch = settings.cuda_graph_max_bs or batch
    if settings.max_running_requests is not None and settings.cuda_graph_max_bs is None:
        batch = min(batch, settings.max_running_requests)
    return settings.chunked_prefill_size or chunk, batch


def static_share(model: Model, settings: SglangSettings, total_bytes: int, rules: SglangRules) -> float:
    """Return mem_fraction_static: given, or what the release computes from the GPU and the vision configuration."""
    if settings.mem_fraction_static is not None:
        return settings.mem_fraction_static
    chunk, batch = chunk_and_batch(settings, total_bytes)
    graphs = 0 if settings.disable_cuda_graph else 2 * batch
    captures = model.vision is None or model.family in rules.prefill_graphs
    if captures and settings.pp_size == 1 and not settings.disable_cuda_graph:
        graphs += 8 * _PREFILL_SIZES[min(_PREFILL_SIZES, key=lambda size: abs(size - chunk))]
    reserved = 512 + 1.5 * max(chunk, 2048) + 128 * settings.tp_size * settings.pp_size + graphs
    mib = total_bytes / MIB
    reserved = max(reserved, 10240) if mib > 60 * 1024 else reserved
    return round(round((mib - reserved) / mib, 3) * tower_factor(model, rules), 3)


def tower_factor(model: Model, rules: SglangRules) -> float:
    """Return what the share is multiplied with for models with vision: from 0.76 for large towers to 0.9975."""
    vision = model.vision
    if vision is None:
        return 1.0
    layers = 24 if model.family in rules.default_tower_layers else vision.n_layers
    width = model.language.n_embd if model.family in rules.text_width_as_tower else vision.n_embd
    return 0.95 * min(max(1 - 0.1 * (layers * width**2 / (24 * 1024**2) - 1), 0.8), 1.05)
