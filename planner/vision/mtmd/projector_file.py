"""The resizing rule that llama.cpp applies to a projector file, from the file's own keys and the engine's data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from planner.model import ImageRule, Number

Entry = Mapping[str, Any]  # one projector of profiles/engines/llama_cpp/image_rules.yaml

_PREFIXES = ("clip.vision.", "clip.")


def mtmd_rule(projector_type: str, metadata: Mapping[str, object], data: Mapping[str, Any]) -> ImageRule | None:
    """Return the rule, or None for a projector that the data does not know.

    Args:
        projector_type: the word under ``clip.projector_type`` (``clip.vision.projector_type``).
        metadata: the file's keys, with or without ``clip.`` and ``clip.vision.`` before them.
        data: ``profiles/engines/llama_cpp/image_rules.yaml``, loaded.
    """
    entry: Entry | None = data["projectors"].get(projector_type)
    if entry is None:
        return None
    keys = {_short(key): _number(value) for key, value in metadata.items()}
    chosen = next((rule for key, rule in entry.get("when", {}).items() if keys.get(key)), entry["rule"])
    fixed = {name: _number(value) for name, value in entry.get("parameters", {}).items()}
    sizes = {"image_size": keys.get("image_size"), "patch": keys.get("patch_size")}
    known = {**sizes, **_version(entry, keys), **fixed, **_stored(entry, keys)}
    return ImageRule(rule=chosen, parameters=_with_merged_patch({k: v for k, v in known.items() if v is not None}))


def with_architecture(rule: ImageRule, architecture: str, data: Mapping[str, Any]) -> ImageRule:
    """Return the rule with what Ollama adds for the text model's architecture: its least number of tokens."""
    least = data["ollama_min_tokens"].get(architecture)
    if least is None:
        return rule
    return ImageRule(rule=rule.rule, parameters={**rule.parameters, "ollama_image_min_tokens": least})


def _short(key: str) -> str:
    for prefix in _PREFIXES:
        if key.startswith(prefix):
            return key.removeprefix(prefix)
    return key


def _number(value: object) -> Number:
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list) and all(type(item) is int for item in value):
        return tuple(value)
    return None


def _version(entry: Entry, keys: Mapping[str, Number]) -> Mapping[str, Number]:
    versions = entry.get("versions")
    if not versions:
        return {}
    found = keys.get(versions["key"]) or versions["default"]
    chosen: Mapping[str, Number] = versions["values"].get(found, {})
    return chosen


def _stored(entry: Entry, keys: Mapping[str, Number]) -> dict[str, Number]:
    """Return what the file says instead of the engine's defaults; ``together``: only if it says all of these."""
    found: dict[str, Number] = {}
    for name, wanted in entry.get("keys", {}).items():
        names = wanted if isinstance(wanted, list) else [wanted]
        value = next((keys[key] for key in names if keys.get(key) is not None), None)
        if value is not None:
            found[name] = value
    together = entry.get("together", ())
    if not all(found.get(name) for name in together):
        return {name: value for name, value in found.items() if name not in together}
    return found


def _with_merged_patch(parameters: dict[str, Number]) -> dict[str, Number]:
    patch, merge = parameters.get("patch"), parameters.get("merge")
    if not parameters.pop("merged_patch", False) or not isinstance(patch, int) or not isinstance(merge, int):
        return parameters
    return {**parameters, "patch": patch * merge, "merge": 1}
