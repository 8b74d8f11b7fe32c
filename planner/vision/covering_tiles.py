"""The fewest tiles that cover most of the image without reducing it, with a thumbnail.

Published with Ovis2. Source: transformers 5.23.0, ovis2 image processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.tile_grid import closest_grid, grids
from planner.vision.tiling import Tiling, View, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def covered(width: int, height: int, side: int) -> float:
    """Return the area of a region as one tile shows it: its longer side at most ``side``, aspect kept."""
    long: float = max(width, height)
    short: float = min(width, height)
    if long > side:
        short = short / long * side
        long = side
    return long * short


def lengths(whole: int, parts: int) -> list[int]:
    """Return the lengths of ``parts`` cuts; the last takes the rest."""
    part = whole // parts
    return [part] * (parts - 1) + [whole - part * (parts - 1)]


def covering_share(image: ImageSize, grid: tuple[int, int], side: int) -> float:
    """Return the share of the image's area that a grid (rows, columns) of tiles shows."""
    rows, columns = lengths(image.height, grid[0]), lengths(image.width, grid[1])
    return sum(covered(width, height, side) for height in rows for width in columns) / (image.width * image.height)


def covering_grid(image: ImageSize, side: int, max_tiles: int, threshold: float) -> tuple[int, int]:
    """Return the grid with fewest tiles that covers more than the threshold, else the one that covers most."""
    shares = [(grid, covering_share(image, grid, side)) for grid in grids(1, max_tiles)]
    enough = [item for item in shares if item[1] > threshold]
    if enough:
        return min(enough, key=lambda item: (item[0][0] * item[0][1], -item[1]))[0]
    return min(shares, key=lambda item: (-item[1], item[0][0] * item[0][1]))[0]


def covering_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the thumbnail and the tiles. Structural: start, grid, end, and one between neighbours of the grid.

    The covering grid's rows are used as columns, as published.
    """
    tile, tokens, max_tiles = rule.positive("tile"), rule.positive("tokens"), rule.count("max_patches", 12)
    across, down = 1, 1
    if rule.flag("crop_to_patches") and max_tiles > 1:
        if rule.flag("use_covering_area_grid", default=True):
            across, down = covering_grid(image, tile, max_tiles, rule.real("covering_threshold", 0.9))
        else:
            across, down = closest_grid(image, tile, grids(rule.positive("min_patches", 1), max_tiles))
    n_tiles = across * down
    n_views = n_tiles + (n_tiles > 1)
    view = View(width=tile, height=tile, patch=rule.positive("patch"), tokens=tokens)
    return Tiling(
        views=repeated(view, n_views),
        tokens=n_views * tokens,
        extra_tokens=3 + n_tiles - 1,
        content=(across * tile, down * tile),
    )
