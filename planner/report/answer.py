"""A plan as the answer mapping of the public schema (version 1): integers of bytes, nothing rounded."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass

from planner.advice import Plan
from planner.budget import DeviceBudget, ImageTokens, Item

SCHEMA = 1


def answer(plan: Plan) -> dict[str, object]:
    """Return the answer of ``plan``, ready for ``json.dumps``."""
    budget = plan.budget
    found: dict[str, object] = {
        "schema": SCHEMA,
        "verdict": plan.verdict,
        "model": plan.model.name,
        "quantization": plan.model.quantization,
        "engine": plan.engine,
        "engine_version": plan.engine_version,
        "simulated": plan.machine.simulated,
        "devices": [_device(device) for device in budget.devices] if budget else [],
        "image_tokens": [image_mapping(image) for image in budget.image_tokens] if budget else [],
        "settings": dict(budget.settings) if budget else _settings(plan.settings),
        "changes": list(plan.changes),
        "reasons": list(plan.reasons),
        "command": plan.emitted.command if plan.emitted else "",
        "config": plan.emitted.config if plan.emitted else "",
        "speed": dict(plan.speed),
    }
    if plan.alternatives:
        found["alternatives"] = [answer(other) for other in plan.alternatives]
    return found


def error_answer(message: str) -> dict[str, object]:
    """Return what stands in the place of an answer that could not be given."""
    return {"schema": SCHEMA, "error": message}


def _settings(settings: object) -> dict[str, object]:
    if is_dataclass(settings) and not isinstance(settings, type):
        return {key: value for key, value in asdict(settings).items() if value is not None}
    return {}


def _device(device: DeviceBudget) -> dict[str, object]:
    return {
        "device": device.device,
        "name": device.name,
        "total_bytes": device.total_bytes,
        "free_bytes": device.free_bytes,
        "layers": list(device.layers) if device.layers else None,
        "has_output": device.has_output,
        "items": [_item(item) for item in device.items],
        "expected_bytes": device.expected_bytes,
        "high_bytes": device.high_bytes,
        "headroom_bytes": device.headroom_bytes,
    }


def _item(item: Item) -> dict[str, object]:
    return {
        "component": item.component,
        "part": item.part,
        "resident_bytes": item.resident_bytes,
        "low_bytes": item.low_bytes,
        "expected_bytes": item.expected_bytes,
        "high_bytes": item.high_bytes,
        "basis": item.basis,
        "formula": item.formula,
        "source": item.source,
        "inputs": dict(item.inputs),
    }


def image_mapping(image: ImageTokens) -> dict[str, object]:
    """Return one image of the answer."""
    found: dict[str, object] = {
        "image": image.image,
        "tokens": image.tokens,
        "extra_tokens": image.extra_tokens,
        "resized_to": image.resized_to,
        "wasted_pixels": image.wasted_pixels,
        "tiles": image.tiles,
    }
    if image.cross_tokens is not None:
        found["cross_tokens"] = image.cross_tokens
    return found
