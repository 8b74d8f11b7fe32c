"""Native aspect ratio on a budget of tokens: the largest size whose pooled patches fit.

Published with Gemma 4. Source: transformers 5.23.0, gemma4 image processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, refuse

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def largest_within(width: int, height: int, *, unit: int, target_pixels: int, max_side: int) -> tuple[int, int]:
    """Return the size scaled to the target area, sides cut to multiples of ``unit``; a lost side becomes one unit."""
    factor = math.sqrt(target_pixels / (width * height))
    across = math.floor(factor * width / unit) * unit
    down = math.floor(factor * height / unit) * unit
    if across and not down:
        return min(width // height * unit, max_side), unit
    if down and not across:
        return unit, min(height // width * unit, max_side)
    return across, down


def pooled_budget(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view. The tower's input is padded to the whole budget of patches.

    Raises:
        UsageError: the budget leaves no size at all for this aspect ratio.
    """
    patch, pool, budget = (
        rule.positive("patch"),
        rule.positive("pooling_kernel_size", 3),
        rule.positive("max_soft_tokens", 280),
    )
    unit = patch * pool
    target = budget * unit * unit
    width, height = largest_within(image.width, image.height, unit=unit, target_pixels=target, max_side=budget * unit)
    if not width * height or width * height > target:
        raise refuse(rule, image, "no size of this aspect ratio fits its token budget")
    tokens = width * height // (unit * unit)
    view = View(width=width, height=height, patch=patch, tokens=tokens)
    return Tiling(
        views=(view,),
        tokens=tokens,
        extra_tokens=rule.integer("extra", 2),
        content=(width, height),
        sequences=(budget * pool * pool,),
    )
