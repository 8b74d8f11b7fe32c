"""Files behind HTTP(S), read by range requests: few of them, and only what a reader asks for.

Semantics of ranges: RFC 9110.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.sources.network import public_address, raise_for_status, request
from planner.units import MIB

if TYPE_CHECKING:
    from planner.sources.network import Answer, Network

LIMIT_BYTES = 64 * MIB  # of one file's header; a reader that wants more is being led on

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


@dataclass(slots=True, kw_only=True)
class RemoteBytes:
    """A remote file. What a reader asks for is what moves; the last stretch is kept for reads that overlap it."""

    url: str
    network: Network
    n_requests: int = 0
    moved_bytes: int = 0
    _size: int | None = None
    _location: str | None = None
    _start: int = 0
    _held: bytes = b""

    @property
    def name(self) -> str:
        """The address without user, query and fragment."""
        return public_address(self.url)

    @property
    def size(self) -> int | None:
        """Whole length as the server says, None before the first read."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes from ``offset``; fewer only where the file ends.

        Raises:
            SourceError: no answer, no ranges, lengths that contradict each other, or an absurd amount asked for.
        """
        if size <= 0:
            return b""
        end = offset + size if self._size is None else min(offset + size, self._size)
        if not (self._start <= offset and end <= self._start + len(self._held)):
            self._fetch(offset, end)
        return self._held[offset - self._start : offset - self._start + size]

    def _fetch(self, offset: int, end: int) -> None:
        """Hold bytes ``offset`` to ``end``, moving only those that are not held yet."""
        kept = self._held[offset - self._start :] if offset >= self._start else b""
        first = offset + len(kept)
        if self.moved_bytes + end - first > LIMIT_BYTES:
            raise SourceError(f"{self.name}: its header claims more than {LIMIT_BYTES // MIB} MiB; refused")
        self._held = kept + (self._range(first, end) if end > first else b"")
        self._start = offset

    def _range(self, first: int, last: int) -> bytes:
        url = self._location or self.url
        wanted = last - first
        answer = request(self.network, url, headers={"Range": f"bytes={first}-{last - 1}"}, limit_bytes=wanted)
        self.n_requests += 1
        self.moved_bytes += len(answer.body)
        if answer.status == 416:
            return b""
        raise_for_status(answer, self.name)
        if answer.status != 206:
            raise SourceError(f"{self.name}: the server does not answer range requests; download the file first")
        self._location = answer.url
        return self._checked(answer, first, last)

    def _checked(self, answer: Answer, first: int, last: int) -> bytes:
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", "").strip())
        if match is None:
            raise SourceError(f"{self.name}: the server's range answer carries no usable Content-Range")
        begin, final, total = (int(group) for group in match.groups())
        if self._size not in {None, total}:
            raise SourceError(f"{self.name}: its length changed from {self._size} to {total} bytes while reading")
        expected = min(last, total) - first
        said = answer.headers.get("content-length", str(expected))
        if begin != first or final + 1 - begin != expected or len(answer.body) != expected or said != str(expected):
            raise SourceError(
                f"{self.name}: asked for {expected} bytes at {first}, the server says {begin}-{final} "
                f"and sent {len(answer.body)}; its lengths cannot be trusted"
            )
        self._size = total
        return answer.body
