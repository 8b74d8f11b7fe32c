"""Native resolution between a least and a most number of patches, sides rounded to whole merged patches.

Published with Nemotron omni models. Source: transformers 5.23.0, nemotron_h_omni image processor.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def to_multiple(side: int, other: int, merge: int, most: int) -> int:
    """Return ``side`` rounded up to a multiple of ``merge`` if the budget allows it, else down, at least one."""
    rest = side % merge
    if not rest:
        return side
    up = side + merge - rest
    return up if up * other <= most else max(merge, side - rest)


def patch_grid(image: ImageSize, patch: int, merge: int, least: int, most: int) -> tuple[int, int]:
    """Return the grid (across, down) in patches."""
    across, down = round(image.width / patch + 0.5), round(image.height / patch + 0.5)
    factor = min(math.sqrt(most / (down * across)), 1.0)
    across, down = math.floor(factor * across), math.floor(factor * down)
    if most > least and down * across < least:
        factor = math.sqrt(least / (down * across))
        across, down = math.ceil(factor * across), math.ceil(factor * down)
    down = to_multiple(down, across, merge, most)
    return to_multiple(across, down, merge, most), down


def patch_budget(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view; ``max_num_patches`` is shared by the context, ``max_model_len`` tokens less four."""
    patch, merge = rule.positive("patch"), rule.positive("merge", 2)
    least = rule.positive("min_num_patches")
    context = (rule.positive("max_model_len") - 4) * merge * merge
    most = max(min(max(context, least * rule.positive("n_images", 1)), rule.positive("max_num_patches")), least)
    across, down = patch_grid(image, patch, merge, least, most)
    tokens = across * down // (merge * merge)
    view = View(width=across * patch, height=down * patch, patch=patch, tokens=tokens)
    return Tiling(
        views=(view,), tokens=tokens, extra_tokens=rule.integer("extra", 2), content=(view.width, view.height)
    )
