"""The words of ``profiles/sources/hf.yaml``: what configuration keys mean, by ``model_type``. A family is data."""

from __future__ import annotations

from dataclasses import field
from functools import lru_cache
from typing import Literal

from planner.catalog import load_data
from planner.errors import SourceError, UsageError
from planner.frozen import dataclass
from planner.strict import read_record

DATA = "sources/hf.yaml"

_Scalar = int | float | bool | str
Switch = bool | str  # a fact, or the key of the configuration that says so


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """A value read from the first path present, else ``default``, and what shapes it.

    ``divide``, ``square`` and ``plus`` apply to numbers in this order; ``pad`` fills a list with zeros to that length;
    ``from_end`` counts the negative entries of a list back from the number at that path; ``equals`` asks a question.
    """

    at: list[str] = field(default_factory=list)
    default: _Scalar | list[int] | None = None
    divide: list[str | int | float] = field(default_factory=list)
    square: bool = False
    plus: int = 0
    pad: int = 0
    from_end: str | None = None
    equals: _Scalar | None = None


Value = int | float | bool | str | list[int] | Lookup


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionWords:
    """What the configuration does not say about attention, or says under a key of its own."""

    qkv: Literal["split", "fused"] = "split"
    qkv_bias: Switch = "attention_bias"
    output_bias: Switch = False
    qk_norm: Literal["none", "head", "model"] = "none"
    qk_norm_if: str | None = None  # the key that switches the norm on
    sinks: bool = False
    gated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowWords:
    """Which layers see only a window, and where its width stands."""

    key: str = "sliding_window"
    kind: Literal["sliding", "chunked"] = "sliding"
    period: int | None = None  # layer i sees all where i mod period = period - 1
    period_key: str | None = None
    enabled_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FfnWords:
    """How the dense block is stored."""

    key: str = "intermediate_size"
    gated: bool = True
    fused: bool = False
    divide: int = 1  # gate and up counted together


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertWords:
    """A mixture of experts: what the configuration leaves to the modelling code."""

    ff_key: str = "moe_intermediate_size"
    router: Literal["softmax", "sigmoid", "softmax_weight"] | None = None  # None: scoring_func says
    normalise: Switch = "norm_topk_prob"
    selection_bias: bool | None = None  # None: topk_method says
    n_shared: int | None = None
    shared_gate: bool = False
    fused: bool = False
    bias: bool = False
    down_scale: bool = False
    dense_beside: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageWords:
    """The language part of one ``model_type``."""

    architecture: str
    defaults: dict[str, _Scalar | list[int] | None] = field(default_factory=dict)
    tied: bool = False
    attention: AttentionWords = AttentionWords()
    window: WindowWords | None = None
    ffn: FfnWords = FfnWords()
    experts: ExpertWords = ExpertWords()
    post_norms: bool = False
    mla_absorbed: bool = True
    facts: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleWords:
    """The resizing rule of the image processor, in the words of ``planner.vision``."""

    rule: str
    parameters: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionWords:
    """The vision tower of one family."""

    tower: str
    projector: str
    defaults: dict[str, _Scalar | list[int] | None] = field(default_factory=dict)
    keys: dict[str, Value] = field(default_factory=dict)
    facts: dict[str, Value] = field(default_factory=dict)
    rules: dict[str, RuleWords] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWords:
    """One ``model_type`` of a whole model (or several, told apart by ``when``)."""

    family: str
    when: dict[str, list[_Scalar]] = field(default_factory=dict)
    text: str | None = None  # key of the nested language configuration; None: the top level
    vision_at: str = "vision_config"
    language: str | None = None  # entry under ``language``; None: the nested model_type
    vision: VisionWords | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWords:
    """Prefixes of tensor names by part; the longest match decides, ``language`` where none does."""

    vision: list[str]
    projector: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """The whole file."""

    source: str
    checked: str
    parts: PartWords
    language: dict[str, LanguageWords]
    models: dict[str, list[ModelWords]]


@lru_cache(maxsize=1)
def words() -> Data:
    """Return the data, validated once.

    Raises:
        SourceError: the file of this installation is damaged.
    """
    raw = load_data(DATA)
    try:
        return read_record(Data, {**raw, "checked": str(raw.get("checked"))})
    except UsageError as error:
        raise SourceError(f"profiles/{DATA}: {error}") from error
