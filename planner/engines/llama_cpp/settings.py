"""llama.cpp's settings under the engine's own long flags, and what it makes of them at start.

Defaults are those of llama.cpp 0.5.0-dev (ggml 0.25.3): ``common/common.h`` and ``common/arg.cpp``.
"""

from __future__ import annotations

from typing import Literal

from planner.errors import UsageError
from planner.frozen import dataclass
from planner.units import align
from planner.workload import Workload

CACHE_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
CONTEXT_MULTIPLE = 256  # cells of a sequence are padded to this (llama-context.cpp)


@dataclass(frozen=True, slots=True, kw_only=True)
class LlamaCppSettings:
    """One server's or command's flags; ``None`` leaves the choice to the workload or the engine.

    ``device`` "none" keeps the engine off all GPUs. ``ctx_size`` is the total of ``-c``; ``n_gpu_layers`` -1 means all;
    ``fit_target`` is in MiB per device.
    """

    program: Literal["llama-server", "llama-cli", "llama-mtmd-cli"] = "llama-server"
    ctx_size: int | None = None
    batch_size: int = 2048
    ubatch_size: int = 512
    parallel: int | None = None
    kv_unified: bool | None = None
    flash_attn: Literal["on", "off", "auto"] = "auto"
    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    n_gpu_layers: int = -1
    device: Literal["none"] | None = None
    split_mode: Literal["none", "layer", "row"] = "layer"
    tensor_split: list[float] | None = None
    main_gpu: int = 0
    override_tensor: list[str] | None = None
    n_cpu_moe: int = 0
    cpu_moe: bool = False
    no_kv_offload: bool = False
    no_op_offload: bool = False
    swa_full: bool = False
    no_mmproj_offload: bool = False
    load_mode: Literal["auto", "none", "mmap", "mlock", "mmap+mlock", "dio"] = "auto"
    image_min_tokens: int | None = None
    image_max_tokens: int | None = None
    fit: Literal["on", "off"] = "on"
    fit_target: list[int] | None = None
    fit_ctx: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What the engine runs with: sequences, cells and batches after its own clamping and padding.

    ``n_ctx`` is the padded total, ``n_ctx_seq`` the cells of one stream, ``n_streams`` how many cache streams.
    """

    n_ctx_asked: int
    n_ctx: int
    n_ctx_seq: int
    n_seqs: int
    n_streams: int
    n_batch: int
    n_ubatch: int
    n_outputs: int
    kv_unified: bool


def check_settings(settings: LlamaCppSettings, n_gpus: int) -> None:
    """Refuse what the command line itself refuses or what can mean nothing.

    Raises:
        UsageError: one line naming the setting, its value and what is allowed.
    """
    for name in ("batch_size", "ubatch_size"):
        _at_least(name, getattr(settings, name), 1, 1 << 24)
    for name in ("ctx_size", "parallel", "image_max_tokens", "image_min_tokens"):
        value = getattr(settings, name)
        if value is not None:
            _at_least(name, value, 1, 1 << 31)
    _at_least("n_gpu_layers", settings.n_gpu_layers, -1, 1 << 20)
    _at_least("n_cpu_moe", settings.n_cpu_moe, 0, 1 << 20)
    for name in ("cache_type_k", "cache_type_v"):
        value = getattr(settings, name)
        if value not in CACHE_TYPES:
            raise UsageError(f"settings.{name}: {value!r} is no cache type; use one of {', '.join(CACHE_TYPES)}")
    if n_gpus and not 0 <= settings.main_gpu < n_gpus:
        raise UsageError(f"settings.main_gpu {settings.main_gpu}: the machine has GPUs 0 to {n_gpus - 1}")
    _check_split(settings.tensor_split, n_gpus)


def _at_least(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise UsageError(f"settings.{name} is {value}; it must be between {low} and {high}")


def _check_split(split: list[float] | None, n_gpus: int) -> None:
    if split is None:
        return
    if len(split) != n_gpus:
        raise UsageError(f"settings.tensor_split has {len(split)} shares for {n_gpus} GPUs; give one per GPU")
    if min(split) < 0 or not 0 < sum(split) < float("inf"):
        raise UsageError(f"settings.tensor_split {split}: shares are not negative and at least one is above 0")


def resolve(settings: LlamaCppSettings, workload: Workload, n_context_train: int) -> Resolved:
    """Return the sizes that the engine derives from flags, or from the workload where a flag is missing.

    A workload's context is what one sequence needs, so ``-c`` defaults to context x sequences. The engine pads the
    context to 256 cells, gives each of ``n_parallel`` streams its share when the cache is not unified, and clamps
    the batch to the context and the ubatch to the batch. Source: llama-context.cpp, llama.cpp 0.5.0-dev.
    """
    n_seqs = settings.parallel if settings.parallel is not None else workload.sequences
    asked = settings.ctx_size if settings.ctx_size is not None else workload.context_tokens * n_seqs
    asked = asked or n_context_train
    unified = bool(settings.kv_unified)
    padded = align(asked, CONTEXT_MULTIPLE)
    n_ctx_seq = padded if unified else align(padded // n_seqs, CONTEXT_MULTIPLE)
    n_ctx = padded if unified else n_ctx_seq * n_seqs
    n_batch = min(settings.batch_size, asked)
    n_ubatch = min(settings.ubatch_size, n_batch)
    n_outputs = n_seqs if settings.program == "llama-server" else n_batch
    return Resolved(
        n_ctx_asked=asked,
        n_ctx=n_ctx,
        n_ctx_seq=n_ctx_seq,
        n_seqs=n_seqs,
        n_streams=1 if unified else n_seqs,
        n_batch=n_batch,
        n_ubatch=n_ubatch,
        n_outputs=n_outputs,
        kv_unified=unified,
    )
