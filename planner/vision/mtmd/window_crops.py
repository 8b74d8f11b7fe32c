"""Step3-VL: square windows over the image, each scaled to one crop size, then the overview."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.float32 import f32
from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

CROP = 504
WIDE, SMALL_WIDE = 4.0, 1.5  # aspect ratios
ROUND_UP_FROM = f32(0.2)
MIN_SIDE = 32


def prepared(image: ImageSize, edge: int) -> tuple[int, int]:
    """Return the size after narrow strips are padded to a square and large images shrunk to the longest edge."""
    width, height = image.width, image.height
    ratio = f32(width / height)
    if min(width, height) < MIN_SIDE and (ratio > WIDE or ratio < 1 / WIDE):
        width = height = max(width, height)
    if max(width, height) > edge:
        scale = f32(edge / max(width, height))
        width, height = (max(1, math.floor(f32(side * scale))) for side in (width, height))
    return width, height


def window(width: int, height: int, image_size: int) -> int:
    """Return the side of the windows, 0 for an image that needs none."""
    long, short = max(width, height), min(width, height)
    ratio = f32(long / short)
    if long <= image_size:
        return short if ratio > SMALL_WIDE else 0
    return min(short, CROP) if ratio > WIDE else CROP


def n_windows(length: int, side: int) -> int:
    """Return how many windows cover one side, the rest beyond a fifth of a window counting as one more."""
    ratio = f32(length / side)
    if ratio >= 1:
        whole = math.floor(ratio)
        length = side * (whole + (f32(ratio - whole) > ROUND_UP_FROM))
    return 1 if length <= side else math.ceil(f32(f32((length - side) / side) + 1))


def window_crops(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the crops and the overview. Structural: two around each, one newline between rows of crops."""
    size, patch, merge = rule.positive("image_size"), rule.positive("patch"), rule.positive("merge", 4)

    def view(side: int) -> View:
        return View(width=side, height=side, patch=patch, tokens=(side // (patch * merge)) ** 2)

    width, height = prepared(image, rule.integer("longest_edge", 0) or 3024)
    side = window(width, height, size)
    views, extra, content = [view(size)], 2, (min(width, size), min(height, size))
    if side:
        across, down = n_windows(width, side), n_windows(height, side)
        views = [view(CROP)] * (across * down) + views
        extra, content = 2 * len(views) + down - 1, (across * CROP, down * CROP)
    chunks = tuple(v.tokens for v in views)
    return Tiling(views=tuple(views), tokens=sum(chunks), extra_tokens=extra, content=content, chunk_tokens=chunks)
