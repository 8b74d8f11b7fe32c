"""Why a plan's buffers are as large as they are, and what would make them smaller: computed, not guessed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from planner.advice import Plan
from planner.engines.engine import DevicePeak, Engine
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.frozen import dataclass
from planner.quantization import FORMATS

SHOWN_TENSORS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One change of a setting, with what it saves per device (negative: costs), in expected bytes."""

    change: str
    saved_bytes: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The compute peak of each device, and the changes that lower some device's memory, best first."""

    peaks: tuple[DevicePeak, ...]
    remedies: tuple[Remedy, ...]


def explain(engine: Engine, plan: Plan) -> Explanation:
    """Return the explanation of ``plan``; empty for engines whose graph is not simulated."""
    if engine.peaks is None or plan.budget is None:
        return Explanation(peaks=(), remedies=())
    peaks = engine.peaks(plan.model, plan.workload, plan.machine, plan.settings)
    return Explanation(peaks=peaks, remedies=tuple(_remedies(engine, plan)))


def _remedies(engine: Engine, plan: Plan) -> list[Remedy]:
    assert plan.budget is not None  # noqa: S101 - narrowed by the caller
    before = {device.device: device.expected_bytes for device in plan.budget.devices}
    found: list[Remedy] = []
    for change, settings in _changes(plan):
        budget = engine.budget(plan.model, plan.workload, plan.machine, settings)
        if budget.refusals:
            continue
        saved = tuple((d.device, before[d.device] - d.expected_bytes) for d in budget.devices)
        if any(n_bytes > 0 for _, n_bytes in saved):
            found.append(Remedy(change=change, saved_bytes=saved))
    return sorted(found, key=lambda remedy: -max(n for _, n in remedy.saved_bytes))


def _changes(plan: Plan) -> Iterator[tuple[str, LlamaCppSettings]]:
    settings = plan.settings
    if not isinstance(settings, LlamaCppSettings):
        return
    if settings.ubatch_size > 128:
        yield f"ubatch_size {settings.ubatch_size // 2}", replace(settings, ubatch_size=settings.ubatch_size // 2)
    if settings.flash_attn == "off":
        yield "flash_attn on", replace(settings, flash_attn="on")
    if not FORMATS[settings.cache_type_k].quantized and settings.flash_attn != "off":
        smaller = replace(settings, cache_type_k="q8_0", cache_type_v="q8_0", flash_attn="on")
        yield "cache_type_k and cache_type_v q8_0", smaller
    if FORMATS[settings.cache_type_k].quantized:
        yield "cache_type_k and cache_type_v f16", replace(settings, cache_type_k="f16", cache_type_v="f16")
    if len(plan.machine.gpus) > 1 and settings.split_mode == "layer":
        yield "split_mode none", replace(settings, split_mode="none", tensor_split=None)
    if settings.swa_full:
        yield "swa_full off", replace(settings, swa_full=False)
    if plan.model.vision is not None and not settings.no_mmproj_offload and plan.machine.gpus:
        yield "no_mmproj_offload", replace(settings, no_mmproj_offload=True)
