"""One fixed view and, for long images, crops along the longer side.

Published with Gemma 3. Source: transformers 5.23.0, gemma3 image processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, ceil_div

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

WORDS_AROUND_CROPS = 15  # "Here is the original image ... and here are some crops to help you see better"


def n_crops(image: ImageSize, *, min_crop_size: int, max_num_crops: int, min_ratio: float) -> int:
    """Return the number of crops beside the whole image, 0 for an image that is not cut."""
    long, short = max(image.width, image.height), min(image.width, image.height)
    if long / short < min_ratio:
        return 0
    wanted = min(long // min_crop_size, math.floor(long / short + 0.5))
    n = min(max_num_crops, max(2, wanted))
    return 0 if min(ceil_div(long, n), short) < min_crop_size else n


def pan_and_scan(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the whole image and its crops, each stretched to ``size`` pixels a side and ``tokens`` tokens."""
    size, tokens = rule.positive("size"), rule.positive("tokens")
    crops = 0
    if rule.flag("do_pan_and_scan"):
        crops = n_crops(
            image,
            min_crop_size=rule.positive("pan_and_scan_min_crop_size", 256),
            max_num_crops=rule.count("pan_and_scan_max_num_crops", 4),
            min_ratio=rule.real("pan_and_scan_min_ratio_to_activate", 1.2),
        )
    view = View(width=size, height=size, patch=rule.positive("patch"), tokens=tokens)
    content = (size, size)
    if crops:
        content = (size * crops, size) if image.width >= image.height else (size, size * crops)
    return Tiling(
        views=(view,) * (1 + crops),
        tokens=tokens * (1 + crops),
        extra_tokens=rule.integer("extra", 2) * (1 + crops) + (WORDS_AROUND_CROPS if crops else 0),
        content=content,
    )
