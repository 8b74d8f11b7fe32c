"""Native resolution: shrunk to a longest edge, rounded up to whole patches, one break token per row.

Published with Pixtral. Source: transformers 5.23.0, pixtral image processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, ceil_div, refuse

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def longest_edge(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view; tokens are its patches merged ``merge`` x ``merge``, with ``extra_per_row`` row breaks.

    Raises:
        UsageError: the image is so long that its shorter side shrinks to nothing.
    """
    edge, patch, merge = rule.positive("longest_edge"), rule.positive("patch"), rule.positive("merge", 1)
    width, height = image.width, image.height
    ratio = max(height / edge, width / edge)
    if ratio > 1:
        width, height = math.floor(width / ratio), math.floor(height / ratio)
    if not width or not height:
        raise refuse(rule, image, f"within {edge} pixels its shorter side would be empty")
    unit = patch * merge
    across, down = ceil_div(width, unit), ceil_div(height, unit)
    tokens = across * down
    view = View(width=across * unit, height=down * unit, patch=patch, tokens=tokens)
    extra = down * rule.integer("extra_per_row", 1) + rule.integer("extra", 0)
    return Tiling(views=(view,), tokens=tokens, extra_tokens=extra, content=(view.width, view.height))
