"""DeepSeek-OCR: a padded global view of 1024 pixels after a grid of smaller tiles.

The first version fuses each row of tiles into one chunk and adds a newline token to every row; the second does neither.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.float32 import f32
from planner.vision.mtmd.closest_aspect import closest_aspect
from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def overview_content(image: ImageSize, size: int) -> tuple[int, int]:
    """Return the size of the image inside the global view, rounded; the engine refuses one without width or height."""
    scale = f32(size / max(image.width, image.height))
    width, height = (min(math.floor(f32(side * scale) + 0.5), size) for side in (image.width, image.height))
    return width, height


def global_tiles(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the tiles, row by row, then the global view."""
    size, tile, patch, fused = (
        rule.positive("image_size"),
        rule.positive("tile"),
        rule.positive("patch"),
        rule.flag("newlines"),
    )
    side, local = size // patch // 4, tile // patch // 4
    overview = side * (side + fused) + 1
    views = [View(width=size, height=size, patch=patch, tokens=overview)]
    chunks, content = [overview], overview_content(image, size)
    if all(content) and (image.width > tile or image.height > tile):
        across, down = closest_aspect(image, tile, rule.integer("min_tiles", 2), rule.count("max_tiles"))
        rows = [(local * across + 1) * local] * down if fused else [local * local] * (across * down)
        chunks = rows + chunks
        views = [View(width=tile, height=tile, patch=patch, tokens=local * local)] * (across * down) + views
        content = (across * tile, down * tile)
    return Tiling(
        views=tuple(views),
        tokens=sum(chunks),
        extra_tokens=rule.integer("extra", 1),
        content=content,
        chunk_tokens=tuple(chunks),
    )
