"""The schema of ``profiles/models/*.yaml``, checked strictly. Sizes are numbers of elements, counts are counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

from planner.strict import Between

PositiveInt = Annotated[int, Between(1)]
_NOTHING: Mapping[Any, Any] = MappingProxyType({})
Fact = int | float | str | bool | list[int] | None


class AttentionData(NamedTuple):
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
    qk_norm: Literal["none", "head", "heads", "model"] = "none"
    sinks: bool = False
    gated: bool = False
    output_gate: Literal["none", "head", "element"] = "none"
    rotated: bool = True
    value_tensor: bool = True
    kv_from: int | None = None


class IndexerData(NamedTuple):
    """What chooses the tokens that latent attention looks at."""

    heads: PositiveInt
    head_dim: PositiveInt
    chosen: PositiveInt
    own: bool = True


class LatentData(NamedTuple):
    """Multi-head latent attention."""

    heads: PositiveInt
    kv_lora: PositiveInt
    nope: PositiveInt
    rope: PositiveInt
    value: PositiveInt
    q_lora: int = 0
    absorbed: bool = True
    indexer: IndexerData | None = None
    output_gate: bool = False


class CrossData(NamedTuple):
    """Attention over the vision tower's output."""

    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt


class DeltaNetData(NamedTuple):
    """Gated delta net."""

    key_heads: PositiveInt
    value_heads: PositiveInt
    head_dim: PositiveInt
    conv: PositiveInt
    joint_gates: bool = False
    decay: Literal["head", "channel"] = "head"


class ShortConvData(NamedTuple):
    """Gated short convolution."""

    conv: PositiveInt


class MambaData(NamedTuple):
    """Selective state space."""

    version: Literal[1, 2]
    inner: PositiveInt
    state: PositiveInt
    conv: PositiveInt
    rank: PositiveInt
    groups: int = 0


class FfnData(NamedTuple):
    """Dense feed-forward block."""

    width: PositiveInt
    gated: bool = True
    fused: bool = False
    bias: bool = False
    clamped: bool = False


class ExpertsData(NamedTuple):
    """Mixture of experts; ``router`` and ``normalise`` default to what the engine does for the architecture."""

    count: PositiveInt  # type: ignore[assignment]  # not the tuple's method
    used: PositiveInt
    width: PositiveInt
    shared: int = 0
    shared_gate: bool = False
    dense: int = 0
    gated: bool = True
    router: Literal["softmax", "sigmoid", "softmax_weight"] | None = None
    selection_bias: bool = False
    normalise: bool | None = None
    scale: float = 0.0
    fused: bool = False
    bias: bool = False
    down_scale: bool = False
    clamped: bool = False
    shared_clamped: bool = False


class KindData(NamedTuple):
    """One kind of layer: exactly one mixer (or ``no_mixer``), at most one feed-forward block."""

    attention: AttentionData | None = None
    latent: LatentData | None = None
    cross: CrossData | None = None
    delta_net: DeltaNetData | None = None
    short_conv: ShortConvData | None = None
    mamba: MambaData | None = None
    no_mixer: bool = False
    ffn: FfnData | None = None
    experts: ExpertsData | None = None


class LanguageData(NamedTuple):
    """The language model; ``order`` names the kind of every layer."""

    architecture: str
    layers: PositiveInt
    embd: PositiveInt
    vocab: PositiveInt
    context: PositiveInt
    kinds: dict[str, KindData]
    order: tuple[str, ...]
    tied: bool = False
    post_norms: bool = False
    mtp_layers: int = 0
    deepstack_layers: int = 0
    embd_per_layer: int = 0
    rope_factors: tuple[PositiveInt, ...] = ()
    facts: Mapping[str, Fact] = _NOTHING


class RuleData(NamedTuple):
    """A resizing rule by its word in ``planner.vision``."""

    rule: str
    parameters: Mapping[str, Fact] = _NOTHING


class VisionData(NamedTuple):
    """Vision tower and projector."""

    tower: str
    projector: str
    layers: PositiveInt
    embd: PositiveInt
    ffn: int
    heads: PositiveInt
    patch_size: PositiveInt
    image_size: int
    facts: Mapping[str, Fact] = _NOTHING
    rules: Mapping[Literal["processor", "mtmd"], RuleData] = _NOTHING


class ParametersData(NamedTuple):
    """Published counts; ``linear``: in linear layers. ``counted``: nothing is published, the shapes were added up."""

    total: PositiveInt
    language: PositiveInt
    vision: int = 0
    projector: int = 0
    other: int = 0  # audio towers, region modules and the like
    linear: PositiveInt | None = None
    counted: bool = False


class Profile(NamedTuple):
    """One model of the catalogue. ``listed``: false for another setting of a model that is listed already."""

    name: str
    family: str
    language: LanguageData
    source: str
    checked: date
    aliases: tuple[str, ...] = ()
    listed: bool = True
    hf_id: str | None = None
    architecture_class: str | None = None
    parameters: ParametersData | None = None
    quantizations: tuple[str, ...] = ("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")  # as GGUF files
    stored_as: str | None = None  # the scheme of the published checkpoint, where that is not 16 bits
    vision: VisionData | None = None
    notes: tuple[str, ...] = ()
