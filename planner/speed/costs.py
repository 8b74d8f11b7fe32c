"""What one layer of a language model costs a token: bytes read, weights used, cache read, attention's width."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.model import Attention, GatedDeltaNet, LatentAttention, Mamba, MoeFfn, Tensor
from planner.quantization import FORMATS, tensor_bytes
from planner.remembered import remembered
from planner.tensors import language_tensors, vision_tensors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.model import Language, Mixer, Vision

_STATE_BYTES = 4  # recurrent states are kept in 32 bits, read and written for each token
_HEARING = ("a.", "mm.a.")  # an audio tower in the same file, and its projector


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Some tensors: their bytes, how many weights they hold, and how many of those in super-blocks of 256."""

    n_bytes: int = 0
    n_weights: int = 0
    n_superblock_weights: int = 0

    def __add__(self, other: Stored) -> Stored:
        return Stored(
            n_bytes=self.n_bytes + other.n_bytes,
            n_weights=self.n_weights + other.n_weights,
            n_superblock_weights=self.n_superblock_weights + other.n_superblock_weights,
        )

    def __sub__(self, other: Stored) -> Stored:
        return Stored(
            n_bytes=self.n_bytes - other.n_bytes,
            n_weights=self.n_weights - other.n_weights,
            n_superblock_weights=self.n_superblock_weights - other.n_superblock_weights,
        )

    def times(self, numerator: int, denominator: int) -> Stored:
        """Return a share of these tensors."""
        if denominator <= 0:
            return Stored()
        return Stored(
            n_bytes=self.n_bytes * numerator // denominator,
            n_weights=self.n_weights * numerator // denominator,
            n_superblock_weights=self.n_superblock_weights * numerator // denominator,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCost:
    """One repeating layer: what every token passes through, all of its experts, and the share of them in use."""

    dense: Stored
    experts: Stored
    used: Stored


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageCost:
    """A language model: its layers, what turns the last layer into logits, and the input embedding."""

    layers: tuple[LayerCost, ...]
    output: Stored
    embedding: Stored
    tied: bool  # the embedding is the output


def stored(tensors: Iterable[Tensor]) -> Stored:
    """Return the bytes and weights of ``tensors`` as they are stored."""
    total = Stored()
    for tensor in tensors:
        n = tensor.n_elements
        in_superblocks = n if FORMATS[tensor.format].block_elements >= 256 else 0
        n_bytes = tensor_bytes(tensor.format, tensor.shape)
        total += Stored(n_bytes=n_bytes, n_weights=n, n_superblock_weights=in_superblocks)
    return total


def is_quantized(held: Stored) -> bool:
    """Whether most of these weights are in a block format."""
    return held.n_bytes < 1.5 * held.n_weights


@remembered
def language_cost(language: Language) -> LanguageCost:
    """Return the costs of ``language`` by its tensors; a tied embedding is the output as well.

    Where no formats are known its inventory is taken in 16 bits; engines that store other formats say how much they
    hold.
    """
    grouped: dict[str, list[Tensor]] = {}
    for tensor in language.tensors or _inventory(language):
        prefix, _, rest = tensor.name.partition(".")
        key = f"{prefix}.{rest.partition('.')[0]}" if prefix == "blk" else prefix
        grouped.setdefault(key, []).append(tensor)
    embedding = stored(grouped.get("token_embd", ()))
    head = stored(grouped.get("output", ())) + stored(grouped.get("output_norm", ()))
    layers = tuple(
        _layer_cost(grouped.get(f"blk.{index}", []), layer.ffn if isinstance(layer.ffn, MoeFfn) else None)
        for index, layer in enumerate(language.layers)
    )
    tied = "output" not in grouped
    return LanguageCost(layers=layers, output=head + embedding if tied else head, embedding=embedding, tied=tied)


def _inventory(language: Language) -> tuple[Tensor, ...]:
    return tuple(Tensor(name=name, shape=shape, format="bf16") for name, shape in language_tensors(language))


def projector_file(vision: Vision, n_embd_text: int) -> tuple[Tensor, ...]:
    """Return the tensors of tower and projector, in 16 bits where no formats are known."""
    return vision.tensors or tuple(
        Tensor(name=tensor.name, shape=tensor.shape, format="bf16") for tensor in vision_tensors(vision, n_embd_text)
    )


def tower_cost(vision: Vision, n_embd_text: int) -> tuple[Stored, Stored]:
    """Return what patches multiply with, and what image tokens do: the tower, and its projector with side branches."""
    seeing = [tensor for tensor in projector_file(vision, n_embd_text) if not tensor.name.startswith(_HEARING)]
    tower = stored(tensor for tensor in seeing if tensor.name.startswith("v.") and "deepstack" not in tensor.name)
    return tower, stored(seeing) - tower


def convolved_weights(vision: Vision, n_embd_text: int) -> int:
    """Return the weights that each place of the output multiplies with in a tower of convolutions; 0 for another.

    A stage's weights run once per place of its own picture, which has several for each place of the output.
    """
    named = {tensor.name: tensor.n_elements for tensor in projector_file(vision, n_embd_text)}
    if "v.conv_stem.conv.weight" not in named:
        return 0
    return sum(n * places for name, n in named.items() for prefix, places in _PLACES.items() if name.startswith(prefix))


# places of a stage's picture per place of the output, which is a 48th of the picture a side
_PLACES = {"v.conv_stem.": 576, "v.blk.0.": 144, "v.blk.1.": 36, "v.blk.2.": 9, "v.blk.3.": 2, "v.msfa.": 9}


def _layer_cost(tensors: list[Tensor], ffn: MoeFfn | None) -> LayerCost:
    experts = [tensor for tensor in tensors if "_exps." in tensor.name]
    whole = stored(experts)
    return LayerCost(
        dense=stored(tensor for tensor in tensors if "_exps." not in tensor.name),
        experts=whole,
        used=whole.times(ffn.n_experts_used, ffn.n_experts) if ffn else whole,
    )


def cache_bytes_per_token(mixer: Mixer, n_past: int, element_bytes: float) -> int:
    """Return the bytes of cache or state that ``mixer`` moves for one token after ``n_past`` others."""
    match mixer:
        case Attention():
            seen = n_past if mixer.window_tokens is None else min(n_past, mixer.window_tokens)
            return round(seen * mixer.n_kv_heads * (mixer.key_dim + mixer.value_dim) * element_bytes)
        case LatentAttention():
            return round(n_past * (mixer.kv_lora_rank + mixer.rope_dim) * element_bytes)
        case GatedDeltaNet():
            return 2 * mixer.n_value_heads * mixer.head_dim * mixer.head_dim * _STATE_BYTES
        case Mamba():
            return 2 * mixer.inner_dim * mixer.state_dim * _STATE_BYTES
        case _:
            return 0


def attention_width(mixer: Mixer, n_tokens: int) -> int:
    """Return query heads x head size, less where a window hides a part of the pairs of ``n_tokens``."""
    match mixer:
        case Attention():
            return mixer.n_heads * mixer.key_dim * _seen_pairs(n_tokens, mixer.window_tokens) // _pairs(n_tokens)
        case LatentAttention():
            return mixer.n_heads * (mixer.nope_dim + mixer.rope_dim)
        case _:
            return 0


def _pairs(n_tokens: int) -> int:
    return max(1, n_tokens * (n_tokens + 1) // 2)


def _seen_pairs(n_tokens: int, window: int | None) -> int:
    if window is None or n_tokens <= window:
        return _pairs(n_tokens)
    return _pairs(window) + (n_tokens - window) * window


def query_heads_per_kv_head(mixer: Mixer) -> int:
    """Return how often a KV head is used, 1 where there are none."""
    return max(1, mixer.n_heads // mixer.n_kv_heads) if isinstance(mixer, Attention) and mixer.n_kv_heads else 1
