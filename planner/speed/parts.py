"""Which device works on what: a budget's devices with their layers, and the experts that were moved to the host."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.remembered import remembered
from planner.speed.costs import Stored
from planner.speed.table import gpu_device, host_device

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.budget import Budget, DeviceBudget
    from planner.machine import Gpu, Machine
    from planner.speed.costs import LanguageCost
    from planner.speed.table import Device, SpeedTable

_INDEX = re.compile(r"(\d{1,4})$")
_MOVES_EXPERTS = frozenset({"llama.cpp", "ollama"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A device with its share of the language model.

    ``held`` are the weights of its layers and output, ``used`` those that one token passes through, ``output`` the
    output's among them; ``n_hops`` how often a token is handed to it.
    """

    device: Device
    gpu: Gpu | None  # None: the host
    layers: tuple[int, ...]
    held: Stored
    used: Stored
    output: Stored
    n_hops: int = 1


def gpu_of(device: DeviceBudget, machine: Machine) -> Gpu | None:
    """Return the GPU that a budget's device names (``CUDA1``: the second one), None for the host."""
    found = _INDEX.search(device.device)
    if device.device == "Host" or found is None or int(found[1]) >= len(machine.gpus):
        return None
    return machine.gpus[int(found[1])]


def weight_bytes(device: DeviceBudget, *parts: str) -> int:
    """Return the bytes of weights that stand on ``device`` after load, of these parts of the model."""
    return sum(item.resident_bytes for item in device.items if item.component == "weights" and item.part in parts)


def parts_of(cost: LanguageCost, machine: Machine, budget: Budget, engine: str, table: SpeedTable) -> list[Part]:
    """Return the devices that work on the language model, in the budget's order.

    llama.cpp splits exact layers; weights that a GPU lacks although it has their layers are experts on the host. Other
    engines hold a share of what is stored: a rank's shard, or another format.
    """
    if engine in _MOVES_EXPERTS:
        return _with_moved_experts(cost, machine, budget, table)
    parts = [_plain(cost, machine, device, table) for device in budget.devices]
    held = [weight_bytes(device, "language") for device in budget.devices]
    ranks = n_ranks(parts)
    embedding = 0 if cost.tied else cost.embedding.n_bytes // ranks
    scaled = [
        _scaled(part, n_bytes - (embedding if 0 in part.layers else 0), ranks)
        for part, n_bytes in zip(parts, held, strict=True)
    ]
    return [part for part in scaled if part.used.n_bytes]


def n_ranks(parts: Iterable[Part]) -> int:
    """Return how many GPUs hold the same layers, ranks of tensor parallelism; 1 where they hold different ones."""
    spans = [part.layers for part in parts if part.gpu is not None and part.layers]
    return len(spans) if len(spans) > 1 and len(set(spans)) == 1 else 1


def _plain(cost: LanguageCost, machine: Machine, device: DeviceBudget, table: SpeedTable) -> Part:
    gpu = gpu_of(device, machine)
    span = range(device.layers[0], device.layers[1] + 1) if device.layers else range(0)
    layers = tuple(index for index in span if index < len(cost.layers))
    output = cost.output if device.has_output else Stored()
    return Part(
        device=host_device(machine.host, table) if gpu is None else gpu_device(gpu, table),
        gpu=gpu,
        layers=layers,
        held=output + held_by(cost, span),
        used=output + used_by(cost, span),
        output=output,
    )


@remembered
def held_by(cost: LanguageCost, span: range) -> Stored:
    """Return the weights of some layers, all experts included."""
    return sum((layer.dense + layer.experts for layer in cost.layers[span.start : span.stop]), Stored())


@remembered
def used_by(cost: LanguageCost, span: range) -> Stored:
    """Return the weights of some layers that one token passes through."""
    return sum((layer.dense + layer.used for layer in cost.layers[span.start : span.stop]), Stored())


def _with_moved_experts(cost: LanguageCost, machine: Machine, budget: Budget, table: SpeedTable) -> list[Part]:
    kept, moved = [], []
    for device in budget.devices:
        part = _plain(cost, machine, device, table)
        lacking_bytes = 0 if part.gpu is None else part.held.n_bytes - weight_bytes(device, "language")
        here, there = _without_experts(part, cost, max(0, lacking_bytes))
        kept.append(here)
        moved += [there] if there is not None else []
    parts = [_with(part, moved) if part.gpu is None else part for part in kept]
    return [part for part in parts if part.used.n_bytes]


def _without_experts(part: Part, cost: LanguageCost, lacking_bytes: int) -> tuple[Part, Part | None]:
    """Return ``part`` without the experts that so many bytes are, and those as a part of their own."""
    held = sum((cost.layers[index].experts for index in part.layers), Stored())
    used = sum((cost.layers[index].used for index in part.layers), Stored())
    gone = min(lacking_bytes, held.n_bytes)
    if not gone:
        return part, None
    there = replace(
        part,
        layers=(),
        held=held.times(gone, held.n_bytes),
        used=used.times(gone, held.n_bytes),
        output=Stored(),
        n_hops=max(1, len(part.layers) * gone // held.n_bytes),
    )
    here = replace(part, held=part.held - there.held, used=part.used - there.used, n_hops=there.n_hops)
    return here, there


def _with(host: Part, moved: list[Part]) -> Part:
    """Return the host with the experts moved to it."""
    return replace(
        host,
        held=sum((part.held for part in moved), host.held),
        used=sum((part.used for part in moved), host.used),
        n_hops=max(1, sum(part.n_hops for part in moved)),
    )


def _scaled(part: Part, held_bytes: int, ranks: int) -> Part:
    """Return ``part`` with the bytes that the engine holds of it and its rank's share of the weights."""
    whole = part.held.n_bytes
    share = min(max(held_bytes, 0), whole)
    held, used, output = (
        replace(
            one.times(1, ranks if part.gpu is not None else 1),
            n_bytes=one.times(share, whole).n_bytes,
        )
        for one in (part.held, part.used, part.output)
    )
    return replace(part, held=held, used=used, output=output)
