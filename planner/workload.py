"""What is asked of the model: how long, how many at once, which images."""

from __future__ import annotations

from planner.errors import UsageError
from planner.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ImageSize:
    """Width and height of one image in pixels, as ``1920x1080``."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


MAX_IMAGE_SIDE = 1_000_000


def parse_image_size(text: str) -> ImageSize:
    """Return the size written as ``WxH``.

    Raises:
        UsageError: not two positive whole numbers, or beyond a million pixels a side.
    """
    width, separator, height = text.strip().lower().partition("x")
    if not (separator and width.isascii() and height.isascii() and width.isdigit() and height.isdigit()):
        raise UsageError(f"{text!r} is not an image size; write width x height in pixels, like 1920x1080")
    if (
        len(width) > 9
        or len(height) > 9
        or not 0 < int(width) <= MAX_IMAGE_SIDE
        or not 0 < int(height) <= MAX_IMAGE_SIDE
    ):
        raise UsageError(f"image size {text!r}: each side must be between 1 and {MAX_IMAGE_SIDE} pixels")
    return ImageSize(width=int(width), height=int(height))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One deployment's load. ``context_tokens`` is what one sequence needs: text, image tokens and answer together.

    ``images`` belong to one request; ``batch`` requests are processed together where the engine batches.
    ``prompt_asked`` says that the user wrote ``prompt_tokens``: only then they are a demand.
    """

    context_tokens: int = 4096
    sequences: int = 1
    images: tuple[ImageSize, ...] = ()
    batch: int = 1
    prompt_tokens: int = 512
    answer_tokens: int = 512
    prompt_asked: bool = False
