"""Which tensors are alive at the moments that can be the peak: data, read off the modelling code, as values.

A moment is a list of (quantity, count) by the width of an element. Quantities are numbers of elements
(:mod:`planner.engines.transformers.quantities`); a form is the moments of one modelling class.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal, get_args

from planner.frozen import dataclass
from planner.model import Model

Width = Literal["x", "f32", "i64", "i32", "bool", "softmax", "kept"]
"""x: the model's dtype; softmax: scores, their copy in 32 bit and the result; kept: scores that eager returns."""

Terms = Mapping[Width, Mapping[str, float]]
CacheState = Literal["through", "before", "none"]
Masked = Literal["never", "windowed", "always"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What lives at once at one operation, and where that moment exists: attention paths and element widths."""

    at: str
    terms: Terms
    cache: CacheState = "through"
    paths: frozenset[str] = frozenset()  # empty: all
    element_bytes: frozenset[int] = frozenset()  # empty: all


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassForm:
    """The memory behaviour of one modelling class.

    ``held`` live from the tower to the last layer, ``head_held`` to the logits, ``positions`` and ``rope`` through the
    layers. ``known``: traced; otherwise the form is a bound assembled from similar classes.
    """

    name: str
    known: bool = True
    listed: bool = True  # False: the form of plain text models, for classes not listed
    margin: float = 0.01
    tower: tuple[Moment, ...] = ()
    tower_holds_prompt: bool = True
    tower_ff: Literal["own", "language"] = "own"  # whose width the tower's feed-forward blocks have
    only: Literal["eager"] | None = None  # the one attention implementation the class has
    flash: bool = True  # the class takes flash_attention_2
    eager_parts: tuple[str, ...] = ()  # configurations of towers that have eager attention only and say so at load
    eager: str = "eager"
    experts: str = "grouped"
    entry: str | None = None  # list of moments before the first layer
    head: str = "head"
    every_logit: bool = False  # the class computes the logits of all positions, whatever is asked for
    kept_positions_only: bool = False  # layers that read another layer's cache run for the kept positions only
    held: Terms = field(default_factory=dict)
    head_held: Terms = field(default_factory=dict)
    inputs: Terms = field(default_factory=dict)
    image_inputs: Terms = field(default_factory=dict)
    positions: Terms = field(default_factory=dict)
    image_positions: Terms = field(default_factory=dict)  # instead, where there are images
    rope: Terms = field(default_factory=dict)
    masks: int = 1
    masked_with_images: Masked = "never"  # layers that get a mask because image tokens see each other
    full_window_cache: bool = True
    prompt_tokens: int = 0  # that the processor adds to a prompt with images
    own_prompt_tokens: int | None = None  # the processor writes the whole text itself
    rope_divisor: int = 1
    adapter_width: int = 0
    buffer_bytes: int = 0
    buffer_scalars: int = 0  # buffers of one element in the model's dtype
    layer_scalars: int = 0  # the same, of each layer
    fp32_routers: int = 0  # routers of each expert layer kept in 32 bit
    tower_head_buffers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """All of ``profiles/engines/transformers/moments.yaml``."""

    classes: Mapping[str, ClassForm]
    towers: Mapping[str, str]  # kind of tower -> class that has it, for classes not listed
    decoder: Mapping[str, tuple[Moment, ...]]
    source: str

    def of_model(self, model: Model) -> ClassForm:
        """Return the form of a model's modelling class."""
        variant = "per_layer" if model.language.n_embd_per_layer else None
        return self.of(model.architecture_class, model.vision.tower if model.vision else None, variant)

    def of(self, architecture_class: str | None, tower: str | None, variant: str | None = None) -> ClassForm:
        """Return the form of a modelling class; one not listed gets the bound of its tower's kind."""
        for name in (f"{architecture_class}/{variant}", f"{architecture_class}/{tower}", architecture_class or ""):
            if name in self.classes:
                return self.classes[name]
        if tower is None:
            return self.classes["text"]
        return self.classes[self.towers.get(tower, "unknown")]


def forms_of(data: Mapping[str, Any]) -> Forms:
    """Return the forms written in ``data``, the content of the YAML file."""
    towers = {name: tuple(_moment(row) for row in rows) for name, rows in data["towers"].items()}
    shared = data["shared"]
    classes = {name: _class(name, row, shared, towers) for name, row in data["classes"].items()}
    decoder = {name: tuple(_moment(row) for row in rows) for name, rows in data["decoder"].items()}
    return Forms(classes=classes, towers=data["tower_classes"], decoder=decoder, source=data["source"])


def _moment(row: Mapping[str, Any]) -> Moment:
    return Moment(
        at=row["at"],
        terms=_terms(row),
        cache=row.get("cache", "through"),
        paths=frozenset(row.get("paths", ())),
        element_bytes=frozenset(row.get("element_bytes", ())),
    )


def _terms(row: Mapping[str, Any]) -> Terms:
    return {width: row[width] for width in get_args(Width) if width in row}


_TERM_FIELDS = ("held", "head_held", "inputs", "image_inputs", "positions", "image_positions", "rope")


def _class(
    name: str, row: Mapping[str, Any], shared: Mapping[str, Any], towers: Mapping[str, tuple[Moment, ...]]
) -> ClassForm:
    whole: dict[str, Any] = {**shared, **row}
    words: dict[str, Any] = {key: _terms(value) if key in _TERM_FIELDS else value for key, value in whole.items()}
    words["tower"] = towers[words["tower"]] if "tower" in words else ()
    words["eager_parts"] = tuple(words.get("eager_parts", ()))
    return ClassForm(name=name, **words)
