"""A plan as a container's manifest: the same server, with the plan's settings, GPUs and host memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, cast

from planner.advice import Plan
from planner.catalog.engines import ENGINES, load_engine
from planner.engines.containers import Container, compose_file, kubernetes_deployment
from planner.engines.engine import Engine
from planner.errors import UsageError

Form = Literal["compose", "kubernetes"]
_FITS = frozenset({"fits", "fits_with_changes"})


def manifest(plan: Plan, form: Form) -> str:
    """Return ``plan`` as a compose file or a Kubernetes deployment; empty where it does not fit.

    The host memory asked for is the larger of the engine's usual share and the plan's bound. What an engine keeps in a
    model file of its own (an Ollama Modelfile) stands above it as a comment.

    Raises:
        UsageError: the engine is no server with a container of its own.
    """
    boxed = _container(load_engine(plan.engine, plan.engine_version))
    if boxed is None:
        having = ", ".join(name for name in ENGINES if _container(load_engine(name)) is not None)
        raise UsageError(f"{plan.engine} has no container image here, so no {form} manifest; those with one: {having}")
    if plan.verdict not in _FITS or plan.budget is None:
        return ""
    container: Container = boxed(plan.model, plan.workload, plan.machine, plan.settings)
    host_bytes = sum(device.high_bytes for device in plan.budget.devices if device.device == "Host")
    container = replace(container, host_bytes=max(container.host_bytes, host_bytes))
    text = compose_file(container) if form == "compose" else kubernetes_deployment(container)
    return _modelfile_comment(plan) + text


def _container(engine: Engine) -> Callable[..., Any] | None:
    return cast("Callable[..., Any] | None", engine.facts.get("container"))


def _modelfile_comment(plan: Plan) -> str:
    config = plan.emitted.config if plan.emitted else ""
    if not config.startswith("FROM "):
        return ""
    return "".join(f"# {line}\n" for line in ("create the model in it from this Modelfile:", *config.splitlines()))
