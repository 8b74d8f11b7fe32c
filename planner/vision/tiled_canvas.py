"""A canvas of a few tiles, seen by cross-attention: one placeholder token, a fixed number of encoder states.

Published with Llama 3.2 Vision. Source: transformers 5.23.0, mllama image processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def best_canvas(image: ImageSize, tile: int, max_tiles: int) -> tuple[int, int]:
    """Return the grid (across, down): the smallest upscale, else the least downscale; then the least area."""
    sides = range(1, max_tiles + 1)
    grids = [(across, down) for down in sides for across in range(1, max_tiles // down + 1)]
    scales = {grid: min(grid[0] * tile / image.width, grid[1] * tile / image.height) for grid in grids}
    upscales = [scale for scale in scales.values() if scale >= 1]
    chosen = min(upscales) if upscales else max(scales.values())
    return min((grid for grid in grids if scales[grid] == chosen), key=lambda grid: grid[0] * grid[1])


def content_on_canvas(image: ImageSize, canvas: tuple[int, int], tile: int) -> tuple[int, int]:
    """Return the size of the image on the canvas, aspect kept, each side aimed between one tile and the canvas."""
    target_w = min(max(image.width, tile), canvas[0])
    target_h = min(max(image.height, tile), canvas[1])
    scale_w, scale_h = target_w / image.width, target_h / image.height
    if scale_w < scale_h:
        return target_w, min(math.floor(image.height * scale_w) or 1, target_h)
    return min(math.floor(image.width * scale_h) or 1, target_w), target_h


def tiled_canvas(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the canvas's tiles. The tower always sees ``max_tiles`` of them as one padded sequence."""
    tile, max_tiles, patch = rule.positive("tile"), rule.count("max_image_tiles"), rule.positive("patch")
    across, down = best_canvas(image, tile, max_tiles)
    view = View(width=tile, height=tile, patch=patch, n_prefix=1)
    padded = -(-view.n_sequence // 8) * 8
    return Tiling(
        views=(view,) * max_tiles,
        tokens=1,
        extra_tokens=rule.integer("extra", 0),
        content=content_on_canvas(image, (across * tile, down * tile), tile),
        n_tiles=across * down,
        sequences=(max_tiles * padded,),
        cross_tokens=max_tiles * view.n_sequence,
    )
