"""Block formats of stored tensors as exact integers: so many elements in so many bytes, nothing rounded.

Source: ggml's type table (``ggml_type_size``, ``ggml_blck_size``, ggml 0.25) for the GGUF types; IEEE and OCP
definitions for those of safetensors. A test compares every GGUF row with the ``gguf`` library.
"""

from __future__ import annotations

from planner.errors import UsageError
from planner.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A block of ``block_elements`` consecutive elements of a row is stored in ``block_bytes`` bytes."""

    name: str
    ggml_id: int | None
    block_elements: int
    block_bytes: int

    @property
    def quantized(self) -> bool:
        """Whether elements share a block, as ggml means it."""
        return self.block_elements > 1

    @property
    def bits_per_element(self) -> float:
        """Average bits an element takes."""
        return 8 * self.block_bytes / self.block_elements


# name, ggml id, elements per block, bytes per block
_TABLE: tuple[tuple[str, int | None, int, int], ...] = (
    ("f32", 0, 1, 4),
    ("f16", 1, 1, 2),
    ("q4_0", 2, 32, 18),
    ("q4_1", 3, 32, 20),
    ("q5_0", 6, 32, 22),
    ("q5_1", 7, 32, 24),
    ("q8_0", 8, 32, 34),
    ("q8_1", 9, 32, 40),
    ("q2_k", 10, 256, 84),
    ("q3_k", 11, 256, 110),
    ("q4_k", 12, 256, 144),
    ("q5_k", 13, 256, 176),
    ("q6_k", 14, 256, 210),
    ("q8_k", 15, 256, 292),
    ("iq2_xxs", 16, 256, 66),
    ("iq2_xs", 17, 256, 74),
    ("iq3_xxs", 18, 256, 98),
    ("iq1_s", 19, 256, 50),
    ("iq4_nl", 20, 32, 18),
    ("iq3_s", 21, 256, 110),
    ("iq2_s", 22, 256, 82),
    ("iq4_xs", 23, 256, 136),
    ("i8", 24, 1, 1),
    ("i16", 25, 1, 2),
    ("i32", 26, 1, 4),
    ("i64", 27, 1, 8),
    ("f64", 28, 1, 8),
    ("iq1_m", 29, 256, 56),
    ("bf16", 30, 1, 2),
    ("tq1_0", 34, 256, 54),
    ("tq2_0", 35, 256, 66),
    ("mxfp4", 39, 32, 17),
    ("nvfp4", 40, 64, 36),
    ("q1_0", 41, 128, 18),
    ("fp8_e4m3", None, 1, 1),
    ("fp8_e5m2", None, 1, 1),
    ("fp8_e8m0", None, 1, 1),
    ("fp4_e2m1", None, 2, 1),
    ("u8", None, 1, 1),
    ("u16", None, 1, 2),
    ("u32", None, 1, 4),
    ("u64", None, 1, 8),
    ("c64", None, 1, 8),
    ("bool", None, 1, 1),
)

FORMATS: dict[str, Format] = {
    name: Format(name=name, ggml_id=ggml_id, block_elements=elements, block_bytes=n_bytes)
    for name, ggml_id, elements, n_bytes in _TABLE
}
BY_GGML_ID: dict[int, Format] = {f.ggml_id: f for f in FORMATS.values() if f.ggml_id is not None}


def format_named(name: str) -> Format:
    """Return the format called ``name``, any case.

    Raises:
        UsageError: no such format.
    """
    found = FORMATS.get(name.lower())
    if found is None:
        raise UsageError(f"unknown tensor format {name!r}; known: {', '.join(FORMATS)}")
    return found


def row_bytes(format_name: str, n_elements: int) -> int:
    """Return the bytes of one row of ``n_elements``, a whole number of blocks (the last one may be partly used)."""
    found = FORMATS[format_name]
    return -(-n_elements // found.block_elements) * found.block_bytes


def tensor_bytes(format_name: str, shape: tuple[int, ...]) -> int:
    """Return the bytes of a tensor of ``shape`` (fastest dimension first): rows of whole blocks, without padding."""
    n_rows = 1
    for width in shape[1:]:
        n_rows *= width
    return row_bytes(format_name, shape[0]) * n_rows if shape else 0
