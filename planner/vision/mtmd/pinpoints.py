"""The best of a list of canvases, cut into tiles, beside an overview: LLaVA-1.6, Granite vision, InternVL, Llama 4.

An image that fits the overview is not cut at all. Nothing is unpadded and there are no newlines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import UsageError
from planner.vision.float32 import f32
from planner.vision.tiling import Tiling, View, repeated

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def candidates(rule: Parameters) -> tuple[tuple[int, int], ...]:
    """Return the canvases (width, height): those stored, those of min to max tiles, those of so many tiles a side."""
    stored = rule.pairs("pinpoints") if rule.values.get("pinpoints") else ()
    size = rule.positive("image_size")
    least, most = rule.positive("min_tiles", 1), rule.count("max_tiles") if "max_tiles" in rule.values else 0
    grids = [
        (a, b) for a in range(least, most + 1) for b in range(max(-(-least // a), least), min(most // a, most) + 1)
    ]
    side = range(1, rule.count("max_tiles_per_side") + 1 if "max_tiles_per_side" in rule.values else 1)
    grids += [(a, b) for a in side for b in side if a * b > 1]
    found = stored + tuple((a * size, b * size) for a, b in grids)
    if not found:
        raise UsageError(f"image rule {rule.rule!r}: the projector names no canvas to cut images from")
    return found


def best_canvas(image: ImageSize, canvases: tuple[tuple[int, int], ...]) -> tuple[int, int]:
    """Return the canvas that keeps most pixels and, among those, wastes least, scales in 32-bit floats."""
    best, most, least = canvases[0], -1, 0
    for width, height in canvases:
        scale = min(f32(width / image.width), f32(height / image.height))
        shrunk = int(f32(image.width * scale)) * int(f32(image.height * scale))
        effective = min(shrunk, image.width * image.height)
        wasted = width * height - effective
        if effective > most or (effective == most and wasted < least):
            best, most, least = (width, height), effective, wasted
    return best


def content_on(image: ImageSize, canvas: tuple[int, int]) -> tuple[int, int]:
    """Return the size of the image on a padded canvas, aspect kept."""
    scale = min(canvas[0] / image.width, canvas[1] / image.height)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def pinpoints(image: ImageSize, rule: Parameters) -> Tiling:
    """Return the overview and the tiles, each of its merged patches."""
    size, patch, merge = rule.positive("image_size"), rule.positive("patch"), rule.positive("merge", 1)
    prefix = rule.integer("prefix", 0)

    def view(width: int, height: int) -> View:
        tokens = (width // patch) * (height // patch) // (merge * merge)
        return View(width=width, height=height, patch=patch, n_prefix=prefix, tokens=tokens)

    views, content = [view(size, size)], content_on(image, (size, size))
    if image.width > size or image.height > size:
        canvas = best_canvas(image, candidates(rule))
        columns, rows = range(0, canvas[0], size), range(0, canvas[1], size)
        repeated(views[0], len(columns) * len(rows))  # refuses absurd numbers before they are listed
        views += [view(min(size, canvas[0] - x), min(size, canvas[1] - y)) for y in rows for x in columns]
        content = content_on(image, canvas)
    chunks = tuple(v.tokens for v in views)
    return Tiling(
        views=tuple(views),
        tokens=sum(chunks),
        extra_tokens=rule.integer("extra", 0),
        content=content,
        chunk_tokens=chunks,
    )
