"""The same question to every engine: one plan each, the first that fits on top."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from planner.advice import Plan, recommend
from planner.catalog.engines import COMPARED
from planner.deployment.request import parse_question
from planner.errors import UsageError
from planner.machine import Machine
from planner.placement.objective import Prefer

_FITS = frozenset({"fits", "fits_with_changes"})


def recommend_any(  # noqa: PLR0913 - the whole question
    data: Mapping[str, Any],
    *,
    prefer: Prefer,
    machine: Machine | None,
    detect: Callable[[], Machine],
    compare: bool = False,
    grow: bool = True,
) -> Plan:
    """Return the plan of the engine asked for; without one, of the first engine that loads the model and fits.

    ``compare``: ask every engine and give their plans as alternatives. ``grow``: a context that nobody asked for may
    grow into free memory.

    Raises:
        UsageError: the request is malformed.
        SourceError: the model cannot be read.
    """

    def ask(engine: str) -> Plan:
        question = parse_question({**data, "engine": engine}, prefer=prefer, machine=machine, detect=detect)
        return recommend(question if grow else replace(question, context_given=True))

    wanted = str(data.get("engine") or COMPARED[0])
    first = ask(wanted)
    if not compare and (data.get("engine") or first.verdict != "will_not_load"):
        return first
    others: list[Plan] = []
    for engine in COMPARED:
        if engine != wanted and (compare or not any(plan.verdict in _FITS for plan in others)):
            try:
                others.append(ask(engine))
            except UsageError:  # this engine has no rule for the images, or no such setting: no plan, no row
                continue
    if data.get("engine") or first.verdict in _FITS:
        return replace(first, alternatives=(*first.alternatives, *others))
    best = next((plan for plan in others if plan.verdict in _FITS), first)
    rest = tuple(plan for plan in (first, *others) if plan is not best)
    return replace(best, alternatives=(*best.alternatives, *rest))
