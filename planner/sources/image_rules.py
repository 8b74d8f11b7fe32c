"""The resizing rule that llama.cpp will apply to a model whose projector is known only by its file or configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.catalog import load_data
from planner.vision.mtmd.projector_file import mtmd_rule, with_architecture

if TYPE_CHECKING:
    from planner.model import Model

RULES = "engines/llama_cpp/image_rules.yaml"


def with_mtmd_rule(model: Model) -> Model:
    """Return ``model`` with its projector type's rule, where it has a tower and no such rule yet, and one is known."""
    vision = model.vision
    if vision is None or "mtmd" in vision.rules:
        return model
    data = load_data(RULES)
    keys = {"image_size": vision.image_size, "patch_size": vision.patch_size, **vision.facts}
    rule = mtmd_rule(vision.projector, keys, data)
    if rule is None:
        return model
    rule = with_architecture(rule, model.language.architecture, data)
    return replace(model, vision=replace(vision, rules={**vision.rules, "mtmd": rule}))
