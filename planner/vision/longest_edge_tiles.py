"""Scaled, up or down, to a longest edge and cut into square tiles, with one overview.

Published with Idefics3 and SmolVLM. Source: transformers 5.23.0, idefics3 image processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, ceil_div, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

ABSOLUTE_MAX_EDGE = 4096


def to_longest_edge(width: int, height: int, edge: int) -> tuple[int, int]:
    """Return the size with its longer side at ``edge`` and the other, cut to a whole number, made even."""
    ratio = width / height
    if width >= height:
        width, height = edge, int(edge / ratio)
        height += height % 2
    else:
        height, width = edge, int(edge * ratio)
        width += width % 2
    return max(width, 1), max(height, 1)


def below(width: int, height: int, edge: int) -> tuple[int, int]:
    """Return the size shrunk, if need be, to a longest side of ``edge``."""
    ratio = width / height
    if width >= height and width > edge:
        width, height = edge, int(edge / ratio)
    elif height > width and height > edge:
        width, height = int(edge * ratio), edge
    return max(width, 1), max(height, 1)


def to_whole_tiles(width: int, height: int, tile: int) -> tuple[int, int]:
    """Return the size with both sides rounded up to whole tiles, the shorter one after the longer."""
    ratio = width / height
    if width >= height:
        width = ceil_div(width, tile) * tile
        return width, ceil_div(int(width / ratio), tile) * tile
    height = ceil_div(height, tile) * tile
    return ceil_div(int(height * ratio), tile) * tile, height


def longest_edge_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the tiles and the overview, ``tokens`` each.

    Structural tokens: two per tile (a fake one and its row and column) and three around the overview.
    """
    tile, tokens = rule.positive("tile"), rule.positive("tokens")
    view = View(width=tile, height=tile, patch=rule.positive("patch"), tokens=tokens)
    width, height = to_longest_edge(image.width, image.height, rule.positive("longest_edge"))
    width, height = below(width, height, ABSOLUTE_MAX_EDGE)
    n_tiles = 0
    if rule.flag("do_image_splitting", default=True):
        width, height = to_whole_tiles(width, height, tile)
        if width > tile or height > tile:
            n_tiles = (width // tile) * (height // tile)
    if not n_tiles:
        width, height = tile, tile
    return Tiling(
        views=repeated(view, n_tiles + 1),
        tokens=tokens * (n_tiles + 1),
        extra_tokens=2 * n_tiles + 3,
        content=(width, height),
    )
