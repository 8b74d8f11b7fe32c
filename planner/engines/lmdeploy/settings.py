"""LMDeploy's options under their own names, and what a release makes of those that are not given.

Source: LMDeploy v0.2.0 to v0.16.0, ``messages.py``, ``utils.py`` and ``cli/utils.py``; wheel 0.18.0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from planner.engines.versions import parse_version
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Gpu
from planner.workload import Workload

BIG_BATCH = {"a100": 384, "a800": 384, "h100": 1024, "h800": 1024, "h200": 1024, "l20y": 1024}
OTHER_BATCH = 128
# policy -> bits per element, bytes per head, token and K or V beside them
TURBOMIND_KV: dict[int, tuple[int, int]] = {0: (16, 0), 8: (8, 4), 4: (4, 4)}
PYTORCH_KV: dict[int, tuple[int, int]] = {0: (16, 0), 8: (8, 4), 4: (4, 4), 16: (8, 0), 17: (8, 0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LmdeploySettings:
    """Options of the two backends; ``vision_max_batch_size`` is ``VisionConfig(max_batch_size)``, in images."""

    backend: Literal["auto", "turbomind", "pytorch"] = "auto"
    tp: int = 1
    session_len: int | None = None
    max_batch_size: int | None = None
    cache_max_entry_count: float | None = None
    cache_block_seq_len: int = 64
    quant_policy: int = 0
    max_prefill_token_num: int = 8192
    model_format: Literal["hf", "awq", "gptq", "compressed-tensors", "fp8", "mxfp4"] | None = None
    dtype: Literal["auto", "float16", "bfloat16"] = "auto"
    vision_max_batch_size: int = 1
    enable_prefix_caching: bool = False
    language_model_only: bool = False
    eager_mode: bool = False
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """What a start runs with. ``of_total``: the share is of the device's total, as in 0.2.0 and 0.2.1."""

    backend: Literal["turbomind", "pytorch"]
    n_ranks: int
    session_len: int
    max_batch_size: int
    share: float
    n_blocks_asked: int | None
    of_total: bool
    block_tokens: int
    release: tuple[int, int]


def check_settings(settings: LmdeploySettings) -> None:
    """Refuse values that can mean nothing.

    Raises:
        UsageError: one line naming the option, its value and what is allowed.
    """
    names = ("session_len", "max_batch_size", "cache_block_seq_len", "max_prefill_token_num", "vision_max_batch_size")
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 1 <= value <= 1 << 40:
            raise UsageError(f"{name} {value}: must be at least 1")
    if not 1 <= settings.tp <= 1024:
        raise UsageError(f"tp {settings.tp}: must be between 1 and 1024")
    share = settings.cache_max_entry_count
    if share is not None and not 0 < share <= 1 << 30:
        raise UsageError(f"cache_max_entry_count {share:g}: must be above 0; below 1 it is a share of free memory")
    if settings.quant_policy not in {0, 4, 8, 16, 17, 42}:
        raise UsageError(f"quant_policy {settings.quant_policy}: one of 0, 4, 8; the PyTorch engine also 16, 17, 42")


def default_batch(gpu: Gpu) -> int:
    """Return max_batch_size where none is given, by the card's name."""
    name = gpu.name.lower()
    return next((n for word, n in BIG_BATCH.items() if word in name), OTHER_BATCH)


def resolve(
    settings: LmdeploySettings, workload: Workload, gpu: Gpu, version: str, backend: Literal["turbomind", "pytorch"]
) -> Resolved:
    """Return what this release runs with; ``session_len`` is the context asked where it is not given.

    Raises:
        UsageError: an impossible value or version.
    """
    check_settings(settings)
    numbers = (*parse_version(version).numbers, 0, 0)
    of_total = backend == "turbomind" and numbers[:3] in {(0, 2, 0), (0, 2, 1)}
    share = settings.cache_max_entry_count or (0.5 if of_total else 0.8)
    asked = int(share) if share >= 1 else None
    return Resolved(
        backend=backend,
        n_ranks=settings.tp,
        session_len=settings.session_len or workload.context_tokens,
        max_batch_size=settings.max_batch_size or default_batch(gpu),
        share=share,
        n_blocks_asked=asked,
        of_total=of_total,
        block_tokens=settings.cache_block_seq_len,
        release=(numbers[0], numbers[1]),
    )


def shown(settings: LmdeploySettings, resolved: Resolved) -> Mapping[str, object]:
    """Return the settings as resolved, in LMDeploy's own words."""
    return {
        "backend": resolved.backend,
        "tp": resolved.n_ranks,
        "session_len": resolved.session_len,
        "max_batch_size": resolved.max_batch_size,
        "cache_max_entry_count": resolved.share,
        "cache_block_seq_len": resolved.block_tokens,
        "quant_policy": settings.quant_policy,
        "max_prefill_token_num": settings.max_prefill_token_num,
        "vision_max_batch_size": settings.vision_max_batch_size,
        **({"model_format": settings.model_format} if settings.model_format else {}),
    }
