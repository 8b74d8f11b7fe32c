"""Native resolution while it is small, a grid of fixed tiles with a thumbnail when it is large.

Published with LFM2-VL. Source: transformers 5.23.0, lfm2_vl image processor.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from planner.vision.tile_grid import closest_grid
from planner.vision.tiling import Tiling, View, ceil_div

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


@cache
def unordered_grids(min_tiles: int, max_tiles: int) -> tuple[tuple[int, int], ...]:
    """Return all grids by tile count; those of one count in the order of a Python set, as published."""
    sides = range(min_tiles, max_tiles + 1)
    ratios = [
        (w, h) for n in sides for w in range(1, n + 1) for h in range(1, n + 1) if min_tiles <= w * h <= max_tiles
    ]
    return tuple(sorted(set(ratios), key=lambda grid: grid[0] * grid[1]))


def bounded(width: int, height: int, *, unit: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """Return both sides as multiples of ``unit`` (halves to even, at least one), the area within the bounds."""
    across = max(unit, round(width / unit) * unit)
    down = max(unit, round(height / unit) * unit)
    if across * down > max_pixels:
        shrink = math.sqrt((height * width) / max_pixels)
        return max(unit, math.floor(width / shrink / unit) * unit), max(unit, math.floor(height / shrink / unit) * unit)
    if across * down < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        return math.ceil(width * grow / unit) * unit, math.ceil(height * grow / unit) * unit
    return across, down


def is_large(image: ImageSize, *, patch: int, unit: int, max_pixels: float) -> bool:
    """Return whether the rounded image holds more pixels than one tile's limit with its tolerance."""
    across = max(patch, round(image.width / unit) * unit)
    down = max(patch, round(image.height / unit) * unit)
    return across * down > max_pixels


def naflex_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the tiles and the thumbnail, or the one resized image. Every view is padded to the longest sequence.

    Structural tokens: start and end; where tiled, one per tile and one for the thumbnail.
    """
    patch, merge, tile = rule.positive("patch"), rule.positive("downsample_factor", 2), rule.positive("tile_size", 512)
    unit = patch * merge
    least, most = rule.positive("min_image_tokens", 64), rule.positive("max_image_tokens", 256)
    size = bounded(image.width, image.height, unit=unit, min_pixels=least * unit * unit, max_pixels=most * unit * unit)

    def view(width: int, height: int) -> View:
        tokens = ceil_div(width // patch, merge) * ceil_div(height // patch, merge)
        return View(width=width, height=height, patch=patch, tokens=tokens)

    views, content, extra = [view(*size)], size, 2
    max_tiles = rule.count("max_tiles", 10, most=128)
    limit = most * unit * unit * rule.real("max_pixels_tolerance", 2.0)
    split = rule.flag("do_image_splitting", default=True) and max_tiles > 1
    if split and is_large(image, patch=patch, unit=unit, max_pixels=limit):
        across, down = closest_grid(image, tile, unordered_grids(rule.positive("min_tiles", 2), max_tiles))
        thumbnail = views if rule.flag("use_thumbnail", default=True) and across * down > 1 else []
        views = [view(tile, tile)] * (across * down) + thumbnail
        content, extra = (across * tile, down * tile), 2 + len(views)
    longest = max(most * merge * merge, (tile // patch) ** 2 if split else 0)
    return Tiling(
        views=tuple(views),
        tokens=sum(v.tokens for v in views),
        extra_tokens=extra,
        content=content,
        sequences=(longest,) * len(views),
    )
