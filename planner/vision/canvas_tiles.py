"""A canvas of many tiles that distorts nothing, and one global tile beside it.

Published with Llama 4. Scales are compared in 32-bit floats, as torch does. Source: transformers 5.23.0, llama4 image
processor.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from planner.vision.float32 import f32
from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


@cache
def canvases(max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (across, down), largest tile count first, those of one aspect ratio together."""
    by_ratio: dict[float, list[tuple[int, int]]] = {}
    for n in range(max_tiles, 0, -1):
        for down in (factor for factor in range(1, n + 1) if n % factor == 0):
            by_ratio.setdefault(down / (n // down), []).append((n // down, down))
    return tuple(grid for group in by_ratio.values() for grid in group)


def best_grid(image: ImageSize, tile: int, grids: tuple[tuple[int, int], ...], *, largest: bool) -> tuple[int, int]:
    """Return the grid of the smallest (or ``largest``) upscale, else of the least downscale; then of the least area."""
    scales = [f32(min(f32(across * tile / image.width), f32(down * tile / image.height))) for across, down in grids]
    upscales = [scale for scale in scales if scale >= 1]
    chosen = (max(upscales) if largest else min(upscales)) if upscales else max(scales)
    fitting = [grid for grid, scale in zip(grids, scales, strict=True) if scale == chosen]
    return min(fitting, key=lambda grid: grid[0] * grid[1])


def content_on_canvas(image: ImageSize, target: tuple[int, int]) -> tuple[int, int]:
    """Return the largest undistorted size within the target."""
    scale_w, scale_h = target[0] / image.width, target[1] / image.height
    if scale_w < scale_h:
        return target[0], max(1, min(math.floor(image.height * scale_w), target[1]))
    return max(1, min(math.floor(image.width * scale_h), target[0])), target[1]


def canvas_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the tiles and, if there is more than one, the global tile. Structural: start, image, end, one per tile."""
    tile, tokens, largest = rule.positive("tile"), rule.positive("tokens"), rule.flag("resize_to_max_canvas")
    across, down = best_grid(image, tile, canvases(rule.count("max_patches", 16)), largest=largest)
    n_tiles = across * down
    n_views = n_tiles + (n_tiles > 1)
    target = (across * tile, down * tile)
    if not largest:
        target = (min(max(image.width, tile), target[0]), min(max(image.height, tile), target[1]))
    view = View(width=tile, height=tile, patch=rule.positive("patch"), n_prefix=1, tokens=tokens)
    return Tiling(
        views=(view,) * n_views,
        tokens=tokens * n_views,
        extra_tokens=3 + (n_tiles if n_tiles > 1 else 0),
        content=content_on_canvas(image, target),
    )
