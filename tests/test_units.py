"""Bytes are read and written in one place, and every suffix is binary."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.units import GIB, MIB, align, format_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("24GiB", 24 * GIB),
        ("24GB", 24 * GIB),
        ("24G", 24 * GIB),
        ("24576MiB", 24 * GIB),
        ("24576 mib", 24 * GIB),
        ("1.5GiB", GIB + 512 * MIB),
        ("0", 0),
        ("417", 417),
    ],
)
def test_sizes_are_read(text, n_bytes):
    """The field's spellings of a size all mean binary units; a bare number is bytes."""
    assert parse_bytes(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1e9", "24 GX", "inf", "1_000", "9GiB" * 50, "1" * 40])
def test_other_text_is_refused(text):
    """What is no size is refused in one line that shows how to write one."""
    with pytest.raises(UsageError, match="24GiB"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_whole_bytes_survive(n_bytes):
    """A number of bytes written out is read back unchanged."""
    assert parse_bytes(str(n_bytes)) == n_bytes


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (437_944_320, "417.66 MiB"), (-GIB, "-1.00 GiB")],
)
def test_sizes_are_written(n_bytes, text):
    """Sizes are written with the binary suffix that leaves a readable number."""
    assert format_bytes(n_bytes) == text


@given(st.integers(0, 1 << 40), st.sampled_from([1, 32, 128, 256, 512]))
def test_alignment_is_the_next_multiple(n_bytes, alignment):
    """Aligned sizes are multiples, never smaller, and less than one alignment larger."""
    aligned = align(n_bytes, alignment)
    assert aligned % alignment == 0
    assert 0 <= aligned - n_bytes < alignment
