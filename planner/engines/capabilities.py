"""What an engine, or one of its settings, asks of an NVIDIA GPU: a compute capability."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

from planner.budget import Budget
from planner.engines.engine import Engine
from planner.engines.versions import parse_version
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Model
from planner.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityRule:
    """One row of ``profiles/engines/capabilities.yaml``; ``note``: said beside the plan instead of refusing it."""

    at_least: tuple[int, int]
    source: str
    since: str | None = None
    setting: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


def capability_rules(rows: Iterable[Mapping[str, Any]], engine: str) -> tuple[CapabilityRule, ...]:
    """Return the rules of one engine."""
    return tuple(
        CapabilityRule(
            at_least=(int(row["at_least"].split(".")[0]), int(row["at_least"].split(".")[1])),
            source=row["source"],
            since=row.get("since"),
            setting=row.get("setting", {}),
            note=row.get("note", ""),
        )
        for row in rows
        if row["engine"] == engine
    )


def guarded(engine: Engine, rules: Sequence[CapabilityRule]) -> Engine:
    """Return the engine with budgets that are refused where a GPU that holds something is too old."""
    if not rules:
        return engine

    def budget(model: Model, workload: Workload, machine: Machine, settings: Any) -> Budget:  # noqa: ANN401 - each engine has its own class
        found = engine.budget(model, workload, machine, settings)
        used = [gpu for gpu, held in zip(machine.gpus, found.devices[:-1], strict=False) if held.high_bytes]
        refusals: list[str] = []
        notes: list[str] = []
        for rule in applying(rules, engine.version, settings):
            for gpu in _below(used, rule.at_least):
                (notes if rule.note else refusals).append(_sentence(engine, gpu, rule))
        return replace(found, refusals=(*refusals, *found.refusals), notes=(*found.notes, *notes))

    return replace(engine, budget=budget)


def applying(rules: Sequence[CapabilityRule], version: str, settings: object) -> Iterator[CapabilityRule]:
    """Yield the rules that hold: the newest plain one up to ``version``, and all whose setting is chosen."""
    at = parse_version(version)
    plain = [rule for rule in rules if not rule.setting and not rule.note]
    yield from [rule for rule in plain if rule.since is None or not at < parse_version(rule.since)][-1:]
    for rule in rules:
        if (rule.setting or rule.note) and all(
            getattr(settings, key, None) == rule.setting[key] for key in rule.setting
        ):
            yield rule


def _below(gpus: Iterable[Gpu], at_least: tuple[int, int]) -> list[Gpu]:
    old = [g for g in gpus if g.backend == "cuda" and g.compute_capability and g.compute_capability < at_least]
    return list({gpu.name: gpu for gpu in old}.values())


def _sentence(engine: Engine, gpu: Gpu, rule: CapabilityRule) -> str:
    has = ".".join(str(number) for number in gpu.compute_capability or ())
    if rule.note:
        return f"{gpu.name} has compute capability {has}: {rule.note}"
    what = ", ".join(f"{key} {word}" for key, word in rule.setting.items()) or engine.version
    needed = ".".join(str(number) for number in rule.at_least)
    return f"{engine.name} {what} needs compute capability {needed}; {gpu.name} has {has} ({rule.source})"
