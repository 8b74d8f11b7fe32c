"""SGLang: a static share for weights and cache, everything else in the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.budget import Budget
from planner.engines.containers import Container, compose_file
from planner.engines.engine import Emitted, Engine, Support
from planner.engines.options import Options, arguments, command_line, options_table
from planner.engines.sglang.budget import budget
from planner.engines.sglang.settings import SglangRules, SglangSettings, sglang_rules
from planner.engines.support import SupportTable, loads
from planner.engines.weight_formats import load_word
from planner.machine import Machine
from planner.memory.overhead import OverheadTable
from planner.model import Model
from planner.units import GIB
from planner.workload import Workload

__all__ = ["SglangSettings", "sglang_engine"]

PORT = 30000


def sglang_engine(
    version: str | None,
    tables: Mapping[str, SupportTable],
    rules_data: Mapping[str, Any],
    options_data: Mapping[str, Any],
    overhead: OverheadTable | None = None,
) -> Engine:
    """Return SGLang at ``version`` (default: the newest examined), with its data inside.

    ``rules_data`` is ``profiles/engines/sglang.yaml``, ``options_data`` is ``profiles/engines/options/sglang.yaml``.
    """
    at = version or rules_data["newest"]
    options = options_table(options_data)
    rules = sglang_rules(rules_data, options, overhead)

    def supported(model: Model) -> Support:
        return loads(tables, "sglang", family=model.family, architecture_class=model.architecture_class, version=at)

    def planned(model: Model, workload: Workload, machine: Machine, settings: SglangSettings) -> Budget:
        return budget(model, workload, machine, settings, at, rules)

    def emitted(model: Model, workload: Workload, machine: Machine, settings: SglangSettings) -> Emitted:  # noqa: ARG001 - the protocol's
        words = serve_arguments(model, workload, settings, options, rules)
        boxed = container(words, settings, at)
        return Emitted(
            command=command_line(["python", "-m", "sglang.launch_server", *words]), config=compose_file(boxed)
        )

    def boxed(model: Model, workload: Workload, machine: Machine, settings: SglangSettings) -> Container:  # noqa: ARG001 - the protocol's
        return container(serve_arguments(model, workload, settings, options, rules), settings, at)

    return Engine(
        name="sglang",
        version=at,
        settings=SglangSettings,
        loads=supported,
        budget=planned,
        emit=emitted,
        facts={"container": boxed},
    )


def serve_arguments(
    model: Model, workload: Workload, settings: SglangSettings, options: Options, rules: SglangRules
) -> list[str]:
    """Return the words after ``sglang.launch_server``: what differs from the defaults, the context always."""
    defaults = SglangSettings()
    given: dict[str, object] = {"context_length": settings.context_length or workload.context_tokens}
    for name in options:
        value = getattr(settings, name)
        if name not in given and value != getattr(defaults, name):
            given[name] = value
    if settings.quantization is None and load_word(model):
        given["quantization"] = load_word(model)
    if model.family in rules.trust_remote_code:
        given["trust_remote_code"] = True
    return ["--model-path", model.hf_id or model.name, *arguments(options, given)]


def container(words: list[str], settings: SglangSettings, version: str) -> Container:
    """Return the server as a container."""
    return Container(
        name="sglang",
        image=f"lmsysorg/sglang:v{version.removeprefix('v')}",
        command=("python3", "-m", "sglang.launch_server"),
        arguments=(*words, "--host", "0.0.0.0", "--port", str(PORT)),  # noqa: S104 - inside its container
        port=PORT,
        n_gpus=settings.tp_size * settings.pp_size,
        host_bytes=16 * GIB,
    )
