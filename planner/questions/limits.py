"""The inverse questions for one deployment: each asks the engine's whole budget, never a shortcut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

from planner.advice import context_shortage, recommend_placement, split_needed
from planner.budget import Budget
from planner.deployment.request import Deployment, offered, reopened
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.errors import UsageError
from planner.placement.limits import DIMENSIONS, MAX_CONTEXT_TOKENS, Dimension, Limit, solve
from planner.units import format_bytes
from planner.workload import Workload

BATCHING_ENGINES = frozenset({"transformers", "lmdeploy"})


def find_limits(deployment: Deployment, dimensions: Sequence[str] = ()) -> list[Limit]:
    """Return the limit of each dimension asked, by default of all that mean something for this model and engine."""
    asked = [word for word in dimensions if word != "quantization"] or list(_meaningful(deployment))
    if dimensions and set(dimensions) == {"quantization"}:
        asked = []
    found = [_solved(deployment, cast("Dimension", word)) for word in asked]
    if "quantization" in dimensions:
        found.append(_quantization(deployment))
    return found


def _meaningful(deployment: Deployment) -> list[Dimension]:
    pictures = ("image", "square", "images")
    words: list[Dimension] = [word for word in DIMENSIONS if word not in pictures or deployment.model.vision]
    if all(image.width == image.height for image in deployment.workload.images[:1]):
        words = [word for word in words if word != "square"]
    return [word for word in words if word != "batch" or deployment.engine.name in BATCHING_ENGINES]


def _solved(deployment: Deployment, dimension: Dimension) -> Limit:
    if dimension in ("image", "square", "images") and deployment.model.vision is None:
        raise UsageError(f"{deployment.model.name} takes no images")
    workload, settings = deployment.workload, deployment.settings
    if dimension == "context" and isinstance(settings, LlamaCppSettings):
        settings = replace(settings, ctx_size=None)
    if dimension == "sequences" and isinstance(settings, LlamaCppSettings):
        settings = replace(settings, ctx_size=None, parallel=None)
    fixed = replace(deployment, settings=settings)
    budget = deployment.engine.budget(deployment.model, workload, deployment.machine, settings)
    return solve(
        dimension,
        workload,
        fails_of(fixed),
        context_ceiling=deployment.model.language.n_context_train or MAX_CONTEXT_TOKENS,
        context_floor=sum(image.tokens + image.extra_tokens for image in budget.image_tokens),
        needs=lambda asked: split_needed(_budget(fixed, asked), fixed.given),
    )


def _budget(deployment: Deployment, workload: Workload) -> Budget:
    return recommend_placement(
        deployment.engine, deployment.model, workload, deployment.machine, deployment.settings, deployment.given
    )


def fails_of(deployment: Deployment) -> Callable[[Workload], str | None]:
    """Return the function that says why a workload fails on this deployment, None if it does not.

    The layers may be spread anew for every question, but what is on the GPUs stays there.
    """

    def fails(workload: Workload) -> str | None:
        try:
            budget = _budget(deployment, workload)
        except UsageError as error:
            return str(error)
        reason = context_shortage(budget.image_tokens, workload)
        if reason or budget.refusals:
            return reason or budget.refusals[0]
        if budget.shortfalls:
            return budget.shortfalls[0]
        short = min(budget.devices, key=lambda device: device.headroom_bytes)
        if short.headroom_bytes < 0:
            return f"{short.device} is {format_bytes(-short.headroom_bytes)} short"
        return budget.unknown[0] if budget.unknown else None

    return fails


def _quantization(deployment: Deployment) -> Limit:
    """Return the best file type that fits; the next better one is shown failing."""
    worse: str | None = None
    reason = ""
    for word in offered(deployment.model):
        model = reopened(deployment, word)
        why = fails_of(replace(deployment, model=model))(deployment.workload)
        if why is None:
            return Limit(dimension="quantization", value=word, next_value=worse, reason=reason)
        worse, reason = word, why
    return Limit(dimension="quantization", value=None, next_value=worse, reason=reason)
