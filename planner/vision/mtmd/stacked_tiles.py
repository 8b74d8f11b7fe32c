"""Granite 4 vision: overview and tiles of the best canvas in one graph, features unpadded, a newline per row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.float32 import f32
from planner.vision.mtmd.pinpoints import best_canvas, content_on
from planner.vision.tiling import Tiling, View, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def unpadded(image: ImageSize, across: int, down: int) -> tuple[int, int]:
    """Return the feature grid (across, down) without the rows or columns that only hold padding."""
    if f32(image.width / image.height) > f32(across / down):
        return across, down - (down - math.floor(image.height * across / image.width + 1e-7)) // 2 * 2
    return across - (across - math.floor(image.width * down / image.height + 1e-7)) // 2 * 2, down


def stacked_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the overview and the tiles; every window of patches becomes ``query_side`` squared tokens."""
    size, patch = rule.positive("image_size"), rule.positive("patch")
    side = size // patch // rule.positive("window_side") * rule.positive("query_side")
    canvas = best_canvas(image, rule.pairs("pinpoints"))
    columns, rows = canvas[0] // size, canvas[1] // size
    across, down = unpadded(image, columns * side, rows * side) if columns and rows else (0, 0)
    tokens = side * side + down * (across + 1)
    view = View(width=size, height=size, patch=patch, tokens=side * side)
    return Tiling(
        views=repeated(view, 1 + columns * rows),
        tokens=tokens,
        extra_tokens=rule.integer("extra", 1),
        content=content_on(image, canvas),
        chunk_tokens=(tokens,),
        token_grid=(across, down),
    )
