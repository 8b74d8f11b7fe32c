"""Muse Glimmer: the grid of merged patches closest in aspect ratio under a limit of tokens, stretched to it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.mtmd.dynamic_size import one_view
from planner.vision.mtmd.limits import pixel_limits

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.vision.tiling import Tiling
    from planner.workload import ImageSize


def patch_grid(image: ImageSize, unit: int, max_tokens: int) -> tuple[int, int]:
    """Return the grid (across, down): of the roundings of the ideal one, the nearest aspect ratio, then the larger."""
    down, across = image.height / unit, image.width / unit
    ratio = across / down
    if down * across > max_tokens:
        down = math.sqrt(max_tokens / ratio)
        across = down * ratio
    target = image.height / image.width
    grids = [(w, h) for h in (math.floor(down), math.ceil(down)) for w in (math.floor(across), math.ceil(across))]
    fitting = [(w, h) for w, h in grids if w >= 1 and h >= 1 and w * h <= max_tokens]
    if not fitting:
        return max(1, math.floor(across + 0.5)), max(1, math.floor(down + 0.5))
    return min(fitting, key=lambda grid: (abs(grid[1] / grid[0] - target), -grid[0] * grid[1]))


def closest_grid(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view of the closest grid."""
    unit = rule.positive("patch") * rule.positive("merge", 2)
    across, down = patch_grid(image, unit, pixel_limits(rule)[1] // (unit * unit))
    return one_view(rule, across * unit, down * unit, (across * unit, down * unit))
