"""Headers of safetensors files: names, types and shapes of the tensors, nothing else is read.

Layout (safetensors 0.4 format description): eight bytes little-endian header length, a JSON object
``{name: {dtype, shape, data_offsets}}`` with an optional ``__metadata__``, then the data without holes.
"""

from __future__ import annotations

import re
from dataclasses import field
from typing import TYPE_CHECKING, Protocol

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.model import Tensor
from planner.quantization import tensor_bytes
from planner.sources.json_text import Fields, parse_object
from planner.units import KIB, MIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from planner.sources.bytes import ByteSource

MAX_HEADER_BYTES = 12 * MIB
FIRST_READ_BYTES = 256 * KIB  # holds the header of most shards
MAX_DIMENSIONS = 8

FORMAT_OF_DTYPE: Mapping[str, str] = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16",
    "I64": "i64", "I32": "i32", "I16": "i16", "I8": "i8",
    "U64": "u64", "U32": "u32", "U16": "u16", "U8": "u8", "BOOL": "bool",
    "F8_E4M3": "fp8_e4m3", "F8_E5M2": "fp8_e5m2", "F8_E8M0": "fp8_e8m0",
    "F4": "fp4_e2m1", "C64": "c64",
}  # fmt: skip

_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+ -]{0,200}\.safetensors")


class Opener(Protocol):
    """Opens a file of the checkpoint by its plain name, or returns None where there is none."""

    def __call__(self, name: str, /) -> ByteSource | None:
        """Return the file called ``name``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The tensors of a checkpoint as stored, by name, and the bytes of its files."""

    tensors: tuple[Tensor, ...]
    file_bytes: int
    n_shards: int = 1
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def data_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor_bytes(t.format, t.shape) for t in self.tensors)


def read_header(source: ByteSource) -> Checkpoint:
    """Return the tensors of one file, in the order of their data.

    Raises:
        SourceError: lengths that lie, tensors that overlap or leave holes, unknown types, bad JSON.
    """
    start = source.read(0, FIRST_READ_BYTES)
    length = _header_bytes(source, start)
    text = start[8 : 8 + length]
    if len(text) < length:
        text += source.read(len(start), 8 + length - len(start))
    if len(text) < length:
        raise SourceError(f"{source.name}: ends within its header of {length} bytes")
    entries = parse_object(text, source.name)
    metadata = _metadata(entries.pop("__metadata__", None), source.name)
    placed = sorted((_placed(name, entry, source.name) for name, entry in entries.items()), key=lambda p: p[:2])
    _check_places(placed, source, 8 + length)
    end = placed[-1][1] if placed else 0
    return Checkpoint(tensors=tuple(tensor for _, _, tensor in placed), file_bytes=8 + length + end, metadata=metadata)


def read_index(text: bytes, name: str) -> dict[str, str]:
    """Return which shard holds which tensor, from ``model.safetensors.index.json``.

    Raises:
        SourceError: not an index, or a shard's name that is more than a plain file name (path tricks).
    """
    weight_map = Fields(values=parse_object(text, name), where=name).fields("weight_map")
    if weight_map is None or not weight_map.values:
        raise SourceError(f"{name}: holds no weight_map")
    found: dict[str, str] = {}
    for tensor, shard in weight_map.values.items():
        if not isinstance(shard, str) or not _SHARD_NAME.fullmatch(shard) or ".." in shard:
            raise SourceError(f"{name}: {str(shard)[:60]!r} is not a plain safetensors file name; refused")
        found[tensor] = shard
    return found


def read_sharded(weight_map: Mapping[str, str], opener: Opener, name: str) -> Checkpoint:
    """Return the tensors of all shards that the index names, checked against it.

    Raises:
        SourceError: a shard is missing or unreadable, or holds other tensors than the index says.
    """
    expected: dict[str, set[str]] = {}
    for tensor, shard in weight_map.items():
        expected.setdefault(shard, set()).add(tensor)
    parts: list[Checkpoint] = []
    for shard in sorted(expected):
        source = opener(shard)
        if source is None:
            raise SourceError(f"{name}: names {shard}, which is not there; the download is not complete")
        part = read_header(source)
        _check_against_index(part.tensors, expected[shard], shard)
        parts.append(part)
    return Checkpoint(
        tensors=tuple(tensor for part in parts for tensor in part.tensors),
        file_bytes=sum(part.file_bytes for part in parts),
        n_shards=len(parts),
        metadata=parts[0].metadata,
    )


def _header_bytes(source: ByteSource, start: bytes) -> int:
    if len(start) < 8:
        raise SourceError(f"{source.name}: too short for a safetensors file ({len(start)} bytes)")
    length = int.from_bytes(start[:8], "little")
    size = source.size
    if not 2 <= length <= MAX_HEADER_BYTES or (size is not None and length > size - 8):
        raise SourceError(f"{source.name}: not a safetensors file: it claims a header of {length} bytes")
    if start[8:9] != b"{":
        raise SourceError(f"{source.name}: not a safetensors file: its header is not a JSON object")
    return length


def _placed(name: str, entry: object, where: str) -> tuple[int, int, Tensor]:
    """Return begin, end and the tensor of one header entry, its shape fastest dimension first."""
    if not isinstance(entry, dict):
        raise SourceError(f"{where}: tensor {name[:60]!r} is not described by an object")
    fields = Fields(values=entry, where=f"{where}, tensor {name[:60]!r}")
    dtype = fields.text("dtype")
    if dtype not in FORMAT_OF_DTYPE:
        raise SourceError(f"{fields.where}: unknown type {dtype[:20]!r}")
    shape, offsets = fields.integers("shape"), fields.integers("data_offsets")
    if len(shape) > MAX_DIMENSIONS or any(width < 0 for width in shape) or len(offsets) != 2:
        raise SourceError(f"{fields.where}: shape or data_offsets make no sense")
    tensor = Tensor(name=name, shape=tuple(reversed(shape)) or (1,), format=FORMAT_OF_DTYPE[dtype])
    begin, end = offsets
    if not 0 <= begin <= end or end - begin != tensor_bytes(tensor.format, tensor.shape):
        raise SourceError(f"{fields.where}: its shape and its place of {end - begin} bytes contradict each other")
    return begin, end, tensor


def _check_places(placed: Iterable[tuple[int, int, Tensor]], source: ByteSource, data_start: int) -> None:
    """Refuse data that overlaps, leaves holes or does not end where the file ends."""
    reached = 0
    for begin, end, tensor in placed:
        if begin != reached:
            fault = "overlaps the one before it" if begin < reached else "leaves a hole before it"
            raise SourceError(f"{source.name}: tensor {tensor.name[:60]!r} {fault}")
        reached = end
    if source.size is not None and source.size != data_start + reached:
        wanted = data_start + reached
        raise SourceError(
            f"{source.name}: has {source.size} bytes, its header wants {wanted}; the download is incomplete"
        )


def _check_against_index(tensors: Iterable[Tensor], expected: set[str], shard: str) -> None:
    found = {tensor.name for tensor in tensors}
    if found != expected:
        odd = min(found ^ expected)
        where = "the index does not name it" if odd in found else "the index says it is there"
        raise SourceError(f"{shard}: tensor {odd[:60]!r}: {where}; index and shards do not belong together")


def _metadata(entry: object, where: str) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict):
        raise SourceError(f"{where}: __metadata__ is not an object")
    return {str(key)[:100]: str(value)[:200] for key, value in list(entry.items())[:100]}
