"""A tower of windowed attention with relative positions before the usual one, and the towers that follow it.

Source: tools/mtmd/models (``build_sam``), llama.cpp 0.5.0-dev.
"""

from __future__ import annotations

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.blocks import blocks
from planner.engines.llama_cpp.encoder.tower import Tower
from planner.engines.llama_cpp.graph import Node

GLOBAL_LAYERS = frozenset({2, 5, 8, 11})  # the others see a window


def window_tower(tower: Tower, x: Node, *, tiles: bool = True) -> Node:
    """Return the pixels through the windowed tower: (columns, rows, channels, tiles).

    ``tiles``: a picture taller than wide is a column of square tiles, encoded as a batch; the overview is not.
    """
    if tiles and not tower.overview:
        x = _tiles(tower, x)
    g = tower.graph
    n_embd = tower.fact("sam.embedding_length", 768)
    x = _convolved(tower, x, "v.sam.patch_embd.weight", tower.need("v.sam.patch_embd.weight").shape[0])
    x = g.add(x, g.reshape(tower.need("v.sam.patch_embd.bias"), 1, 1, n_embd))
    x = g.cont(g.permute(x, 1, 2, 0, 3))
    window = tower.fact("window_size", 14)
    near = tower.input("rel_pos_indices_local", "i32", window, window)
    far = tower.input("rel_pos_indices_global", "i32", x.shape[1], x.shape[2])
    x = g.add(x, _positions(tower, x))
    for layer in range(tower.fact("sam.block_count", 12)):
        x = _block(tower, x, layer, window, far if layer in GLOBAL_LAYERS else near)
    return g.expand(_neck(tower, x))


def _tiles(tower: Tower, x: Node) -> Node:
    g, side = tower.graph, tower.width
    n = tower.height // side
    x = g.reshape(x, side * side, n, 3, tower.batch)
    x = g.cont(g.permute(x, 0, 2, 1, 3))
    return g.reshape(x, side, side, 3, n * tower.batch)


def _convolved(tower: Tower, x: Node, name: str, stride: int, padding: int = 0) -> Node:
    """Return a convolution whose windows keep f32 unless the kernel is f16."""
    kernel = tower.need(name)
    return ops.conv_2d(tower.graph, kernel, x, stride, padding, "f16" if kernel.format == "f16" else "f32")


def _positions(tower: Tower, x: Node) -> Node:
    g = tower.graph
    table = tower.need("v.sam.pos_embd.weight")
    if table.shape[1] == x.shape[1]:
        return table
    planes = g.cont(g.permute(table, 2, 0, 1, 3))
    resized = ops.interpolate(g, planes, x.shape[1], x.shape[1], x.shape[0])
    return g.cont(g.permute(resized, 1, 2, 0, 3))


def _block(tower: Tower, x: Node, layer: int, window: int, indices: Node) -> Node:
    g, at = tower.graph, f"v.sam.blk.{layer}"
    width, height = x.shape[1], x.shape[2]
    y = tower.norm(f"{at}.pre_ln", x, "layer")
    local = layer not in GLOBAL_LAYERS
    if local:
        y = _windows(tower, y, window)
    y = _attention(tower, y, at, indices)
    if local:
        y = _joined(tower, y, width, height, window)
    x = g.add(y, x)
    y = tower.ffn(tower.norm(f"{at}.post_ln", x, "layer"), f"{at}.mlp.lin1", f"{at}.mlp.lin2")
    return g.add(y, x)


def _windows(tower: Tower, x: Node, window: int) -> Node:
    g = tower.graph
    c, w, h, b = x.shape
    more = (-w % window, -h % window)
    if any(more):
        x = ops.pad(g, x, 0, *more)
    n_wide, n_high = (w + more[0]) // window, (h + more[1]) // window
    x = g.reshape(x, c * window, n_wide, window, n_high * b)
    x = g.cont(g.permute(x, 0, 2, 1, 3))
    return g.reshape(x, c, window, window, n_wide * n_high * b)


def _joined(tower: Tower, x: Node, width: int, height: int, window: int) -> Node:
    g, c = tower.graph, x.shape[0]
    wide, high = width + -width % window, height + -height % window
    n_wide, n_high = wide // window, high // window
    b = x.shape[3] // (n_wide * n_high)
    x = g.reshape(x, c * window, window, n_wide, n_high * b)
    x = g.cont(g.permute(x, 0, 2, 1, 3))
    x = g.reshape(x, c, wide, high, b)
    return g.cont(g.view(x, (c, width, height, b), (x.strides[1], x.strides[2], x.strides[3])))


def _attention(tower: Tower, x: Node, at: str, indices: Node) -> Node:
    g = tower.graph
    n_embd, w, h, b = x.shape
    n_heads = tower.fact("sam.head_count", 12)
    head = n_embd // n_heads
    x = g.add(g.mul_mat(tower.need(f"{at}.attn.qkv.weight"), x), tower.need(f"{at}.attn.qkv.bias"))
    x = g.reshape(x, n_embd, 3, w * h, b)
    q, k, v = (
        g.reshape(
            g.cont(g.view(x, (n_embd, w * h, b), (x.strides[2], x.strides[3]), offset=i * x.strides[1])),
            head,
            n_heads,
            w * h,
            b,
        )
        for i in range(3)
    )
    mask = _relative_mask(tower, q, at, indices, (w, h, b))
    x = tower.attention(q, k, v, f"{at}.attn.out", mask=mask)
    return g.reshape(g.cont(x), n_embd, w, h, b)


def _relative_mask(tower: Tower, q: Node, at: str, indices: Node, grid: tuple[int, int, int]) -> Node:
    """Return the scores of relative positions, one per pair of tokens and head."""
    g = tower.graph
    w, h, b = grid
    head, n_heads = q.shape[0], q.shape[1]
    wide = _relative(tower, f"{at}.attn.pos_w.weight", indices, w)
    high = _relative(tower, f"{at}.attn.pos_h.weight", indices, h)
    queries = g.reshape(g.cont(g.permute(q, 0, 2, 1, 3)), head, w, h, b * n_heads)
    across = g.mul_mat(wide, g.cont(g.permute(queries, 0, 2, 1, 3)))
    across = g.cont(g.permute(across, 0, 2, 1, 3))
    across = ops.repeat(g, g.reshape(across, w, 1, w * h, n_heads * b), w, h, w * h, n_heads * b)
    down = g.reshape(g.mul_mat(high, queries), 1, h, w * h, n_heads * b)
    mask = g.reshape(g.add(across, down), w * h, w * h, n_heads, b)
    return g.cast(mask, "f16") if tower.flash else mask


def _relative(tower: Tower, name: str, indices: Node, side: int) -> Node:
    """Return the rows of a table of relative positions, resized to twice the side less one where it is not."""
    g = tower.graph
    table = tower.need(name)
    c, length = table.shape[:2]
    n = 2 * side - 1
    x = table
    if n != length:
        x = g.reshape(g.cont(g.permute(x, 1, 0, 2, 3)), length, 1, c)
        x = g.reshape(ops.interpolate(g, x, n, 1, c), n, c)
        x = g.cont(g.permute(x, 1, 0, 2, 3))
    return g.reshape(g.get_rows(x, g.reshape(indices, side * side)), c, side, side)


def _neck(tower: Tower, x: Node) -> Node:
    g = tower.graph
    x = g.cont(g.permute(x, 2, 0, 1, 3))
    for i, padding in ((0, 0), (2, 1)):
        x = _convolved(tower, x, f"v.sam.neck.{i}.weight", 1, padding)
        x = tower.norm(f"v.sam.neck.{i + 1}", g.cont(g.permute(x, 1, 2, 0, 3)), "layer")
        x = g.cont(g.permute(x, 2, 0, 1, 3))
    for i in (2, 3):
        x = _convolved(tower, x, f"v.sam.net_{i}.weight", 2, 1)
    return x


# ---- what follows


def _as_tokens(tower: Tower, x: Node) -> Node:
    g = tower.graph
    flat = g.reshape(x, x.shape[0] * x.shape[1], x.shape[2], x.shape[3])
    return g.cont(g.permute(flat, 1, 0, 2, 3))


def tiled_tower(tower: Tower, x: Node) -> Node:
    """Return the windowed tower's grid through the usual tower, both side by side, with a token after every row."""
    g = tower.graph
    n, n_tiles = x.shape[0] * x.shape[1], x.shape[3]
    tokens = _as_tokens(tower, x)
    learned, n_tokens = _learned(tower, tower.need("v.position_embd.weight"), int(n**0.5))
    tokens = g.concat(ops.repeat(g, tower.need("v.class_embd"), tower.n_embd, 1, n_tiles), tokens, 1)
    rows = g.get_rows(learned, g.cast(ops.arange(g, n_tokens), "i32"))
    y = g.expand(blocks(tower, g.add(tokens, rows)))
    x = g.reshape(g.cont(g.permute(x, 1, 2, 0, 3)), x.shape[2], n, n_tiles)
    y = g.view(y, (tower.n_embd, n, n_tiles), (y.strides[1], y.strides[2]), offset=y.strides[1])
    y = tower.linear("mm.model.fc", g.concat(y, x, 0))
    return _overview(tower, y) if tower.overview else _tile_rows(tower, y)


def _learned(tower: Tower, table: Node, side: int) -> tuple[Node, int]:
    g = tower.graph
    n = table.shape[1]
    stored = int((n - 1) ** 0.5)
    if stored == side:
        return table, n
    stride = table.strides[1]
    old = g.view(table, (table.shape[0], stored * stored), (stride,))
    token = g.view(table, (table.shape[0], 1), (stride,), offset=stored * stored)
    new = g.reshape(ops.interpolate(g, old, side, side, table.shape[0]), tower.n_embd, side * side)
    return g.concat(new, token, 1), side * side + 1


def _overview(tower: Tower, x: Node) -> Node:
    g = tower.graph
    width, side, n = x.shape[0], int(x.shape[1] ** 0.5), x.shape[2]
    line = ops.repeat(g, tower.need("v.image_newline"), width, 1, side, n)
    grid = g.concat(g.reshape(x, width, side, side, n), line, 1)
    x = g.reshape(grid, width, (side + 1) * side, n)
    return g.concat(x, ops.repeat(g, tower.need("v.view_seperator"), width, 1, n), 1)


def _tile_rows(tower: Tower, x: Node) -> Node:
    g = tower.graph
    width, side = x.shape[0], int(x.shape[1] ** 0.5)
    n_tiles = tower.height // tower.width
    x = g.reshape(x, width * side, side, n_tiles, tower.batch)
    x = g.cont(g.permute(x, 0, 2, 1, 3))
    x = g.reshape(x, width, side * n_tiles, side, tower.batch)
    line = ops.repeat(g, tower.need("v.image_newline"), width, 1, side, tower.batch)
    return g.reshape(g.concat(x, line, 1), width, (side * n_tiles + 1) * side, tower.batch)


def queried_tower(tower: Tower, x: Node) -> Node:
    """Return stored queries that went through the usual tower behind the windowed tower's tokens."""
    g = tower.graph
    tokens = _as_tokens(tower, x)
    n = tokens.shape[1]
    stored = tower.need(f"v.resample_query_{768 if n == 144 else 1024}.weight")
    queries = ops.repeat(g, g.cast(stored, "f32"), stored.shape[0], n, tokens.shape[2])
    tokens = g.concat(tokens, queries, 1)
    length = tokens.shape[1]
    tower.mask = tower.input("attn_mask", "f32", length, length)
    y = blocks(tower, tokens, norm="rms", rotary="sequence", masks="all")
    y = g.view(y, (y.shape[0], n, y.shape[2]), (y.strides[1], y.strides[2]), offset=y.strides[1] * (y.shape[1] - n))
    y = tower.linear("mm.model.fc", g.expand(g.cont(y)))
    if not tower.overview:
        return y
    token = tower.need("v.view_seperator")
    return g.concat(y, ops.repeat(g, token, token.shape[0], 1, y.shape[2]), 1)
