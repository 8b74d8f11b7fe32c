"""LFM2-VL: native resolution while small, a grid of 512-pixel tiles with a thumbnail when large."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.mtmd.closest_aspect import closest_aspect
from planner.vision.mtmd.limits import aligned, pixel_limits
from planner.vision.tiling import Tiling, View, ceil_div

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

TOLERANCE = 2.0


def should_tile(image: ImageSize, *, patch: int, unit: int, max_pixels: int) -> bool:
    """Return whether the rounded image (halves to even) holds more than twice the most pixels of one tile."""
    across = max(patch, round(image.width / unit) * unit)
    down = max(patch, round(image.height / unit) * unit)
    return float(down) * float(across) > max_pixels * TOLERANCE


def native_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the tiles and the thumbnail, or the one resized image."""
    patch, merge, tile = rule.positive("patch"), rule.positive("merge", 1), rule.positive("tile_size", 512)
    unit = patch * merge
    least, most = pixel_limits(rule)

    def view(width: int, height: int) -> View:
        return View(width=width, height=height, patch=patch, tokens=ceil_div(width, unit) * ceil_div(height, unit))

    content = aligned(image.width, image.height, align=unit, min_pixels=least, max_pixels=most)
    views, extra = [view(*content)], rule.integer("extra", 2)
    if should_tile(image, patch=patch, unit=unit, max_pixels=most):
        across, down = closest_aspect(image, tile, rule.positive("min_tiles", 2), rule.count("max_tiles", 10))
        views = [view(tile, tile)] * (across * down) + views
        content, extra = (across * tile, down * tile), extra + len(views)
    chunks = tuple(v.tokens for v in views)
    return Tiling(views=tuple(views), tokens=sum(chunks), extra_tokens=extra, content=content, chunk_tokens=chunks)
