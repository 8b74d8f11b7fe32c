"""Overlapping crops: a canvas of windows that share margins, pooled as one grid, after a low-resolution view.

Published with Molmo and Molmo 2; scales are compared in 32-bit floats. Moondream shares the crops, not the choice of
their number, and always returns one view's tokens. Source: the published processors; transformers 5.23.0, molmo2.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from planner.vision.float32 import f32
from planner.vision.tiling import Tiling, View, ceil_div

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


@cache
def grids(max_crops: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (across, down) by tile count, then rows."""
    sides = range(1, max_crops + 1)
    found = [(across, down) for down in sides for across in range(1, max_crops // down + 1)]
    return tuple(sorted(found, key=lambda grid: (grid[0] * grid[1], grid[1])))


def scale_to(canvas: int, side: int) -> float:
    """Return canvas / side in 32-bit floats, infinite for an empty side as IEEE division is."""
    return f32(canvas / side) if side else math.inf


def least_upscaled(width: int, height: int, window: int, max_crops: int) -> tuple[int, int]:
    """Return the grid that enlarges least, else the one that shrinks least; the first wins ties. Sides may be <= 0."""
    candidates = grids(max_crops)
    scales = [min(scale_to(a * window, width), scale_to(d * window, height)) for a, d in candidates]
    if all(scale < 1 for scale in scales):
        return candidates[scales.index(max(scales))]
    return min(zip(scales, candidates, strict=True), key=lambda pair: math.inf if pair[0] < 1 else pair[0])[1]


def overlapping_crops(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the low-resolution view and the crops, pooled 2 x 2.

    Structural tokens: start and end around both parts, and one column token per pooled row (``low_columns``: in the
    low-resolution part, too).
    """
    size, patch, margin = rule.positive("size"), rule.positive("patch"), rule.positive("overlap_margin", 4)
    side, pool = size // patch, rule.positive("pooling_size", 2)
    window = side - 2 * margin
    edge = 2 * margin * patch
    max_crops = rule.count("max_crops")
    across, down = least_upscaled(image.width - edge, image.height - edge, window * patch, max_crops)
    columns, rows = (ceil_div(n * window + 2 * margin, pool) for n in (across, down))
    low = ceil_div(side, pool)
    view = View(width=size, height=size, patch=patch, n_prefix=rule.integer("prefix", 0), tokens=low * low)
    canvas = (across * window * patch + edge, down * window * patch + edge)
    return Tiling(
        views=(view,) * (1 + across * down),
        tokens=low * low + columns * rows,
        extra_tokens=4 + rows + low * rule.flag("low_columns", default=True),
        content=_fitted(image, canvas),
    )


def _fitted(image: ImageSize, canvas: tuple[int, int]) -> tuple[int, int]:
    scale = min(canvas[0] / image.width, canvas[1] / image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def proportional_grid(width: int, height: int, window: int, max_crops: int) -> tuple[int, int]:
    """Return the grid (across, down) that covers the image, thinned in proportion where that takes too many crops."""
    if height <= window or width <= window:
        return 1, 1
    down, across = ceil_div(height, window), ceil_div(width, window)
    if down * across > max_crops:
        ratio = math.sqrt(max_crops / (down * across))
        return max(1, math.floor(across * ratio)), max(1, math.floor(down * ratio))
    down = max(math.floor(math.sqrt(max_crops * height / width)), down)
    across = max(math.floor(math.sqrt(max_crops * width / height)), across)
    if down * across > max_crops:
        return (max_crops // down, down) if across > down else (across, max_crops // across)
    return across, down


def merged_crops(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the overview and the overlapping crops; their features are merged into ``tokens`` tokens, always."""
    size, patch, margin, tokens = (rule.positive(name) for name in ("size", "patch", "overlap_margin", "tokens"))
    window, edge = (size // patch - 2 * margin) * patch, 2 * margin * patch
    across, down = proportional_grid(image.width - edge, image.height - edge, window, rule.count("max_crops"))
    view = View(width=size, height=size, patch=patch, tokens=tokens)
    return Tiling(
        views=(view,) * (1 + across * down),
        tokens=tokens,
        extra_tokens=rule.integer("extra", 0),
        content=(across * window + edge, down * window + edge),
    )
