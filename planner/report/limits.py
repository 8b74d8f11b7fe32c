"""The inverse answers as text and as a mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from planner.deployment.request import Deployment
from planner.placement.limits import Limit

_TITLES = {
    "image": "largest image",
    "square": "largest square",
    "images": "most images",
    "context": "longest context",
    "sequences": "most sequences",
    "batch": "largest batch",
    "quantization": "best file type",
}


def limits_mapping(deployment: Deployment, limits: Sequence[Limit]) -> dict[str, object]:
    """Return the answers ready for ``json.dumps``."""
    return {
        "schema": 1,
        "model": deployment.model.name,
        "quantization": deployment.model.quantization,
        "engine": deployment.engine.name,
        "engine_version": deployment.engine.version,
        "simulated": deployment.machine.simulated,
        "limits": [asdict(limit) for limit in limits],
    }


def limits_screen(deployment: Deployment, limits: Sequence[Limit]) -> str:
    """Return one line per question, and one for what fails next."""
    model = deployment.model
    name = " ".join(word for word in (model.name, model.quantization) if word)
    lines = [f"{name} on {deployment.engine.name} {deployment.engine.version}"]
    if deployment.machine.simulated:
        lines.append("SIMULATED: described, not detected; a described GPU counts as empty.")
    return "\n".join([*lines, *(_lines(limit) for limit in limits)])


def _lines(limit: Limit) -> str:
    title = f"{_TITLES[limit.dimension]:<16}"
    if limit.value is None:
        return f"{title} none: already {limit.next_value} fails: {limit.reason}"
    value = limit.value + (f" with {limit.needs}" if limit.needs else "")
    if limit.next_value is None:
        return f"{title} {value}" + (f" ({limit.reason})" if limit.reason else "")
    return f"{title} {value}\n{'':<16}   {limit.next_value} fails: {limit.reason}"
