"""The one place that ties engine, machine and workload to a verdict: what fits, what does not, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from planner.budget import Budget, DeviceBudget, ImageTokens, Verdict
from planner.engines.engine import Emitted, Engine, Support
from planner.machine import Machine
from planner.model import Model
from planner.units import format_bytes
from planner.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An answer: the verdict with its reasons, the bytes behind it, and what to paste.

    ``changes`` say what differs from the request where the verdict is ``fits_with_changes``.
    """

    verdict: Verdict
    model: Model
    engine: str
    engine_version: str
    machine: Machine
    workload: Workload
    budget: Budget | None = None
    settings: object = None
    reasons: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    emitted: Emitted | None = None
    speed: Mapping[str, object] = field(default_factory=dict)
    alternatives: tuple[Plan, ...] = ()


def judge(engine: Engine, model: Model, workload: Workload, machine: Machine, settings: object) -> Plan:
    """Return the verdict on exactly these settings: first whether the engine loads the model, then the bytes."""
    plan = Plan(
        verdict="unknown",
        model=model,
        engine=engine.name,
        engine_version=engine.version,
        machine=machine,
        workload=workload,
        settings=settings,
    )
    support = engine.loads(model)
    if support.verdict == "unsupported":
        return replace(plan, verdict="will_not_load", reasons=_support_reasons(support))
    budget = engine.budget(model, workload, machine, settings)
    verdict, reasons = _verdict(budget, workload)
    if support.verdict == "unknown" and verdict == "fits":
        verdict = "unknown"
    if support.verdict != "supported":
        reasons = (*_support_reasons(support), *reasons)
    return replace(
        plan,
        verdict=verdict,
        budget=budget,
        reasons=reasons,
        emitted=engine.emit(model, workload, machine, settings),
    )


def _support_reasons(support: Support) -> tuple[str, ...]:
    ways = (f"Instead: {', or '.join(support.alternatives)}.",) if support.alternatives else ()
    return (support.reason, *ways) if support.reason else ways


def _verdict(budget: Budget, workload: Workload) -> tuple[Verdict, tuple[str, ...]]:
    if budget.refusals:
        return "will_not_load", budget.refusals
    too_long = context_shortage(budget.image_tokens, workload)
    if too_long:
        return "does_not_fit", (too_long, *budget.notes)
    short = tuple(_shortage(device) for device in budget.short_devices)
    if short:
        return "does_not_fit", (*short, *budget.notes)
    if budget.unknown:
        return "unknown", (*budget.unknown, *budget.notes)
    return "fits", budget.notes


def _shortage(device: DeviceBudget) -> str:
    return (
        f"{device.device} is {format_bytes(-device.headroom_bytes)} short: up to {format_bytes(device.high_bytes)} "
        f"needed, {format_bytes(device.free_bytes)} free."
    )


def context_shortage(images: tuple[ImageTokens, ...], workload: Workload) -> str | None:
    """Return why the images of one request cannot fit the context, or None."""
    n_tokens = sum(image.tokens + image.extra_tokens for image in images)
    if n_tokens < workload.context_tokens or not images:
        return None
    return (
        f"The images alone are {n_tokens} tokens ({len(images)} image{'s' if len(images) > 1 else ''}), "
        f"the context is {workload.context_tokens}: ask for at least {n_tokens + workload.prompt_tokens} tokens "
        "of context, fewer or smaller images."
    )
