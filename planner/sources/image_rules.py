"""The resizing rule that llama.cpp will apply to a model whose projector is known only by its file or configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.catalog import load_data
from planner.errors import SourceError

if TYPE_CHECKING:
    from planner.model import ImageRule, Model

MAX_PARAMETER = 1 << 28  # pixels, tiles or tokens; a picture of 16384 x 16384 has so many
RULES = "engines/llama_cpp/image_rules.yaml"


def with_mtmd_rule(model: Model) -> Model:
    """Return ``model`` with its projector type's rule, where it has a tower and no such rule yet, and one is known."""
    vision = model.vision
    if vision is None or "mtmd" in vision.rules:
        return model
    from planner.vision.mtmd.projector_file import mtmd_rule, with_architecture  # noqa: PLC0415 - profiles have rules

    data = load_data(RULES)
    keys = {"image_size": vision.image_size, "patch_size": vision.patch_size, **vision.facts}
    rule = mtmd_rule(vision.projector, keys, data)
    if rule is None:
        return model
    rule = with_architecture(rule, model.language.architecture, data)
    check_parameters(rule, model.source)
    return replace(model, vision=replace(vision, rules={**vision.rules, "mtmd": rule}))


def check_parameters(rule: ImageRule, where: str) -> None:
    """Refuse a rule with numbers that no picture has.

    Raises:
        SourceError: a number is negative or beyond 2**28.
    """
    for key, value in rule.parameters.items():
        numbers = value if isinstance(value, tuple) else (value,)
        if any(isinstance(n, int | float) and not 0 <= n <= MAX_PARAMETER for n in numbers):
            raise SourceError(f"{where}: {key} of the image rule {rule.rule} is out of bounds; no such model exists")
