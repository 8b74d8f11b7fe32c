"""The largest image a model's own processor lets through, found by asking the processor's rule about big pictures."""

from __future__ import annotations

from collections.abc import Mapping

from planner.errors import UsageError
from planner.frozen import dataclass
from planner.model import Model, Vision
from planner.vision import image_tokens
from planner.workload import ImageSize

_SIDES = (448, 896, 1344, 2016, 4032, 8064)
_SMALL = ImageSize(width=448, height=448)
_PROBES = tuple(ImageSize(width=w, height=h) for w in _SIDES for h in _SIDES)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderItem:
    """The largest image the model takes: tokens in the sequence, patches in the tower."""

    tokens: int
    patches: int
    crossed: bool = False  # the language model attends to it from the side; its tokens are not in the sequence


def largest_image(model: Model, overrides: Mapping[str, object]) -> EncoderItem | None:
    """Return the image with most tokens, the processor's limits replaced by ``overrides``.

    None where the model has no tower or no rule of a processor.

    Raises:
        UsageError: the processor has no such word.
    """
    vision = model.vision
    if vision is None or "processor" not in vision.rules:
        return None
    image_tokens(vision, _SMALL, overrides=overrides)
    found = [item for size in _PROBES if (item := _asked(vision, size, overrides)) is not None]
    return max(found, key=lambda item: (item.tokens, item.patches), default=None)


def _asked(vision: Vision, size: ImageSize, overrides: Mapping[str, object]) -> EncoderItem | None:
    try:
        found = image_tokens(vision, size, overrides=overrides)
    except UsageError:
        return None
    cross = found.cross_tokens or 0
    patches = sum(found.encoder_sequences) or cross or found.tokens
    return EncoderItem(tokens=max(found.tokens, cross), patches=patches, crossed=cross > 0)
