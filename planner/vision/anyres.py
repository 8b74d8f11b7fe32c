"""Any resolution by pinpoints: the best canvas of a list, cut into tiles, beside one overview.

Published with LLaVA-NeXT. The features of the canvas are unpadded again and get one newline per row. Source:
transformers 5.23.0, llava_next processor and select_best_resolution.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def best_canvas(image: ImageSize, canvases: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the (width, height) that keeps most pixels and, among those, wastes least; the first wins ties."""
    best, most, least = canvases[0], -1, 0
    for width, height in canvases:
        scale = min(width / image.width, height / image.height)
        shrunk = int(image.width * scale) * int(image.height * scale)
        effective = min(shrunk, image.width * image.height)
        wasted = width * height - effective
        if effective > most or (effective == most and wasted < least):
            best, most, least = (width, height), effective, wasted
    return best


def unpadded_grid(image: ImageSize, across: int, down: int) -> tuple[int, int]:
    """Return the feature grid (across, down) left when the rows or columns that only hold padding are cut."""
    if image.width / image.height > across / down:
        kept = int(round(image.height * (across / image.width), 7))
        return across, down - (down - kept) // 2 * 2
    kept = int(round(image.width * (down / image.height), 7))
    return across - (across - kept) // 2 * 2, down


def padded_content(image: ImageSize, canvas: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the image on its canvas, aspect kept, before padding."""
    scale_w, scale_h = canvas[0] / image.width, canvas[1] / image.height
    if scale_w < scale_h:
        return canvas[0], min(math.ceil(image.height * scale_w), canvas[1])
    return min(math.ceil(image.width * scale_h), canvas[0]), canvas[1]


def shrunk_grid(across: int, down: int, side: int, max_tiles: int) -> tuple[int, int]:
    """Return the grid interpolated down to about ``max_tiles`` tiles of features, where it is a tenth larger a side."""
    ratio = math.sqrt(across * down / (max_tiles * side**2))
    return (int(across // ratio), int(down // ratio)) if ratio > 1.1 else (across, down)


def anyres(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the overview and the canvas's tiles; ``pinpoints`` are (height, width) pairs as published.

    ``anyres_max`` (LLaVA-OneVision): features beyond so many tiles are interpolated down to them.
    """
    tile, patch = rule.positive("tile"), rule.positive("patch")
    canvases = tuple((width, height) for height, width in rule.pairs("pinpoints"))
    canvas = best_canvas(image, canvases)
    columns, rows = canvas[0] // tile, canvas[1] // tile
    side = tile // patch
    across, down = unpadded_grid(image, columns * side, rows * side)
    if rule.integer("anyres_max", 0):
        across, down = shrunk_grid(across, down, side, rule.positive("anyres_max"))
    tokens = side * side + across * down + down
    view = View(width=tile, height=tile, patch=patch, n_prefix=rule.integer("prefix", 0), tokens=side * side)
    return Tiling(
        views=repeated(view, 1 + columns * rows),
        tokens=tokens,
        extra_tokens=rule.integer("extra", 0),
        content=padded_content(image, canvas),
    )
