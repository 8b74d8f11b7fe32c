"""A buffered cursor over a byte source that decodes GGUF's primitive values and refuses implausible ones."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from planner.errors import SourceError

if TYPE_CHECKING:
    from planner.sources.bytes import ByteSource

CHUNK_BYTES = 1 << 20
MAX_SKIPPED_STRINGS = 1 << 22  # sixteen times the largest vocabulary of today


class Cursor:
    """Reads forward; nothing but the current chunk is held."""

    __slots__ = ("_buffer", "_n_bytes", "_n_skipped", "_order", "_position", "_source", "_start", "_u32", "_u64")

    def __init__(self, source: ByteSource) -> None:
        """Stand at the beginning of ``source``, little endian until told otherwise."""
        self._source = source
        self._buffer = source.read(0, CHUNK_BYTES)
        size = source.size  # a server tells it with its first answer
        self._n_bytes = len(self._buffer) if size is None else size
        self._start = 0
        self._position = 0
        self._n_skipped = 0
        self.order("<")

    def order(self, byte_order: str) -> None:
        """Decode what follows as little (``<``) or big (``>``) endian."""
        self._order = byte_order
        self._u32 = struct.Struct(byte_order + "I")
        self._u64 = struct.Struct(byte_order + "Q")

    @property
    def offset(self) -> int:
        """Offset in the file of the next byte."""
        return self._start + self._position

    @property
    def n_bytes(self) -> int:
        """Length of the whole file."""
        return self._n_bytes

    @property
    def n_left(self) -> int:
        """Bytes between here and the end of the file."""
        return self._n_bytes - self.offset

    def fail(self, what: str) -> SourceError:
        """Return the error that says ``what`` is wrong, and where."""
        where = f"{self._source.name}, byte {self.offset:,}"
        return SourceError(f"{where}: {what}; the file is damaged or no GGUF file")

    def _fill(self, n_bytes: int) -> None:
        """Have at least ``n_bytes`` in the buffer."""
        offset = self.offset
        if n_bytes > self._n_bytes - offset:
            raise self.fail("ends in the middle of its header")
        data = self._source.read(offset, max(n_bytes, CHUNK_BYTES))
        if len(data) < n_bytes:
            raise self.fail("ends in the middle of its header")
        self._buffer, self._start, self._position = data, offset, 0

    def take(self, n_bytes: int) -> bytes:
        """Return the next ``n_bytes``."""
        if n_bytes > len(self._buffer) - self._position:
            self._fill(n_bytes)
        start = self._position
        self._position = start + n_bytes
        return self._buffer[start : self._position]

    def skip(self, n_bytes: int) -> None:
        """Go ``n_bytes`` further without reading them."""
        if n_bytes > self.n_left:
            raise self.fail("ends in the middle of its header")
        self._position += n_bytes

    def u32(self) -> int:
        """Return the next unsigned 32-bit integer."""
        return int(self._u32.unpack(self.take(4))[0])

    def u64(self) -> int:
        """Return the next unsigned 64-bit integer."""
        return int(self._u64.unpack(self.take(8))[0])

    def unpack(self, code: str, count: int, width: int) -> tuple[int | float | bool, ...]:
        """Return ``count`` values of the struct ``code``, ``width`` bytes each."""
        return struct.unpack(f"{self._order}{count}{code}", self.take(count * width))

    def text(self, max_kept: int) -> str:
        """Return the next string, cut after ``max_kept`` bytes."""
        length = self.u64()
        if length > self.n_left:
            raise self.fail(f"a string of {length:,} bytes does not fit in the file")
        kept = self.take(min(length, max_kept))
        self.skip(length - len(kept))
        return kept.decode("utf-8", errors="replace")

    def skip_strings(self, count: int) -> None:
        """Go past ``count`` strings: one addition each, since a vocabulary has a quarter of a million."""
        self._n_skipped += count
        if count * 8 > self.n_left or self._n_skipped > MAX_SKIPPED_STRINGS:
            raise self.fail(f"an array of {count:,} strings is not plausible")
        unpack = self._u64.unpack_from
        while count:
            if len(self._buffer) - self._position < 8:
                self._fill(8)
            buffer, position = self._buffer, self._position
            last = len(buffer) - 8
            done = 0
            while done < count and position <= last:
                position += 8 + unpack(buffer, position)[0]
                done += 1
            count -= done
            if position - self._position > self.n_left:
                raise self.fail("a string reaches past the end of the file")
            self._position = position
