"""A GGUF model on disk: one file, or the parts ``-00001-of-0000N`` of a split one, as one value."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.frozen import dataclass
from planner.sources.bytes import open_file
from planner.sources.gguf.header import Header, StoredTensor, Value, read_header

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from planner.sources.bytes import ByteSource

_PART = re.compile(r"(?P<stem>.*)-(?P<index>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
MAX_PARTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufFile:
    """Metadata and tensors of a model file, all parts of a split one together."""

    name: str  # of the first part
    metadata: Mapping[str, Value]
    array_lengths: Mapping[str, int]
    tensors: tuple[StoredTensor, ...]
    data_offsets: tuple[int, ...]  # per part: where its data begin
    file_bytes: int  # all parts together

    @property
    def architecture(self) -> str:
        """The word under ``general.architecture``; empty where it is missing."""
        word = self.metadata.get("general.architecture", "")
        return word if isinstance(word, str) else ""


def read_gguf(path: str | Path, *, allow_truncated: bool = False) -> GgufFile:
    """Read the header of the GGUF file at ``path`` and, for a split model, of its other parts.

    Args:
        path: a file; of a split model any part.
        allow_truncated: accept a file whose data are missing (a header kept on its own).

    Raises:
        SourceError: missing, foreign, truncated or hostile; the message says which and what to do.
    """
    parts = part_names(str(path))
    return read_parts(parts, lambda name: open_file(Path(name)), allow_truncated=allow_truncated)


def part_names(name: str) -> tuple[str, ...]:
    """Return the names of all parts of a split model when ``name`` is one of them, else ``name`` alone."""
    match = _PART.fullmatch(name)
    if match is None:
        return (name,)
    stem, count = match["stem"], int(match["count"])
    if not 0 < int(match["index"]) <= count <= MAX_PARTS:
        raise SourceError(f"{name}: part {int(match['index'])} of {count} cannot be")
    return tuple(f"{stem}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1))


def read_parts(
    names: tuple[str, ...],
    source: Callable[[str], ByteSource],
    *,
    allow_truncated: bool = False,
) -> GgufFile:
    """Read the parts ``names``, each from ``source(name)``, as one model.

    Raises:
        SourceError: a part is missing, foreign, truncated, hostile, or belongs to another model.
    """
    headers = []
    for index, name in enumerate(names):
        header = read_header(source(name), index)
        _check_part(name, header, index, len(names))
        if header.end_bytes > header.file_bytes and header.tensors and not allow_truncated:
            raise _truncated(name, header)
        headers.append(header)
    return _joined(names[0], headers)


def _truncated(name: str, header: Header) -> SourceError:
    sizes = f"has {header.file_bytes:,} bytes but its tensors end at {header.end_bytes:,}"
    return SourceError(f"{name}: {sizes}; the download is incomplete")


def _check_part(name: str, header: Header, index: int, n_parts: int) -> None:
    """Compare the part's own account of the split (``split.no``, ``split.count``) with its name."""
    count = header.metadata.get("split.count", 1)
    number = header.metadata.get("split.no", 0)
    if (n_parts, index) != (count, number) and not (n_parts == 1 and count in (0, 1)):
        raise SourceError(
            f"{name}: says it is part {number} of {count} (counted from 0); keep all parts under their original names"
        )


def _joined(name: str, headers: list[Header]) -> GgufFile:
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    if len({tensor.name for tensor in tensors}) != len(tensors):
        raise SourceError(f"{name}: its parts hold the same tensor twice")
    return GgufFile(
        name=name,
        metadata=headers[0].metadata,
        array_lengths=headers[0].array_lengths,
        tensors=tensors,
        data_offsets=tuple(header.data_offset_bytes for header in headers),
        file_bytes=sum(header.file_bytes for header in headers),
    )
