"""Native resolution within limits of tokens: Qwen-VL, GLM-V, Pixtral, Kimi-VL, Gemma 4; LightOnOCR by its edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.mtmd.limits import aligned, pixel_limits
from planner.vision.tiling import Tiling, View

if TYPE_CHECKING:
    from planner.vision.parameters import Parameters
    from planner.workload import ImageSize


def one_view(rule: Parameters, width: int, height: int, content: tuple[int, int]) -> Tiling:
    """Return the tiling of one view: merged patches, with ``row_breaks`` between or ``row_newlines`` after its rows.

    Under M-RoPE (``mrope``) the image takes only as many positions as its longer side has tokens.
    """
    patch, merge = rule.positive("patch"), rule.positive("merge", 1)
    across, down = width // patch // merge, height // patch // merge
    tokens = across * down + rule.integer("boundary", 0)
    tokens += (down - 1) * rule.flag("row_breaks") + down * rule.flag("row_newlines")
    extra = rule.integer("extra", 0)
    view = View(width=width, height=height, patch=patch, n_prefix=rule.integer("prefix", 0), tokens=tokens)
    return Tiling(
        views=(view,),
        tokens=tokens,
        extra_tokens=extra,
        content=content,
        n_positions=max(across, down) if rule.flag("mrope") else None,
        chunk_tokens=(tokens,),
    )


def dynamic_size(image: ImageSize, rule: Parameters) -> Tiling:
    """Return one view whose sides are whole merged patches and whose area keeps the limits."""
    least, most = pixel_limits(rule)
    size = aligned(
        image.width,
        image.height,
        align=rule.positive("patch") * rule.positive("merge", 1),
        min_pixels=least,
        max_pixels=most,
        longest_edge=rule.integer("longest_edge", 0),
    )
    return one_view(rule, *size, size)
