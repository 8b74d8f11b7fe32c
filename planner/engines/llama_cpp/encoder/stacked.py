"""A tower whose overview and tiles are stacked into one picture, and the small networks that query its blocks.

Source: tools/mtmd/models (``qf_block``), llama.cpp 0.5.0-dev. ``x`` is (n_embd, patches, tiles).
"""

from __future__ import annotations

import math
from functools import reduce

from planner.engines.llama_cpp.encoder import operations as ops
from planner.engines.llama_cpp.encoder.tower import Tower, fact_of
from planner.engines.llama_cpp.graph import Node

HEAD = 64


def stacked_tiles(tower: Tower, x: Node) -> Node:
    """Return a column of square tiles as a batch; a single tile as it is."""
    g, side = tower.graph, tower.width
    n = tower.height // side
    if n <= 1:
        return x
    x = g.reshape(x, side * side, n, 3, tower.batch)
    x = g.cont(g.permute(x, 0, 2, 1, 3))
    return g.reshape(x, side, side, 3, n * tower.batch)


def queried_features(tower: Tower, _: Node) -> Node:
    """Return what the queries of every window find in the chosen blocks, side by side: (width, tokens, tiles).

    Raises:
        ValueError: the file does not list the blocks, or how each is made smaller.
    """
    chosen, offsets = (fact_of(tower.vision, key) for key in ("feature_layer", "projector.spatial_offsets"))
    if not isinstance(chosen, tuple) or not isinstance(offsets, tuple) or len(chosen) != len(offsets):
        raise ValueError("the file does not list the blocks that are queried")
    features = dict(zip(sorted(set(chosen)), tower.features, strict=True))
    found = [_queried(tower, features[at], i, offsets[i] >= 0) for i, at in enumerate(chosen)]
    return reduce(lambda a, b: tower.graph.concat(a, b, 0), found)


def _queried(tower: Tower, x: Node, number: int, picked: bool) -> Node:  # noqa: FBT001 - how patches become queries
    """Return one block's patches as tokens: (width, tokens, tiles)."""
    g, at = tower.graph, f"v.proj_blk.{number}"
    window, query = tower.fact("projector.window_side", 1), tower.fact("projector.query_side", 1)
    n_embd, n_patches, n_tiles = x.shape[:3]
    side = math.isqrt(n_patches)
    small = side // window * query
    n_windows = (side // window) ** 2 * n_tiles

    def gathered(of: Node, word: str, n: int) -> Node:
        return g.get_rows(of, tower.input(f"{at}.{word}", "i32", n, n_tiles))

    x = tower.norm(f"{at}.norm", x, "layer")
    seen = g.reshape(gathered(x, "windows", n_patches), n_embd, window * window, n_windows)
    fewer = gathered(x, "picked", small * small) if picked else _averaged(tower, x, side, small)
    asking = g.reshape(gathered(fewer, "queries", small * small), n_embd, query * query, n_windows)
    asking = g.add(asking, tower.need(f"{at}.query"))
    seen = g.add(seen, tower.need(f"{at}.img_pos"))
    y = tower.norm(f"{at}.post_norm", asking, "layer")
    y = _attended(tower, y, y, f"{at}.self_attn")
    y = _attended(tower, y, seen, f"{at}.cross_attn")
    inner = tower.ffn(g.reshape(y, n_embd, y.shape[1] * n_windows), f"{at}.ffn_up", f"{at}.ffn_down")
    y = tower.norm(f"{at}.ffn_norm", g.add(g.reshape(inner, *y.shape), y), "layer")
    y = g.reshape(y, n_embd, y.shape[1] * n_windows // n_tiles, n_tiles)
    return tower.linear(f"{at}.linear", gathered(y, "tokens", small * small))


def _averaged(tower: Tower, x: Node, side: int, small: int) -> Node:
    g = tower.graph
    n_embd, _, n_tiles = x.shape[:3]
    x = g.cont(g.permute(g.reshape(x, n_embd, side, side, n_tiles), 2, 0, 1, 3))
    x = ops.pool_2d(g, g.reshape(x, side, side, n_embd * n_tiles), side // small, side // small)
    x = g.cont(g.permute(g.reshape(x, small, small, n_embd, n_tiles), 1, 2, 0, 3))
    return g.reshape(x, n_embd, small * small, n_tiles)


def _attended(tower: Tower, x: Node, seen: Node, at: str) -> Node:
    """Return ``x`` plus what it finds in ``seen``, window by window, normalised."""
    g = tower.graph

    def heads(word: str, of: Node) -> Node:
        width, n, n_windows = of.shape[:3]
        y = tower.linear(f"{at}_{word}", g.reshape(of, width, n * n_windows))
        return g.reshape(y, HEAD, y.shape[0] // HEAD, n, n_windows)

    y = tower.attention(heads("q", x), heads("k", seen), heads("v", seen), f"{at}_out")
    return tower.norm(f"{at}_norm", g.add(g.reshape(y, *x.shape), x), "layer")


def laid_out_tiles(tower: Tower, x: Node) -> Node:
    """Return the overview's tokens, then those of the tiles row by row: without padding, each row with a new line."""
    columns, rows = tower.laid_out
    if not columns * rows:
        return x
    g = tower.graph
    width, n, n_tiles = x.shape[0], x.shape[1], x.shape[2] - 1
    side = math.isqrt(n)
    whole = g.view(x, (width, n), (x.strides[1],))
    tiles = g.view(x, (width, n, n_tiles), (x.strides[1], x.strides[2]), offset=x.strides[2])
    tiles = g.cont(g.permute(g.reshape(tiles, width * side, side, n_tiles), 0, 2, 1, 3))
    if columns * rows != n * n_tiles:
        tiles = g.cont(g.view(g.reshape(tiles, width, n * n_tiles), (width, columns, rows)))  # where it lies is no size
    tiles = g.reshape(tiles, width, columns, rows)
    tiles = g.concat(tiles, ops.repeat(g, _new_line(tower, width), width, 1, rows), 1)
    return g.concat(whole, g.reshape(tiles, width, (columns + 1) * rows), 1)


def _new_line(tower: Tower, width: int) -> Node:
    """Return the stored new line once per block that was queried."""
    g = tower.graph
    stored = tower.need("v.image_newline")
    line = g.reshape(stored, stored.shape[0], 1)
    n = width // stored.shape[0]
    if n > 1:
        line = g.concat(line, ops.repeat(g, g.reshape(stored, stored.shape[0], 1), stored.shape[0], n - 1), 1)
    return g.reshape(g.cont(line), width, 1)
