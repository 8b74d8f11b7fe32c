"""As many crops as cover the image, the closest grid beyond that, padding masked out patch by patch.

Published with Phi-4-multimodal. Source: transformers 5.23.0, phi4_multimodal image processor.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from planner.vision.tile_grid import closest_grid
from planner.vision.tiling import Tiling, View, ceil_div, refuse

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

MIN_CONTENT = 10  # pixels a side


@cache
def unordered_grids(max_crops: int) -> tuple[tuple[int, int], ...]:
    """Return all grids by tile count; those of one count in the order of a Python set, as published."""
    sides = range(1, max_crops + 1)
    grids = {(i, j) for n in sides for i in range(1, n + 1) for j in range(1, n + 1) if i * j <= max_crops}
    return tuple(sorted(grids, key=lambda grid: grid[0] * grid[1]))


def seen_tokens(crops: int, padding: int, tile: int, patch: int) -> int:
    """Return tokens along one side: two patches each, less the patches that only hold padding."""
    return ceil_div(crops * (tile // patch) - padding // patch, 2)


def dynamic_hd(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the global view and the crops; tokens: 256 + 1 + seen + one per seen row + 16.

    Raises:
        UsageError: a side of the scaled image would be under 10 pixels.
    """
    tile, patch, max_crops = rule.positive("tile"), rule.positive("patch"), rule.count("dynamic_hd", 36, most=128)
    across, down = ceil_div(image.width, tile), ceil_div(image.height, tile)
    if across * down > max_crops:
        across, down = closest_grid(image, tile, unordered_grids(max_crops))
    scale_w, scale_h = across * tile / image.width, down * tile / image.height
    if scale_w < scale_h:
        content = (across * tile, int(image.height * scale_w))
    else:
        content = (int(image.width * scale_h), down * tile)
    if min(content) < MIN_CONTENT:
        raise refuse(rule, image, f"the aspect ratio is too extreme, it would become {content[0]}x{content[1]}")
    columns = seen_tokens(across, across * tile - content[0], tile, patch)
    rows = seen_tokens(down, down * tile - content[1], tile, patch)
    side = tile // patch // 2
    view = View(width=tile, height=tile, patch=patch, tokens=side * side)
    return Tiling(
        views=(view,) * (across * down + 1),
        tokens=side * side + 1 + columns * rows + rows + side,
        extra_tokens=rule.integer("extra", 0),
        content=content,
    )
