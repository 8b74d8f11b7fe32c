"""Pixel limits of a projector, and the sizes within them, in 32-bit floats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.errors import UsageError
from planner.vision.float32 import f32, round_half_away

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters


def pixel_limits(rule: Parameters) -> tuple[int, int]:
    """Return the least and most pixels of the resized image, 0 for no limit.

    ``min_tokens`` and ``max_tokens`` are built into the engine; the user's ``image_min_tokens`` and
    ``image_max_tokens`` replace them. Limits in pixels come from the file; they replace those in tokens and the user's,
    except where ``flags_first``.

    Raises:
        UsageError: the least is above the most, which the engine refuses to load.
    """
    area = (rule.positive("patch") * rule.positive("merge", 1)) ** 2
    flagged = tuple(max(rule.integer(name, 0), 0) * area for name in ("image_min_tokens", "image_max_tokens"))
    built_in = tuple(rule.integer(name, 0) * area for name in ("min_tokens", "max_tokens"))
    stored = tuple(max(rule.integer(name, 0), 0) for name in ("min_pixels", "max_pixels"))
    if not built_in[1] and not rule.flag("flags_first"):
        flagged = (0, 0)
    order = (flagged, stored, built_in) if rule.flag("flags_first") else (stored, flagged, built_in)
    least, most = (next((limit[i] for limit in order if limit[i]), 0) for i in (0, 1))
    if least > most:
        asked = f"at most {most // area}" if most else "no limit above"
        raise UsageError(f"llama.cpp refuses to load: at least {least // area} image tokens, but {asked}")
    return least, most


def aligned(  # noqa: PLR0913 - the engine's own four options
    width: int, height: int, *, align: int, min_pixels: int = 0, max_pixels: int = 0, longest_edge: int = 0
) -> tuple[int, int]:
    """Return the size with both sides multiples of ``align``, the area within the limits (calc_size_preserved_ratio).

    Halves round away from zero. With ``longest_edge`` the image is first scaled to it and rounded up.
    """
    if longest_edge:
        scale = min(f32(longest_edge / width), f32(longest_edge / height))
        across, down = _ceil(f32(width * scale), align), _ceil(f32(height * scale), align)
    else:
        across = max(align, round_half_away(f32(f32(width) / align)) * align)
        down = max(align, round_half_away(f32(f32(height) / align)) * align)
    area = f32(f32(height) * f32(width))
    if max_pixels and down * across > max_pixels:
        shrink = f32(math.sqrt(f32(area / f32(max_pixels))))
        down = max(align, _floor(f32(height / shrink), align))
        across = max(align, _floor(f32(width / shrink), align))
    elif min_pixels and down * across < min_pixels:
        grow = f32(math.sqrt(f32(f32(min_pixels) / area)))
        down, across = _ceil(f32(height * grow), align), _ceil(f32(width * grow), align)
    return across, down


def _ceil(length: float, align: int) -> int:
    return math.ceil(f32(length / align)) * align


def _floor(length: float, align: int) -> int:
    return math.floor(f32(length / align)) * align
