"""One tensor of a graph: shape, strides, the operation that makes it and what that reads.

Source: llama.cpp 0.5.0-dev, ggml 0.25.3, ``ggml.h``. Shapes list the fastest dimension first and always have four
entries; strides are in bytes. No numbers are computed.
"""

from __future__ import annotations

from functools import lru_cache

from planner.quantization import FORMATS

Shape = tuple[int, int, int, int]

VIEW_OPS = frozenset({"view", "reshape", "permute", "transpose"})
IN_PLACE_OPS = frozenset(
    {
        "fill",
        "scale",
        "diag_mask_zero",
        "diag_mask_inf",
        "add",
        "add_id",
        "add1",
        "sub",
        "mul",
        "div",
        "sqr",
        "sqrt",
        "log",
        "unary",
        "rope",
        "rms_norm",
        "clamp",
        "soft_max",
    },
)


def shape_of(*widths: int) -> Shape:
    """Return ``widths`` with ones appended up to four dimensions."""
    a, b, c, d = (*widths, 1, 1, 1)[:4]
    return a, b, c, d


@lru_cache(maxsize=8192)
def packed_strides(format_name: str, shape: Shape) -> Shape:
    """Return the strides of a contiguous tensor."""
    known = FORMATS[format_name]
    row = known.block_bytes * (shape[0] // known.block_elements)
    plane = row * shape[1]
    return known.block_bytes, row, plane, plane * shape[2]


class Node:
    """One tensor: the operation that makes it (``none`` for inputs, weights and caches), shape, strides, operands.

    ``root``: the tensor whose memory it looks into, ``offset`` bytes from its start. ``buffer``: device on which memory
    exists already. ``kind``: what distinguishes operations of one word (``sigmoid`` of unary). ``layer``: number of the
    repeating layer, -1 outside.
    """

    __slots__ = (
        "buffer",
        "device",
        "format",
        "index",
        "is_input",
        "is_output",
        "is_weight",
        "kind",
        "layer",
        "name",
        "offset",
        "op",
        "operands",
        "packed",
        "root",
        "shape",
        "strides",
    )

    def __init__(  # noqa: PLR0913 - a tensor has this many facts
        self,
        op: str,
        shape: Shape,
        format_name: str,
        operands: tuple[Node, ...] = (),
        *,
        strides: Shape | None = None,
        root: Node | None = None,
        name: str = "",
        kind: str = "",
    ) -> None:
        """Make a tensor; contiguous unless ``strides`` say otherwise."""
        self.op = op
        self.shape = shape
        self.format = format_name
        self.operands = operands
        self.packed = strides is None  # known to be contiguous
        self.strides = strides or packed_strides(format_name, shape)
        self.root = root
        self.name = name
        self.kind = kind
        self.offset = 0
        self.buffer: int | None = root.buffer if root is not None else None
        self.is_weight = False
        self.is_input = False
        self.is_output = False
        self.layer = -1
        self.device = -1
        self.index = -1

    @property
    def n_bytes(self) -> int:
        """Bytes from the first to the last element, gaps of a strided view included (``ggml_nbytes``)."""
        if self.packed:
            return self.strides[3] * self.shape[3]
        if 0 in self.shape:
            return 0
        known = FORMATS[self.format]
        a, b, c, d = self.shape
        s = self.strides
        first = known.block_bytes + (a - 1) * s[0] if known.block_elements == 1 else a * s[0] // known.block_elements
        return first + (b - 1) * s[1] + (c - 1) * s[2] + (d - 1) * s[3]

    @property
    def is_contiguous(self) -> bool:
        """Whether elements follow each other without gaps or permutation (``ggml_is_contiguous``)."""
        if self.packed:
            return True
        known = FORMATS[self.format]
        expected = known.block_bytes
        if self.shape[0] != known.block_elements and self.strides[0] != expected:
            return False
        expected = expected * self.shape[0] // known.block_elements
        for width, stride in zip(self.shape[1:], self.strides[1:], strict=True):
            if width != 1:
                if stride != expected:
                    return False
                expected *= width
        return True

    @property
    def n_elements(self) -> int:
        """Number of elements."""
        a, b, c, d = self.shape
        return a * b * c * d

    @property
    def n_rows(self) -> int:
        """Number of rows of the first dimension."""
        return self.shape[1] * self.shape[2] * self.shape[3]
