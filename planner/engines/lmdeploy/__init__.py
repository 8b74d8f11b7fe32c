"""LMDeploy: weights first, then a cache that is a share of what is still free; TurboMind, or PyTorch where it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from planner.budget import Budget
from planner.engines.containers import Container
from planner.engines.engine import Emitted, Engine, Support
from planner.engines.lmdeploy.budget import budget
from planner.engines.lmdeploy.command import Release, container, emit
from planner.engines.lmdeploy.rules import lmdeploy_rules
from planner.engines.lmdeploy.settings import LmdeploySettings
from planner.engines.options import options_table
from planner.engines.support import SupportTable, loads
from planner.machine import Machine
from planner.memory.overhead import OverheadTable
from planner.model import Model
from planner.workload import Workload

__all__ = ["LmdeploySettings", "lmdeploy_engine"]


def lmdeploy_engine(
    version: str | None,
    tables: Mapping[str, SupportTable],
    rules_data: Mapping[str, Any],
    options_data: Mapping[str, Any],
    overhead: OverheadTable | None = None,
) -> Engine:
    """Return LMDeploy at ``version`` (default: the newest examined), with its data inside.

    ``rules_data`` is ``profiles/engines/lmdeploy.yaml``, ``options_data`` its namesake under ``options``.
    """
    at = version or rules_data["newest"]
    options = options_table(options_data)
    rules = lmdeploy_rules(rules_data, options, overhead)

    def loaded_by(word: str, model: Model) -> Support:
        return loads(tables, word, family=model.family, architecture_class=model.architecture_class, version=at)

    def supported(model: Model) -> Support:
        return loaded_by("lmdeploy", model)

    def backend(model: Model, settings: LmdeploySettings) -> str:
        if settings.backend != "auto":
            return settings.backend
        return "pytorch" if supported(model).backend == "lmdeploy-pytorch" else "turbomind"

    def release(model: Model, settings: LmdeploySettings) -> Release:
        return Release(backend=backend(model, settings), version=at, options=options, rules=rules)

    def planned(model: Model, workload: Workload, machine: Machine, settings: LmdeploySettings) -> Budget:
        found = budget(model, workload, machine, settings, at, backend(model, settings), rules)
        return _with_support(found, settings.backend, loaded_by(f"lmdeploy-{settings.backend}", model))

    def emitted(model: Model, workload: Workload, machine: Machine, settings: LmdeploySettings) -> Emitted:  # noqa: ARG001 - the protocol's
        return emit(model, workload, settings, release(model, settings))

    def boxed(model: Model, workload: Workload, machine: Machine, settings: LmdeploySettings) -> Container:  # noqa: ARG001 - the protocol's
        return container(model, workload, settings, release(model, settings))

    return Engine(
        name="lmdeploy",
        version=at,
        settings=LmdeploySettings,
        loads=supported,
        budget=planned,
        emit=emitted,
        facts={"container": boxed},
    )


def _with_support(found: Budget, backend: str, own: Support) -> Budget:
    """Return the budget refused where the user named a backend that does not load the model."""
    if backend == "auto" or own.verdict != "unsupported":
        return found
    return replace(found, refusals=(f"backend {backend}: {own.reason}", *found.refusals))
