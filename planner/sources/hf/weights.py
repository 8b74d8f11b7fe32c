"""The tensors of a checkpoint, counted: parameters and stored bytes by part, and the scheme that packed them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, get_args

from planner.budget import Part
from planner.errors import SourceError
from planner.frozen import dataclass
from planner.model import Parameters, StoredWeights
from planner.quantization import tensor_bytes
from planner.sources.hf.words import words
from planner.sources.safetensors import Checkpoint, read_header, read_index, read_sharded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from planner.model import Tensor
    from planner.sources.bytes import ByteSource
    from planner.sources.hf.documents import Folder
    from planner.sources.json_text import Fields

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PARTS: tuple[Part, ...] = get_args(Part)

# tensors that a scheme adds beside the packed weight: scales, zero points, maps; no parameters of the model
_SCHEME_SUFFIXES = (
    ".qzeros",
    ".scales",
    ".g_idx",
    ".weight_scale",
    ".weight_scale_2",
    ".weight_scale_inv",
    ".weight_zero_point",
    ".weight_shape",
    ".weight_g_idx",
    ".weight_global_scale",
    ".input_scale",
    ".input_global_scale",
    ".activation_scale",
    ".k_scale",
    ".v_scale",
    ".SCB",
    ".absmax",
    ".quant_map",
    ".nested_absmax",
    ".nested_quant_map",
    "_scales",
    "_scale_inv",
)
_SCHEME_INFIXES = (".quant_state.", ".absmax", ".quant_map", ".nested_")
_PACKED_SUFFIXES = (".qweight", ".weight_packed", "_blocks")
_IMPLIED_BITS = {"mxfp4": 4, "fp8": 8, "fbgemm_fp8": 8, "modelopt_fp4": 4}
_WHOLE_INTEGERS = frozenset({"i8", "u8", "i16", "i32", "u32", "i64"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a checkpoint is quantised: the method's word and the bits of one weight; no method: as trained."""

    method: str | None = None
    bits: int | None = None
    group_size: int | None = None
    floats: bool = False
    blocks: bool = False  # FP8 with a scale for each block of a matrix

    @property
    def word(self) -> str | None:
        """The word engines use for it, such as awq, gptq_int8, fp8_block, w4a16 or nf4; None: as trained."""
        match self.method:
            case "gptq" if self.bits == 8:
                return "gptq_int8"
            case "fp8" if self.blocks:
                return "fp8_block"
            case "bitsandbytes":
                return "nf4" if self.bits == 4 else "int8"
            case "modelopt":
                return "nvfp4" if self.bits == 4 else "fp8"
            case "compressed-tensors":
                eight = "fp8" if self.floats else "int8"
                return ("nvfp4" if self.floats else "w4a16") if self.bits == 4 else eight
            case _:
                return self.method


def read_checkpoint(folder: Folder) -> Checkpoint | None:
    """Return the tensors of the folder's safetensors files, None where it has none (or only their index).

    Raises:
        SourceError: a file is damaged, hostile, or missing from the set that the index names.
    """
    index = folder.small(INDEX)
    if index is not None:
        weight_map = read_index(index, f"{folder.name}/{INDEX}")
        present = set(folder.files) & set(weight_map.values())
        return read_sharded(weight_map, folder.source, folder.name) if present else None
    single = folder.source(SINGLE)
    if single is None:
        single = _only_file(folder)
    return read_header(single) if single else None


def scheme_of(config: Fields, text: Fields) -> Scheme:
    """Return the quantisation that ``quantization_config`` (or ``compression_config``) describes.

    Raises:
        SourceError: it holds values of the wrong kind.
    """
    found = config.fields("quantization_config", "compression_config") or text.fields("quantization_config")
    if found is None:
        return Scheme()
    method = found.text("quant_method") or "unknown"
    group = _first_group(found)
    own = [fields for fields in (found, group) if fields is not None]
    bits = next((n for fields in own if (n := fields.integer("bits", "w_bit", "num_bits", at_most=64))), None)
    width = next((n for fields in own if (n := fields.integer("group_size", "q_group_size", at_least=-1))), None)
    return Scheme(
        method=method,
        bits=_loaded_bits(found) or bits or _IMPLIED_BITS.get(method),
        group_size=width,
        floats=group is not None and group.text("type") == "float",
        blocks="weight_block_size" in found,
    )


def part_of(name: str) -> Part:
    """Return the part that a tensor belongs to, by the longest prefix that the data names."""
    best, length = PARTS[0], 0
    parts = words().parts
    for part, prefixes in ((PARTS[1], parts.vision), (PARTS[2], parts.projector)):
        found = max((len(p) for p in prefixes if name.startswith(p)), default=0)
        if found > length:
            best, length = part, found
    return best


def count_parameters(tensors: Iterable[Tensor], scheme: Scheme) -> Parameters:
    """Return the model's own parameters: packed weights unpacked, scales and zero points left out."""
    counted: Counter[str] = Counter()
    linear = 0
    for tensor in tensors:
        n = n_parameters(tensor, scheme)
        counted[part_of(tensor.name)] += n
        linear += n if is_linear(tensor.name, tensor.shape) else 0
    return Parameters(
        total=sum(counted.values()),
        language=counted["language"],
        vision=counted["vision"],
        projector=counted["projector"],
        linear=linear,
    )


def n_parameters(tensor: Tensor, scheme: Scheme) -> int:
    """Return how many of the model's parameters a stored tensor holds."""
    name = tensor.name
    if scheme.method is None:
        return tensor.n_elements
    if name.endswith(_SCHEME_SUFFIXES) or any(infix in name for infix in _SCHEME_INFIXES):
        return 0
    if scheme.bits and _is_packed(name, tensor.format):
        return tensor.n_elements * 8 * tensor_bytes(tensor.format, (1,)) // scheme.bits
    return tensor.n_elements


def is_linear(name: str, shape: tuple[int, ...]) -> bool:
    """Return whether a tensor is the weight of a linear layer that load-time quantisers take.

    Not the output, and not experts: transformers 5 keeps those as packed parameters.
    """
    if len(shape) != 2 or ".experts." in name or not name.endswith(("weight", *_PACKED_SUFFIXES, "_proj")):
        return False
    return not any(word in name for word in ("embed", "lm_head", "patch", "conv", "norm", "position", "gate.weight"))


def stored_weights(tensors: Iterable[Tensor], scheme: Scheme) -> StoredWeights:
    """Return the checkpoint's bytes by part and by format, as stored."""
    by_part: Counter[str] = Counter()
    by_format: Counter[str] = Counter()
    for tensor in tensors:
        n_bytes = tensor_bytes(tensor.format, tensor.shape)
        by_part[part_of(tensor.name)] += n_bytes
        by_format[tensor.format] += n_bytes
    return StoredWeights(
        language_bytes=by_part["language"],
        vision_bytes=by_part["vision"],
        projector_bytes=by_part["projector"],
        formats=dict(by_format.most_common()),
        scheme=scheme.method,
        bits=scheme.bits,
        group_size=scheme.group_size,
    )


def _is_packed(name: str, format_name: str) -> bool:
    """Return whether several weights share one stored integer: by name, or a whole-number weight of a 4-bit scheme."""
    return name.endswith(_PACKED_SUFFIXES) or (name.endswith(".weight") and format_name in _WHOLE_INTEGERS)


def _loaded_bits(found: Fields) -> int | None:
    if found.flag("load_in_4bit", "_load_in_4bit"):
        return 4
    return 8 if found.flag("load_in_8bit", "_load_in_8bit") else None


def _first_group(found: Fields) -> Fields | None:
    """Return the weights' entry of the first group (compressed-tensors, modelopt)."""
    groups = found.fields("config_groups")
    for key in groups.values if groups else ():
        group = groups.fields(key) if groups else None
        weights = group.fields("weights") if group else None
        if weights:
            return weights
    return None


def _only_file(folder: Folder) -> ByteSource | None:
    names = [name for name in folder.files if name.endswith(".safetensors")]
    if len(names) > 1:
        raise SourceError(f"{folder.name}: holds {len(names)} safetensors files and no {INDEX}; which belong together?")
    return folder.source(names[0]) if names else None
