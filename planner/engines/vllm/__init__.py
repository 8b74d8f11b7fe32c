"""vLLM: a fixed share of the device, filled with weights, a profiled peak, and a KV pool from what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.budget import Budget
from planner.engines.containers import Container
from planner.engines.engine import Emitted, Engine, Support
from planner.engines.options import options_table
from planner.engines.support import SupportTable, loads
from planner.engines.vllm.budget import budget
from planner.engines.vllm.command import container, emit
from planner.engines.vllm.rules import VllmRules, vllm_rules
from planner.engines.vllm.settings import VllmSettings
from planner.machine import Machine
from planner.memory.overhead import OverheadTable
from planner.model import Model
from planner.workload import Workload

__all__ = ["VllmRules", "VllmSettings", "vllm_engine"]


def vllm_engine(
    version: str | None,
    tables: Mapping[str, SupportTable],
    rules_data: Mapping[str, Any],
    options_data: Mapping[str, Any],
    overhead: OverheadTable | None = None,
) -> Engine:
    """Return vLLM at ``version`` (default: the newest examined), with its data inside.

    ``rules_data`` is ``profiles/engines/vllm.yaml``, ``options_data`` is ``profiles/engines/options/vllm.yaml``.
    """
    at = version or rules_data["newest"]
    options = options_table(options_data)
    rules = vllm_rules(rules_data, options, overhead)

    def supported(model: Model) -> Support:
        return loads(tables, "vllm", family=model.family, architecture_class=model.architecture_class, version=at)

    def planned(model: Model, workload: Workload, machine: Machine, settings: VllmSettings) -> Budget:
        return budget(model, workload, machine, settings, at, rules)

    def emitted(model: Model, workload: Workload, machine: Machine, settings: VllmSettings) -> Emitted:  # noqa: ARG001 - the protocol's
        return emit(model, workload, settings, at, options, rules)

    def boxed(model: Model, workload: Workload, machine: Machine, settings: VllmSettings) -> Container:  # noqa: ARG001 - the protocol's
        return container(model, workload, settings, at, options, rules)

    return Engine(
        name="vllm",
        version=at,
        settings=VllmSettings,
        loads=supported,
        budget=planned,
        emit=emitted,
        facts={"container": boxed},
    )
