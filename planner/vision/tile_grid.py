"""A grid of equal tiles with the closest aspect ratio, and a thumbnail beside it.

Published with InternVL and GOT-OCR2. Source: transformers 5.23.0, got_ocr2 image processor.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


@cache
def grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all grids (across, down) of min to max tiles, by tile count, then width."""
    sides = range(1, max_tiles + 1)
    pairs = ((across, down) for across in sides for down in range(1, max_tiles // across + 1))
    return tuple(sorted((pair for pair in pairs if pair[0] * pair[1] >= min_tiles), key=lambda pair: pair[0] * pair[1]))


def closest_grid(image: ImageSize, tile: int, candidates: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the grid of the nearest aspect ratio; of equals the later one if the image fills half of its canvas."""
    ratio = image.width / image.height
    area = image.width * image.height
    best, error = (1, 1), float("inf")
    for across, down in candidates:
        difference = abs(ratio - across / down)
        if difference < error:
            best, error = (across, down), difference
        elif difference == error and area > 0.5 * tile * tile * across * down:
            best = (across, down)
    return best


def tile_grid(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the grid's tiles and, if there is more than one, a thumbnail; all have the same tokens."""
    tile, tokens = rule.positive("tile"), rule.positive("tokens")
    view = View(
        width=tile, height=tile, patch=rule.positive("patch"), n_prefix=rule.integer("prefix", 0), tokens=tokens
    )
    across, down = 1, 1
    if rule.flag("crop_to_patches", default=True):
        candidates = grids(rule.positive("min_patches", 1), rule.count("max_patches"))
        across, down = closest_grid(image, tile, candidates)
    n_views = across * down + (across * down > 1)
    return Tiling(
        views=(view,) * n_views,
        tokens=n_views * tokens,
        extra_tokens=rule.integer("extra", 0) + rule.integer("extra_per_tile", 0) * (n_views - 1),
        content=(across * tile, down * tile),
    )
