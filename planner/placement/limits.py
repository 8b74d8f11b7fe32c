"""The inverse questions: the largest image, most images, longest context, most sequences, largest batch that fit.

Every answer is tight: the value fits, the next step up was computed and does not, and the device that fails is named.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from planner.frozen import dataclass
from planner.workload import ImageSize, Workload

Dimension = Literal["image", "square", "images", "context", "sequences", "batch"]
DIMENSIONS: tuple[Dimension, ...] = ("image", "square", "images", "context", "sequences", "batch")
SQUARE = ImageSize(width=1, height=1)
MAX_SIDE = 16384
MAX_COUNT = 1024
MAX_CONTEXT_TOKENS = 1 << 24
CONTEXT_STEP = 256

Fails = Callable[[Workload], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One answer. ``value`` is None when not even the smallest fits; ``next_value`` is None when there is no limit.

    ``reason``: why ``next_value`` fails, or why there is no limit below the ceiling. ``needs``: the settings beyond
    those given that ``value`` takes, in the engine's own words.
    """

    dimension: Dimension | Literal["quantization"]
    value: str | None
    next_value: str | None
    reason: str
    needs: str = ""


def solve(  # noqa: PLR0913 - the question and its bounds
    dimension: Dimension,
    workload: Workload,
    fails: Fails,
    *,
    context_ceiling: int = MAX_CONTEXT_TOKENS,
    context_floor: int = 0,
    needs: Callable[[Workload], str] = lambda _: "",
) -> Limit:
    """Return the largest value of ``dimension`` for which ``fails`` finds nothing wrong, all else as in ``workload``.

    Contexts are tried from above ``context_floor`` tokens (what the images alone take) to ``context_ceiling``.
    ``needs`` says what settings a workload that fits takes beyond those given.
    """
    steps = _ladder(dimension, workload, context_floor, context_ceiling)
    reasons: dict[int, str | None] = {}

    def why(step: int) -> str | None:
        if step not in reasons:
            reasons[step] = fails(steps.at(step))
        return reasons[step]

    best = _boundary(steps.top, why)
    if best == 0:
        return Limit(dimension=dimension, value=None, next_value=steps.label(1), reason=why(1) or "")
    beyond, reason = (None, steps.ceiling) if best == steps.top else (steps.label(best + 1), why(best + 1) or "")
    return Limit(
        dimension=dimension,
        value=steps.label(best),
        next_value=beyond,
        reason=reason,
        needs=needs(steps.at(best)),
    )


def _boundary(top: int, why: Callable[[int], str | None]) -> int:
    """Return a step that fits whose next does not (0: not even the first), or ``top`` when that fits."""
    if why(top) is None:
        return top
    low, high = 0, 1
    while high < top and why(high) is None:
        low, high = high, min(top, 2 * high)
    while high - low > 1:
        middle = (low + high) // 2
        if why(middle) is None:
            low = middle
        else:
            high = middle
    return low


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ladder:
    top: int
    at: Callable[[int], Workload]
    label: Callable[[int], str]
    ceiling: str


def _ladder(dimension: Dimension, workload: Workload, context_floor: int, context_ceiling: int) -> _Ladder:
    if dimension in ("image", "square"):
        shape = workload.images[0] if workload.images and dimension == "image" else SQUARE
        return _image_ladder(workload, shape)
    if dimension == "images":
        return _images_ladder(workload)
    if dimension == "context":
        return _context_ladder(workload, context_floor, context_ceiling)
    return _Ladder(
        top=MAX_COUNT,
        at=lambda n: replace(workload, sequences=n) if dimension == "sequences" else replace(workload, batch=n),
        label=str,
        ceiling=f"more than {MAX_COUNT} were not asked",
    )


def _image_ladder(workload: Workload, shape: ImageSize) -> _Ladder:
    """Sizes of the aspect of ``shape``, for all images of the request: steps of one pixel of the longer side."""
    longer = max(shape.width, shape.height)

    def size(side: int) -> ImageSize:
        return ImageSize(
            width=max(1, round(side * shape.width / longer)), height=max(1, round(side * shape.height / longer))
        )

    n_images = max(1, len(workload.images))
    return _Ladder(
        top=MAX_SIDE,
        at=lambda side: replace(workload, images=(size(side),) * n_images),
        label=lambda side: str(size(side)),
        ceiling="any size fits: beyond the tower's canvas a picture only costs time",
    )


def _images_ladder(workload: Workload) -> _Ladder:
    image = workload.images[0] if workload.images else ImageSize(width=1024, height=1024)
    return _Ladder(
        top=MAX_COUNT,
        at=lambda n: replace(workload, images=(image,) * n),
        label=lambda n: f"{n} x {image}",
        ceiling=f"more than {MAX_COUNT} were not asked",
    )


def _context_ladder(workload: Workload, floor: int, ceiling: int) -> _Ladder:
    base = floor // CONTEXT_STEP
    return _Ladder(
        top=max(1, ceiling // CONTEXT_STEP - base),
        at=lambda step: replace(workload, context_tokens=(base + step) * CONTEXT_STEP),
        label=lambda step: str((base + step) * CONTEXT_STEP),
        ceiling="this is the context the model was trained for",
    )
