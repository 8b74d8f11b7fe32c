"""The tensors of a described projector file, for descriptions that may be wrong: a profile or folder of strangers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.errors import SourceError
from planner.tensors import vision_tensors

if TYPE_CHECKING:
    from planner.model import Tensor, Vision

MAX_LAYERS = 1024


def projector_tensors(name: str, vision: Vision, n_embd_text: int) -> tuple[Tensor, ...]:
    """Return the tensors of the projector file of model ``name``.

    Raises:
        SourceError: facts that make none (a head count of 0), or more layers than any tower has.
    """
    counts = {key: n for key, n in vision.facts.items() if key.endswith(("block_count", "layers"))}
    for key, n in {**counts, "layers": vision.n_layers}.items():
        if isinstance(n, int) and n > MAX_LAYERS:
            raise SourceError(f"{name}: {key} of its vision tower is {n}; no tower has more than {MAX_LAYERS}")
    try:
        return vision_tensors(vision, n_embd_text)
    except (ArithmeticError, IndexError, TypeError, ValueError) as error:
        raise SourceError(f"{name}: the facts of its vision tower contradict each other: {error}") from error
