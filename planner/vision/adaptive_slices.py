"""Slices near one resolution, in the grid nearest in logarithmic aspect ratio, after an overview.

Published with LLaVA-UHD and MiniCPM-V. Source: the published image processors of MiniCPM-V 2.5 to 4.5 and transformers
5.23.0, minicpmv4_6.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def rounded(length: float, divisor: int) -> int:
    """Return the multiple of ``divisor`` nearest to ``length`` (halves to even), at least one."""
    return max(round(length / divisor) * divisor, divisor)


def scaled(width: float, height: float, *, side: int, unit: int, upscale: bool) -> tuple[int, int]:
    """Return the size brought to about ``side`` squared pixels, aspect kept, as multiples of ``unit``."""
    if width * height > side * side or upscale:
        ratio = width / height
        height = int(side / math.sqrt(ratio))
        width = int(height * ratio)
    return rounded(width, unit), rounded(height, unit)


def slice_grid(image: ImageSize, side: int, max_slices: int) -> tuple[int, int] | None:
    """Return the grid (across, down) of slices, or None where the overview is enough."""
    wanted = min(math.ceil(image.width * image.height / (side * side)), max_slices)
    if wanted <= 1:
        return None
    log_ratio = math.log(image.width / image.height)
    counts = [n for n in (wanted - 1, wanted, wanted + 1) if n != 1 and n <= max_slices]
    candidates = [(across, n // across) for n in counts for across in range(1, n + 1) if n % across == 0]
    return min(candidates, key=lambda grid: abs(log_ratio - math.log(grid[0] / grid[1])))


def slice_size(image: ImageSize, grid: tuple[int, int], side: int, unit: int) -> tuple[int, int]:
    """Return the width and height of one slice."""
    width = rounded(image.width, grid[0]) / grid[0]
    height = rounded(image.height, grid[1]) / grid[1]
    return scaled(width, height, side=side, unit=unit, upscale=True)


def adaptive_slices(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the overview and the slices.

    With ``query`` each becomes that many tokens (a resampler); without, its patches merged ``merge`` x ``merge``.
    Structural tokens: ``extra`` once, ``extra_per_slice`` each, ``extra_sliced`` once where there are slices, and one
    newline between rows where ``row_newline``.
    """
    side, patch, merge = rule.positive("scale_resolution", 448), rule.positive("patch"), rule.positive("merge", 1)
    query = rule.integer("query", 0)

    def view(size: tuple[int, int]) -> View:
        tokens = query or (size[0] // patch) * (size[1] // patch) // (merge * merge)
        return View(width=size[0], height=size[1], patch=patch, tokens=tokens)

    grid = slice_grid(image, side, rule.count("max_slice_nums", 9)) if rule.flag("slice_mode", default=True) else None
    content = scaled(image.width, image.height, side=side, unit=patch * merge, upscale=grid is None)
    views = [view(content)]
    extra = rule.integer("extra", 0)
    if grid:
        size = slice_size(image, grid, side, patch * merge)
        views += repeated(view(size), grid[0] * grid[1])
        content = (size[0] * grid[0], size[1] * grid[1])
        extra += rule.integer("extra_sliced", 0) + rule.integer("extra_per_slice", 0) * grid[0] * grid[1]
        extra += (grid[1] - 1) * rule.flag("row_newline", default=True)
    return Tiling(views=tuple(views), tokens=sum(v.tokens for v in views), extra_tokens=extra, content=content)
