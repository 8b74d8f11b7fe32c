"""The schema of ``profiles/models/*.yaml``, checked strictly. Sizes are numbers of elements, counts are counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Literal

from planner.strict import Between

PositiveInt = Annotated[int, Between(1)]
Fact = int | float | str | bool | list[int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionData:
    """Softmax attention. ``head_dim`` where keys and values are equally wide; ``kv_from``: reads that layer's cache."""

    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt | None = None
    key_dim: PositiveInt | None = None
    value_dim: PositiveInt | None = None
    window: PositiveInt | None = None
    window_kind: Literal["sliding", "chunked"] = "sliding"
    qkv: Literal["split", "fused"] = "split"
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: Literal["none", "head", "model"] = "none"
    sinks: bool = False
    gated: bool = False
    value_tensor: bool = True
    kv_from: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentData:
    """Multi-head latent attention."""

    heads: PositiveInt
    kv_lora: PositiveInt
    q_lora: int = 0
    nope: PositiveInt
    rope: PositiveInt
    value: PositiveInt
    absorbed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossData:
    """Attention over the vision tower's output."""

    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt


@dataclass(frozen=True, slots=True, kw_only=True)
class DeltaNetData:
    """Gated delta net."""

    key_heads: PositiveInt
    value_heads: PositiveInt
    head_dim: PositiveInt
    conv: PositiveInt


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConvData:
    """Gated short convolution."""

    conv: PositiveInt


@dataclass(frozen=True, slots=True, kw_only=True)
class MambaData:
    """Selective state space."""

    version: Literal[1, 2]
    inner: PositiveInt
    state: PositiveInt
    conv: PositiveInt
    groups: int = 0
    rank: PositiveInt


@dataclass(frozen=True, slots=True, kw_only=True)
class FfnData:
    """Dense feed-forward block."""

    width: PositiveInt
    gated: bool = True
    fused: bool = False
    bias: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsData:
    """Mixture of experts; ``router`` and ``normalise`` default to what the engine does for the architecture."""

    count: PositiveInt
    used: PositiveInt
    width: PositiveInt
    shared: int = 0
    shared_gate: bool = False
    dense: int = 0
    router: Literal["softmax", "sigmoid", "softmax_weight"] | None = None
    selection_bias: bool = False
    normalise: bool | None = None
    scale: float = 0.0
    fused: bool = False
    bias: bool = False
    down_scale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KindData:
    """One kind of layer: exactly one mixer, at most one feed-forward block."""

    attention: AttentionData | None = None
    latent: LatentData | None = None
    cross: CrossData | None = None
    delta_net: DeltaNetData | None = None
    short_conv: ShortConvData | None = None
    mamba: MambaData | None = None
    ffn: FfnData | None = None
    experts: ExpertsData | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageData:
    """The language model; ``order`` names the kind of every layer."""

    architecture: str
    layers: PositiveInt
    embd: PositiveInt
    vocab: PositiveInt
    context: PositiveInt
    tied: bool = False
    post_norms: bool = False
    mtp_layers: int = 0
    deepstack_layers: int = 0
    embd_per_layer: int = 0
    rope_factors: tuple[PositiveInt, ...] = ()
    kinds: dict[str, KindData]
    order: tuple[str, ...]
    facts: dict[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleData:
    """A resizing rule by its word in ``planner.vision``."""

    rule: str
    parameters: dict[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionData:
    """Vision tower and projector."""

    tower: str
    projector: str
    layers: PositiveInt
    embd: PositiveInt
    ffn: int
    heads: PositiveInt
    patch_size: PositiveInt
    image_size: int
    facts: dict[str, Fact] = field(default_factory=dict)
    rules: dict[Literal["processor", "mtmd"], RuleData] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParametersData:
    """Published counts; ``linear``: in linear layers. ``counted``: nothing is published, the shapes were added up."""

    total: PositiveInt
    language: PositiveInt
    vision: int = 0
    projector: int = 0
    other: int = 0  # audio towers, region modules and the like
    linear: PositiveInt | None = None
    counted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One model of the catalogue. ``listed``: false for another setting of a model that is listed already."""

    name: str
    family: str
    aliases: tuple[str, ...] = ()
    listed: bool = True
    hf_id: str | None = None
    architecture_class: str | None = None
    parameters: ParametersData | None = None
    quantizations: tuple[str, ...] = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")
    language: LanguageData
    vision: VisionData | None = None
    source: str
    checked: date
    notes: tuple[str, ...] = ()
