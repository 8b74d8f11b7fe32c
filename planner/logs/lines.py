"""A log as lines: streamed, without colour codes, however long the file or its lines."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import BinaryIO

from planner.units import MIB

MAX_LINE = 64 * 1024  # characters kept of a line
HEAD_BYTES = TAIL_BYTES = 4 * MIB  # read from either end of a longer log
CHUNK_BYTES = 256 * 1024
LEAST_LINE = 8  # no line about memory is shorter
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_DOCKER = '{"log":"'
_COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}m")


def lines_of(file: BinaryIO, n_bytes: int) -> Iterator[str]:
    """Yield the lines of a log of ``n_bytes``: all of a usual one, both ends of a huge one.

    A log that PowerShell's ``>`` wrote is UTF-16; of that the front is read.
    """
    mark = file.read(2)
    file.seek(0)
    if mark in _WIDE:
        text = file.read(HEAD_BYTES).decode("utf-16", "replace")
        yield from (line[:MAX_LINE].rstrip("\r") for line in text.split("\n"))
        return
    if n_bytes <= HEAD_BYTES + TAIL_BYTES:
        yield from _lines(file, n_bytes)
        return
    yield from _lines(file, HEAD_BYTES)
    file.seek(n_bytes - TAIL_BYTES)
    yield from _lines(file, TAIL_BYTES)


def _lines(file: BinaryIO, limit: int) -> Iterator[str]:
    """Yield lines until ``limit`` bytes are read; what is beyond ``MAX_LINE`` of one is left out."""
    left, kept = limit, b""
    while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
        left -= len(chunk)
        first, *others = chunk.split(b"\n")
        kept += first[: MAX_LINE - len(kept)]
        for raw in others:
            if len(kept) >= LEAST_LINE:
                yield clean(kept[:MAX_LINE])
            kept = raw[:MAX_LINE]
    if len(kept) >= LEAST_LINE:
        yield clean(kept)


def clean(raw: bytes) -> str:
    """Return one line as text, without colours and line ends; bytes that are no UTF-8 are replaced."""
    text = raw.decode("utf-8", "replace").rstrip("\r\n")
    if text.startswith(_DOCKER):
        text = _unwrapped(text)
    return _COLOUR.sub("", text) if "\x1b" in text else text


def _unwrapped(text: str) -> str:
    """Return the line within Docker's JSON around it, or ``text`` where it is cut or something else."""
    try:
        inner = json.loads(text)["log"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return text
    return inner.rstrip("\r\n") if isinstance(inner, str) else text
