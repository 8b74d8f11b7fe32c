"""One square view, whatever the image: LLaVA-1.5, Gemma 3, and the projectors without tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def fixed_size(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view of ``image_size``; tokens are its merged patches, or ``tokens``, or (``side_only``) one side."""
    size, patch, merge = rule.positive("image_size"), rule.positive("patch"), rule.positive("merge", 1)
    tokens = rule.integer("tokens", 0) or (size // patch) ** 2 // (merge * merge)
    if rule.flag("side_only"):
        tokens = size // patch
    tokens += rule.integer("boundary", 0)
    scale = size / max(image.width, image.height)
    return Tiling(
        views=(View(width=size, height=size, patch=patch, n_prefix=rule.integer("prefix", 0), tokens=tokens),),
        tokens=tokens,
        extra_tokens=rule.integer("extra", 0),
        content=(max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        chunk_tokens=(tokens,),
    )
