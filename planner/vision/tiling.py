"""What a resizing rule returns: the views that the vision tower encodes, and the tokens they become."""

from __future__ import annotations

from collections.abc import Callable

from planner.errors import UsageError
from planner.frozen import dataclass
from planner.vision.parameters import Parameters
from planner.workload import ImageSize


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One picture as the tower sees it: a tile, a slice, the overview or the whole image, in pixels."""

    width: int
    height: int
    patch: int  # side of one patch in pixels
    n_prefix: int = 0  # class tokens before the patches
    tokens: int = 0  # what the language model gets of it

    @property
    def patch_grid(self) -> tuple[int, int]:
        """Patches across and down."""
        return self.width // self.patch, self.height // self.patch

    @property
    def n_sequence(self) -> int:
        """Length of the sequence in the tower: class tokens and patches."""
        across, down = self.patch_grid
        return self.n_prefix + across * down


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """One image, prepared. ``tokens`` are its own, ``extra_tokens`` the structural ones around and between them.

    ``content`` is the size in pixels, without padding, at which the image is seen best. ``visible_pixels`` are the
    source pixels that any view shows at all (None: all of them; fewer where the rule crops).
    """

    views: tuple[View, ...]
    tokens: int
    content: tuple[int, int]
    extra_tokens: int = 0
    visible_pixels: int | None = None
    n_tiles: int | None = None  # None: one per view
    sequences: tuple[int, ...] | None = None  # None: one per view
    cross_tokens: int | None = None
    n_positions: int | None = None  # places the image takes in the sequence, where that is not its tokens
    chunk_tokens: tuple[int, ...] = ()  # tokens of each chunk that is decoded on its own
    token_grid: tuple[int, int] = (0, 0)  # columns and rows of the tiles' tokens, where padding among them is dropped


Rule = Callable[[ImageSize, Parameters], Tiling]


MAX_VIEWS = 65536


def repeated(view: View, n: int) -> tuple[View, ...]:
    """Return ``n`` equal views.

    Raises:
        UsageError: more than any tower is ever given, the sign of damaged parameters.
    """
    if n > MAX_VIEWS:
        raise UsageError(
            f"an image would become {n} tiles of {view.width}x{view.height}; the rule's sizes make no sense"
        )
    return (view,) * n


def refuse(rule: Parameters, image: ImageSize, reason: str) -> UsageError:
    """Return the error for an image that the processor itself says no to."""
    return UsageError(f"image {image}: refused by the model's own processor ({rule.rule}): {reason}")


def ceil_div(n: int, divisor: int) -> int:
    """Return n / divisor, rounded up."""
    return -(-n // divisor)
