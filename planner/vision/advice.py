"""What to send instead: the largest size that wastes nothing, the next cheaper one, and a ladder of usual sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isqrt

from planner.budget import ImageTokens
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.workload import ImageSize, parse_image_size

Count = Callable[[ImageSize], ImageTokens]
"""What an image of this size becomes, for one model, engine and its settings."""

USUAL_SIZES = tuple(
    ImageSize(width=width, height=height)
    for width, height in (
        (224, 224),
        (336, 336),
        (448, 448),
        (512, 512),
        (640, 480),
        (672, 672),
        (896, 896),
        (1024, 768),
        (1080, 1920),
        (1280, 720),
        (1280, 1024),
        (1920, 1080),
        (2048, 1536),
        (2560, 1440),
        (3200, 2400),
        (3840, 2160),
        (4096, 4096),
        (8000, 6000),
    )
)
MAX_PROBES = 4096
SMALLEST_SHARE = 8  # of the longer side that the model sees; nobody sends less to save tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageAdvice:
    """One image, what it costs, and what to send instead of it; None where there is nothing better."""

    asked: ImageTokens
    decoded_bytes: int
    no_waste: ImageTokens | None
    cheaper: ImageTokens | None


def decoded_bytes(image: ImageSize) -> int:
    """Return the bytes of the decoded picture, 8-bit RGB: what a server holds before anything is thrown away."""
    return image.width * image.height * 3


def sequence_tokens(counted: ImageTokens) -> int:
    """Return all places the image takes in the context: its own tokens and the structural ones."""
    return counted.tokens + counted.extra_tokens


def with_long_side(image: ImageSize, long_side: int) -> ImageSize:
    """Return the size of the same aspect ratio with its longer side at ``long_side``, no side under one pixel."""
    longest = max(image.width, image.height)
    width, height = (max(1, round(side * long_side / longest)) for side in (image.width, image.height))
    return ImageSize(width=width, height=height)


def largest_without_waste(count: Count, image: ImageSize) -> ImageTokens | None:
    """Return the largest size of this aspect ratio, up to the image's own, of which no pixel is thrown away.

    Sides that the model rounds waste a little here and nothing a few pixels below, so sizes are tried one by one,
    from twice what the model sees down to half of it, evenly spaced if there are too many; below that by halving. None
    where every size wastes some.

    Raises:
        UsageError: the image itself is refused.
    """
    whole = count(image)
    if not whole.wasted_pixels:
        return whole
    long, short, seen = max(image.width, image.height), min(image.width, image.height), _seen(whole)
    longest = min(long, 2 * max(*seen, isqrt(seen[0] * seen[1] * long // short)))  # as many pixels in this shape
    low, high, best = 0, max(1, max(seen) // 2), None
    step = longest // MAX_PROBES + 1
    near = next((side for side in range(longest, high, -step) if _wastes_nothing(count, image, side)), None)
    if near is not None:
        passed = range(near + step - 1, near - 1, -1)
        return count(with_long_side(image, next(side for side in passed if _wastes_nothing(count, image, side))))
    while high - low > 1:
        middle = (low + high) // 2
        found = _tried(count, with_long_side(image, middle))
        if found is not None and not found.wasted_pixels:
            low, best = middle, found
        else:
            high = middle
    return best


def _wastes_nothing(count: Count, image: ImageSize, long_side: int) -> bool:
    found = _tried(count, with_long_side(image, long_side))
    return found is not None and not found.wasted_pixels


def next_cheaper(count: Count, image: ImageSize) -> ImageTokens | None:
    """Return the largest smaller size of this shape that takes fewer tokens, not under an eighth of what is seen.

    Rules with tiles are not monotone, so sizes are tried one by one from above, evenly spaced if there are too many.
    Where they choose tiles by shape alone, the nearest other shape (to crop or pad to) is returned instead, and None
    where none of those is cheaper either.

    Raises:
        UsageError: the image itself is refused.
    """
    asked = count(image)
    longest = max(image.width, image.height)
    floor = min(longest, max(_seen(asked))) // SMALLEST_SHARE
    step = longest // MAX_PROBES + 1
    same_shape = (with_long_side(image, side) for side in range(longest - 1, floor, -step))
    found = _first_under(count, same_shape, sequence_tokens(asked))
    if found is not None:
        return found
    best = largest_without_waste(count, image)
    return _first_under(count, _other_shapes(image if best is None else _sent(best)), sequence_tokens(asked))


def _first_under(count: Count, sizes: Iterable[ImageSize], cost: int) -> ImageTokens | None:
    tried = (found for size in sizes if (found := _tried(count, size)) is not None)
    return next((found for found in tried if sequence_tokens(found) < cost), None)


def _other_shapes(image: ImageSize) -> Iterable[ImageSize]:
    """Yield sizes with the shorter side cut or grown by up to a half, the nearest first, the longer one kept."""
    long, short = max(image.width, image.height), min(image.width, image.height)
    for step in range(1, 33):
        for change in (64 - step, 64 + step):
            side = max(1, short * change // 64)
            if side <= long:
                yield (
                    ImageSize(width=long, height=side)
                    if image.width >= image.height
                    else ImageSize(width=side, height=long)
                )


def _sent(counted: ImageTokens) -> ImageSize:
    return parse_image_size(counted.image)


def _seen(counted: ImageTokens) -> tuple[int, int]:
    width, _, height = counted.resized_to.partition("x")
    return int(width), int(height)


def advise(count: Count, image: ImageSize) -> ImageAdvice:
    """Return what the image costs and what to send instead.

    Raises:
        UsageError: the image is refused.
    """
    asked = count(image)
    no_waste = largest_without_waste(count, image) if asked.wasted_pixels else None
    return ImageAdvice(
        asked=asked, decoded_bytes=decoded_bytes(image), no_waste=no_waste, cheaper=next_cheaper(count, image)
    )


def ladder(count: Count, sizes: Iterable[ImageSize] = USUAL_SIZES) -> tuple[ImageTokens, ...]:
    """Return what each size becomes, without those that the processor refuses."""
    return tuple(found for size in sizes if (found := _tried(count, size)) is not None)


def _tried(count: Count, image: ImageSize) -> ImageTokens | None:
    try:
        return count(image)
    except UsageError:
        return None
