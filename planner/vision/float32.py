"""Arithmetic in 32-bit floats, for rules that an engine computes in them.

A double holds twice the digits of a float and more, so rounding each double result once gives the float result of one
addition, product, quotient or square root exactly.
"""

from __future__ import annotations

import math
import struct

_FLOAT = struct.Struct("<f")


def f32(x: float) -> float:
    """Return ``x`` rounded to the nearest 32-bit float."""
    value: float = _FLOAT.unpack(_FLOAT.pack(x))[0]
    return value


def round_half_away(x: float) -> int:
    """Return the nearest whole number, halves away from zero, as C's round does."""
    return math.floor(x + 0.5) if x >= 0 else math.ceil(x - 0.5)
