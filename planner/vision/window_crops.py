"""Square windows over the image, each scaled to one crop size, then the overview.

Published with Step3-VL and Step 3.7. Source: transformers 5.23.0, step3p7 image processor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

WIDE, SMALL_WIDE = 4, 1.5  # aspect ratios
MIN_SIDE = 32
ROUND_UP_FROM = 0.2


def prepared(image: ImageSize, edge: int) -> tuple[int, int]:
    """Return the size after narrow strips are padded to a square and large images shrunk to the longest edge."""
    width, height = image.width, image.height
    if min(width, height) < MIN_SIDE and max(width / height, height / width) > WIDE:
        width = height = max(width, height)
    if max(width, height) > edge:
        scale = edge / max(width, height)
        width, height = int(width * scale), int(height * scale)
    return width, height


def window_side(width: int, height: int, image_size: int, crop: int) -> int:
    """Return the side of the windows, 0 for an image that needs none."""
    short, long = min(width, height), max(width, height)
    if long <= image_size:
        return short if long / short > SMALL_WIDE else 0
    return min(short, crop) if long / short > WIDE else crop


def n_windows(length: int, side: int) -> int:
    """Return how many windows cover one side, the rest beyond a fifth of a window counting as one more."""
    if length < side:
        return 1
    return max(1, length // side + (length % side > ROUND_UP_FROM * side))


def window_crops(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the crops and the overview. Structural: two around each, one newline between rows of crops."""
    size, crop, patch, merge = (rule.positive(name) for name in ("size", "crop", "patch", "merge"))

    def view(side: int) -> View:
        return View(width=side, height=side, patch=patch, tokens=(side // patch // merge) ** 2)

    width, height = prepared(image, rule.positive("longest_edge"))
    side = window_side(width, height, size, crop)
    views: tuple[View, ...] = (view(size),)
    extra, content = 2, (min(width, size), min(height, size))
    if side:
        across, down = n_windows(width, side), n_windows(height, side)
        views = (*repeated(view(crop), across * down), view(size))
        extra, content = 2 * len(views) + down - 1, (across * crop, down * crop)
    return Tiling(views=views, tokens=sum(v.tokens for v in views), extra_tokens=extra, content=content)
