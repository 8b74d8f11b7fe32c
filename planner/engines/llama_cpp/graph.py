"""A small ggml: tensors with shapes and strides, and the operations that make one from others.

Source: llama.cpp 0.5.0-dev, ggml 0.25.3, ``ggml.c``. No numbers are computed. An operation only knows the shape of its
result, whether that owns memory or looks into another tensor, and its operands; a graph keeps the order of execution.
Shapes list the fastest dimension first and always have four entries; strides are in bytes.
"""

from __future__ import annotations

from planner.engines.llama_cpp.node import IN_PLACE_OPS, VIEW_OPS, Node, Shape, packed_strides, shape_of

__all__ = ["IN_PLACE_OPS", "VIEW_OPS", "Graph", "Node", "Shape", "packed_strides", "shape_of"]


class Graph:
    """Operations in order of execution (``nodes``), and what they read that no operation makes (``leafs``)."""

    def __init__(self) -> None:
        """Begin empty."""
        self.nodes: list[Node] = []
        self.leafs: list[Node] = []
        self.layer = -1
        self._visited: set[Node] = set()

    # ---- tensors that exist before the graph runs

    def input(self, name: str, format_name: str, *widths: int) -> Node:
        """Return an input, filled by the program before each run."""
        node = Node("none", shape_of(*widths), format_name, name=name)
        node.is_input = True
        return node

    def stored(self, name: str, format_name: str, shape: tuple[int, ...], device: int, *, weight: bool = True) -> Node:
        """Return a tensor that lies in a buffer of ``device`` already: a weight, or part of a cache."""
        node = Node("none", shape_of(*shape), format_name, name=name)
        node.buffer = device
        node.is_weight = weight
        return node

    # ---- operations

    def op(  # noqa: PLR0913 - an operation has this many facts
        self,
        word: str,
        operands: tuple[Node, ...],
        shape: Shape | None = None,
        format_name: str | None = None,
        *,
        name: str = "",
        kind: str = "",
    ) -> Node:
        """Return the result of ``word``: its own memory, by default the shape and type of the first operand."""
        first = operands[0]
        node = Node(word, shape or first.shape, format_name or first.format, operands, name=name, kind=kind)
        node.layer = self.layer
        return node

    def mul_mat(self, weight: Node, x: Node, name: str = "") -> Node:
        """Return ``weight`` times ``x``: (rows of weight, columns of x), f32."""
        shape = (weight.shape[1], *x.shape[1:])
        return self.op("mul_mat", (weight, x), shape, "f32", name=name)

    def add(self, a: Node, b: Node, name: str = "") -> Node:
        """Return ``a`` + ``b`` in the shape of ``a``."""
        return self.op("add", (a, b), name=name)

    def mul(self, a: Node, b: Node, name: str = "") -> Node:
        """Return ``a`` * ``b`` in the shape of ``a``."""
        return self.op("mul", (a, b), name=name)

    def scale(self, a: Node, name: str = "") -> Node:
        """Return ``a`` times a number."""
        return self.op("scale", (a,), name=name)

    def unary(self, a: Node, kind: str, name: str = "") -> Node:
        """Return an activation of ``a``: ``silu``, ``gelu``, ``sigmoid``, ..."""
        return self.op("unary", (a,), name=name, kind=kind)

    def glu(self, gate: Node, up: Node | None = None, name: str = "") -> Node:
        """Return the gated activation of two tensors, or of the two halves of one."""
        if up is not None:
            return self.op("glu", (gate, up), name=name)
        return self.op("glu", (gate,), (gate.shape[0] // 2, *gate.shape[1:]), name=name)

    def norm(self, x: Node, weight: Node | None, bias: Node | None = None, *, word: str = "rms_norm") -> Node:
        """Return ``x`` normalised over its rows (``rms_norm``, ``norm``), then times weight, plus bias."""
        x = self.op(word, (x,))
        if weight is not None:
            x = self.mul(x, weight)
        return x if bias is None else self.add(x, bias)

    def rope(self, x: Node, positions: Node, factors: Node | None = None) -> Node:
        """Return ``x`` rotated by position; ``factors`` are the stored frequency factors."""
        return self.op("rope", (x, positions) if factors is None else (x, positions, factors))

    def soft_max(self, x: Node, mask: Node | None = None, sinks: Node | None = None) -> Node:
        """Return the soft-max of the rows of ``x``."""
        return self.op("soft_max", tuple(t for t in (x, mask, sinks) if t is not None))

    def get_rows(self, table: Node, ids: Node, name: str = "") -> Node:
        """Return the rows of ``table`` numbered ``ids``: f32, or i32 for a table of i32."""
        shape = (table.shape[0], ids.shape[0], ids.shape[1], ids.shape[2])
        return self.op("get_rows", (table, ids), shape, "i32" if table.format == "i32" else "f32", name=name)

    def cont(self, x: Node, *widths: int) -> Node:
        """Return a contiguous copy of ``x``, in another shape if given."""
        return self.op("cont", (x,), shape_of(*widths) if widths else None)

    def concat(self, a: Node, b: Node, axis: int) -> Node:
        """Return ``a`` and ``b`` joined along ``axis``."""
        shape = list(a.shape)
        shape[axis] += b.shape[axis]
        return self.op("concat", (a, b), shape_of(*shape))

    def cast(self, x: Node, format_name: str) -> Node:
        """Return ``x`` converted (a ``cpy`` with memory of its own)."""
        return self.op("cpy", (x,), x.shape, format_name)

    # ---- views: no memory of their own

    def _look(self, word: str, x: Node, shape: Shape, strides: Shape | None = None, name: str = "") -> Node:
        root = x if x.root is None else x.root
        node = Node(word, shape, x.format, (x,), strides=strides, root=root, name=name)
        node.layer = self.layer
        node.offset = x.offset
        return node

    def reshape(self, x: Node, *widths: int) -> Node:
        """Return contiguous ``x`` in another shape."""
        return self._look("reshape", x, shape_of(*widths))

    def view(self, x: Node, widths: tuple[int, ...], strides: tuple[int, ...] = (), *, offset: int = 0) -> Node:
        """Return a window of ``x``: ``strides`` of the second and further dimensions in bytes, ``offset`` in bytes."""
        shape = shape_of(*widths)
        packed = packed_strides(x.format, shape)
        full = [packed[0], *strides]
        while len(full) < 4:
            axis = len(full)
            full.append(full[axis - 1] * shape[axis - 1] if axis > 1 else packed[1])
        node = self._look("view", x, shape, (full[0], full[1], full[2], full[3]))
        node.offset = x.offset + offset
        return node

    def permute(self, x: Node, a: int, b: int, c: int, d: int) -> Node:
        """Return ``x`` with its dimensions moved: dimension 0 becomes ``a``, 1 becomes ``b``, ..."""
        shape, strides = [1] * 4, [0] * 4
        for source, target in enumerate((a, b, c, d)):
            shape[target] = x.shape[source]
            strides[target] = x.strides[source]
        return self._look("permute", x, shape_of(*shape), (strides[0], strides[1], strides[2], strides[3]))

    def transpose(self, x: Node) -> Node:
        """Return ``x`` with its first two dimensions swapped."""
        s = x.strides
        shape = (x.shape[1], x.shape[0], x.shape[2], x.shape[3])
        return self._look("transpose", x, shape, (s[1], s[0], s[2], s[3]))

    def store(self, word: str, operands: tuple[Node, ...], target: Node) -> Node:
        """Return an operation whose result is written into ``target`` (``set_rows``, ``cpy``): a view of it."""
        root = target if target.root is None else target.root
        node = Node(word, target.shape, target.format, operands, strides=target.strides, root=root)
        node.layer = self.layer
        return node

    # ---- order of execution

    def expand(self, node: Node) -> Node:
        """Append ``node`` and all it needs that is not in the graph yet, operands from left to right, depth first."""
        visited = self._visited
        if node in visited:
            return node
        stack = [(node, 0)]
        visited.add(node)
        while stack:
            at, i = stack.pop()
            operands = at.operands
            n = len(operands)
            while i < n:
                operand = operands[i]
                if operand not in visited:
                    if operand.operands:
                        break
                    visited.add(operand)
                    (self.leafs if operand.op == "none" else self.nodes).append(operand)
                i += 1
            if i < n:
                stack.append((at, i + 1))
                visited.add(operands[i])
                stack.append((operands[i], 0))
            else:
                (self.leafs if at.op == "none" else self.nodes).append(at)
        return node
