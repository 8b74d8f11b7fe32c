"""DeepSeek-V4 vision: the largest size whose block of tokens, with its pads, fits the cap.

The block's leading pads depend on where in the prompt the image stands (0 to 3 tokens); the most is assumed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, ceil_div

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

LEAD_PADS = 3
MAX_WIDE = 8


def block_tokens(across: int, down: int) -> int:
    """Return the tokens of a block without leading pads: even rows with a newline each, pads, start and end."""
    rows = down + down % 2
    return rows * (across + 1) + rows // 2 * (across + 1) % 2 * 2 + 2


def largest(width: int, height: int, *, patch: int, merge: int, budget: int) -> tuple[int, int]:
    """Return the largest size of this aspect ratio for a budget of tokens."""
    unit, ratio = patch * merge, height / width
    across = math.sqrt((budget - 2) / ratio + 0.25) - 0.5
    down = across * ratio
    if across < 1:
        rows = (budget - 2) // 2
        return unit, (rows - rows % 2) * unit
    if down < 2:
        return max((budget - 2) // 2 - 1, 2) * unit, 2 * unit
    columns, rows = math.floor(across), math.floor(down)
    scale = min(columns * patch * merge / width, (rows - rows % 2) * patch * merge / height)
    return math.floor(width * scale / patch) * patch, math.floor(height * scale / patch) * patch


def token_block(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view within the cap of tokens."""
    patch, merge = rule.positive("patch"), rule.positive("merge")
    unit = patch * merge
    flagged_min, flagged_max = rule.integer("image_min_tokens", 0), rule.integer("image_max_tokens", 0)
    cap = max(flagged_max, 16) if flagged_max > 0 else rule.positive("max_tokens", 384)
    least = flagged_min * unit * unit if flagged_min > 0 else rule.integer("min_pixels", 0)
    least = min(least, cap * unit * unit)
    width, height = min(image.width, image.height * MAX_WIDE), image.height
    if width * height < least:
        scale = math.sqrt(least / (width * height))
        width, height = int(width * scale), int(height * scale)
    size = (ceil_div(width, patch) * patch, ceil_div(height, patch) * patch)
    budget = limit = cap - LEAD_PADS
    while block_tokens(ceil_div(size[0], unit), ceil_div(size[1], unit)) > limit:
        size = largest(width, height, patch=patch, merge=merge, budget=budget)
        budget -= 1
    tokens = LEAD_PADS + block_tokens(ceil_div(size[0], unit), ceil_div(size[1], unit))
    view = View(width=size[0], height=size[1], patch=patch, tokens=tokens)
    return Tiling(
        views=(view,), tokens=tokens, extra_tokens=rule.integer("extra", 0), content=size, chunk_tokens=(tokens,)
    )
