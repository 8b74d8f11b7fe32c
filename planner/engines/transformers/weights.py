"""Bytes of the weights by part, and the pieces that accelerate places: they are never split further.

Source: transformers 5.23.0; bitsandbytes stores nn.Linear except the head: int8 rows with one 32-bit factor each, nf4
half a byte with 4 bytes per 64 elements, doubly quantised 1 byte per 64 and 4 per 16384. Packed experts are no Linear.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import prod

from planner.budget import Basis, Part
from planner.engines.linears import layer_parts
from planner.engines.transformers.forms import ClassForm
from planner.engines.transformers.quantities import heads_of
from planner.engines.transformers.settings import TransformersSettings
from planner.errors import VlplanError
from planner.frozen import dataclass
from planner.model import Attention, DenseFfn, Language, Layer, Model, MoeFfn, Parameters
from planner.tensors import language_tensors, vision_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class PartWeights:
    """Weights of one part. ``n_linear`` of its ``n_elements`` are what bitsandbytes quantises."""

    part: Part
    n_elements: int
    n_linear: int
    n_linear_rows: int
    n_bytes: int
    basis: Basis
    formula: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What stays on one device: an embedding, a layer, a norm with the head."""

    name: str
    part: Part
    n_bytes: int
    layer_index: int | None = None
    tied_to: str | None = None


def part_weights(model: Model, settings: TransformersSettings, form: ClassForm) -> tuple[PartWeights, ...]:
    """Return the weights by part: elements x bytes per element, a tied head once, buffers with the language model.

    A checkpoint that is quantised already is loaded as it is stored. Empty where nothing is known of the model's size.
    """
    if model.stored is not None and model.stored.scheme is not None and settings.load_in is None:
        return _as_stored(model)
    counted = parameters_of(model)
    if counted is None:
        return ()
    linears = _linears(model, counted, form)
    unread = unread_elements(model.language)
    found = []
    for part in ("language", "vision", "projector"):
        n_elements = getattr(counted, part) + (_unassigned(counted) - unread if part == "language" else 0)
        if not n_elements:
            continue
        n_linear, n_rows, known = linears[part]
        n_linear = min(n_linear, n_elements)
        buffers = (
            buffer_bytes(model, settings, form) + wide_router_bytes(model, settings, form) if part == "language" else 0
        )
        counted_exactly = settings.load_in is None or known
        basis: Basis = "exact" if counted_exactly and model.parameters is not None else "modelled"
        found.append(
            PartWeights(
                part=part,
                n_elements=n_elements,
                n_linear=n_linear,
                n_linear_rows=n_rows,
                n_bytes=stored_bytes(n_elements, n_linear, n_rows, settings) + buffers,
                basis=basis,
                formula=_formula(settings),
            )
        )
    return tuple(found)


def unread_elements(language: Language) -> int:
    """Return what a checkpoint holds and nobody loads: keys and values of layers that read another layer's cache.

    Two projections and the norm of the keys: h x Hkv x (key + value size) + key size.
    """
    mixers = (layer.mixer for layer in language.layers if isinstance(layer.mixer, Attention))
    return sum(
        language.n_embd * mixer.n_kv_heads * (mixer.key_dim + mixer.value_dim)
        + (mixer.key_dim if mixer.qk_norm == "head" else 0)
        for mixer in mixers
        if mixer.kv_source_layer is not None
    )


def stored_bytes(n_elements: int, n_linear: int, n_rows: int, settings: TransformersSettings) -> int:
    """Return the bytes of ``n_elements``, ``n_linear`` of them in linears with ``n_rows`` outputs."""
    other = (n_elements - n_linear) * settings.element_bytes
    match settings.load_in:
        case None:
            return n_elements * settings.element_bytes
        case "int8":
            return other + n_linear + 4 * n_rows
        case "nf4":
            return other + n_linear // 2 + n_linear * 4 // 64
        case "nf4_double":
            return other + n_linear // 2 + n_linear // 64 + n_linear * 4 // 16384


def _formula(settings: TransformersSettings) -> str:
    match settings.load_in:
        case None:
            return f"parameters x {settings.element_bytes} + buffers"
        case "int8":
            return f"linear + 4 x rows + other parameters x {settings.element_bytes}"
        case "nf4":
            return f"linear x (1/2 + 4/64) + other parameters x {settings.element_bytes}"
        case "nf4_double":
            return f"linear x (1/2 + 1/64 + 4/16384) + other parameters x {settings.element_bytes}"


def parameters_of(model: Model) -> Parameters | None:
    """Return the parameter counts: published, or counted from a checkpoint's or a file's tensors; None if unknown."""
    if model.parameters is not None:
        return model.parameters
    language = sum(tensor.n_elements for tensor in model.language.tensors)
    vision = sum(tensor.n_elements for tensor in model.vision.tensors) if model.vision else 0
    if language:
        return Parameters(total=language + vision, language=language, vision=vision)
    if model.stored is not None:
        stored = model.stored
        width = 4 if "f32" in stored.formats and len(stored.formats) == 1 else 2
        parts = {part: getattr(stored, f"{part}_bytes") // width for part in ("language", "vision", "projector")}
        return Parameters(total=sum(parts.values()), **parts)
    return _from_shapes(model)


def _from_shapes(model: Model) -> Parameters | None:
    """Return the count of the tensors that the model's shapes imply, None where a part's tensors are not known."""
    try:
        language = sum(prod(shape) for _, shape in language_tensors(model.language))
        towers = vision_tensors(model.vision, model.language.n_embd) if model.vision else ()
    except VlplanError:
        return None
    if model.vision is not None and not towers:
        return None
    vision = sum(tensor.n_elements for tensor in towers)
    return Parameters(total=language + vision, language=language, vision=vision)


def _as_stored(model: Model) -> tuple[PartWeights, ...]:
    stored = model.stored
    if stored is None:
        return ()
    sizes: tuple[tuple[Part, int], ...] = (
        ("language", stored.language_bytes),
        ("vision", stored.vision_bytes),
        ("projector", stored.projector_bytes),
    )
    return tuple(
        PartWeights(
            part=part, n_elements=0, n_linear=0, n_linear_rows=0, n_bytes=n_bytes, basis="exact",
            formula=f"tensors as stored ({stored.scheme})",
        )
        for part, n_bytes in sizes
        if n_bytes
    )  # fmt: skip


def _unassigned(counted: Parameters) -> int:
    """Parameters of the whole that belong to no named part (an audio tower, per-layer embeddings)."""
    return max(0, counted.total - counted.language - counted.vision - counted.projector)


def buffer_bytes(model: Model, settings: TransformersSettings, form: ClassForm) -> int:
    """Return the buffers that are loaded with the weights: rotary frequencies, position numbers, scales."""
    dim = max((heads_of(layer)[2] for layer in model.language.layers), default=0)
    head = model.vision.n_embd // max(1, model.vision.n_heads) if model.vision else 0
    rotary = 4 * dim // form.rope_divisor
    scalars = (form.buffer_scalars + form.layer_scalars * model.language.n_layers) * settings.element_bytes
    return rotary + form.tower_head_buffers * head + form.buffer_bytes + scalars


def wide_router_bytes(model: Model, settings: TransformersSettings, form: ClassForm) -> int:
    """Return what routers kept in 32 bit take beyond the model's dtype: a matrix and a correction per expert."""
    n_embd = model.language.n_embd
    elements = sum(
        layer.ffn.n_experts * (n_embd + 1) for layer in model.language.layers if isinstance(layer.ffn, MoeFfn)
    )
    return form.fp32_routers * elements * (4 - settings.element_bytes)


def _linears(model: Model, counted: Parameters, form: ClassForm) -> dict[str, tuple[int, int, bool]]:
    """Return per part: elements in linears, their output rows, and whether the number is published."""
    language, rows = language_linears(model.language)
    vision, vision_rows = _tower_linears(model, form)
    known = counted.linear is not None
    if known and counted.linear is not None:
        projector = min(counted.projector, max(0, counted.linear - language - vision))
        vision = min(counted.vision, max(0, counted.linear - language - projector))
        language = counted.linear - projector - vision
    else:
        projector = counted.projector
    return {
        "language": (language, rows, known),
        "vision": (vision, vision_rows, known),
        "projector": (projector, 2 * model.language.n_embd if projector else 0, known),
    }


def language_linears(language: Language) -> tuple[int, int]:
    """Return elements and output rows of the language model's linears; packed experts and the head are none."""
    elements = rows = 0
    for layer in language.layers:
        for linear in layer_parts(language, replace(layer, ffn=None)).linears:
            elements += linear.n_out * linear.n_in * linear.count
            rows += linear.n_out * linear.count
        n_ff, n_gates = _plain_ffn(layer)
        elements += (n_gates + 1) * n_ff * language.n_embd
        rows += n_gates * n_ff + (language.n_embd if n_ff else 0)
    return elements, rows


def _plain_ffn(layer: Layer) -> tuple[int, int]:
    """Width of the block that is plain linears (dense, or the shared expert), and its input projections."""
    if isinstance(layer.ffn, DenseFfn):
        return layer.ffn.n_ff, 2 if layer.ffn.gated else 1
    if isinstance(layer.ffn, MoeFfn):
        return layer.ffn.n_ff_shared, 2
    return 0, 0


def ffn_width(layer: Layer) -> int:
    """Return the width of the layer's plain feed-forward block, 0 where it has none."""
    return _plain_ffn(layer)[0]


def _tower_linears(model: Model, form: ClassForm) -> tuple[int, int]:
    vision = model.vision
    if vision is None:
        return 0, 0
    n_gates = 2 if vision.facts.get("gated_ffn") else 1
    n_ff = model.language.n_embd if form.tower_ff == "language" else vision.n_ff
    per_layer = 4 * vision.n_embd**2 + (n_gates + 1) * vision.n_embd * n_ff
    rows = 5 * vision.n_embd + n_gates * n_ff
    return vision.n_layers * per_layer, vision.n_layers * rows


def pieces(model: Model, parts: tuple[PartWeights, ...], settings: TransformersSettings) -> Iterator[Piece]:
    """Yield what accelerate places, in the order of the modules: tower, projector, embedding, layers, norm and head."""
    language = model.language
    sizes = {part.part: part.n_bytes for part in parts}
    if model.vision is not None and "vision" in sizes:
        n = max(1, model.vision.n_layers)
        for i, n_bytes in enumerate(_shares(sizes["vision"], [1] * n)):
            yield Piece(name=f"vision tower layer {i}", part="vision", n_bytes=n_bytes)
    if "projector" in sizes:
        yield Piece(name="projector", part="projector", n_bytes=sizes["projector"])
    embedding = min(sizes["language"] // 2, language.n_vocab * language.n_embd * settings.element_bytes)
    head = 0 if language.tied_embeddings else embedding
    yield Piece(name="embed_tokens", part="language", n_bytes=embedding)
    weights = [_layer_elements(language, layer) for layer in language.layers]
    for i, n_bytes in enumerate(_shares(sizes["language"] - embedding - head, weights)):
        yield Piece(name=f"layers.{i}", part="language", n_bytes=n_bytes, layer_index=i)
    tied = "embed_tokens" if language.tied_embeddings else None
    yield Piece(name="lm_head", part="language", n_bytes=head, tied_to=tied)


def _layer_elements(language: Language, layer: Layer) -> int:
    parts = layer_parts(language, layer)
    return parts.whole_elements + sum(linear.n_out * linear.n_in * linear.count for linear in parts.linears)


def _shares(n_bytes: int, weights: list[int]) -> list[int]:
    """Return ``n_bytes`` cut in proportion to ``weights``, nothing lost."""
    total, done, given, found = sum(weights), 0, 0, []
    for weight in weights:
        done += weight
        upto = n_bytes * done // total if total else 0
        found.append(upto - given)
        given = upto
    return found
