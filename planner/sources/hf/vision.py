"""The vision part of a configuration becomes a tower, a projector and the image processor's resizing rule."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.model import ImageRule, Vision
from planner.sources.hf.documents import with_defaults
from planner.sources.hf.words import Lookup
from planner.sources.image_rules import check_parameters

if TYPE_CHECKING:
    from planner.model import Number
    from planner.sources.hf.documents import Documents
    from planner.sources.hf.words import RuleWords, VisionWords

UNKNOWN = "unknown"

_KEYS: dict[str, tuple[str, ...]] = {
    "n_layers": ("num_hidden_layers", "depth", "layers", "num_layers"),
    "n_embd": ("hidden_size", "embed_dim", "width"),
    "n_ff": ("intermediate_size", "mlp_dim"),
    "n_heads": ("num_attention_heads", "num_heads", "attention_heads", "heads"),
    "patch_size": ("patch_size", "spatial_patch_size"),
    "image_size": ("image_size",),
}
_NEEDED = ("n_layers", "n_embd", "n_heads", "patch_size")
_MAX_FACT = 1 << 28
_LIMITS = {"n_layers": 1024, "n_embd": 1 << 20, "n_ff": 1 << 22, "n_heads": 1 << 14, "patch_size": 1 << 12}


def vision_from_config(documents: Documents, words: VisionWords) -> Vision:
    """Return the tower of a family that the data knows.

    Raises:
        SourceError: a value is of the wrong kind or out of bounds.
    """
    documents = replace(documents, vision=with_defaults(documents.vision, words.defaults))
    found = {name: _width(documents, words, name) for name in _KEYS}
    missing = next((name for name in _NEEDED if not found[name]), None)
    if missing is not None:
        raise SourceError(f"{documents.vision.where}: {missing} of the vision tower is missing or 0")
    return Vision(
        tower=words.tower,
        projector=words.projector,
        n_layers=found["n_layers"],
        n_embd=found["n_embd"],
        n_ff=found["n_ff"],
        n_heads=found["n_heads"],
        patch_size=found["patch_size"],
        image_size=found["image_size"],
        facts=_facts(documents, words),
        rules={engine: _rule(documents, rule) for engine, rule in words.rules.items()},
    )


def unknown_vision(documents: Documents) -> Vision:
    """Return what the standard keys say of a tower that no data describes: sizes, no kind and no rule."""
    found = {name: _standard(documents, name) for name in _KEYS}
    return Vision(
        tower=UNKNOWN,
        projector=UNKNOWN,
        n_layers=found["n_layers"],
        n_embd=found["n_embd"],
        n_ff=found["n_ff"],
        n_heads=found["n_heads"],
        patch_size=found["patch_size"],
        image_size=found["image_size"],
    )


def _facts(documents: Documents, words: VisionWords) -> dict[str, Number]:
    """Return the further facts, within bounds: a whole number is a count or a width, a list has places or sizes."""
    found: dict[str, Number] = {}
    for key, wanted in words.facts.items():
        value = documents.value(wanted)
        if value is None:
            continue
        if not _sensible(value):
            raise SourceError(f"{documents.vision.where}: {key} of the vision tower makes no sense")
        found[key] = value
    return found


def _sensible(value: Number) -> bool:
    if isinstance(value, tuple):
        return all(0 <= n <= _MAX_FACT for n in value)
    return isinstance(value, bool) or not isinstance(value, int) or 1 <= value <= _MAX_FACT


def _rule(documents: Documents, words: RuleWords) -> ImageRule:
    read = {key: documents.value(wanted) for key, wanted in words.parameters.items()}
    rule = ImageRule(rule=words.rule, parameters={key: value for key, value in read.items() if value is not None})
    check_parameters(rule, documents.name)
    return rule


def _width(documents: Documents, words: VisionWords, name: str) -> int:
    wanted = words.keys.get(name)
    if wanted is None:
        return _standard(documents, name)
    value = documents.value(wanted)
    if value is None and isinstance(wanted, Lookup):
        return 0
    if isinstance(value, tuple) and len(set(value)) == 1:
        value = value[0]  # height and width of a square
    return _bounded(value, documents.name, name)


def _standard(documents: Documents, name: str) -> int:
    value = documents.vision.first(*_KEYS[name])
    if isinstance(value, list) and value and all(side == value[0] for side in value):
        value = value[0]  # height and width of a square
    return 0 if value is None else _bounded(value, documents.vision.where, name)


def _bounded(value: object, where: str, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LIMITS.get(name, 1 << 20):
        raise SourceError(f"{where}: {name} of the vision tower is {str(value)[:40]}, which makes no sense")
    return value
