"""Idefics3 and SmolVLM: scaled to a longest edge, cut into square tiles, one overview.

Files without a longest edge, and the user's token limits, take the general resizing instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.mtmd.limits import aligned, pixel_limits
from planner.vision.tiling import Tiling, View, ceil_div, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def to_longest_edge(image: ImageSize, edge: int) -> tuple[int, int]:
    """Return the size with its longer side at ``edge``, the other cut to a whole number and made even."""
    ratio = image.width / image.height
    if image.width >= image.height:
        short = int(edge / ratio)
        return edge, short + short % 2
    short = int(edge * ratio)
    return short + short % 2, edge


def edge_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the tiles, then the overview. Structural: two per tile, one newline between rows, four at the overview."""
    tile, edge = rule.positive("image_size"), rule.integer("longest_edge", 0)
    patch, merge = rule.positive("patch"), rule.positive("merge", 1)
    least, most = pixel_limits(rule)
    if edge and not least and not most:
        width, height = to_longest_edge(image, edge)
    else:
        width, height = aligned(
            image.width, image.height, align=tile, min_pixels=least, max_pixels=most, longest_edge=edge
        )
    across, down = ceil_div(width, tile), ceil_div(height, tile)
    tokens = (tile // patch) ** 2 // (merge * merge)
    view = View(width=tile, height=tile, patch=patch, tokens=tokens)
    n_views = across * down + 1
    return Tiling(
        views=repeated(view, n_views),
        tokens=tokens * n_views,
        extra_tokens=2 * across * down + (down - 1) + rule.integer("extra", 4),
        content=(across * tile, down * tile),
        chunk_tokens=(tokens,) * n_views,
    )
