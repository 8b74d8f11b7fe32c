"""High-definition crops: the longer side scaled to as many crops as allowed, then padded; a global view before them.

Published with Phi-3-vision and Phi-3.5-vision. Source: their published image processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, ceil_div, refuse, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def n_long_crops(ratio: float, max_crops: int) -> int:
    """Return how many crops fit along the longer side, ``ratio`` being longer by shorter."""
    scale = 1
    while scale * math.ceil(scale / ratio) <= max_crops:
        scale += 1
    return scale - 1


def hd_transform(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the global view and the crops.

    Each crop has 12 x 12 tokens, each row of crops 12 newlines more, the global view its own, and one separator stands
    between: ``(crops + 1) * 144 + 1 + (rows + 1) * 12``.

    Raises:
        UsageError: the image is so long that its shorter side becomes 0.
    """
    tile, side = rule.positive("tile"), rule.positive("side_tokens", 12)
    long, short = max(image.width, image.height), min(image.width, image.height)
    ratio = long / short
    scaled_long = n_long_crops(ratio, rule.count("num_crops")) * tile
    scaled_short = int(scaled_long / ratio)
    if not scaled_short:
        raise refuse(rule, image, "the aspect ratio leaves no pixel on the shorter side")
    landscape = image.width >= image.height
    content = (scaled_long, scaled_short) if landscape else (scaled_short, scaled_long)
    across, down = ceil_div(content[0], tile), ceil_div(content[1], tile)
    view = View(width=tile, height=tile, patch=rule.positive("patch"), n_prefix=1, tokens=side * side)
    tokens = (across * down + 1) * side * side + 1 + (down + 1) * side
    return Tiling(
        views=repeated(view, across * down + 1), tokens=tokens, extra_tokens=rule.integer("extra", 0), content=content
    )
