"""The search over file types, cache types and placements for engines that run GGUF files.

Candidates are few (file types x cache types), their best case is cheap: with weights and cache exact and every buffer
counted as nothing, a candidate that does not even fit so is dropped. The rest are tried in the order of their best
possible score; a confirmed plan that beats the best case of all that remain ends the search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from planner.budget import Budget
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.frozen import dataclass
from planner.machine import Machine
from planner.model import Model
from planner.placement.llama_cpp import Placed, place, place_costs
from planner.placement.objective import (
    GPU_BANDWIDTH,
    HOST_BANDWIDTH,
    Prefer,
    Quality,
    Score,
    active_fraction,
    decode_tokens_per_s,
)
from planner.quantization import FORMATS
from planner.workload import Workload

BudgetOf = Callable[[Model, LlamaCppSettings], Budget]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A file type and the settings it is tried with; ``best_case`` is a score it cannot beat."""

    model: Model
    settings: LlamaCppSettings
    best_case: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A confirmed plan with its score."""

    model: Model
    placed: Placed
    score: Score


def search(  # noqa: PLR0913 - the whole question
    models: Sequence[Model],
    workload: Workload,
    machine: Machine,
    settings: Sequence[LlamaCppSettings],
    budget_of: BudgetOf,
    quality: Quality,
    prefer: Prefer = "balanced",
) -> list[Found]:
    """Return the plans that were confirmed, best first. The first is the best of all candidates under ``prefer``."""
    candidates = sorted(
        _candidates(models, workload, machine, settings, quality),
        key=lambda candidate: candidate.best_case.key(prefer),
        reverse=True,
    )
    found: list[Found] = []
    for candidate in candidates:
        best = max((one.score.key(prefer) for one in found), default=None)
        if best is not None and candidate.best_case.key(prefer) <= best:
            break
        found.append(_confirm(candidate, workload, machine, budget_of, quality))
    return sorted(found, key=lambda one: one.score.key(prefer), reverse=True)


def _candidates(
    models: Sequence[Model],
    workload: Workload,
    machine: Machine,
    settings: Sequence[LlamaCppSettings],
    quality: Quality,
) -> Iterator[Candidate]:
    for model in models:
        active = active_fraction(model)
        for choice in settings:
            yield Candidate(
                model=model,
                settings=choice,
                best_case=_best_case(model, workload, machine, choice, quality, active),
            )


def _best_case(  # noqa: PLR0913 - the facts of one candidate
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: LlamaCppSettings,
    quality: Quality,
    active: float,
) -> Score:
    """Return a score no placement of this candidate can beat: buffers cost nothing, the fastest device first."""
    costs, _ = place_costs(model, workload, settings, flash_attn=settings.flash_attn != "off")
    total = sum(costs)
    free = sum(gpu.free_bytes for gpu in machine.gpus)
    host_bandwidth = machine.host.bandwidth_bytes_per_s or HOST_BANDWIDTH
    left, seconds = float(total), 0.0
    for gpu in sorted(machine.gpus, key=lambda gpu: -(gpu.bandwidth_bytes_per_s or GPU_BANDWIDTH)):
        here = min(left, float(gpu.free_bytes))
        seconds += here * active / (gpu.bandwidth_bytes_per_s or GPU_BANDWIDTH)
        left -= here
    seconds += left * active / host_bandwidth
    return Score(
        fits=total <= free + machine.host.free_bytes,
        on_gpu=not machine.gpus or total <= free,
        tokens_per_s=1 / seconds if seconds else float("inf"),
        loss=quality.loss(model.quantization),
        cache_loss=quality.cache_loss(settings.cache_type_k, settings.cache_type_v),
        context_tokens=workload.context_tokens,
        headroom_bytes=free + machine.host.free_bytes - total,
    )


def _confirm(
    candidate: Candidate, workload: Workload, machine: Machine, budget_of: BudgetOf, quality: Quality
) -> Found:
    placed = place(
        candidate.model,
        workload,
        machine,
        candidate.settings,
        lambda settings: budget_of(candidate.model, settings),
    )
    return Found(
        model=candidate.model,
        placed=placed,
        score=score_of(candidate.model, placed, workload, machine, quality),
    )


def score_of(model: Model, placed: Placed, workload: Workload, machine: Machine, quality: Quality) -> Score:
    """Return what a confirmed plan is judged by."""
    gpus = placed.budget.devices[: len(machine.gpus)] or placed.budget.devices
    return Score(
        fits=placed.fits,
        on_gpu=not machine.gpus or _all_offloaded(placed.budget),
        tokens_per_s=decode_tokens_per_s(placed.budget, machine, active_fraction(model)),
        loss=quality.loss(model.quantization),
        cache_loss=quality.cache_loss(placed.settings.cache_type_k, placed.settings.cache_type_v),
        context_tokens=workload.context_tokens,
        headroom_bytes=min((device.headroom_bytes for device in gpus), default=0),
    )


def _all_offloaded(budget: Budget) -> bool:
    host = budget.devices[-1]
    return host.layers is None and not host.has_output


def cache_choices(settings: LlamaCppSettings, given: frozenset[str]) -> list[LlamaCppSettings]:
    """Return the cache types to try: what the user gave, else 16 bits, then 8 bits where flash attention may run."""
    if {"cache_type_k", "cache_type_v"} & given:
        return [settings]
    choices = [settings]
    if settings.flash_attn != "off":
        choices += [replace(settings, cache_type_k=name, cache_type_v=name, flash_attn="on") for name in ("q8_0",)]
    return [choice for choice in choices if choice.cache_type_v in FORMATS]
