"""The best canvas of a list of resolutions, cut into tiles, after a global view; newlines at every row.

Published with DeepSeek-VL2. Source: its published processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.anyres import best_canvas
from planner.vision.tiling import Tiling, View, ceil_div, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

MAX_CROPPED_IMAGES = 2  # with more images in one request none is cut


def fitted(image: ImageSize, canvas: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the image on its canvas, aspect kept, before padding."""
    scale = min(canvas[0] / image.width, canvas[1] / image.height)
    return max(1, min(canvas[0], round(image.width * scale))), max(1, min(canvas[1], round(image.height * scale)))


def candidate_resolutions(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the global view and the tiles; ``candidates`` are (width, height), ``n_images`` are in one request."""
    tile, patch = rule.positive("tile"), rule.positive("patch")
    cut = rule.positive("n_images", 1) <= MAX_CROPPED_IMAGES
    canvas = best_canvas(image, rule.pairs("candidates")) if cut else (tile, tile)
    across, down = canvas[0] // tile, canvas[1] // tile
    side = ceil_div(tile // patch, rule.positive("merge", 2))
    tokens = side * (side + 1) + 1 + side * down * (side * across + 1)
    view = View(width=tile, height=tile, patch=patch, tokens=side * side)
    return Tiling(
        views=repeated(view, across * down + 1),
        tokens=tokens,
        extra_tokens=rule.integer("extra", 0),
        content=fitted(image, canvas),
    )
