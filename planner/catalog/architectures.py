"""What an engine knows of an architecture beyond its files: the entries of ``engines/llama_cpp/layers.yaml``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.catalog.data import load_data

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.model import Number

LAYER_RULES = "engines/llama_cpp/layers.yaml"


def layer_rules(architecture: str) -> Mapping[str, object] | None:
    """Return the entry of an architecture (the word of its GGUF files), None for one that is not understood."""
    rules: Mapping[str, object] | None = load_data(LAYER_RULES)["architectures"].get(architecture)
    return rules


def architecture_facts(rules: Mapping[str, object]) -> dict[str, Number]:
    """Return the hard-coded facts and spellings of an entry, as facts of the model."""
    facts: dict[str, Number] = {}
    spelling, constants = rules.get("spelling"), rules.get("facts")
    if isinstance(spelling, dict):
        facts |= {f"name.{usual}": own for usual, own in spelling.items()}
    if isinstance(constants, dict):
        facts |= constants
    return facts


def expert_defaults(rules: Mapping[str, object]) -> Mapping[str, object]:
    """Return the router's defaults of an entry; empty where it has none."""
    defaults = rules.get("experts")
    return defaults if isinstance(defaults, dict) else {}
