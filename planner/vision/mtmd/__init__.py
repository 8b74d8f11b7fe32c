"""What llama.cpp's multimodal library (mtmd) makes of an image, one file per preprocessor.

It is not what the models' own processors do: sizes are computed in 32-bit floats, defaults and limits differ, little
is unpadded. Source of every rule here: llama.cpp 0.5.0-dev, tools/mtmd (mtmd-image.cpp, mtmd.cpp, clip.cpp).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.vision.mtmd.ceil_canvas import ceil_canvas
from planner.vision.mtmd.closest_grid import closest_grid
from planner.vision.mtmd.dynamic_size import dynamic_size
from planner.vision.mtmd.edge_tiles import edge_tiles
from planner.vision.mtmd.fixed_size import fixed_size
from planner.vision.mtmd.global_tiles import global_tiles
from planner.vision.mtmd.native_tiles import native_tiles
from planner.vision.mtmd.pinpoints import pinpoints
from planner.vision.mtmd.slices import slices
from planner.vision.mtmd.stacked_tiles import stacked_tiles
from planner.vision.mtmd.stepwise import stepwise
from planner.vision.mtmd.token_block import token_block
from planner.vision.mtmd.window_crops import window_crops

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.vision.tiling import Rule

MTMD_RULES: Mapping[str, Rule] = {
    "mtmd_ceil_canvas": ceil_canvas,
    "mtmd_closest_grid": closest_grid,
    "mtmd_dynamic_size": dynamic_size,
    "mtmd_edge_tiles": edge_tiles,
    "mtmd_fixed_size": fixed_size,
    "mtmd_global_tiles": global_tiles,
    "mtmd_native_tiles": native_tiles,
    "mtmd_pinpoints": pinpoints,
    "mtmd_slices": slices,
    "mtmd_stacked_tiles": stacked_tiles,
    "mtmd_stepwise": stepwise,
    "mtmd_token_block": token_block,
    "mtmd_window_crops": window_crops,
}
