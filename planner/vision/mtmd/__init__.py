"""What llama.cpp's multimodal library (mtmd) makes of an image, one file per preprocessor.

It is not what the models' own processors do: sizes are computed in 32-bit floats, defaults and limits differ, little
is unpadded. Source of every rule here: llama.cpp 0.5.0-dev, tools/mtmd (mtmd-image.cpp, mtmd.cpp, clip.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MTMD_RULES: Mapping[str, str] = {  # a rule's word -> the module that has the function of that name, less "mtmd_"
    f"mtmd_{word}": f"planner.vision.mtmd.{word}"
    for word in (
        "ceil_canvas",
        "closest_grid",
        "dynamic_size",
        "edge_tiles",
        "fixed_size",
        "global_tiles",
        "native_tiles",
        "pinpoints",
        "slices",
        "stacked_tiles",
        "stepwise",
        "token_block",
        "window_crops",
    )
}
