"""Blocks of a tower that see their patches in bands along rows or along columns, as the file lists block by block.

Source: tools/mtmd/models/mimovl.cpp, llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from planner.engines.llama_cpp.encoder.blocks import Rotation, block, reordered, window_mask
from planner.engines.llama_cpp.encoder.tower import Tower, fact_of
from planner.engines.llama_cpp.graph import Node
from planner.model import Vision

EVERYTHING, COLUMNS = -1, 1  # what a block sees; any other number: bands along rows


def banded_blocks(tower: Tower, x: Node, *, norm: str = "rms") -> Node:
    """Return ``x`` through all blocks; patches are put into the order of columns for the blocks that want it.

    Raises:
        ValueError: the file lists another number of blocks than it has.
    """
    g, n = tower.graph, tower.n_patches
    modes = band_modes(tower.vision)
    if len(modes) != tower.vision.n_layers:
        raise ValueError("the file does not list what its blocks see")
    along_rows, along_columns = _rotation(tower, "row_positions"), _rotation(tower, "column_positions")
    order = tower.input("column_order", "f32", n // tower.merge**2)
    there, back = g.cast(order, "i32"), g.op("argsort", (order,), order.shape, "i32")
    window_mask(tower, x)
    by_column = False
    for layer in tower.layers:
        g.layer = layer
        if (modes[layer] == COLUMNS) != by_column:
            x = reordered(tower, x, back if by_column else there)
            by_column = not by_column
        mask = None if modes[layer] == EVERYTHING else tower.mask
        x = block(tower, x, layer, norm, (n, 1), along_columns if by_column else along_rows, mask)
    g.layer = -1
    return reordered(tower, x, back) if by_column else x


def _rotation(tower: Tower, name: str) -> Rotation:
    positions = tower.input(name, "i32", tower.n_patches * 4)
    return lambda x: tower.graph.rope(x, positions)


def band_modes(vision: Vision) -> tuple[int, ...]:
    """Return what every block sees, nothing for towers that do not list it."""
    found = fact_of(vision, "wa_pattern_mode")
    return found if isinstance(found, tuple) else ()
