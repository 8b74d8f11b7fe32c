"""From pixels to patches: how a tower embeds them, adds positions and class tokens.

Source: ``build_inp`` and the graphs in tools/mtmd/models, llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.tower import AXES, Tower
from planner.engines.llama_cpp.graph import Node

PATCHES = "v.patch_embd.weight"
POSITIONS = "v.position_embd.weight"


def pixels(tower: Tower, channels: int = 3) -> Node:
    """Return the picture as the program fills it in: (width, height, channels, batch)."""
    return tower.input("inp_raw", "f32", tower.width, tower.height, channels, tower.batch)


def rescale(tower: Tower, x: Node) -> Node:
    """Return the pixels scaled by the device instead of the host."""
    return tower.graph.scale(x)


def patches(tower: Tower, x: Node, *, bias: bool = True) -> Node:
    """Return one convolution per patch: (n_embd, patches, batch)."""
    g = tower.graph
    x = ops.conv_2d(g, tower.need(PATCHES), x, tower.patch)
    x = g.reshape(x, x.shape[0] * x.shape[1], tower.n_embd, x.shape[3])
    x = g.cont(g.transpose(x))
    return tower.biased("v.patch_embd", x) if bias else x


def paired_patches(tower: Tower, x: Node, *, bias: bool = True) -> Node:
    """Return the sum of two convolutions (a still picture as two frames), patches of one merged token together."""
    g = tower.graph
    first = ops.conv_2d(g, tower.need(PATCHES), x, tower.patch)
    second = ops.conv_2d(g, tower.need(f"{PATCHES}.1"), x, tower.patch)
    x = g.permute(g.add(first, second), 1, 2, 0, 3)
    x = gathered(tower, x)
    return tower.biased("v.patch_embd", x) if bias else x


def gathered(tower: Tower, x: Node) -> Node:
    """Return (n_embd, columns, rows) with the patches that merge into one token next to each other."""
    g, m = tower.graph, tower.merge
    x = g.cont(x, tower.n_embd * m, tower.columns // m, tower.rows)
    x = g.reshape(x, tower.n_embd * m, tower.columns // m, m, tower.rows // m)
    return g.cont(g.permute(x, 0, 2, 1, 3), tower.n_embd, tower.n_patches)


def unfolded_patches(tower: Tower, x: Node) -> Node:
    """Return patches cut out in f32 and multiplied by a stored matrix."""
    g = tower.graph
    weight = tower.need(PATCHES)
    kernel = g.reshape(weight, tower.patch, tower.patch, 3, tower.n_embd)
    x = ops.im2col(g, kernel, x, tower.patch, 0, "f32")
    return g.reshape(g.mul_mat(weight, x), tower.n_embd, tower.n_patches)


def normed_patches(tower: Tower, x: Node) -> Node:
    """Return patches cut out in f32, normalised, multiplied, normalised again."""
    g = tower.graph
    kernel = Node("none", (tower.patch, tower.patch, 3, 1), "f32", name="kernel")
    x = ops.im2col(g, kernel, x, tower.patch, 0, "f32")
    x = g.reshape(x, x.shape[0], x.shape[1] * x.shape[2] * x.shape[3])
    x = tower.norm("v.patch_norm.1", x, "layer")
    x = g.add(g.mul_mat(tower.need(PATCHES), x), tower.need("v.patch_embd.bias"))
    return tower.norm("v.patch_norm.2", x, "layer")


def shuffled_patches(tower: Tower, x: Node) -> Node:
    """Return patches sorted by copies into the order of merged tokens, then multiplied by a stored matrix."""
    g, p, m = tower.graph, tower.patch, 2
    columns, rows = tower.columns // m, tower.rows // m
    x = g.reshape(x, columns * m * p, m * p, rows, 3)
    x = g.cont(g.permute(x, 1, 2, 3, 0), m * p * 3, columns, m * p, rows)
    x = g.cont(g.permute(x, 0, 2, 1, 3), m * p * 3, p, m, rows * columns)
    x = g.cont(g.permute(x, 1, 0, 2, 3), p, 3, p, rows * columns * m * m)
    x = g.cont(g.permute(x, 2, 0, 1, 3), 3 * p * p, rows * columns * m * m)
    x = tower.biased("v.patch_embd", g.mul_mat(tower.need(PATCHES), x))
    return g.reshape(x, tower.n_embd, tower.n_patches)


# ---- positions


def positions(tower: Tower, x: Node, *, source: str = "stored", gather: bool = False) -> Node:
    """Return ``x`` plus learned positions: ``stored``, picked by ``rows``, ``resized``, ``resized_grid`` or ``filled``.

    A tower without stored positions adds none. ``gather``: patches that merge into one token stand together.
    """
    if source == "filled":
        return tower.graph.add(x, tower.input("pos_embd", "f32", tower.n_embd, tower.n_patches))
    table = tower.weight(POSITIONS)
    if table is None:
        return x
    learned = _learned(tower, table, source, x)
    return tower.graph.add(x, gathered(tower, learned) if gather else learned)


def _learned(tower: Tower, table: Node, source: str, x: Node) -> Node:
    if source == "rows":
        return tower.graph.get_rows(table, tower.input("positions", "i32", x.shape[1]))
    if source == "resized":
        return _resized(tower, table)
    return _resized_grid(tower, table) if source == "resized_grid" else table


def _resized(tower: Tower, table: Node) -> Node:
    """Return a square table interpolated to the picture's grid; as it is where the grid is the same."""
    g = tower.graph
    side = int(table.shape[1] ** 0.5)
    if (tower.columns, tower.rows) == (side, side):
        return table
    x = g.permute(g.reshape(table, tower.n_embd, side, side), 2, 0, 1, 3)
    x = ops.interpolate(g, x, tower.columns, tower.rows, tower.n_embd)
    return g.cont(g.permute(x, 1, 2, 0, 3), tower.n_embd, tower.n_patches)


def _resized_grid(tower: Tower, table: Node) -> Node:
    """Return a table stored as (n_embd, width, height) interpolated to the picture's grid."""
    g = tower.graph
    if table.shape[2] == 1:  # described as one row per position
        side = int(table.shape[1] ** 0.5)
        table = g.reshape(table, table.shape[0], side, side)
    if (tower.columns, tower.rows) == (table.shape[1], table.shape[2]):
        return g.cont(table, tower.n_embd, tower.n_patches)
    x = ops.interpolate(g, g.permute(table, 2, 1, 0, 3), tower.rows, tower.columns, tower.n_embd)
    return g.cont(g.permute(x, 2, 1, 0, 3), tower.n_embd, tower.n_patches)


def axis_positions(tower: Tower, x: Node) -> Node:
    """Return ``x`` plus one row of a table for its column and one of another for its row."""
    g = tower.graph
    table = tower.need(POSITIONS)
    stride = table.strides[1]
    for axis in (0, 1):
        half = g.view(table, (tower.n_embd, table.shape[1]), (stride,), offset=axis * table.shape[1] * stride)
        x = g.add(x, g.get_rows(half, tower.input(AXES[axis], "i32", tower.n_patches)))
    return x


def class_token(tower: Tower, x: Node, *, place: str = "after", repeated: bool = False) -> Node:
    """Return ``x`` with the stored class token(s) joined before or after the patches; unchanged if none is stored."""
    token = tower.weight("v.class_embd")
    if token is None:
        return x
    if repeated:
        token = ops.repeat(tower.graph, token, token.shape[0], 1, tower.batch)
    return tower.graph.concat(*((x, token) if place == "after" else (token, x)), 1)


def patches_only(tower: Tower, x: Node, *, first: int = 0, copied: bool = False) -> Node:
    """Return the window of ``x`` that holds the patches, from token ``first`` on (-1: after the class tokens)."""
    g = tower.graph
    skip = x.shape[1] - tower.n_patches if first < 0 else first
    widths = (tower.n_embd, tower.n_patches, tower.batch)[: 3 if copied else 2]
    x = g.view(x, widths, (x.strides[1], x.strides[2])[: len(widths) - 1], offset=skip * x.strides[1])
    return g.cont(x) if copied else x


def clamp_products(tower: Tower, x: Node) -> Node:
    """Let every later product cut its operand and its result to a range; ``x`` is returned as it is."""
    tower.clamped = True
    return x
