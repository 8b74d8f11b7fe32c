"""The grid of a capacity document: every combination judged, one row each, in a fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from planner.advice import (
    nothing_computed,
    recommend_placement,
    shortage,
    shortage_alone,
    split_needed,
    verdict_on,
)
from planner.budget import Budget
from planner.deployment.request import Deployment, parse_request
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Machine

MAX_CELLS = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The axes. ``machines`` are (name, machine) pairs; ``images`` are words like ``1920x1080`` or ``none``."""

    models: tuple[str, ...]
    quantizations: tuple[str | None, ...]
    images: tuple[str, ...]
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    machines: tuple[tuple[str, Machine], ...]
    engine: str | None = None
    settings: Mapping[str, Any] | None = None

    @property
    def n_cells(self) -> int:
        """Number of combinations."""
        axes = (self.models, self.quantizations, self.images, self.batches, self.contexts, self.machines)
        count = 1
        for axis in axes:
            count *= len(axis)
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One combination with its verdict. Bytes are sums over the GPUs (over the host where there is none)."""

    model: str
    quantization: str
    engine: str
    machine: str
    image: str
    image_tokens: int
    batch: int
    context: int
    verdict: str
    expected_bytes: int
    high_bytes: int
    headroom_bytes: int
    weights_bytes: int
    kv_cache_bytes: int
    compute_bytes: int
    overhead_bytes: int
    reason: str


def sweep(grid: Grid) -> Iterator[Cell]:
    """Yield the cells of ``grid``, machines varying fastest.

    Raises:
        UsageError: too many cells, or a word that means nothing.
        SourceError: a model cannot be read.
    """
    if grid.n_cells > MAX_CELLS:
        raise UsageError(f"{grid.n_cells} cells; a sweep has at most {MAX_CELLS}")
    axes = product(grid.models, grid.quantizations, grid.images, grid.batches, grid.contexts)
    for model, quantization, image, batch, context in axes:
        request = _request(grid, model, quantization, image, batch, context)
        first = parse_request(request, machine=grid.machines[0][1], detect=_never)
        for name, machine in grid.machines:
            yield _cell(first, machine, name, image)


def _never() -> Machine:
    raise AssertionError("every cell names its machine")


def _request(  # noqa: PLR0913 - one value per axis
    grid: Grid, model: str, quantization: str | None, image: str, batch: int, context: int
) -> dict[str, Any]:
    workload: dict[str, Any] = {"context": context, "batch": batch}
    if image != "none":
        workload["images"] = [image]
    request: dict[str, Any] = {"model": model, "workload": workload, "settings": dict(grid.settings or {})}
    if quantization is not None:
        request["quantization"] = quantization
    if grid.engine is not None:
        request["engine"] = grid.engine
    return request


def _cell(asked: Deployment, machine: Machine, machine_name: str, image: str) -> Cell:
    model, engine, workload = asked.model, asked.engine, asked.workload
    verdict, reason, budget = _judged(asked, machine)
    gpus = budget.devices[: budget.n_gpus] if budget else ()
    devices = gpus or (budget.devices if budget else ())
    by_component = _sum_by(devices)
    return Cell(
        model=model.name,
        quantization=model.quantization or "",
        engine=f"{engine.name} {engine.version}",
        machine=machine_name,
        image=image,
        image_tokens=sum(i.tokens + i.extra_tokens for i in budget.image_tokens) if budget else 0,
        batch=workload.batch,
        context=workload.context_tokens,
        verdict=verdict,
        expected_bytes=sum(device.expected_bytes for device in devices),
        high_bytes=sum(device.high_bytes for device in devices),
        headroom_bytes=min((device.headroom_bytes for device in budget.devices), default=0) if budget else 0,
        weights_bytes=by_component("weights"),
        kv_cache_bytes=by_component("kv_cache"),
        compute_bytes=by_component("compute"),
        overhead_bytes=by_component("overhead"),
        reason=reason,
    )


def _judged(asked: Deployment, machine: Machine) -> tuple[str, str, Budget | None]:
    support = asked.engine.loads(asked.model)
    if support.verdict == "unsupported":
        return "will_not_load", support.reason, None
    if without := nothing_computed(asked.engine, asked.model):
        return "unknown", without, None
    budget = recommend_placement(asked.engine, asked.model, asked.workload, machine, asked.settings, asked.given)
    verdict, reasons = verdict_on(budget, asked.workload, support)
    if verdict == "does_not_fit" and split_needed(budget, asked.given):  # then the engine's own split is as good
        budget = asked.engine.budget(asked.model, asked.workload, machine, asked.settings)
        verdict, reasons = verdict_on(budget, asked.workload, support)
    split = split_needed(budget, asked.given)
    said = (f"with {split}" if split else "",) if verdict == "fits" else (*reasons, "")
    brief = {shortage(device): shortage_alone(device) for device in budget.short_devices}
    return verdict, brief.get(said[0], said[0]), budget


def _sum_by(devices: Sequence[Any]) -> Callable[[str], int]:
    def total(component: str) -> int:
        return sum(i.expected_bytes for device in devices for i in device.items if i.component == component)

    return total
