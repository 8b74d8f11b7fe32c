"""How the short form of a profile unfolds: what it extends, its differences in GGUF files, its kinds of layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from planner.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

MIXERS = ("attention", "latent", "cross", "delta_net", "short_conv", "mamba")
BLOCKS = ("ffn", "experts")


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes`` laid over it, mappings within mappings; a change to null removes the key."""
    result = dict(base)
    for key, value in changes.items():
        below = result.get(key)
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(below, dict):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def unfolded(raw: Mapping[str, Any], *, gguf: bool) -> dict[str, Any]:
    """Return a profile in the form of the schema.

    Args:
        raw: the file's content, after what it extends was merged.
        gguf: whether its GGUF differences (key ``gguf``) apply.

    Raises:
        SourceError: its kinds of layers do not make up its layers.
    """
    differences = raw.get("gguf") or {}
    whole = {key: value for key, value in raw.items() if key not in ("gguf", "extends")}
    if gguf:
        whole = merged(whole, differences)
    language = whole.get("language")
    if isinstance(language, dict):
        whole["language"] = _unfolded_language(str(raw.get("name")), language)
    return whole


def _unfolded_language(name: str, language: Mapping[str, Any]) -> dict[str, Any]:
    shared = {key: language[key] for key in (*MIXERS, *BLOCKS) if key in language}
    kinds = language.get("kinds") or {"layer": {}}
    order = _order(name, language.get("pattern") or [next(iter(kinds))], language.get("layers"))
    if not set(order) <= set(kinds):
        raise SourceError(
            f"profile {name}: its pattern names the kinds {sorted(set(order))}, its kinds are {sorted(kinds)}"
        )
    rest = {key: value for key, value in language.items() if key not in (*MIXERS, *BLOCKS, "kinds", "pattern")}
    return rest | {"kinds": {kind: _kind(shared, own or {}) for kind, own in kinds.items()}, "order": order}


def _kind(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kind's own words over the shared ones; another mixer or block replaces the shared one."""
    kept = dict(shared)
    for group in (MIXERS, BLOCKS):
        if any(key in own and key not in shared for key in group):
            kept = {key: value for key, value in kept.items() if key not in group}
    return merged(kept, own)


def _order(name: str, pattern: object, n_layers: object) -> list[str]:
    """Return the kind of every layer.

    A pattern is a cycle (list of kinds), a list of stretches ``{cycle, layers}``, or a mapping with ``base`` and, for
    other kinds, the numbers of their layers.
    """
    if not isinstance(n_layers, int) or not 0 < n_layers <= 1024:
        raise SourceError(f"profile {name}: {n_layers!r} layers")
    order: list[str] = []
    if isinstance(pattern, dict):
        order = [str(pattern.get("base"))] * n_layers
        for kind, indices in pattern.items():
            for index in indices if isinstance(indices, list) else ():
                order[index] = str(kind)
        return order
    for stretch in _stretches(pattern, n_layers):
        cycle: list[str] = stretch["cycle"]
        order += [str(cycle[index % len(cycle)]) for index in range(stretch["layers"])]
    if len(order) != n_layers:
        raise SourceError(f"profile {name}: its pattern has {len(order)} layers, not {n_layers}")
    return order


def _stretches(pattern: object, n_layers: int) -> list[dict[str, Any]]:
    listed: list[Any] = pattern if isinstance(pattern, list) else [pattern]
    if all(isinstance(stretch, dict) for stretch in listed):
        return listed
    return [{"cycle": listed, "layers": n_layers}]
