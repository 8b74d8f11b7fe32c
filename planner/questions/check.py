"""A deployment judged: the verdict on exactly what it says, the change that would help, and what it says in vain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from planner.advice import Plan, judge, repaired
from planner.deployment.command_line import Line
from planner.deployment.request import Deployment, parse_request
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Machine

MAX_NAME = 80  # characters of a file's name in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One deployment's verdict. ``warnings`` do not change it."""

    name: str
    plan: Plan
    warnings: tuple[str, ...]


def check_line(name: str, line: Line, *, machine: Machine | None, detect: Callable[[], Machine]) -> Check:
    """Return the verdict on one deployment.

    Raises:
        UsageError: the request in it is malformed.
        SourceError: its model cannot be read.
    """
    try:
        deployment = parse_request(line.request, machine=machine, detect=detect)
    except UsageError as error:
        shown = name if len(name) <= MAX_NAME else f"...{name[-MAX_NAME:]}"
        raise UsageError(f"{shown}: {error}") from None
    if line.whole_context:
        deployment = _with_own_context(deployment)
    plan = judge(deployment.engine, deployment.model, deployment.workload, deployment.machine, deployment.settings)
    if plan.verdict == "does_not_fit":
        plan = repaired(plan, deployment.engine) or plan
    return Check(name=name, plan=plan, warnings=(*line.remarks, *settings_warnings(deployment)))


def _with_own_context(deployment: Deployment) -> Deployment:
    trained = deployment.model.language.n_context_train
    if not trained:
        return deployment
    return replace(deployment, workload=replace(deployment.workload, context_tokens=trained))


def settings_warnings(deployment: Deployment) -> tuple[str, ...]:
    """Return what the settings do in vain or to harm."""
    given, language = deployment.given, deployment.model.language
    found: list[str] = []
    context, trained = given.get("ctx_size"), language.n_context_train
    if isinstance(context, int) and trained and context > trained * int(str(given.get("parallel") or 1)):
        found.append(f"ctx_size {context} is above the {trained} tokens the model was trained for")
    limit = given.get("image_max_tokens")
    rule = deployment.model.vision.rules.get("mtmd") if deployment.model.vision else None
    most = rule.parameters.get("max_tokens") if rule else None
    if isinstance(limit, int) and isinstance(most, int) and limit > most:
        found.append(f"image_max_tokens {limit} is above the encoder's own maximum of {most}")
    if isinstance(limit, int) and rule is not None and most is None:
        found.append("image_max_tokens does nothing: this model's images have a fixed number of tokens")
    if given.get("n_cpu_moe") and not any(t.name.endswith("_exps.weight") for t in language.tensors):
        found.append("n_cpu_moe does nothing: this model has no experts")
    return tuple(found)
