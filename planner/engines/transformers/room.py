"""Sizes for ``max_memory`` that leave room for the run: accelerate itself looks at weights only."""

from __future__ import annotations

from dataclasses import replace

from planner.budget import Budget, DeviceBudget
from planner.engines.transformers.budget import TransformersData, budget
from planner.engines.transformers.settings import TransformersSettings
from planner.machine import Machine
from planner.model import Model
from planner.units import MIB
from planner.workload import Workload

MAX_ROUNDS = 6


def with_room(
    data: TransformersData, model: Model, workload: Workload, machine: Machine, settings: TransformersSettings
) -> TransformersSettings:
    """Return settings whose ``max_memory`` leaves each GPU what cache, activations and context need there at most.

    Where everything fits as accelerate places it, or the user chose sizes or one device, ``settings`` come back as they
    are. Each round takes what a GPU lacks off its size and asks again; what cannot be helped is returned as it is.
    """
    if settings.device_map != "auto" or settings.max_memory is not None or not machine.gpus:
        return settings
    chosen = settings
    for _ in range(MAX_ROUNDS):
        planned = budget(data, model, workload, machine, chosen)
        if not _short(planned):
            return chosen
        chosen = replace(settings, max_memory=_sizes(planned, machine))
    return chosen


def _short(planned: Budget) -> bool:
    return any(device.device != "Host" for device in planned.short_devices)


def _sizes(planned: Budget, machine: Machine) -> dict[str, str]:
    gpus = [device for device in planned.devices if device.device != "Host"]
    sizes = {str(i): f"{_weights_room(device) // MIB}MiB" for i, device in enumerate(gpus)}
    return {**sizes, "cpu": f"{max(0, machine.host.free_bytes) // MIB}MiB"}


def _weights_room(device: DeviceBudget) -> int:
    """Bytes for weights, and for what accelerate keeps free of them: free memory less all else at its bound."""
    beside = sum(item.high_bytes for item in device.items if item.component != "weights" and not _guest(item.formula))
    return max(0, device.free_bytes - beside)


def _guest(formula: str) -> bool:
    return formula.startswith("the largest module kept in host memory")
