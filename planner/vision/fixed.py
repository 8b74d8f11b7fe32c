"""One picture of fixed size, whatever the image: stretched, padded, or cropped in the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def fixed(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view of ``size`` pixels a side and ``tokens`` tokens.

    ``fit``: ``stretch`` to the square, ``pad`` the long side's square, or ``crop``: shorter side to ``size``, then the
    middle (transformers, CLIPImageProcessor).
    """
    size = rule.positive("size")
    tokens = rule.positive("tokens")
    view = View(
        width=size, height=size, patch=rule.positive("patch"), n_prefix=rule.integer("prefix", 0), tokens=tokens
    )
    long, short = max(image.width, image.height), min(image.width, image.height)
    fit = rule.values.get("fit", "stretch")
    content = (size, size)
    if fit == "pad":
        scale = size / long
        floor = rule.integer("min_size", 1)
        content = (max(round(image.width * scale), floor), max(round(image.height * scale), floor))
    return Tiling(
        views=(view,),
        tokens=tokens,
        extra_tokens=rule.integer("extra", 0),
        content=content,
        visible_pixels=short * short if fit == "crop" else None,
    )
