"""A padded global view and, for larger images, a grid of smaller tiles.

Published with DeepSeek-OCR and DeepSeek-OCR-2. Source: transformers 5.23.0, deepseek_ocr2; the published processor of
DeepSeek-OCR, whose tokens carry one newline per row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.tile_grid import closest_grid, grids
from planner.vision.tiling import Tiling, View, ceil_div

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def global_and_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the global view, then the tiles of an image with a side beyond one tile.

    ``newlines``: every row of tokens ends with one more, over the whole grid; a separator follows the global view.
    """
    size, tile, patch, ratio = (rule.positive(name) for name in ("size", "tile", "patch", "downsample_ratio"))
    newlines = rule.flag("newlines")
    side = ceil_div(size // patch, ratio)
    tokens = side * (side + newlines) + 1
    views = [View(width=size, height=size, patch=patch, tokens=side * side)]
    content = padded_to_square(image, size)
    if rule.flag("crop_to_patches", default=True) and max(image.width, image.height) > tile:
        candidates = grids(rule.positive("min_patches", 2), rule.count("max_patches"))
        across, down = closest_grid(image, tile, candidates)
        local = ceil_div(tile // patch, ratio)
        views += [View(width=tile, height=tile, patch=patch, tokens=local * local)] * (across * down)
        tokens += local * down * (local * across + newlines)
        content = (across * tile, down * tile)
    return Tiling(views=tuple(views), tokens=tokens, extra_tokens=rule.integer("extra", 0), content=content)


def padded_to_square(image: ImageSize, size: int) -> tuple[int, int]:
    """Return the size of the image inside a square, aspect kept."""
    scale = size / max(image.width, image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))
