"""Native resolution: shrunk to a number of patches, then padded to whole merged patches.

Published with Kimi-VL (MoonViT) and Kimi-K2.5. Source: the published Kimi-VL processor; transformers 5.23.0, kimi_k25.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, ceil_div, refuse

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def padded_view(content: tuple[int, int], patch: int, merge: int) -> View:
    """Return the view with both sides padded up to whole merged patches."""
    unit = patch * merge
    across, down = ceil_div(content[0], unit), ceil_div(content[1], unit)
    return View(width=across * unit, height=down * unit, patch=patch, tokens=across * down)


def navit_token_limit(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view of at most about ``in_token_limit`` patches.

    Raises:
        UsageError: a side of ``max_side_patches`` patches or more, beyond the position table.
    """
    patch, limit = rule.positive("patch"), rule.positive("in_token_limit")
    width, height = image.width, image.height
    n_patches = (width // patch) * (height // patch)
    if n_patches > limit:
        scale = math.sqrt(limit / n_patches)
        width, height = int(width * scale), int(height * scale)
    view = padded_view((width, height), patch, rule.positive("merge", 2))
    if max(view.patch_grid) >= rule.positive("max_side_patches", 512):
        raise refuse(rule, image, "a side has more patches than there are positions")
    return Tiling(views=(view,), tokens=view.tokens, extra_tokens=rule.integer("extra", 0), content=(width, height))


def navit_resize(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view of at most about ``max_patches`` patches, and ``max_side_patches`` a side."""
    patch = rule.positive("patch")
    side = rule.positive("max_side_patches", 512) * patch
    n_patches = max(1.0, image.height // patch) * max(1.0, image.width // patch)
    scale = min(1.0, math.sqrt(rule.positive("max_patches") / n_patches), side / image.height, side / image.width)
    content = (min(max(1, int(image.width * scale)), side), min(max(1, int(image.height * scale)), side))
    view = padded_view(content, patch, rule.positive("merge", 2))
    return Tiling(views=(view,), tokens=view.tokens, extra_tokens=rule.integer("extra", 0), content=content)
