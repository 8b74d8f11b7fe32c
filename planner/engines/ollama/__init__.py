"""Ollama: from 0.30 a chooser of llama-server's settings, up to 0.24 a runner of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from planner.budget import Budget, Item
from planner.engines.containers import Container
from planner.engines.engine import Emitted, Engine, Support
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.engines.ollama.command import container, emit
from planner.engines.ollama.own_runner import own_runner_budget
from planner.engines.ollama.server import ServerStart, llama_server_settings, resolved_context
from planner.engines.ollama.settings import OllamaSettings, ollama_rules
from planner.engines.options import missing_options, options_table
from planner.engines.span import Span, span_item
from planner.engines.support import SupportTable, loads
from planner.engines.versions import parse_version
from planner.machine import Machine
from planner.model import CrossAttention, Model
from planner.units import GIB, MIB
from planner.workload import Workload

__all__ = ["OllamaSettings", "ollama_engine"]

LlamaBudget = Callable[[Model, Workload, Machine, LlamaCppSettings], Budget]
SERVER_SINCE = "0.30.0-alpha0"


def ollama_engine(
    version: str | None,
    tables: Mapping[str, SupportTable],
    rules_data: Mapping[str, Any],
    options_data: Mapping[str, Any],
    llama_budget: LlamaBudget,
) -> Engine:
    """Return Ollama at ``version`` (default: the newest read), on top of llama.cpp's budget.

    ``rules_data`` is ``profiles/engines/ollama.yaml``, ``options_data`` is ``profiles/engines/options/ollama.yaml``.
    """
    at = version or rules_data["newest"]
    options = options_table(options_data)
    rules = ollama_rules(rules_data, options)
    defaults = OllamaSettings()

    def supported(model: Model) -> Support:
        words = {"architecture_class": model.architecture_class, "gguf_architecture": model.language.architecture}
        return loads(tables, "ollama", family=model.family, version=at, **words)

    def planned(model: Model, workload: Workload, machine: Machine, settings: OllamaSettings) -> Budget:
        changed = {n: None for n in OllamaSettings.__slots__ if getattr(settings, n) != getattr(defaults, n)}
        refused = missing_options(options, changed, "Ollama", at)
        if parse_version(at) < parse_version(SERVER_SINCE) and _crossed(model):
            found = own_runner_budget(model, workload, machine, settings)
        else:
            start = llama_server_settings(model, workload, machine, settings, at, rules)
            found = _served(model, workload, machine, start, llama_budget)
            if parse_version(at) < parse_version(SERVER_SINCE):
                found = _of_another_engine(found)
        return replace(found, refusals=(*refused, *found.refusals))

    def emitted(model: Model, workload: Workload, machine: Machine, settings: OllamaSettings) -> Emitted:
        num_ctx, _ = resolved_context(model, workload, machine, settings, at)
        return emit(model, workload, settings, options, num_ctx)

    def boxed(model: Model, workload: Workload, machine: Machine, settings: OllamaSettings) -> Container:  # noqa: ARG001 - the protocol's
        return container(settings, at, options, len(machine.gpus))

    return Engine(
        name="ollama",
        version=at,
        settings=OllamaSettings,
        loads=supported,
        budget=planned,
        emit=emitted,
        facts={"container": boxed},
    )


def _crossed(model: Model) -> bool:
    return any(isinstance(layer.mixer, CrossAttention) for layer in model.language.layers)


def _served(model: Model, workload: Workload, machine: Machine, start: ServerStart, budget: LlamaBudget) -> Budget:
    """Return llama-server's budget with the settings that Ollama chose, layers fitted as ``--fit`` would."""
    seen = machine if start.gpu_index is None else replace(machine, gpus=(machine.gpus[start.gpu_index],))
    load = replace(workload, context_tokens=start.num_ctx, sequences=start.parallel)

    def at(n_layers: int | None) -> Budget:
        words = start.settings if n_layers is None else {**start.settings, "n_gpu_layers": n_layers}
        return budget(model, load, seen, LlamaCppSettings(**words))  # type: ignore[arg-type] # words of that class

    found = at(None)
    target = _first(start.settings.get("fit_target")) * MIB
    if "n_gpu_layers" not in start.settings and seen.gpus and not _leaves(found, target):
        found = at(_most_layers(at, model.language.n_layers + 1, target))
    shown = {"num_ctx": start.num_ctx, "num_parallel": start.parallel, **found.settings}
    return replace(found, settings=shown, notes=(*start.notes, *found.notes))


def _first(target: object) -> int:
    return target[0] if isinstance(target, list) and target and isinstance(target[0], int) else 1024


def _leaves(found: Budget, target_bytes: int) -> bool:
    """Whether every GPU keeps the margin: llama-server adds what the projector needs to the target it was handed."""
    gpus = [device for device in found.devices if device.device != "Host"]
    return all(device.free_bytes - device.expected_bytes >= target_bytes for device in gpus)


def _most_layers(at: Callable[[int | None], Budget], most: int, target_bytes: int) -> int:
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _leaves(at(middle), target_bytes) else (low, middle - 1)
    return low


def _of_another_engine(found: Budget) -> Budget:
    """Widen a budget of llama.cpp 0.5 that stands for an engine of Ollama's own, on every GPU it uses."""

    def widened(items: tuple[Item, ...]) -> tuple[Item, ...]:
        compute = sum(i.expected_bytes for i in items if i.component == "compute")
        span = Span(low=0, expected=0, high=compute + GIB)
        formula = "what the engine before 0.30 may take beyond llama.cpp"
        return (*items, span_item("overhead", "language", span, basis="assumed", formula=formula, source="no log"))

    devices = tuple(d if d.device == "Host" else replace(d, items=widened(d.items)) for d in found.devices)
    note = "before 0.30 Ollama used its own engine for most families; the figures are llama.cpp's, with more room"
    return replace(found, devices=devices, notes=(*found.notes, note))
