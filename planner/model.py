"""What a model is, to a planner: its layers by kind, its vision tower and the tensors that hold both.

A model family is a combination of layer kinds. Nothing here knows a family's name, a file format or an engine.
Widths are numbers of elements; shapes list the fastest dimension first, as ggml and GGUF do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from planner.frozen import dataclass

Number = int | float | str | bool | tuple[int, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One stored tensor: its name, shape (fastest dimension first) and block format (a key of ``FORMATS``)."""

    name: str
    shape: tuple[int, ...]
    format: str

    @property
    def n_elements(self) -> int:
        """Number of elements of the whole tensor."""
        n = 1
        for width in self.shape:
            n *= width
        return n


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Softmax attention with grouped queries; full, or over a sliding or chunked window."""

    n_heads: int
    n_kv_heads: int
    key_dim: int  # per head
    value_dim: int  # per head
    window_tokens: int | None = None  # None: every earlier token
    window_kind: Literal["sliding", "chunked"] = "sliding"
    qkv: Literal["split", "fused"] = "split"
    qkv_bias: bool = False
    output_bias: bool = False
    qk_norm: Literal["none", "head", "heads", "model"] = "none"  # per head (one weight, one each), or the whole width
    sinks: bool = False
    gated: bool = False  # the query projection is twice as wide; its second half gates the result
    output_gate: Literal["none", "head", "element"] = "none"  # the result is gated by a projection of the input
    rotated: bool = True  # False: the file says that this layer does not rotate
    value_tensor: bool = True  # False: values are taken from the key projection
    kv_source_layer: int | None = None  # reads the cache of that layer instead of holding one


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexer:
    """What chooses the tokens that attention looks at. ``own``: False where an earlier layer's choice is taken."""

    n_heads: int
    head_dim: int
    n_chosen: int
    own: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentAttention:
    """Multi-head latent attention (MLA): one compressed row per token. ``absorbed``: K-only cache of lora + rope."""

    n_heads: int
    kv_lora_rank: int
    q_lora_rank: int = 0  # 0: one plain query projection
    nope_dim: int
    rope_dim: int
    value_dim: int
    absorbed: bool = True
    indexer: Indexer | None = None  # None: every token is looked at
    output_gate: bool = False  # each head's result is gated by a projection of the input


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttention:
    """Attention over the vision tower's output instead of the text."""

    n_heads: int
    n_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedDeltaNet:
    """Linear attention with a gated delta rule: constant state per sequence.

    ``joint_gates``: both of one tensor. ``decay``: one factor per head, or per channel; then queries, keys and values
    have projections and convolutions of their own.
    """

    n_key_heads: int
    n_value_heads: int
    head_dim: int
    conv_kernel: int
    joint_gates: bool = False
    decay: Literal["head", "channel"] = "head"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShortConv:
    """Gated short convolution over the model's width."""

    conv_kernel: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mamba:
    """Selective state space layer, version 1 (dt rank) or 2 (heads)."""

    version: Literal[1, 2]
    inner_dim: int
    state_dim: int
    conv_kernel: int
    n_groups: int = 0
    dt_rank: int  # version 2: number of heads


@dataclass(frozen=True, slots=True, kw_only=True)
class NoMixer:
    """Nothing that mixes tokens: the layer is a feed-forward block alone."""


Mixer = Attention | LatentAttention | CrossAttention | GatedDeltaNet | ShortConv | Mamba | NoMixer


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseFfn:
    """A gated (gate, up, down) or plain (up, down) feed-forward block; ``fused`` stores gate and up as one tensor."""

    n_ff: int
    gated: bool = True
    fused: bool = False
    bias: bool = False
    clamped: bool = False  # gate and up are limited


@dataclass(frozen=True, slots=True, kw_only=True)
class MoeFfn:
    """A mixture of experts, with optional shared expert and optional dense branch beside it."""

    n_experts: int
    n_experts_used: int
    n_ff_expert: int
    n_ff_shared: int = 0
    shared_gate: bool = False
    n_ff_dense: int = 0  # a dense branch beside the experts
    router: Literal["softmax", "sigmoid", "softmax_weight"] = "softmax"
    selection_bias: bool = False
    normalise_weights: bool = False
    weights_scale: float = 0.0
    gated: bool = True
    fused: bool = False  # gate and up experts in one tensor
    bias: bool = False
    down_scale: bool = False  # one factor per expert on the down projection
    clamped: bool = False  # gate and up of the routed experts are limited
    shared_clamped: bool = False  # those of the shared expert


Ffn = DenseFfn | MoeFfn


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One repeating layer: a mixer over tokens, then a feed-forward block (absent in pure state space models)."""

    mixer: Mixer
    ffn: Ffn | None
    post_norms: bool = False  # norms after the mixer and after the feed-forward block, beside those before


@dataclass(frozen=True, slots=True, kw_only=True)
class Language:
    """The language model: ``layers`` run, ``n_mtp_layers`` more are stored for multi-token prediction."""

    architecture: str  # the word under `general.architecture` of its GGUF files; selects data, never code
    n_embd: int
    n_vocab: int
    n_context_train: int
    layers: tuple[Layer, ...]
    tied_embeddings: bool = False
    n_mtp_layers: int = 0
    n_deepstack_layers: int = 0  # vision features are added in so many first layers
    n_embd_per_layer: int = 0  # width of the per-layer embeddings, 0 for none
    rope_factors: tuple[int, ...] = ()  # widths of the stored rotary factor tensors
    facts: Mapping[str, Number] = field(default_factory=dict)  # further hyper-parameters, by their GGUF key
    tensors: tuple[Tensor, ...] = ()  # as stored; empty until a file or a recipe gives formats

    @property
    def n_layers(self) -> int:
        """Number of layers that run."""
        return len(self.layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRule:
    """How an image becomes tiles, patches and tokens: the rule's word in ``planner.vision`` and its parameters."""

    rule: str
    parameters: Mapping[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vision:
    """The vision tower with its projector.

    ``tower`` and ``projector`` name kinds (of operations); ``facts`` hold what only one kind needs.
    """

    tower: str
    projector: str
    n_layers: int
    n_embd: int
    n_ff: int
    n_heads: int
    patch_size: int
    image_size: int
    facts: Mapping[str, Number] = field(default_factory=dict)
    rules: Mapping[str, ImageRule] = field(default_factory=dict)  # "processor" (HF) and "mtmd" (llama.cpp)
    tensors: tuple[Tensor, ...] = ()  # of the separate projector file (mmproj), as stored


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Published parameter counts, for engines that store unquantised weights. ``linear``: in quantisable linears."""

    total: int
    language: int
    vision: int = 0
    projector: int = 0
    linear: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """A checkpoint's own bytes by part and by format, for engines that load it as it is; packed by ``scheme``."""

    language_bytes: int
    vision_bytes: int = 0
    projector_bytes: int = 0
    formats: Mapping[str, int] = field(default_factory=dict)  # format → bytes
    scheme: str | None = None  # None: as trained
    bits: int | None = None
    group_size: int | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes of all tensors."""
        return self.language_bytes + self.vision_bytes + self.projector_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One measured peak of a model that no engine here models: for which type, batch and image it was seen.

    The peak lies from ``low_bytes`` to ``high_bytes``; None where the run ran out of memory at ``low_bytes``.
    """

    dtype: Literal["fp32", "fp16", "bf16", "int8"]
    batch: int = 1
    n_pixels: int | None = None  # of one image; None: the same in all points
    low_bytes: int
    high_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model as one value: what it is called, its language model, its vision tower, and where that was read."""

    name: str
    family: str
    language: Language
    vision: Vision | None = None
    parameters: Parameters | None = None
    architecture_class: str | None = None  # the word under `architectures` of its HF configuration
    hf_id: str | None = None
    ollama_tag: str | None = None  # the name under which Ollama's library has it
    quantization: str | None = None  # the file type the tensors were stored as
    file_types: tuple[str, ...] = ()  # those it is to be had in, best first; empty: not known
    source: str = ""
    projector_source: str = ""
    file_bytes: int | None = None
    projector_file_bytes: int | None = None
    stored: StoredWeights | None = None  # of a checkpoint folder
    notes: tuple[str, ...] = ()  # what was assumed or chosen while reading it
    measurements: tuple[Measurement, ...] = ()
    measured_with_context: bool | None = None  # the measured peaks hold the device context too; None: not known
