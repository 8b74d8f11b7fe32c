"""The Python API: a request mapping in, an answer mapping out, the schema of ``vlplan batch``.

Both mappings are described by the JSON Schemas ``schema/request.json`` and ``schema/answer.json`` among the profiles.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

from planner import advice
from planner.catalog.data import read_text
from planner.deployment import parse_request
from planner.detect import detect_machine
from planner.errors import UsageError
from planner.machine import Machine
from planner.machine_file import machine_of
from planner.placement.objective import Prefer
from planner.questions.compare import recommend_any
from planner.questions.speed import with_speed
from planner.report.answer import answer

PREFERENCES: tuple[Prefer, ...] = ("balanced", "quality", "speed", "context", "headroom")


def estimate(request: Mapping[str, Any], machine: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the answer for exactly the settings of ``request``: bytes per device, verdict, command.

    Args:
        request: as ``schema/request.json`` describes it; unknown keys are refused.
        machine: stands in where the request names no machine; without either, this computer's is looked at.

    Raises:
        VlplanError: the request is malformed, or names a model, engine or file that cannot be read. "Does not fit"
            is no error: it is the answer's verdict.
    """
    asked = parse_request(_plain(request), machine=_described(machine), detect=detect_machine)
    return _mapping(advice.judge(asked.engine, asked.model, asked.workload, asked.machine, asked.settings))


def recommend(
    request: Mapping[str, Any],
    prefer: Prefer = "balanced",
    machine: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the best plan for ``request``; what it leaves out (file type, context, settings) is the planner's choice.

    Args:
        request: as for :func:`estimate`. Without an engine, the first that loads the model and fits.
        prefer: what to put first among plans that fit.
        machine: as for :func:`estimate`.

    Raises:
        VlplanError: as for :func:`estimate`, or an unknown preference.
    """
    if prefer not in PREFERENCES:
        raise UsageError(f"prefer: must be one of {', '.join(PREFERENCES)}, not {prefer!r}")
    found = recommend_any(_plain(request), prefer=prefer, machine=_described(machine), detect=_looking_once())
    return _mapping(found)


def schema(name: Literal["request", "answer"]) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of requests or of answers.

    Raises:
        UsageError: another name.
    """
    if name not in ("request", "answer"):
        raise UsageError(f"schema: must be request or answer, not {name!r}")
    found: dict[str, Any] = json.loads(read_text(f"schema/{name}.json"))
    return found


def _plain(request: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(request, Mapping):
        raise UsageError("a request is a mapping with at least the key 'model'")
    return dict(request)


def _described(machine: Mapping[str, Any] | None) -> Machine | None:
    return None if machine is None else machine_of(dict(machine) if isinstance(machine, Mapping) else machine)


def _looking_once() -> Callable[[], Machine]:
    """Return a detection that looks once, however many engines are asked."""
    seen: list[Machine] = []

    def detect() -> Machine:
        if not seen:
            seen.append(detect_machine())
        return seen[0]

    return detect


def _mapping(plan: advice.Plan) -> dict[str, Any]:
    return dict(answer(with_speed(plan)))
