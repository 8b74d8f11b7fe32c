"""What one rank of a serving engine loads: sharded linears, whole norms, the tower, rotary tables, side data.

Source: vLLM 0.10.2 and 0.33.0, ``model_executor/layers`` and model files; against 29 published loads, 25 within 0.5 %.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod

from planner.engines.linears import LayerParts, Linear, layer_parts
from planner.engines.weight_formats import UNQUANTIZED, linear_bytes
from planner.frozen import dataclass
from planner.model import Attention, Language, LatentAttention, Layer, Model, Vision
from planner.tensors import vision_tensors

VOCAB_PAD = 64
BY_STRUCTURE_AT_MOST = 1.6  # towers hold 0.9 to 1.44 times what blocks, patches and a two-matrix projector come to


@dataclass(frozen=True, slots=True, kw_only=True)
class RankWeights:
    """Bytes one rank loads, by part; ``vision_low`` and ``vision_high`` are the tower fully split and fully copied."""

    language_bytes: int
    vision_bytes: int
    vision_low_bytes: int
    vision_high_bytes: int
    rope_bytes: int

    @property
    def total_bytes(self) -> int:
        """Everything the rank loads."""
        return self.language_bytes + self.vision_bytes + self.rope_bytes


def stage_layers(n_layers: int, n_stages: int) -> tuple[tuple[int, int], ...]:
    """Return ``(first, past the last)`` layer of each pipeline stage; a remainder goes to the stages before the last.

    Source: vLLM ``distributed/utils.py`` get_pp_indices.
    """
    counts = [n_layers // n_stages] * n_stages
    for i in range(n_layers % n_stages):
        counts[-(i + 2) % n_stages if n_stages > 1 else 0] += 1
    starts = [sum(counts[:i]) for i in range(n_stages)]
    return tuple((start, start + count) for start, count in zip(starts, counts, strict=True))


def language_bytes(  # noqa: PLR0913 - one rank's circumstances
    language: Language,
    *,
    first: int,
    last: int,
    n_ranks: int,
    format_name: str,
    dtype_bytes: int,
    head: bool,
    tail: bool,
) -> int:
    """Return the bytes of layers ``first`` to ``last`` (exclusive) on one rank, with ``head`` and ``tail`` tables."""
    layers = language.layers[first:last]
    parts = _parts(language, layers)
    total = sum(count * _layer_bytes(part, n_ranks, format_name, dtype_bytes) for part, count in parts.items())
    table = -(-language.n_vocab // VOCAB_PAD) * VOCAB_PAD // n_ranks * language.n_embd * dtype_bytes
    embeds = head or (tail and language.tied_embeddings)
    total += table if embeds else 0
    total += table if tail and not language.tied_embeddings else 0
    total += language.n_embd * dtype_bytes if tail else 0
    return total + (_per_layer_embeddings(language, n_ranks) * dtype_bytes if head else 0)


def _parts(language: Language, layers: tuple[Layer, ...]) -> dict[LayerParts, int]:
    counted: dict[LayerParts, int] = {}
    for layer in layers:
        part = layer_parts(language, layer)
        counted[part] = counted.get(part, 0) + 1
    return counted


def _per_layer_embeddings(language: Language, n_ranks: int) -> int:
    """Elements of the per-layer embedding table and its projection."""
    width = language.n_embd_per_layer * language.n_layers
    gates = 2 * language.n_embd_per_layer * language.n_embd * language.n_layers
    return width * language.n_vocab // n_ranks + width * language.n_embd + gates


def _layer_bytes(part: LayerParts, n_ranks: int, format_name: str, dtype_bytes: int) -> int:
    total = part.whole_elements * dtype_bytes
    for linear in part.linears:
        one = _linear_bytes(linear, n_ranks, format_name, dtype_bytes)
        total += linear.count * one + linear.bias_elements(n_ranks) * dtype_bytes
    return total


def _linear_bytes(linear: Linear, n_ranks: int, format_name: str, dtype_bytes: int) -> int:
    """Return the bytes of one matrix on one rank; MXFP4 packs experts only, their inner width padded to 256."""
    n_out, n_in = linear.rank_shape(n_ranks)
    if not linear.quantizable or format_name in UNQUANTIZED or (format_name == "mxfp4" and not linear.expert):
        return n_out * n_in * dtype_bytes
    if format_name == "mxfp4":
        padded = -(-(n_in if linear.split == "in" else n_out) // 256) * 256
        n_out, n_in = (n_out, padded) if linear.split == "in" else (padded, n_in)
    return linear_bytes(format_name, n_out, n_in)


def rope_table_bytes(language: Language, dtype_bytes: int) -> int:
    """Return the bytes of the rotary tables: positions x rotary width, one per kind of rotation, 4x under M-RoPE.

    Linear scaling makes the table of the layers without a window longer by its factor.
    """
    multi = any("mrope" in key or key.endswith("dimension_sections") for key in language.facts)
    attentions = [layer.mixer for layer in language.layers if isinstance(layer.mixer, Attention | LatentAttention)]
    if not attentions:
        return 0
    kinds = {(a.key_dim, a.window_tokens is None) for a in attentions if isinstance(a, Attention)}
    kinds |= {(a.rope_dim, True) for a in attentions if isinstance(a, LatentAttention)}
    positions = language.n_context_train * (4 if multi else 1)
    rotated = language.facts.get("rope.dimension_count")
    limit = rotated if isinstance(rotated, int) and rotated > 0 else None
    return sum(
        int(positions * (_linear_factor(language) if full else 1)) * min(dim, limit or dim) * dtype_bytes
        for dim, full in kinds
    )


def _linear_factor(language: Language) -> float:
    factor = language.facts.get("rope.scaling.factor")
    linear = language.facts.get("rope.scaling.type") == "linear"
    return float(factor) if linear and isinstance(factor, int | float) else 1.0


def vision_split(vision: Vision, total_elements: int) -> tuple[int, int]:
    """Return the tower's elements as ``(in block linears, elsewhere)``."""
    block = 4 * vision.n_embd**2 + (3 if _gated(vision) else 2) * vision.n_embd * vision.n_ff
    sharded = min(total_elements, vision.n_layers * block)
    return sharded, total_elements - sharded


def vision_bytes(  # noqa: PLR0913 - one rank's circumstances
    model: Model,
    n_ranks: int,
    dtype_bytes: int,
    *,
    split_projectors: frozenset[str],
    data_parallel: bool = False,
    format_name: str = "bf16",
) -> tuple[int, int, int]:
    """Return ``(expected, low, high)`` bytes of tower and projector on one rank.

    Block linears are split; patch convolution, positions, norms and the projectors not named in ``split_projectors``
    are whole on every rank; a tower whose heads do not divide is copied. NF4 at load packs the block linears, other
    formats leave the tower as it is.
    """
    if model.vision is None:
        return 0, 0, 0
    total = vision_elements(model)
    sharded, rest = vision_split(model.vision, total)
    whole = total * dtype_bytes
    if format_name == "nf4":
        packed = linear_bytes("nf4", sharded, 1) + rest * dtype_bytes
        return packed // n_ranks, packed // n_ranks, whole
    most = int(whole * (1 if is_counted(model) else BY_STRUCTURE_AT_MOST))
    if n_ranks == 1:
        return whole, whole, most
    low = whole // n_ranks
    if data_parallel or model.vision.n_heads % n_ranks:
        return whole, low, most
    if model.vision.projector in split_projectors and model.parameters is not None:
        sharded, rest = sharded + model.parameters.projector, rest - model.parameters.projector
    return (sharded // n_ranks + rest) * dtype_bytes, low, most


def vision_elements(model: Model) -> int:
    """Return the parameters of tower and projector: as counted somewhere, else by structure."""
    if model.vision is None:
        return 0
    return _counted_elements(model, model.vision) or _structural_elements(model.vision, model.language.n_embd)


def is_counted(model: Model) -> bool:
    """Whether the parameters of tower and projector are known, not only guessed from its sizes."""
    return model.vision is None or _counted_elements(model, model.vision) > 0


def _counted_elements(model: Model, vision: Vision) -> int:
    """Return the parameters as published, else of the stored tensors, else of the tower's inventory; 0 without one."""
    if model.parameters is not None and model.parameters.vision:
        return model.parameters.vision + model.parameters.projector
    stored = sum(tensor.n_elements for tensor in vision.tensors)
    return stored or sum(prod(tensor.shape) for tensor in vision_tensors(vision, model.language.n_embd))


def _structural_elements(vision: Vision, n_embd: int) -> int:
    """Return the parameters of blocks, patch convolution, positions and a two-matrix projector behind the merge."""
    ffn = (3 if _gated(vision) else 2) * vision.n_embd * vision.n_ff
    blocks = vision.n_layers * (4 * vision.n_embd**2 + ffn)
    merge = _fact(vision, "spatial_merge_size", 1)
    width = vision.n_embd * merge * merge
    patches = 3 * _fact(vision, "temporal_patch_size", 1) * vision.patch_size**2 * vision.n_embd
    return blocks + patches + _fact(vision, "n_positions", 0) * vision.n_embd + width * width + width * n_embd


def _fact(vision: Vision, name: str, default: int) -> int:
    value = vision.facts.get(name)
    return value if isinstance(value, int) else default


def _gated(vision: Vision) -> bool:
    return bool(vision.facts.get("gated_ffn")) or "gated" in vision.tower


def rank_weights(  # noqa: PLR0913 - one rank's circumstances
    model: Model,
    *,
    stage: int,
    n_stages: int,
    n_ranks: int,
    format_name: str,
    dtype_bytes: int,
    vision: bool,
    split_projectors: frozenset[str] = frozenset(),
    data_parallel: bool = False,
) -> RankWeights:
    """Return what a rank of pipeline ``stage`` loads, with or without the vision tower."""
    language = model.language
    first, last = stage_layers(language.n_layers, n_stages)[stage]
    head, tail = stage == 0, stage == n_stages - 1
    own = language_bytes(
        language,
        first=first,
        last=last,
        n_ranks=n_ranks,
        format_name=format_name,
        dtype_bytes=dtype_bytes,
        head=head,
        tail=tail,
    )
    expected, low, high = (
        vision_bytes(
            model,
            n_ranks,
            dtype_bytes,
            split_projectors=split_projectors,
            data_parallel=data_parallel,
            format_name=format_name,
        )
        if vision
        else (0, 0, 0)
    )
    return RankWeights(
        language_bytes=int(own * _own_share(model, format_name, dtype_bytes)),
        vision_bytes=expected,
        vision_low_bytes=low,
        vision_high_bytes=high,
        rope_bytes=rope_table_bytes(language, dtype_bytes),
    )


def _own_share(model: Model, format_name: str, dtype_bytes: int) -> Fraction:
    """Return what the model's own count is of what its structure gives: 1 but for packed or richer checkpoints.

    A packed checkpoint's bytes are known where its files are; a published count above the structure's holds what the
    layers do not show, such as experts for image tokens.
    """
    if model.stored is not None and model.stored.scheme is not None and model.stored.language_bytes:
        whole = _whole_language(model.language, format_name, dtype_bytes)
        return Fraction(model.stored.language_bytes, whole) if whole else Fraction(1)
    published = model.parameters.language if model.parameters is not None else 0
    if not published or model.language.n_mtp_layers:
        return Fraction(1)
    counted = _whole_language(model.language, "bf16", 2) // 2
    return Fraction(published, counted) if counted and published > counted * 1001 // 1000 else Fraction(1)


def _whole_language(language: Language, format_name: str, dtype_bytes: int) -> int:
    """Return the language model's bytes on one GPU."""
    return language_bytes(
        language,
        first=0,
        last=language.n_layers,
        n_ranks=1,
        format_name=format_name,
        dtype_bytes=dtype_bytes,
        head=True,
        tail=True,
    )
