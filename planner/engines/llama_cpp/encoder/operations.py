"""ggml operations that only vision encoders use, with the shapes ggml gives their results.

Source: ggml 0.25.3, ``ggml.c``. Beside those of ``graph.Graph``; nothing here knows a model.
"""

from __future__ import annotations

from planner.engines.llama_cpp.graph import Graph, Node, shape_of
from planner.quantization import FORMATS


def im2col(  # noqa: PLR0913 - a convolution has this many facts
    g: Graph, kernel: Node, x: Node, stride: int, padding: int = 0, format_name: str = "f16"
) -> Node:
    """Return the windows of ``x`` (width, height, channels, batch) as rows: (window, out width, out height, batch)."""
    out = [(x.shape[axis] + 2 * padding - kernel.shape[axis]) // stride + 1 for axis in (0, 1)]
    window = kernel.shape[0] * kernel.shape[1] * kernel.shape[2]
    return g.op("im2col", (kernel, x), (window, out[0], out[1], x.shape[3]), format_name)


def conv_2d(  # noqa: PLR0913 - a convolution has this many facts
    g: Graph, kernel: Node, x: Node, stride: int, padding: int = 0, format_name: str | None = None
) -> Node:
    """Return the convolution as ggml runs it: windows, one product, one copy; (width, height, channels, batch)."""
    windows_format = format_name or ("f32" if kernel.format == "bf16" else "f16")
    windows = im2col(g, kernel, x, stride, padding, windows_format)
    rows = g.reshape(windows, windows.shape[0], windows.shape[1] * windows.shape[2] * windows.shape[3])
    flat = g.reshape(kernel, kernel.shape[0] * kernel.shape[1] * kernel.shape[2], kernel.shape[3])
    product = g.mul_mat(rows, flat)
    grid = g.reshape(product, windows.shape[1], windows.shape[2], windows.shape[3], kernel.shape[3])
    return g.cont(g.permute(grid, 0, 1, 3, 2))


def conv_2d_depthwise(g: Graph, kernel: Node, x: Node, stride: int, padding: int) -> Node:
    """Return the convolution of every channel with its own kernel."""
    w, h, c, n = x.shape
    one = g.reshape(kernel, kernel.shape[0], kernel.shape[1], 1, kernel.shape[2] * kernel.shape[3])
    planes = g.reshape(x, w, h, 1, c * n)
    windows = im2col(g, one, planes, stride, padding, "f32" if kernel.format == "bf16" else "f16")
    rows = g.reshape(windows, windows.shape[0], windows.shape[2] * windows.shape[1], c, n)
    flat = g.reshape(one, one.shape[0] * one.shape[1], one.shape[2], one.shape[3])
    product = g.mul_mat(flat, rows)
    return g.reshape(product, windows.shape[1], windows.shape[2], c, n)


def pool_2d(g: Graph, x: Node, width: int, height: int) -> Node:
    """Return ``x`` averaged over windows of ``width`` x ``height`` that do not overlap."""
    return g.op("pool_2d", (x,), (x.shape[0] // width, x.shape[1] // height, *x.shape[2:]), "f32")


def interpolate(g: Graph, x: Node, *widths: int) -> Node:
    """Return ``x`` resized to ``widths``."""
    return g.op("upscale", (x,), shape_of(*widths))


def pad(g: Graph, x: Node, *widths: int) -> Node:
    """Return ``x`` with so many zeros appended to each dimension."""
    more = (*widths, 0, 0, 0, 0)
    return g.op("pad", (x,), shape_of(*(n + more[axis] for axis, n in enumerate(x.shape))))


def repeat(g: Graph, x: Node, *widths: int) -> Node:
    """Return ``x`` repeated to fill ``widths``."""
    return g.op("repeat", (x,), shape_of(*widths))


def arange(g: Graph, n: int) -> Node:
    """Return the numbers 0 to ``n`` - 1, made by the device (an operation without operands)."""
    node = Node("arange", shape_of(n), "f32")
    node.layer = g.layer
    return node


def row_bytes(format_name: str, n: int) -> int:
    """Return the bytes of ``n`` elements of one row."""
    known = FORMATS[format_name]
    return n // known.block_elements * known.block_bytes


def activation_in_place(g: Graph, x: Node) -> Node:
    """Return an activation written over ``x`` itself: a view of it."""
    return g.store("unary", (x,), x)
