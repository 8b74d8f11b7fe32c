"""The grid of tiles that enlarges the image least, with a thumbnail.

Published with Command A Vision. Source: transformers 5.23.0, cohere2_vision image processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tile_grid import grids
from planner.vision.tiling import Tiling, View, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def least_upscaled(image: ImageSize, tile: int, candidates: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the grid (across, down) of the smallest enlargement, else of the least reduction; the first wins ties."""
    scales = [min(across * tile / image.width, down * tile / image.height) for across, down in candidates]
    if all(scale < 1 for scale in scales):
        return candidates[scales.index(max(scales))]
    return min(zip(scales, candidates, strict=True), key=lambda pair: math.inf if pair[0] < 1 else pair[0])[1]


def least_upscaled_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the tiles, stretched to the grid, and a thumbnail if there is more than one."""
    tile, tokens = rule.positive("tile"), rule.positive("tokens")
    across, down = 1, 1
    if rule.flag("crop_to_patches", default=True):
        across, down = least_upscaled(image, tile, grids(1, rule.count("max_patches", 12)))
    n_views = across * down + (across * down > 1)
    view = View(width=tile, height=tile, patch=rule.positive("patch"), tokens=tokens)
    return Tiling(
        views=repeated(view, n_views),
        tokens=n_views * tokens,
        extra_tokens=rule.integer("extra", 2) + rule.integer("extra_per_view", 1) * n_views,
        content=(across * tile, down * tile),
    )
