"""The header of a GGUF file (versions 2 and 3): its metadata and where each tensor lies. The data are never read.

Layout and limits as in ggml's own reader (``gguf.cpp``, ggml 0.25): what the engine refuses is refused here too, with
two differences: a file of the other byte order is read, and tensors may stand in any order as long as none overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.quantization import BY_GGML_ID, tensor_bytes
from planner.sources.gguf.cursor import Cursor
from planner.units import align

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.errors import SourceError
    from planner.sources.bytes import ByteSource

Scalar = int | float | str | bool
Value = Scalar | tuple[Scalar, ...]

MAX_KEYS = 1 << 14
MAX_TENSORS = 1 << 15  # thirty times the largest model of today
MAX_KEY_BYTES = 1 << 12
MAX_KEPT_TEXT_BYTES = 1 << 11
MAX_KEPT_ELEMENTS = 1 << 10  # of one array; longer ones keep their length only
MAX_ALL_KEPT_ELEMENTS = 1 << 18
MAX_NAME_BYTES = 64
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32

_STRING, _ARRAY = 8, 9
# value type → struct code, bytes
_NUMBERS = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    6: ("f", 4),
    7: ("?", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """One tensor of a file: shape (fastest dimension first), format (a key of ``FORMATS``) and place."""

    name: str
    shape: tuple[int, ...]
    format: str
    offset_bytes: int  # from the beginning of its file's data
    n_bytes: int
    part_index: int = 0  # which file of a split model


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What stands before the data of one file.

    ``array_lengths`` has every array; ``metadata`` the scalars, the texts and the short numeric arrays.
    """

    version: int
    byte_order: str
    metadata: Mapping[str, Value]
    array_lengths: Mapping[str, int]
    tensors: tuple[StoredTensor, ...]
    data_offset_bytes: int
    end_bytes: int  # least length a complete file has
    file_bytes: int


def read_header(source: ByteSource, part_index: int = 0) -> Header:
    """Read the header of one file.

    Raises:
        SourceError: no GGUF file, an unsupported version, or a damaged or hostile header.
    """
    cursor = Cursor(source)
    version, byte_order = _version(cursor)
    n_tensors, n_keys = cursor.u64(), cursor.u64()
    if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
        raise cursor.fail(f"{n_tensors:,} tensors and {n_keys:,} keys are not plausible")
    metadata, array_lengths = _metadata(cursor, n_keys)
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise cursor.fail(f"general.alignment {alignment!r} is no power of two")
    tensors = _tensors(cursor, n_tensors, part_index)
    data_offset = align(cursor.offset, alignment)
    return Header(
        version=version,
        byte_order=byte_order,
        metadata=metadata,
        array_lengths=array_lengths,
        tensors=tensors,
        data_offset_bytes=data_offset,
        end_bytes=data_offset + _data_bytes(cursor, tensors, alignment),
        file_bytes=cursor.n_bytes,
    )


def _version(cursor: Cursor) -> tuple[int, str]:
    """Return the version and the byte order, which the version betrays: 3 read backwards is 0x03000000."""
    if cursor.n_left < 24 or cursor.take(4) != b"GGUF":
        raise cursor.fail("does not begin like a GGUF file")
    version = cursor.u32()
    byte_order = "<"
    if version & 0xFFFF == 0:
        byte_order = ">"
        version = int.from_bytes(version.to_bytes(4, "little"), "big")
        cursor.order(byte_order)
    if version not in (2, 3):
        raise cursor.fail(f"GGUF version {version} is not supported, only 2 and 3")
    return version, byte_order


def _metadata(cursor: Cursor, n_keys: int) -> tuple[dict[str, Value], dict[str, int]]:
    values: dict[str, Value] = {}
    lengths: dict[str, int] = {}
    n_kept = 0
    for _ in range(n_keys):
        key = cursor.text(MAX_KEY_BYTES)
        if not key or key in values or key in lengths:
            raise cursor.fail(f"the key {key[:80]!r} is empty or stands twice")
        kind = cursor.u32()
        if kind == _STRING:
            values[key] = cursor.text(MAX_KEPT_TEXT_BYTES)
        elif kind == _ARRAY:
            kept = _array(cursor, key, lengths)
            if kept is not None:
                values[key] = kept
                n_kept += len(kept)
            if n_kept > MAX_ALL_KEPT_ELEMENTS:
                raise cursor.fail("holds too many arrays")
        else:
            values[key] = cursor.unpack(*_number(cursor, key, kind))[0]
    return values, lengths


def _number(cursor: Cursor, key: str, kind: int) -> tuple[str, int, int]:
    code_and_width = _NUMBERS.get(kind)
    if code_and_width is None:
        raise cursor.fail(f"the key {key[:80]!r} has the unknown type {kind}")
    code, width = code_and_width
    return code, 1, width


def _array(cursor: Cursor, key: str, lengths: dict[str, int]) -> tuple[Scalar, ...] | None:
    """Return a short numeric array, None for others; note the length of either under ``key``."""
    kind, count = cursor.u32(), cursor.u64()
    lengths[key] = count
    if kind == _STRING:
        cursor.skip_strings(count)
        return None
    code, _, width = _number(cursor, key, kind)
    if count * width > cursor.n_left:
        raise cursor.fail(f"the array {key[:80]!r} of {count:,} elements does not fit in the file")
    if count > MAX_KEPT_ELEMENTS:
        cursor.skip(count * width)
        return None
    return cursor.unpack(code, count, width)


def _tensors(cursor: Cursor, n_tensors: int, part_index: int) -> tuple[StoredTensor, ...]:
    found: dict[str, StoredTensor] = {}
    for _ in range(n_tensors):
        tensor = _tensor(cursor, part_index)
        if tensor.name in found:
            raise cursor.fail(f"the tensor {tensor.name!r} stands twice")
        found[tensor.name] = tensor
    return tuple(found.values())


def _tensor(cursor: Cursor, part_index: int) -> StoredTensor:
    name = cursor.text(MAX_NAME_BYTES)
    n_dimensions = cursor.u32()
    if len(name.encode()) >= MAX_NAME_BYTES or n_dimensions > MAX_DIMENSIONS:
        raise cursor.fail(f"the tensor {name[:80]!r} has too long a name or {n_dimensions:,} dimensions")
    shape = tuple(cursor.u64() for _ in range(n_dimensions)) or (1,)
    ggml_id, offset = cursor.u32(), cursor.u64()
    block = BY_GGML_ID.get(ggml_id)
    if block is None:
        raise cursor.fail(f"the tensor {name!r} has the block format {ggml_id}, which is unknown here")
    n_bytes = tensor_bytes(block.name, shape)
    if n_bytes >= 1 << 63 or offset >= 1 << 63 or shape[0] % block.block_elements:
        raise cursor.fail(f"the tensor {name!r} has the impossible shape {shape} for {block.name}")
    return StoredTensor(
        name=name, shape=shape, format=block.name, offset_bytes=offset, n_bytes=n_bytes, part_index=part_index
    )


def _data_bytes(cursor: Cursor, tensors: tuple[StoredTensor, ...], alignment: int) -> int:
    """Return the length of the data, after checking that tensors are aligned and none lies on another."""
    end = 0
    for tensor in sorted(tensors, key=lambda t: t.offset_bytes):
        if tensor.offset_bytes < end or tensor.offset_bytes % alignment:
            raise _misplaced(cursor, tensor)
        end = tensor.offset_bytes + tensor.n_bytes
    return end


def _misplaced(cursor: Cursor, tensor: StoredTensor) -> SourceError:
    return cursor.fail(f"the tensor {tensor.name!r} overlaps another or is not aligned")
