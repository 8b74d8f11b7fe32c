"""Image sizes are read strictly."""

import pytest

from planner.errors import UsageError
from planner.workload import ImageSize, parse_image_size


def test_sizes_are_read():
    """Width comes first; case and outer blanks do not matter."""
    assert parse_image_size(" 1920X1080 ") == ImageSize(width=1920, height=1080)


@pytest.mark.parametrize(
    "text", ["0x100", "-3x5", "1e9x1", "big", "1920", "x", "1920x", "x1080", "1000001x1", "1x²", "1.5x2"]
)
def test_anything_else_is_refused(text):
    """A size that is none, or absurd, is refused in one line that repeats it."""
    with pytest.raises(UsageError, match=r"image size"):
        parse_image_size(text)
