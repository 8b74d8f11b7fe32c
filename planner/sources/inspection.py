"""What a source turned out to be, as a value: parameters by part, formats by bytes, layers by kind, the vision rule."""

from __future__ import annotations

from collections import Counter
from dataclasses import field
from typing import TYPE_CHECKING, assert_never

from planner.frozen import dataclass
from planner.model import (
    Attention,
    CrossAttention,
    DenseFfn,
    GatedDeltaNet,
    LatentAttention,
    Mamba,
    NoMixer,
    ShortConv,
)
from planner.quantization import tensor_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from planner.model import Ffn, ImageRule, Layer, Mixer, Model, Parameters, Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFormat:
    """Tensors of one block format."""

    format: str
    n_tensors: int
    n_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerKind:
    """Layers that are alike, in words, and how many there are."""

    words: str
    n_layers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """The facts of a model. ``unknown`` says what could not be understood, empty where all was."""

    name: str
    family: str
    source: str
    architecture: str
    architecture_class: str | None
    quantization: str | None
    n_embd: int
    n_vocab: int
    n_context_train: int
    n_layers: int
    n_mtp_layers: int
    tied_embeddings: bool
    kinds: tuple[LayerKind, ...]
    kv_bytes_per_token: int | None  # f16, layers that see all; None: unknown
    parameters: Parameters | None
    formats: tuple[StoredFormat, ...]
    projector_formats: tuple[StoredFormat, ...]
    file_bytes: int | None
    projector_file_bytes: int | None
    projector_source: str
    tower: str | None = None
    projector: str | None = None
    rules: Mapping[str, ImageRule] = field(default_factory=dict)
    scheme: str | None = None
    unknown: str = ""
    notes: tuple[str, ...] = ()


def inspect(model: Model) -> Inspection:
    """Return the facts of ``model``."""
    language, vision = model.language, model.vision
    stored = model.stored
    formats = _formats(language.tensors)
    if not formats and stored is not None:
        formats = tuple(StoredFormat(format=f, n_tensors=0, n_bytes=n) for f, n in stored.formats.items())
    return Inspection(
        name=model.name,
        family=model.family,
        source=model.source,
        architecture=language.architecture,
        architecture_class=model.architecture_class,
        quantization=model.quantization,
        n_embd=language.n_embd,
        n_vocab=language.n_vocab,
        n_context_train=language.n_context_train,
        n_layers=language.n_layers,
        n_mtp_layers=language.n_mtp_layers,
        tied_embeddings=language.tied_embeddings,
        kinds=layer_kinds(language.layers),
        kv_bytes_per_token=kv_bytes_per_token(language.layers),
        parameters=model.parameters,
        formats=formats,
        projector_formats=_formats(vision.tensors) if vision else (),
        file_bytes=model.file_bytes,
        projector_file_bytes=model.projector_file_bytes,
        projector_source=model.projector_source,
        tower=vision.tower if vision else None,
        projector=vision.projector if vision else None,
        rules=vision.rules if vision else {},
        scheme=stored.scheme if stored else None,
        unknown=str(language.facts.get("unknown", "")),
        notes=model.notes,
    )


def layer_kinds(layers: Iterable[Layer]) -> tuple[LayerKind, ...]:
    """Return the kinds of layers in the order they first occur."""
    counted = Counter(layer_words(layer) for layer in layers)
    return tuple(LayerKind(words=words, n_layers=n) for words, n in counted.items())


def layer_words(layer: Layer) -> str:
    """Return one line that says what a layer is."""
    return f"{mixer_words(layer.mixer)}; {ffn_words(layer.ffn)}"


def mixer_words(mixer: Mixer) -> str:
    """Return a mixer in words: heads, widths and windows."""
    match mixer:
        case Attention():
            words = _attention_words(mixer)
        case LatentAttention():
            words = (
                f"latent attention (MLA), {mixer.n_heads} heads, {mixer.kv_lora_rank}+{mixer.rope_dim} cached per token"
            )
        case CrossAttention():
            words = (
                f"cross attention to the image, {mixer.n_heads} heads, {mixer.n_kv_heads} KV heads of {mixer.head_dim}"
            )
        case GatedDeltaNet():
            words = f"gated delta net, {mixer.n_value_heads} heads of {mixer.head_dim}, constant state"
        case ShortConv():
            words = f"short convolution over {mixer.conv_kernel} tokens"
        case Mamba():
            words = f"Mamba-{mixer.version}, {mixer.inner_dim} wide, state {mixer.state_dim}"
        case NoMixer():
            words = "feed-forward only"
        case _:
            assert_never(mixer)
    return words


def ffn_words(ffn: Ffn | None) -> str:
    """Return a feed-forward block in words."""
    if ffn is None:
        return "no feed-forward block"
    if isinstance(ffn, DenseFfn):
        return f"dense, {ffn.n_ff} wide"
    shared = f" + shared {ffn.n_ff_shared}" if ffn.n_ff_shared else ""
    dense = f" + dense {ffn.n_ff_dense}" if ffn.n_ff_dense else ""
    return f"{ffn.n_experts} experts of {ffn.n_ff_expert}, {ffn.n_experts_used} used{shared}{dense}"


def kv_bytes_per_token(layers: Iterable[Layer]) -> int | None:
    """Return the f16 bytes one more token costs in layers that see every token; None where no layer is known.

    Grouped attention caches (key + value) x KV heads, latent attention one row of rank + rope. Layers with a window,
    a constant state or another layer's cache stop growing and count nothing.
    """
    known = tuple(layers)
    if not known:
        return None
    return sum(_kv_bytes(layer.mixer) for layer in known)


def _kv_bytes(mixer: Mixer) -> int:
    if isinstance(mixer, Attention) and mixer.window_tokens is None and mixer.kv_source_layer is None:
        return 2 * mixer.n_kv_heads * (mixer.key_dim + mixer.value_dim)
    if isinstance(mixer, LatentAttention):
        return 2 * (mixer.kv_lora_rank + mixer.rope_dim)
    return 0


def _attention_words(mixer: Attention) -> str:
    window = f"{mixer.window_kind} window of {mixer.window_tokens}" if mixer.window_tokens else "full attention"
    width = str(mixer.key_dim) if mixer.key_dim == mixer.value_dim else f"{mixer.key_dim}/{mixer.value_dim}"
    shared = f", cache of layer {mixer.kv_source_layer}" if mixer.kv_source_layer is not None else ""
    return f"{window}, {mixer.n_heads} heads, {_kv_heads(mixer.n_kv_heads)} of {width}{shared}"


def _kv_heads(n: int) -> str:
    return "1 KV head" if n == 1 else f"{n} KV heads"


def _formats(tensors: Iterable[Tensor]) -> tuple[StoredFormat, ...]:
    """Return the formats, those with most bytes first."""
    n_tensors: Counter[str] = Counter()
    n_bytes: Counter[str] = Counter()
    for tensor in tensors:
        n_tensors[tensor.format] += 1
        n_bytes[tensor.format] += tensor_bytes(tensor.format, tensor.shape)
    return tuple(
        StoredFormat(format=name, n_tensors=n_tensors[name], n_bytes=total) for name, total in n_bytes.most_common()
    )
