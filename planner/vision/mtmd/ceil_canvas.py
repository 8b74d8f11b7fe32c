"""GLM-5 vision: a canvas rounded up to whole merged patches, shrunk to the budget by a search over its height."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.mtmd.dynamic_size import one_view
from planner.vision.mtmd.limits import pixel_limits
from planner.vision.tiling import Tiling, ceil_div

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def canvas_size(image: ImageSize, unit: int, least: int, most: int) -> tuple[int, int]:
    """Return the canvas (width, height) in pixels."""

    def up(length: int) -> int:
        return ceil_div(length, unit) * unit

    width, height = up(image.width), up(image.height)
    if width * height < least:
        scale = math.sqrt(least / (image.height * image.width))
        width, height = (up(max(1, math.ceil(side * scale))) for side in (image.width, image.height))
    if width * height <= most:
        return width, height
    best, low, high = (unit, unit), 1, image.height
    while low <= high:
        content = (low + high) // 2
        size = (up(max(1, image.width * content // image.height)), up(content))
        if size[0] * size[1] <= most:
            best, low = size, content + 1
        else:
            high = content - 1
    return best


def ceil_canvas(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view; the image sits top left on it and is never enlarged unless it is under the least."""
    unit = rule.positive("patch") * rule.positive("merge", 2)
    least, most = pixel_limits(rule)
    width, height = canvas_size(image, unit, least, most)
    scale = min(height / image.height, width / image.width)
    if image.height * image.width >= least:
        scale = min(1.0, scale)
    content = (max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale)))
    return one_view(rule, width, height, content)
