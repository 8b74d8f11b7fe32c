"""Youtu-VL: shrunk in steps of 0.02 until the patches fit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.float32 import f32
from planner.vision.mtmd.dynamic_size import one_view
from planner.vision.mtmd.limits import pixel_limits

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.vision.tiling import Tiling
    from planner.workload import ImageSize

STEP = f32(0.02)


def stepwise(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view, sides rounded up to whole merged patches, at the first scale that fits."""
    patch, merge = rule.positive("patch"), rule.positive("merge", 2)
    unit = patch * merge
    most = pixel_limits(rule)[1] // (patch * patch)
    scale, width, height = 1.0, image.width, image.height
    while scale > 0:
        width, height = (
            max(unit, math.ceil(f32(f32(side * scale) / unit)) * unit) for side in (image.width, image.height)
        )
        if (width // patch) * (height // patch) <= most:
            break
        scale = f32(scale - STEP)
    return one_view(rule, width, height, (width, height))
