"""The grid of tiles with the closest aspect ratio, in 32-bit floats."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.float32 import f32
from planner.vision.tile_grid import grids

if TYPE_CHECKING:
    from planner.workload import ImageSize


def closest_aspect(image: ImageSize, tile: int, min_tiles: int, max_tiles: int) -> tuple[int, int]:
    """Return the nearest grid; of equals the later one if the image fills half of its canvas; (1, 1) of none."""
    ratio, area = f32(image.width / image.height), f32(image.width * image.height)
    best, error = (1, 1), float("inf")
    for across, down in grids(max(1, min_tiles), max_tiles):
        difference = f32(abs(f32(ratio - f32(across / down))))
        if difference < error:
            best, error = (across, down), difference
        elif difference == error and area > f32(0.5 * f32(tile * tile * across * down)):
            best = (across, down)
    return best
