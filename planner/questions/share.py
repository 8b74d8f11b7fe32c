"""Several models on one box: each is planned on what those before it leave free."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from planner.advice import Plan
from planner.machine import Machine
from planner.placement.objective import Prefer
from planner.questions.compare import recommend_any


def share(requests: Sequence[Mapping[str, Any]], *, prefer: Prefer, machine: Machine) -> list[Plan]:
    """Return one plan per request, in order, all on the same machine at once.

    Raises:
        UsageError: a request is malformed.
        SourceError: a model cannot be read.
    """
    plans: list[Plan] = []
    for data in requests:
        plan = recommend_any(data, prefer=prefer, machine=machine, detect=_given(machine), grow=False)
        plans.append(plan)
        machine = without(machine, plan)
    return plans


def _given(machine: Machine) -> Callable[[], Machine]:
    return lambda: machine


def without(machine: Machine, plan: Plan) -> Machine:
    """Return the machine with what ``plan`` takes, at most, no longer free."""
    if plan.budget is None:
        return machine
    *gpus, host = plan.budget.devices
    left = tuple(
        replace(gpu, free_bytes=max(0, gpu.free_bytes - device.high_bytes))
        for gpu, device in zip(machine.gpus, gpus, strict=True)
    )
    free = max(0, machine.host.free_bytes - host.high_bytes)
    return replace(machine, gpus=left, host=replace(machine.host, free_bytes=free))
