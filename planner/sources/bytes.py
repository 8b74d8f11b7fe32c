"""Where bytes come from: a value that can be read at an offset, on disk or behind a range server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from planner.errors import SourceError
from planner.frozen import dataclass

if TYPE_CHECKING:
    from pathlib import Path


class ByteSource(Protocol):
    """A file that is read in pieces. ``name`` is for messages, ``size`` is None until it is known."""

    @property
    def name(self) -> str:
        """Path or address as the user knows it, without secrets."""
        ...

    @property
    def size(self) -> int | None:
        """Whole length in bytes, None before the first answer of a server."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; fewer only where the file ends.

        Raises:
            SourceError: the file or the server does not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FileBytes:
    """A file on disk, opened for each read (headers need a handful)."""

    path: Path

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def size(self) -> int:
        """Length of the file now.

        Raises:
            SourceError: it is gone or not a regular file.
        """
        try:
            if not self.path.is_file():
                raise SourceError(f"{self.path}: not a regular file")
            return self.path.stat().st_size
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.path}: cannot be read: {_reason(error)}") from error

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; fewer only where the file ends.

        Raises:
            SourceError: it cannot be opened or read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except (OSError, ValueError, OverflowError) as error:
            raise SourceError(f"{self.path}: cannot be read: {_reason(error)}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryBytes:
    """Bytes already held, under the name they came by."""

    name: str
    data: bytes

    @property
    def size(self) -> int:
        """Length of the data."""
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; fewer only where the data ends."""
        return self.data[offset : offset + size]


def open_file(path: Path) -> FileBytes:
    """Return the regular file at ``path`` as a source.

    Raises:
        SourceError: there is no such file, or it is a device, a pipe or a folder.
    """
    source = FileBytes(path=path)
    _ = source.size  # refuse pipes and devices before anything blocks on them
    return source


def read_whole(source: ByteSource, limit_bytes: int) -> bytes:
    """Return all of ``source``.

    Raises:
        SourceError: it is longer than ``limit_bytes``.
    """
    data = source.read(0, limit_bytes + 1)
    if len(data) > limit_bytes:
        raise SourceError(f"{source.name}: more than {limit_bytes} bytes where a small text file is expected")
    return data


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
