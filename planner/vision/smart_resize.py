"""Native resolution: both sides rounded to a multiple of one factor, the area kept within bounds.

Published with Qwen2-VL; the GLM-V variant counts two frames and lifts small sides first. Source: transformers 5.23.0,
qwen2_vl and glm4v image processors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, refuse

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

MAX_ASPECT_RATIO = 200


def bounded(  # noqa: PLR0913 - a size and its four bounds
    width: int, height: int, *, factor: int, min_pixels: float, max_pixels: float, frames: int = 1
) -> tuple[int, int]:
    """Return width and height as multiples of ``factor``, with frames x area within the bounds.

    Halves round to the even multiple, as Python's round does; a side that rounds to 0 is lifted by the lower bound.
    """
    across = round(width / factor) * factor
    down = round(height / factor) * factor
    if frames * across * down > max_pixels:
        shrink = math.sqrt((frames * height * width) / max_pixels)
        down = max(factor, math.floor(height / shrink / factor) * factor)
        across = max(factor, math.floor(width / shrink / factor) * factor)
    elif frames * across * down < min_pixels:
        grow = math.sqrt(min_pixels / (frames * height * width))
        down = math.ceil(height * grow / factor) * factor
        across = math.ceil(width * grow / factor) * factor
    return across, down


def lifted(width: int, height: int, factor: int) -> tuple[int, int]:
    """Return the size scaled up so that no side is under ``factor``."""
    if height >= factor and width >= factor:
        return width, height
    scale = max(factor / height, factor / width)
    return int(width * scale), int(height * scale)


def lifted_by_side(width: int, height: int, factor: int) -> tuple[int, int]:
    """Return the size with first the height, then the width brought to at least ``factor``, aspect kept."""
    if height < factor:
        width, height = round(width * factor / height), factor
    if width < factor:
        width, height = factor, round(height * factor / width)
    return width, height


def smart_resize(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view of any size; tokens are its patches, merged ``merge`` x ``merge``, with what stands among them.

    Small sides are lifted as GLM-V (``lift_small``) or PaddleOCR-VL (``lift_sides``) do; Hunyuan-VL counts a newline
    per row (``row_newlines``) and two ``boundary`` tokens among the image's own.

    Raises:
        UsageError: the aspect ratio is beyond 200, which the processor refuses.
    """
    patch, merge = rule.positive("patch"), rule.positive("merge", 2)
    width, height = image.width, image.height
    if rule.flag("lift_small"):
        width, height = lifted(width, height, patch * merge)
    if rule.flag("lift_sides"):
        width, height = lifted_by_side(width, height, patch * merge)
    if max(width, height) / min(width, height) > MAX_ASPECT_RATIO:
        raise refuse(rule, image, f"the aspect ratio is beyond {MAX_ASPECT_RATIO}")
    across, down = bounded(
        width,
        height,
        factor=patch * merge,
        min_pixels=rule.positive("min_pixels"),
        max_pixels=rule.positive("max_pixels"),
        frames=rule.positive("frames", 1),
    )
    tokens = (across // patch) * (down // patch) // (merge * merge)
    tokens += down // patch // merge * rule.flag("row_newlines") + rule.integer("boundary", 0)
    view = View(width=across, height=down, patch=patch, tokens=tokens)
    return Tiling(views=(view,), tokens=tokens, extra_tokens=rule.integer("extra", 2), content=(across, down))
