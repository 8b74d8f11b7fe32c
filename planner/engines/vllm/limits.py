"""The inverse questions: the lowest share of the device that works, the longest context that works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.engines.vllm.budget import NO_RULES, budget
from planner.engines.vllm.rules import VllmRules
from planner.engines.vllm.settings import VllmSettings
from planner.machine import Machine
from planner.model import Model
from planner.workload import Workload

Starts = Callable[[VllmSettings], bool]


def starts(model: Model, workload: Workload, machine: Machine, version: str, rules: VllmRules = NO_RULES) -> Starts:
    """Return the question whether a setting starts and holds the load."""

    def answer(settings: VllmSettings) -> bool:
        found = budget(model, workload, machine, settings, version, rules)
        return not (found.refusals or found.shortfalls or found.short_devices)

    return answer


def lowest_utilization(works: Starts, settings: VllmSettings) -> float | None:
    """Return the lowest gpu_memory_utilization, in hundredths, with which ``works`` holds; None if none does.

    The pool grows with the share, so the first share whose pool is enough is found by halving; past it only free memory
    can be short.
    """
    best = _least(1, 100, lambda percent: works(replace(settings, gpu_memory_utilization=percent / 100)))
    return None if best is None else best / 100


def largest_max_model_len(works: Starts, settings: VllmSettings, n_context_train: int) -> int | None:
    """Return the longest max_model_len with which ``works`` holds; None if not even one block of 16 tokens does."""
    worst = _least(
        0, n_context_train, lambda less: works(replace(settings, max_model_len=max(16, n_context_train - less)))
    )
    return None if worst is None else max(16, n_context_train - worst)


def _least(low: int, high: int, works: Callable[[int], bool]) -> int | None:
    """Return the least number from ``low`` to ``high`` that works, where working numbers form one run up to some end.

    Where the upper end no longer works (a share beyond what is free) the run is looked for by a short scan.
    """
    top = (
        high if works(high) else next((n for n in range(high, low - 1, -max(1, (high - low) // 50)) if works(n)), None)
    )
    if top is None:
        return None
    while low < top:
        middle = (low + top) // 2
        low, top = (low, middle) if works(middle) else (middle + 1, top)
    return top
