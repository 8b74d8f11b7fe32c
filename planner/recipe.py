"""The quantiser's recipe: which block format each tensor of a file type gets.

Source: llama.cpp 0.5.0-dev, ``src/llama-quant.cpp`` (``llama_tensor_get_type``), compared with its ``--dry-run``; for
the unquantised types ``convert_hf_to_gguf.py``. Only file types that need no importance matrix are known here.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.model import Attention, GatedDeltaNet, LatentAttention, MoeFfn, Tensor
from planner.quantization import FORMATS
from planner.quantization.file_types import DEFAULT_FORMATS, known_file_type

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.model import Language
    from planner.tensors import Entry

# what a row becomes when it is no whole number of 256-element blocks
_FALLBACKS = {"iq4_xs": "iq4_nl", "q2_k": "q4_0", "q3_k": "q4_0", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0"}

# parts of names that keep the format of the source file
_KEPT = (
    "_norm.weight",
    "ffn_gate_inp.weight",
    "altup",
    "laurel",
    "per_layer_model_proj",
    "ssm_conv1d",
    "shortconv.conv.weight",
    "time_mix_",
    "attn_rel_b.weight",
    ".position_embd",
    ".patch_embd",
    ".patch_merger",
)
# parts of names that the converter stores as f32 whatever the file type
_ALWAYS_F32 = (
    "_norm",
    "ffn_gate_inp",
    "rope_f",
    "sinks",
    "ssm_conv1d",
    "shortconv.conv",
    "altup_correct",
    "altup_predict",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What the quantiser looks at besides a tensor's name and shape.

    Attributes:
        file_type: a key of ``DEFAULT_FORMATS``.
        n_stored_layers: layers in the file, those of multi-token prediction included.
        n_experts: of a mixture, else 0.
        n_gqa: query heads per key head of the first layer; 0 where that has none.
        generous_values: the quantiser takes the model for a 70B.
    """

    file_type: str
    n_stored_layers: int
    n_experts: int = 0
    n_gqa: int = 1
    generous_values: bool = False


def quantized_tensors(language: Language, file_type: str, entries: Iterable[Entry]) -> tuple[Tensor, ...]:
    """Return ``entries`` (name, shape) of a language model with the formats a file of ``file_type`` stores them in.

    Raises:
        UsageError: no such file type, or one whose recipe is not known.
    """
    name = known_file_type(file_type)
    listed = tuple(entries)
    recipe = recipe_for(language, name)
    formats = {entry[0]: source_format(entry, name) for entry in listed}
    if FORMATS[DEFAULT_FORMATS[name]].quantized:
        formats |= quantized_formats(recipe, [entry for entry in listed if allows_quantization(*entry)], listed)
    return tuple(Tensor(name=tensor, shape=shape, format=formats[tensor]) for tensor, shape in listed)


def recipe_for(language: Language, file_type: str) -> Recipe:
    """Return what the quantiser sees of ``language``."""
    n_stored = language.n_layers + language.n_mtp_layers
    n_gqa = _n_gqa(language)
    threshold = language.facts.get("quantizer.generous_values_at_layers")
    return Recipe(
        file_type=file_type,
        n_stored_layers=n_stored,
        n_experts=max((layer.ffn.n_experts for layer in language.layers if isinstance(layer.ffn, MoeFfn)), default=0),
        n_gqa=n_gqa,
        generous_values=threshold == language.n_layers and n_gqa != 1,
    )


def _n_gqa(language: Language) -> int:
    """Return query heads per key head of layer 0 by the file's keys; 0 where keys are per layer and it has none."""
    for layer in language.layers:
        match layer.mixer:
            case Attention(n_heads=n_heads, n_kv_heads=n_kv_heads):
                return n_heads // max(n_kv_heads, 1)
            case LatentAttention(n_heads=n_heads, absorbed=absorbed):
                return n_heads if absorbed else 1
            case GatedDeltaNet():
                continue
            case _:
                return 0
    return 0


def source_format(entry: Entry, file_type: str) -> str:
    """Return the format of a tensor in the unquantised file ``file_type`` is made from: f16 for quantised ones."""
    name, shape = entry
    plain = DEFAULT_FORMATS[file_type] if file_type in ("F32", "BF16") else "f16"
    always = len(shape) == 1 or not name.endswith(".weight") or any(part in name for part in _ALWAYS_F32)
    return "f32" if always else plain


@lru_cache(maxsize=4096)
def allows_quantization(name: str, shape: tuple[int, ...]) -> bool:
    """Whether the quantiser touches a tensor at all: matrices of weights, save the small and the delicate."""
    n_dimensions = max((index + 1 for index, width in enumerate(shape) if width > 1), default=1)
    return n_dimensions > 1 and name.endswith("weight") and not any(part in name for part in _KEPT)


def quantized_formats(recipe: Recipe, entries: list[Entry], stored: Iterable[Entry]) -> dict[str, str]:
    """Return the format of each of ``entries``; ``stored`` is the whole file, which some counts are taken over."""
    names = [name for name, _ in stored]
    n_values = sum(_category(name) == "attn_v" for name in names)
    tied = "output.weight" not in names
    formats: dict[str, str] = {}
    value = down = 0
    for name, shape in sorted(entries, key=lambda entry: _layer_index(entry[0])):
        category = _category(name)
        layer = _layer_index(name) if recipe.n_experts > 1 else down
        position = _Position(value=value, n_values=n_values, layer=layer, tied=tied)
        formats[name] = _fitting(_wanted(recipe, category, shape, position), shape[0])
        value += category == "attn_v"
        down += category == "ffn_down"
    return formats


@dataclass(frozen=True, slots=True, kw_only=True)
class _Position:
    """Where the quantiser stands: value projections seen, of how many; the feed-forward layer; shared embeddings."""

    value: int
    n_values: int
    layer: int
    tied: bool


@lru_cache(maxsize=4096)
def _layer_index(name: str) -> int:
    """Return N of ``blk.N.…``, -1 for a tensor outside the layers."""
    number = name[4 : name.find(".", 4)] if name.startswith("blk.") else ""
    return int(number) if number.isdecimal() else -1


_CATEGORIES = (
    ("attn_qkv.weight", "attn_v"),
    ("attn_kv_b.weight", "attn_v"),
    ("attn_v.weight", "attn_v"),
    ("attn_k.weight", "attn_k"),
    ("attn_output.weight", "attn_output"),
    ("ffn_up", "other"),
    ("ffn_gate", "other"),
    ("ffn_down", "ffn_down"),
)


@lru_cache(maxsize=4096)
def _category(name: str) -> str:
    if name == "output.weight":
        return "output"
    if name in ("token_embd.weight", "per_layer_token_embd.weight"):
        return "token_embd"
    return next((category for part, category in _CATEGORIES if part in name), "other")


def _wanted(recipe: Recipe, category: str, shape: tuple[int, ...], position: _Position) -> str:
    """Return the format the quantiser wants, before it looks whether the rows fit."""
    default = DEFAULT_FORMATS[recipe.file_type]
    if category == "output" or (position.tied and category == "token_embd"):
        return _output(recipe, default, shape[0])
    if recipe.file_type == "MXFP4_MOE":
        return "mxfp4" if len(shape) > 2 and shape[2] > 1 else "q8_0"
    if category == "attn_v":
        return _value(recipe, default, position)
    if category == "ffn_down":
        return _down(recipe, default, position.layer)
    return _attention(recipe, default, category)


def _output(recipe: Recipe, default: str, width: int) -> str:
    if recipe.file_type == "MXFP4_MOE" or default == "q8_0" or width % FORMATS[default].block_elements:
        return "q8_0"
    return "q6_k"


def _more_bits(index: int, count: int) -> bool:
    """Whether a layer is among those that get more bits: the first and last eighth, and every third between."""
    eighth = count // 8
    return index < eighth or index >= 7 * count // 8 or (index - eighth) % 3 == 2


def _value(recipe: Recipe, default: str, position: _Position) -> str:
    if recipe.n_experts == 8:
        return "q8_0"
    index = position.value
    grouped = recipe.n_gqa >= 4
    match recipe.file_type:
        case "Q2_K":
            wanted = "q4_k" if grouped else "q3_k"
        case "Q3_K_M":
            wanted = "q5_k" if index < 2 else "q4_k"
        case "Q3_K_L":
            wanted = "q5_k"
        case "IQ4_NL" | "IQ4_XS":
            wanted = "q5_k" if grouped else default
        case "Q4_K_M" | "Q5_K_M":
            wanted = "q6_k" if _more_bits(index, position.n_values) else default
        case "Q4_K_S":
            wanted = "q5_k" if index < 4 else default
        case _:
            wanted = default
    return "q5_k" if recipe.generous_values and wanted in ("q3_k", "q4_k") else wanted


def _down(recipe: Recipe, default: str, layer: int) -> str:
    count = recipe.n_stored_layers
    early = layer < count // 8
    match recipe.file_type:
        case "Q2_K":
            return "q3_k"
        case "Q3_K_M":
            return "q5_k" if layer < count // 16 else "q4_k"
        case "Q3_K_L":
            return "q5_k"
        case "Q4_K_M" | "Q5_K_M":
            return "q6_k" if _more_bits(layer, count) else default
        case "IQ4_NL" | "IQ4_XS" | "Q4_K_S":
            return "q5_k" if early else default
        case _:
            return default


def _attention(recipe: Recipe, default: str, category: str) -> str:
    """Return the format of a key or output projection; those of eight experts get more bits, for they weigh little."""
    eight_experts = recipe.n_experts == 8
    if category == "attn_k":
        return "q8_0" if eight_experts else default
    if category != "attn_output":
        return default
    if eight_experts:
        return "q5_k" if recipe.file_type in _EIGHT_EXPERTS else default
    return {"Q2_K": "q3_k", "Q3_K_M": "q4_k", "Q3_K_L": "q5_k"}.get(recipe.file_type, default)


_EIGHT_EXPERTS = ("Q2_K", "Q3_K_S", "Q3_K_M", "IQ4_NL", "Q4_K_S", "Q4_K_M", "IQ4_XS")


def _fitting(wanted: str, width: int) -> str:
    """Return ``wanted``, or what the quantiser falls back to where a row is no whole number of its blocks."""
    if width % FORMATS[wanted].block_elements == 0:
        return wanted
    smaller = _FALLBACKS.get(wanted, wanted)
    return "f16" if width % FORMATS[smaller].block_elements else smaller
