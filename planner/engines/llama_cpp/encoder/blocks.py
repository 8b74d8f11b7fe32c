"""The repeating blocks of a tower: attention with its rotations, masks and windows, then the feed-forward part.

Source: ``build_vit`` and ``build_attn`` in tools/mtmd/clip.cpp and the graphs that repeat them with small changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from planner.engines.llama_cpp.encoder.experts import experts
from planner.engines.llama_cpp.encoder.operations import arange, row_bytes
from planner.engines.llama_cpp.encoder.tower import AXES, Tower, fact_of, number_of
from planner.engines.llama_cpp.graph import Node
from planner.model import Vision

Rotation = Callable[[Node], Node]
GROUP = 4  # patches that are put into another order together


def blocks(  # noqa: PLR0913 - the traits of a block
    tower: Tower,
    x: Node,
    *,
    norm: str = "layer",
    rms_at: Sequence[int] = (),
    rotary: str = "none",
    flat: bool = True,
    closing: str = "post_ln",
    value_norm: bool = False,
    masks: str = "none",
    norms: str = "before",
    stacked: str = "",
    halved: bool = False,
    apart: bool = False,
) -> Node:
    """Return ``x`` (n_embd, tokens, batch) through all blocks.

    ``norm``: ``layer`` or ``rms``; ``rms_at`` names the (width, depth) of towers with ``rms`` instead. ``rotary``:
    ``none``, ``sections`` (one operation), ``axes`` (one per axis), ``given`` (one number each) or ``sequence``.
    ``flat``: joined to (n_embd, all tokens) first and restored after. ``masks``: which blocks see the mask. ``norms``:
    ``before`` or ``after`` the parts. ``stacked``: ``inputs`` or ``outputs`` of the blocks that the file lists are kept
    for the projector. ``halved``: pairs of tokens are averaged after the last block. ``apart``: pictures of a batch
    stay apart.
    """
    g = tower.graph
    n_tokens, batch = x.shape[1], x.shape[2]
    if tuple(rms_at) == (tower.n_embd, tower.vision.n_layers):
        norm = "rms"
    if flat:
        x = g.reshape(x, tower.n_embd, n_tokens * batch)
    if tower.has(f"{tower.prefix}.pre_ln.weight"):
        x = tower.norm(f"{tower.prefix}.pre_ln", x, norm)
    rotate = rotation(tower, rotary, n_tokens)
    kept = kept_layers(tower.vision) if stacked else frozenset()
    for layer in tower.layers:
        g.layer = layer
        if stacked == "inputs" and layer in kept:
            tower.features.append(x)
        mask = tower.mask if is_masked(tower.vision, layer, masks) else None
        x = block(
            tower, x, layer, norm, (n_tokens, batch), rotate, mask, value_norm=value_norm, norms=norms, apart=apart
        )
        _collect(tower, x, layer)
        if stacked == "outputs" and layer in kept:
            tower.features.append(x)
    g.layer = -1
    if halved:
        x = halved_tokens(tower, x)
    last = closing if closing.startswith("mm.") else f"{tower.prefix}.{closing}"
    if tower.has(f"{last}.weight"):
        x = tower.norm(last, x, norm)
    if stacked == "inputs" and tower.layers and tower.layers[-1] + 1 in kept:
        tower.features.append(x)
    return g.reshape(x, tower.n_embd, x.shape[1] // batch, batch) if flat else x


def halved_tokens(tower: Tower, x: Node) -> Node:
    """Return the averages of pairs of tokens."""
    g = tower.graph
    turned = g.cont(g.transpose(x))
    short = g.op("pool_1d", (turned,), (turned.shape[0] // 2, *turned.shape[1:]))
    return g.cont(g.transpose(short))


def kept_layers(vision: Vision) -> frozenset[int]:
    """Return the layers whose input is stacked for the projector."""
    found = fact_of(vision, "feature_layer")
    return frozenset(found) if isinstance(found, tuple) else frozenset()


def _collect(tower: Tower, x: Node, layer: int) -> None:
    """Keep the merged features of a block that has a branch of its own to the language model."""
    name = f"v.deepstack.{layer}"
    if not tower.has(f"{name}.fc1.weight"):
        return
    unit = tower.merge * tower.merge
    feature = tower.graph.reshape(x, x.shape[0] * unit, x.shape[1] // unit)
    feature = tower.norm(f"{name}.norm", feature, "layer")
    tower.features.append(tower.ffn(feature, f"{name}.fc1", f"{name}.fc2"))


def block(  # noqa: PLR0913 - one block's inputs
    tower: Tower,
    x: Node,
    layer: int,
    norm: str,
    grid: tuple[int, int],
    rotate: Rotation,
    mask: Node | None = None,
    *,
    value_norm: bool = False,
    norms: str = "before",
    apart: bool = False,
) -> Node:
    """Return ``x`` through one block: attention and feed-forward, each added to what it was given."""
    g, at = tower.graph, f"{tower.prefix}.blk.{layer}"
    mixed = x if norms == "after" else tower.norm(f"{at}.ln1", x, norm)
    q, k, v = qkv(tower, mixed, at, norm, grid)
    q, k = rotate(q), rotate(k)
    if value_norm:
        v = g.op("rms_norm", (v,))
    sinks = tower.weight(f"{at}.attn_sinks") if mask is not None else None
    mixed = tower.attention(q, k, v, f"{at}.attn_out", mask=mask, sinks=sinks)
    if apart:
        mixed = g.reshape(mixed, *x.shape)
    if norms == "after":
        mixed = tower.norm(f"{at}.ln1", mixed, norm)
    mixed = _weighted(tower, _times(tower, mixed, f"{at}.ls1"), f"{at}.attn_post_norm", norm)
    x = g.add(mixed, x)
    inner = x if norms == "after" else tower.norm(f"{at}.ln2", x, norm)
    inner = feed_forward(tower, inner, at)
    if norms == "after":
        return g.add(tower.norm(f"{at}.ln2", inner, norm), x)
    inner = _times(tower, _weighted(tower, inner, f"{at}.ffn_post_norm", norm), f"{at}.ls2")
    return _times(tower, g.add(x, inner), f"{at}.out_scale")


def _times(tower: Tower, x: Node, name: str) -> Node:
    """Return ``x`` times a stored scale, if there is one."""
    scale = tower.weight(f"{name}.weight")
    return x if scale is None else tower.graph.mul(x, scale)


def feed_forward(tower: Tower, x: Node, at: str) -> Node:
    """Return ``x`` through the block's feed-forward part, or its experts; old converters swapped up and down."""
    if tower.has(f"{at}.ffn_gate_exps.weight"):
        return experts(tower, x, at)
    up, down = f"{at}.ffn_up", f"{at}.ffn_down"
    stored = tower.tensors.get(f"{down}.weight")
    if stored is not None and stored.shape[0] == tower.n_embd != stored.shape[1]:
        up, down = down, up
    return tower.ffn(x, up, down, gate=f"{at}.ffn_gate")


def qkv(tower: Tower, x: Node, at: str, norm: str, grid: tuple[int, int]) -> tuple[Node, Node, Node]:
    """Return queries, keys and values as (head dim, heads, tokens, batch), with their norms where stored."""
    if tower.has(f"{at}.attn_qkv.weight"):
        return _fused_qkv(tower, x, at, norm, grid)
    g = tower.graph
    q, k, v = (tower.linear(f"{at}.attn_{word}", x) for word in "qkv")
    weight = tower.tensors.get(f"{at}.attn_q_norm.weight")
    per_head = weight is not None and weight.shape[0] == tower.head_dim
    if weight is not None and not per_head:
        q, k = _normed(tower, q, k, at, norm)
    q = g.reshape(q, tower.head_dim, tower.n_heads, *grid)
    k, v = (g.reshape(t, tower.head_dim, tower.n_kv_heads, *grid) for t in (k, v))
    if per_head:
        q, k = _normed(tower, q, k, at, norm)
    return q, k, v


def _normed(tower: Tower, q: Node, k: Node, at: str, norm: str) -> tuple[Node, Node]:
    return _weighted(tower, q, f"{at}.attn_q_norm", norm), _weighted(tower, k, f"{at}.attn_k_norm", norm)


def _weighted(tower: Tower, x: Node, name: str, norm: str) -> Node:
    weight = tower.weight(f"{name}.weight")
    return x if weight is None else tower.graph.norm(x, weight, word="rms_norm" if norm == "rms" else "norm")


def _fused_qkv(tower: Tower, x: Node, at: str, norm: str, grid: tuple[int, int]) -> tuple[Node, Node, Node]:
    g, d = tower.graph, tower.head_dim
    x = tower.linear(f"{at}.attn_qkv", x)
    stride = x.strides[1]
    heads = (tower.n_heads, tower.n_kv_heads, tower.n_kv_heads)
    if x.shape[0] != d * sum(heads):
        d = x.shape[0] // sum(heads)
    views, skip = [], 0
    for n in heads:
        strides = (row_bytes(x.format, d), stride, stride * grid[0])
        views.append(g.view(x, (d, n, *grid), strides, offset=row_bytes(x.format, skip * d)))
        skip += n
    q, k, v = views
    return (*_normed(tower, q, k, at, norm), v)


# ---- rotations


def rotation(tower: Tower, kind: str, n_tokens: int) -> Rotation:
    """Return how queries and keys are turned by position; the positions are inputs of the graph."""
    g = tower.graph
    if kind == "none":
        return lambda x: x
    if kind == "sections":
        positions = tower.input("section_positions", "i32", n_tokens * 4)
        return lambda x: g.rope(x, positions)
    if kind == "given":
        given = tower.input("positions", "i32", n_tokens)
        return lambda x: g.rope(x, given)
    if kind == "sequence":
        numbers = g.cast(arange(g, n_tokens), "i32")
        return lambda x: g.rope(x, numbers)
    first, second = (tower.input(name, "i32", n_tokens) for name in AXES)
    return lambda x: g.rope(g.rope(x, first), second)


# ---- windows and masks


def is_masked(vision: Vision, layer: int, masks: str) -> bool:
    """Whether ``layer`` attends through the mask: all, all but every n-th, all but those listed, three of four."""
    if masks == "all":
        return True
    if masks == "period":
        period = number_of(vision, "n_wa_pattern")
        return bool(period) and (layer + 1) % int(period or 1) != 0
    if masks == "unlisted":
        found = fact_of(vision, "wa_layer_indexes")
        return isinstance(found, tuple) and bool(found) and layer not in found
    if masks == "fourth":
        return layer != vision.n_layers - 1 and (layer + 1) % 4 != 0
    return False


def window_mask(tower: Tower, x: Node, *, cast: bool = True) -> Node:
    """Make a tokens x tokens mask an input (in f16 for flash attention); ``x`` itself is returned as it is."""
    g = tower.graph
    mask = tower.input("window_mask", "f32", tower.n_patches, tower.n_patches)
    tower.mask = g.cast(mask, "f16") if cast and tower.flash else mask
    return x


def window_order(tower: Tower, x: Node, *, facts: str) -> Node:
    """Return the patches in the order of windows, with the mask that keeps windows apart; unchanged without windows."""
    if not fact_of(tower.vision, facts):
        return x
    window_mask(tower, x)
    return reordered(tower, x, _groups(tower, "inv_window_idx"))


def _groups(tower: Tower, name: str) -> Node:
    """Return an input with one number per group of patches."""
    return tower.input(name, "i32", tower.n_patches // GROUP)


def reordered(tower: Tower, x: Node, order: Node) -> Node:
    """Return groups of patches in another order."""
    g, n = tower.graph, order.shape[0]
    moved = g.get_rows(g.reshape(x, tower.n_embd * tower.n_patches // n, n), order)
    return g.reshape(moved, tower.n_embd, tower.n_patches)


def picture_order(tower: Tower, x: Node, *, facts: str, merged: bool = True) -> Node:
    """Return tokens back in the picture's order; unchanged for towers without windows."""
    if not fact_of(tower.vision, facts):
        return x
    if not merged:
        return reordered(tower, x, _groups(tower, "window_idx"))
    g = tower.graph
    n_tokens = tower.n_patches // GROUP
    rows = g.get_rows(g.reshape(x, x.shape[0], n_tokens), _groups(tower, "window_idx"))
    return g.reshape(rows, x.shape[0], n_tokens)


def permuted(tower: Tower, x: Node, *, name: str) -> Node:
    """Return single patches in another order."""
    return tower.graph.get_rows(x, tower.input(name, "i32", tower.n_patches))
