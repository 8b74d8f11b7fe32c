"""Bytes in, bytes out. Sizes are integers of bytes everywhere else; KiB, MiB and GiB exist only here."""

from __future__ import annotations

import re
from fractions import Fraction

from planner.errors import UsageError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
TIB = 1024 * GIB

_FACTORS = {"": 1, "B": 1, "K": KIB, "M": MIB, "G": GIB, "T": TIB}
_SIZE = re.compile(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?)(?:I?B)?\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Return the bytes that ``text`` means: ``24G``, ``24GB``, ``24GiB`` and ``24576MiB`` are all the same.

    The field writes "24 GB" for 24 GiB, so every suffix is binary; a bare number is bytes.

    Raises:
        UsageError: the text is not a non-negative size.
    """
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError(f"{text!r} is not a memory size; write it like 24GiB, 24576MiB or 8G")
    number, suffix = match.groups()
    return int(Fraction(number) * _FACTORS[suffix.upper()])


def format_bytes(n_bytes: int) -> str:
    """Return ``n_bytes`` for people: GiB from one GiB up, MiB from one MiB up, KiB below, with sign kept."""
    sign, size = ("-", -n_bytes) if n_bytes < 0 else ("", n_bytes)
    for factor, suffix in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= factor:
            return f"{sign}{size / factor:.2f} {suffix}"
    return f"{sign}{size} B"


def align(n_bytes: int, alignment: int) -> int:
    """Return ``n_bytes`` rounded up to a multiple of ``alignment``."""
    return -(-n_bytes // alignment) * alignment
