"""LLaVA-UHD slices of MiniCPM-V, in 32-bit floats. An image within 448 x 448 is one square view."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from planner.vision.float32 import f32, round_half_away
from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize

MAX_SLICES = 9


def ensure_divide(length: int, unit: int) -> int:
    """Return the multiple of ``unit`` nearest to the length, halves up, at least one."""
    return max(round_half_away(f32(length / unit)) * unit, unit)


def best_resize(width: int, height: int, *, side: int, unit: int, upscale: bool) -> tuple[int, int]:
    """Return the size brought to about ``side`` squared pixels, aspect kept, as multiples of ``unit``."""
    if width * height > side * side or upscale:
        ratio = f32(width / height)
        height = int(f32(side / f32(math.sqrt(ratio))))
        width = int(f32(height * ratio))
    return ensure_divide(width, unit), ensure_divide(height, unit)


def best_grid(image: ImageSize, side: int) -> tuple[int, int]:
    """Return the grid (across, down) nearest in logarithmic aspect ratio, of about as many slices as the area asks."""
    log_ratio = f32(math.log(f32(image.width / image.height)))
    wanted = min(math.ceil(f32(f32(f32(image.width) * image.height) / (side * side))), MAX_SLICES)
    counts = [n for n in (wanted - 1, wanted, wanted + 1) if n != 1 and n <= MAX_SLICES]
    grids = [(across, n // across) for n in counts for across in range(1, n + 1) if n % across == 0]
    return min(grids, key=lambda grid: f32(abs(log_ratio - math.log(grid[0] / grid[1]))))


def refined(image: ImageSize, grid: tuple[int, int], *, side: int, unit: int) -> tuple[int, int]:
    """Return the width and height of one slice."""
    width = ensure_divide(image.width, grid[0]) // grid[0]
    height = ensure_divide(image.height, grid[1]) // grid[1]
    return best_resize(width, height, side=side, unit=unit, upscale=True)


def slices(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the overview and the slices: ``query`` tokens each, or their merged patches.

    ``keep_small_aspect``: with a merge of 2 an image within one slice's area keeps its aspect and is not cut.
    Structural tokens: two around the overview, ``extra_per_slice``, ``extra_sliced`` once, one newline between rows.
    """
    side, patch, merge = rule.positive("image_size"), rule.positive("patch"), rule.positive("merge", 1)
    unit, query = patch * merge, rule.integer("query", 0)

    def view(size: tuple[int, int]) -> View:
        tokens = query or (size[0] // patch) * (size[1] // patch) // (merge * merge)
        return View(width=size[0], height=size[1], patch=patch, tokens=tokens)

    small = f32(f32(f32(image.width) * image.height) / (side * side)) <= 1
    extra = rule.integer("extra", 2)
    content = (side, side)
    views = [view(content)]
    if rule.flag("keep_small_aspect") and merge == 2 and small:
        content = best_resize(image.width, image.height, side=side, unit=unit, upscale=True)
        views = [view(content)]
    elif image.width > side or image.height > side:
        grid = best_grid(image, side)
        size = refined(image, grid, side=side, unit=unit)
        views = [view(best_resize(image.width, image.height, side=side, unit=unit, upscale=False))]
        views += [view(size)] * (grid[0] * grid[1])
        content = (size[0] * grid[0], size[1] * grid[1])
        extra += rule.integer("extra_per_slice", 2) * grid[0] * grid[1] + rule.integer("extra_sliced", 0) + grid[1] - 1
    chunks = tuple(v.tokens for v in views)
    return Tiling(views=tuple(views), tokens=sum(chunks), extra_tokens=extra, content=content, chunk_tokens=chunks)
