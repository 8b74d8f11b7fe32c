"""Predicted beside measured: each figure of a log against the term of the budget that it measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from planner.advice import Plan, judge
from planner.budget import Budget, DeviceBudget, Item
from planner.catalog.calibration import Calibration
from planner.deployment.request import Deployment
from planner.frozen import dataclass
from planner.logs.found import Figure, Log
from planner.units import format_bytes

_FORMULAS = {"non-torch": "memory outside torch", "CUDA graphs": "CUDA graphs"}  # of several terms called overhead
_OPEN = frozenset({"unaccounted", "memory.used", "allocated now", "reserved now", "reserved peak", "size_vram", "size"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One comparison. ``within`` is None where the figure measures more than this term, or nothing is predicted.

    A printed figure stands for all bytes that print to it: it is within where any of them is from low to high.
    """

    device: str
    component: str
    part: str
    term: str
    measured_bytes: int
    measured_range_bytes: tuple[int, int]  # what prints to the same digits
    low_bytes: int | None
    expected_bytes: int | None
    high_bytes: int | None
    within: bool | None
    why: str

    @property
    def difference_bytes(self) -> int | None:
        """Measured less expected."""
        return None if self.expected_bytes is None else self.measured_bytes - self.expected_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """A log beside a plan. ``overheads`` are what this proves of the memory outside the engine's buffers."""

    plan: Plan
    request: Mapping[str, object]
    rows: tuple[Row, ...]
    facts: Mapping[str, int | str]
    remarks: tuple[str, ...]
    overheads: tuple[Calibration, ...] = ()

    @property
    def n_judged(self) -> int:
        """Number of figures that were judged."""
        return sum(row.within is not None for row in self.rows)

    @property
    def all_within(self) -> bool:
        """Whether something was measured, and all of it lies within low and high."""
        return self.n_judged > 0 and all(row.within is not False for row in self.rows)


def verify(
    logs: Sequence[Log], deployment: Deployment, request: Mapping[str, object], remarks: tuple[str, ...] = ()
) -> Verification:
    """Return what the logs measured beside what the deployment's budget predicts.

    The first log is the engine's; others (nvidia-smi, PyTorch) add what they saw of the same run.
    """
    plan = judge(deployment.engine, deployment.model, deployment.workload, deployment.machine, deployment.settings)
    said = [*remarks, *(remark for log in logs for remark in log.remarks)]
    budget = plan.budget
    if budget is None:  # the log shows that it loaded all the same
        budget = deployment.engine.budget(
            deployment.model, deployment.workload, deployment.machine, deployment.settings
        )
        said += [f"the plan says it will not load: {reason}" for reason in plan.reasons[:1]]
    said += [f"not computed: {reason}" for reason in budget.unknown]
    figures = _engine_process(tuple(figure for log in logs for figure in log.figures))
    names = _names(logs[0], budget)
    found = [_row(budget, names, key, group, logs[0], plan) for key, group in _groups(figures).items()]
    rows = [row for row in found if row.measured_bytes or row.expected_bytes]
    return Verification(
        plan=replace(plan, budget=budget),
        request=request,
        rows=tuple(_sorted(rows)),
        facts=logs[0].facts,
        remarks=tuple(dict.fromkeys(said)),
        overheads=tuple(_overheads(rows, names, logs, deployment)),
    )


def _engine_process(figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
    """Return the figures with one process per device: the largest is taken for the engine's."""
    processes = [figure for figure in figures if figure.term.startswith("process ")]
    largest = {
        device: max((one for one in processes if one.device == device), key=lambda one: one.n_bytes)
        for device in {one.device for one in processes}
    }
    return tuple(figure for figure in figures if figure not in processes or largest[figure.device] == figure)


def _groups(figures: tuple[Figure, ...]) -> dict[tuple[str, ...], list[Figure]]:
    groups: dict[tuple[str, ...], list[Figure]] = {}
    for figure in figures:
        apart = "" if figure.component not in {"total", "overhead"} and figure.moment == "load" else figure.term
        groups.setdefault((figure.device, figure.component, figure.part, figure.moment, apart), []).append(figure)
    return groups


def _names(log: Log, budget: Budget) -> dict[str, str]:
    """Return the budget's device for each of the log's: GPUs in order, the host last."""
    gpus = [device.device for device in budget.devices[:-1]]
    own = {device.device: name for device, name in zip(log.devices, gpus, strict=False)}
    return {**{name: name for name in gpus}, **own, "Host": budget.devices[-1].device}


def _row(  # noqa: PLR0913 - what a comparison needs
    budget: Budget, names: Mapping[str, str], key: tuple[str, ...], group: list[Figure], log: Log, plan: Plan
) -> Row:
    figure, n_bytes = group[0], sum(one.n_bytes for one in group)
    least, most = sum(one.low_bytes for one in group), sum(one.high_bytes for one in group)
    items = _items(budget, names.get(key[0]), figure)
    low, expected, high = _range(items, figure)
    judged = figure.moment != "estimate" and figure.term not in _OPEN and bool(items)
    span = least > high and all("mapped" in one.term for one in group)  # of the file, not memory that is needed
    within = (least <= high and most >= low) if judged and not span else None
    return Row(
        device=key[0],
        component=figure.component,
        part=figure.part,
        term=" + ".join(dict.fromkeys(one.term for one in group)),
        measured_bytes=n_bytes,
        measured_range_bytes=(least, most),
        low_bytes=low if items else None,
        expected_bytes=expected if items else None,
        high_bytes=high if items else None,
        within=within,
        why=_SPAN if span else _why(group, items, (least, n_bytes, most), (low, expected, high), log, plan),
    )


def _items(budget: Budget, device: str | None, figure: Figure) -> list[Item]:
    """Return the budget's items that a figure measures together."""
    devices: Sequence[DeviceBudget] = [one for one in budget.devices if one.device == device]
    if figure.device == "all":  # the engine's estimate over its GPUs
        devices = budget.devices[:-1]
    items = [item for one in devices for item in one.items]
    if figure.component == "total":
        inside = figure.term.startswith(("allocated", "reserved", "size"))
        return [item for item in items if not inside or item.component != "overhead"]
    wanted = _FORMULAS.get(figure.term, "")
    return [
        item
        for item in items
        if item.component == figure.component and wanted in item.formula and _same_part(item.part, figure.part)
    ]


def _same_part(own: str, asked: str) -> bool:
    return asked in {"all", own} or (asked == "vision" and own == "projector")


def _range(items: Sequence[Item], figure: Figure) -> tuple[int, int, int]:
    """Return low, expected and high; after load, what stands then is expected, and no less than that is low."""
    if figure.moment == "load" and any(item.resident_bytes for item in items):
        expected = sum(item.resident_bytes for item in items)
    else:
        expected = sum(item.expected_bytes for item in items)
    low = min(expected, sum(item.low_bytes for item in items))
    return low, expected, max(expected, sum(item.high_bytes for item in items))


_SPAN = "the stretch of the file from the first to the last tensor of the host, with those of other devices between"
_REPACKED = "quantised weights are copied into a repacked buffer; the file's own pages of them can be dropped again"
_FULL_LENGTH = "sliding-window layers hold the whole context: --swa-full, a fork, or a build before their own cache"
_APART = {
    "unaccounted": "context and pools of this process, and whatever else uses the device",
    "memory.used": "all processes on the device, the desktop too",
}


def _why(  # noqa: PLR0913 - what a cause may lie in
    group: Sequence[Figure],
    items: Sequence[Item],
    measured: tuple[int, int, int],
    predicted: tuple[int, int, int],
    log: Log,
    plan: Plan,
) -> str:
    """Return why the two differ, as far as known."""
    figure = group[0]
    if figure.moment == "estimate":
        return "the engine's own estimate before the load, no allocation"
    if figure.term in _OPEN:
        kept = "what the engine reports of itself; blocks that its allocator keeps may be in it"
        return _APART.get(figure.term, kept)
    if not items:
        return "nothing is predicted here"
    if measured[0] <= predicted[1] <= measured[2]:
        return "as predicted, to the printed digit"
    if any("repacked" in one.term for one in group):
        return _REPACKED
    return _cause(figure, items, measured, log, plan) or (
        "within the range" if predicted[0] <= measured[1] <= predicted[2] else "no known cause"
    )


def _cause(  # noqa: PLR0911 - one sentence per cause
    figure: Figure, items: Sequence[Item], measured: tuple[int, int, int], log: Log, plan: Plan
) -> str | None:
    estimates = [item.inputs.get("estimate_without_allocation_bytes") for item in items]
    if any(isinstance(one, int) and measured[0] <= one <= measured[2] for one in estimates):
        return "the engine's estimate before the load: 16 x width x ubatch more than it allocates in a pipeline"
    if figure.part == "vision" and figure.component == "compute":
        return "reserved for the warm-up picture; a larger one makes it grow on first use"
    if figure.term == "KV pool":
        return _pool(items, log)
    if figure.component == "kv_cache" and log.kind in {"llama.cpp", "ollama"} and _windowed(plan):
        return _FULL_LENGTH if measured[1] > sum(item.expected_bytes for item in items) else None
    if figure.component == "compute" and log.engine_version not in {None, plan.engine_version}:
        return f"the log is of {log.engine_version}, the prediction of {plan.engine_version}: graphs change"
    gguf = log.kind in {"llama.cpp", "ollama"} and not plan.model.source.endswith(".gguf")
    if figure.component == "weights" and gguf and log.model.file_type is None:
        return f"the log does not say the file type, {plan.model.quantization} is assumed: name it with --quantization"
    if figure.component == "weights" and gguf:
        return "the file's tensor types may differ from the usual recipe: name the file itself with --model"
    return None


def _windowed(plan: Plan) -> bool:
    return any(getattr(layer.mixer, "window_tokens", None) for layer in plan.model.language.layers)


def _pool(items: Sequence[Item], log: Log) -> str:
    expected = next((item.inputs["tokens"] for item in items if "tokens" in item.inputs), None)
    tokens = log.facts.get("kv_tokens")
    counted = f"; {tokens} tokens, {expected} expected" if tokens is not None and expected is not None else ""
    return f"what is left of the share after weights and profile{counted}"


_ORDER = ("weights", "kv_cache", "compute", "overhead", "total")


def _sorted(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: (row.device in {"Host", "all"}, row.device, _ORDER.index(row.component)))


def _overheads(
    rows: Sequence[Row], names: Mapping[str, str], logs: Sequence[Log], deployment: Deployment
) -> list[Calibration]:
    """Return, per GPU, the process's memory less all of the engine's buffers that the same logs measured there."""
    drivers = {device.device: device for log in logs for device in log.devices if device.driver}
    found = []
    for row in rows:
        if not row.term.startswith("process ") or row.device not in names:
            continue
        parts = [
            one for one in rows if one.device == row.device and one.component in {"weights", "kv_cache", "compute"}
        ]
        kinds = {one.component for one in parts if one.within is not None}
        if not {"weights", "kv_cache", "compute"} <= kinds:
            continue
        index = int("".join(filter(str.isdecimal, row.device)) or 0)
        gpu = deployment.machine.gpus[index] if index < len(deployment.machine.gpus) else None
        seen = drivers.get(row.device)
        name = seen.name if seen is not None and seen.name else gpu.name if gpu is not None else ""
        driver = seen.driver if seen is not None else gpu.driver if gpu is not None else None
        outside = row.measured_bytes - sum(one.measured_bytes for one in parts if one.within is not None)
        if name and outside > 0:
            found.append(
                Calibration(
                    gpu=name,
                    driver=driver or "",
                    engine=deployment.engine.name,
                    low_bytes=outside,
                    high_bytes=outside,
                    n_runs=1,
                )
            )
    return found


def headline(found: Verification) -> str:
    """Return the result in one sentence."""
    outside = [row for row in found.rows if row.within is False]
    if not found.n_judged:
        return "NOTHING MEASURED: the log holds estimates only"
    if outside:
        worst = max(outside, key=lambda row: abs(row.difference_bytes or 0))
        return (
            f"OUTSIDE: {len(outside)} of {found.n_judged} measured figures; worst {worst.device} {worst.component} "
            f"{worst.part}, {format_bytes(worst.difference_bytes or 0)} off"
        )
    return f"WITHIN: all {found.n_judged} measured figures lie within the predicted range"
