"""From patches to tokens of the language model: how a tower merges neighbours and projects them.

Source: the graphs in tools/mtmd/models, llama.cpp 0.5.0-dev. ``x`` is (n_embd, patches, batch) unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.tower import Tower
from planner.engines.llama_cpp.graph import Node
from planner.vision.mtmd.token_block import block_tokens
from planner.vision.tiling import ceil_div

# ---- plain pieces


def scaled(tower: Tower, x: Node) -> Node:
    """Return ``x`` times a number."""
    return tower.graph.scale(x)


def normed(tower: Tower, x: Node, *, name: str = "", kind: str = "layer", bias: bool = True) -> Node:
    """Return ``x`` normalised, with what is stored under ``name`` of weight and bias."""
    word = "rms_norm" if kind == "rms" else "norm"
    return tower.graph.norm(
        x,
        tower.weight(f"{name}.weight"),
        tower.weight(f"{name}.bias") if bias else None,
        word=word,
    )


def normed_if_stored(tower: Tower, x: Node, *, name: str, kind: str = "layer") -> Node:
    """Return ``x`` normalised; unchanged where the file has no such norm."""
    return normed(tower, x, name=name, kind=kind) if tower.has(f"{name}.weight") else x


def projected(tower: Tower, x: Node, *, name: str) -> Node:
    """Return ``x`` through a stored matrix and bias."""
    return tower.linear(name, x)


def activated(tower: Tower, x: Node) -> Node:
    """Return an activation of ``x``."""
    return tower.graph.unary(x, "gelu")


def projected_transposed(tower: Tower, x: Node, *, name: str) -> Node:
    """Return ``x`` through a matrix stored the other way round: it is copied on every run."""
    g = tower.graph
    return g.mul_mat(g.cont(g.transpose(tower.need(f"{name}.weight"))), x)


def mlp(  # noqa: PLR0913 - options of a stage
    tower: Tower, x: Node, *, up: str, down: str, gate: str = "", squared: bool = False, bias: bool = True
) -> Node:
    """Return ``x`` through two stored matrices, gated where ``gate`` is stored, with their biases if ``bias``."""
    return tower.ffn(x, up, down, gate=gate, squared=squared, bias=bias)


def standardised(tower: Tower, x: Node) -> Node:
    """Return ``x`` shifted and scaled per feature, where the file says so."""
    bias, scale = tower.weight("v.std_bias"), tower.weight("v.std_scale")
    if bias is None or scale is None:
        return x
    return tower.graph.mul(tower.graph.op("sub", (x, bias)), scale)


# ---- merging neighbours


def joined(tower: Tower, x: Node) -> Node:
    """Return neighbouring patches that already stand together as one row."""
    unit = tower.merge * tower.merge
    return tower.graph.reshape(x, x.shape[0] * unit, x.shape[1] // unit)


def grouped(tower: Tower, x: Node) -> Node:
    """Return neighbouring patches that already stand together as one row, feature by feature."""
    g, unit = tower.graph, tower.merge * tower.merge
    n = tower.n_patches // unit
    x = g.cont(g.permute(g.reshape(x, tower.n_embd, unit, n), 1, 0, 2, 3))
    return g.reshape(x, tower.n_embd * unit, n)


def pooled(tower: Tower, x: Node) -> Node:
    """Return the average of every square of patches."""
    g = tower.graph
    grid = g.cont(g.transpose(x), tower.columns, tower.rows, tower.n_embd, tower.batch)
    small = ops.pool_2d(g, grid, tower.merge, tower.merge)
    flat = g.reshape(small, small.shape[0] * small.shape[1], tower.n_embd, tower.batch)
    return g.cont(g.transpose(flat))


def shuffled(tower: Tower, x: Node) -> Node:
    """Return every square of patches as one row; a picture that does not divide is padded first."""
    g, m = tower.graph, tower.merge
    n_embd = x.shape[0]
    columns, rows = tower.columns, tower.rows
    x = g.reshape(x, n_embd, columns, rows)
    more = (-columns % m, -rows % m)
    if any(more):
        x = ops.pad(g, x, 0, *more)
        columns, rows = columns + more[0], rows + more[1]
    x = g.permute(g.reshape(x, n_embd * m, columns // m, rows), 0, 2, 1, 3)
    x = g.permute(g.cont(x, n_embd * m * m, rows // m, columns // m), 0, 2, 1, 3)
    return g.cont(x, x.shape[0], x.shape[1] * x.shape[2])


def shuffled_tiles(tower: Tower, x: Node, *, twice: bool = True) -> Node:
    """Return every square of patches of equal tiles as one row; ``twice``: copied into order once more."""
    g, m = tower.graph, tower.merge
    width = tower.n_embd * m
    columns, rows = tower.columns, tower.rows
    x = g.reshape(x, width, (rows if twice else columns) // m, columns if twice else rows, tower.batch)
    x = g.cont(g.permute(x, 0, 2, 1, 3), width * m, rows // m, columns // m, tower.batch)
    if not twice:
        return g.cont(x, width * m, tower.n_patches // (m * m))
    x = g.permute(x, 0, 2, 1, 3)
    return g.cont(x, width * m, x.shape[1] * x.shape[2], x.shape[3])


def normed_each(tower: Tower, x: Node, *, name: str) -> Node:
    """Return merged rows with each of their patches normalised for itself."""
    g = tower.graph
    width, n = x.shape[0], x.shape[1]
    n_patches = n * width // tower.n_embd
    x = g.view(x, (tower.n_embd, n_patches), (ops.row_bytes(x.format, tower.n_embd),))
    x = normed(tower, x, name=name)
    return g.view(x, (width, n), (ops.row_bytes(x.format, width),))


def unfolded(tower: Tower, x: Node, *, weight: str = "", norm: str = "", padded: bool = False) -> Node:
    """Return squares of patches cut out as windows (on the host: the kernel is a strided view).

    Unchanged where ``weight`` is named and not stored; ``norm`` comes first, the product with ``weight`` last.
    """
    if weight and not tower.has(f"{weight}.weight"):
        return x
    g, m = tower.graph, tower.merge
    if norm:
        x = normed(tower, x, name=norm, kind="rms", bias=False)
    x = g.cont(g.permute(g.reshape(x, tower.n_embd, tower.columns, tower.rows), 2, 0, 1, 3))
    if padded and (tower.columns % m or tower.rows % m):
        x = ops.pad(g, x, -tower.columns % m, -tower.rows % m)
    kernel = g.view(x, (m, m, x.shape[2]), (0, 0))
    x = ops.im2col(g, kernel, x, m, 0, "f32")
    x = g.reshape(x, x.shape[0], x.shape[1] * x.shape[2])
    return tower.product(weight, x) if weight else x


def convolved(tower: Tower, x: Node, *, name: str) -> Node:
    """Return every square of patches through a stored convolution."""
    g, m = tower.graph, tower.merge
    n = tower.n_patches // (m * m)
    x = g.reshape(x, tower.n_embd, m, m, n)
    x = ops.conv_2d(g, tower.need(f"{name}.weight"), g.cont(g.permute(x, 2, 0, 1, 3)), m)
    return tower.biased(name, g.reshape(x, x.shape[2], n))


# ---- features of several blocks


def with_features(tower: Tower, x: Node) -> Node:
    """Return ``x`` with the features of earlier blocks appended to every token."""
    if not tower.features:
        return x
    g = tower.graph
    return g.concat(x, reduce(lambda a, b: g.concat(a, b, 0), tower.features), 0)


def stacked_features(tower: Tower, x: Node) -> Node:
    """Return the features of the chosen blocks joined, or ``x`` where none were chosen."""
    g = tower.graph
    return reduce(lambda a, b: g.concat(a, b, 0), tower.features) if tower.features else x


def picked_patches(tower: Tower, x: Node) -> Node:
    """Return the rows of the patches, without the class token."""
    g = tower.graph
    flat = g.reshape(x, x.shape[0], x.shape[1])
    return g.get_rows(flat, tower.input("patches", "i32", tower.n_patches))


def two_layers(tower: Tower, x: Node) -> Node:
    """Return ``x`` through one or two matrices; with norms between where the file stores them."""
    g = tower.graph
    if tower.has("mm.3.weight"):
        x = tower.norm("mm.1", tower.linear("mm.0", x), "layer")
        return tower.norm("mm.4", tower.linear("mm.3", g.unary(x, "gelu")), "layer")
    x = g.unary(tower.linear("mm.0", x), "gelu")
    return tower.linear("mm.2", x) if tower.has("mm.2.weight") else x


# ---- structural tokens


def row_breaks(tower: Tower, x: Node, *, name: str) -> Node:
    """Return the tokens with a stored one after every row but the last; unchanged where none is stored."""
    token = tower.weight(name)
    if token is None:
        return x
    g = tower.graph
    columns, rows = tower.columns // tower.merge, tower.rows // tower.merge
    width = x.shape[0]
    grid = g.reshape(x, width, columns, rows)
    empty = Node("none", (width, 1, rows, 1), x.format, name="row breaks")
    grid = g.concat(grid, g.add(g.scale(empty), token), 1)
    return g.view(grid, (width, columns * rows + rows - 1), (ops.row_bytes(grid.format, width),))


def framed(tower: Tower, x: Node, *, first: str, last: str, reshaped: bool = False) -> Node:
    """Return the tokens between two stored ones."""
    g = tower.graph
    for name, before in ((first, True), (last, False)):
        token = tower.need(name)
        if reshaped:
            token = g.reshape(token, token.shape[0], 1)
        x = g.concat(token, x, 1) if before else g.concat(x, token, 1)
    return x


def token_block(tower: Tower, x: Node, *, names: Sequence[str]) -> Node:
    """Return the tokens and the stored ones in the order of a block: rows in pairs, a new line after each, pads.

    Without a number of tokens that the place in the prompt decides, the block has no leading pads.
    """
    g = tower.graph
    for name in names:
        x = g.concat(x, g.reshape(tower.need(name), x.shape[0], 1), 1)
    columns, rows = (ceil_div(n, tower.merge) for n in (tower.columns, tower.rows))
    n = tower.laid_out[0] * tower.laid_out[1] or block_tokens(columns, rows)
    return g.get_rows(x, tower.input("layout", "i32", n))
