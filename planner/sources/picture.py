"""A picture's size from its header; no pixel is decoded, so a decompression bomb costs nothing.

JPEG, PNG, WebP and GIF headers are read here. Others are left to Pillow where it is installed (extra ``images``).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from planner.errors import SourceError
from planner.workload import MAX_IMAGE_SIDE, ImageSize

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
_MAX_SEGMENTS = 65536
_QUARTER_TURNS = frozenset({5, 6, 7, 8})
_ORIENTATION = 0x0112


class _DamagedError(Exception):
    """The header ends early or contradicts itself."""


def picture_size(path: str | Path, *, upright: bool = True) -> ImageSize:
    """Return width and height in pixels.

    Args:
        path: the file.
        upright: turn a JPEG as its orientation flag says, as transformers does; llama.cpp does not.

    Raises:
        SourceError: the file cannot be read, is no picture, or its header is damaged.
    """
    if Path(path).is_fifo():
        raise SourceError(f"{path}: cannot be read: it is a pipe; give a file or the size")
    try:
        with Path(path).open("rb") as file:
            size, turned = _size(file)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except _DamagedError as error:
        raise SourceError(f"{path}: damaged picture: {error}") from error
    if size is None:
        return _size_by_pillow(path)
    width, height = size[::-1] if turned and upright else size
    if not (0 < width <= MAX_IMAGE_SIDE and 0 < height <= MAX_IMAGE_SIDE):
        raise SourceError(f"{path}: damaged picture: its header says {width}x{height} pixels")
    return ImageSize(width=width, height=height)


def _size(file: BinaryIO) -> tuple[tuple[int, int] | None, bool]:
    """Return the stored size, None for a format that is not read here, and whether it is to be turned by a quarter."""
    start = file.read(30)
    if start.startswith(b"\xff\xd8"):
        file.seek(2)
        return _jpeg(file)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return (_unpacked(">II", start[16:24]) if start[12:16] == b"IHDR" else _damaged("no IHDR chunk first")), False
    if start.startswith((b"GIF87a", b"GIF89a")):
        return _unpacked("<HH", start[6:10]), False
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp(start), False
    return None, False


def _damaged(reason: str) -> tuple[int, int]:
    raise _DamagedError(reason)


def _unpacked(layout: str, data: bytes) -> tuple[int, int]:
    if len(data) != struct.calcsize(layout):
        raise _DamagedError("the file ends within its header")
    first, second = struct.unpack(layout, data)
    return int(first), int(second)


def _webp(start: bytes) -> tuple[int, int]:
    """Return the canvas of a lossy (VP8), lossless (VP8L) or extended (VP8X) file."""
    kind = start[12:16]
    if kind == b"VP8 ":
        width, height = _unpacked("<HH", start[26:30])
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and len(start) >= 25:
        bits = int.from_bytes(start[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X" and len(start) >= 30:
        return int.from_bytes(start[24:27], "little") + 1, int.from_bytes(start[27:30], "little") + 1
    return _damaged(f"unknown or cut WebP chunk {kind!r}")


def _jpeg(file: BinaryIO) -> tuple[tuple[int, int], bool]:
    """Walk the segments up to the frame header; each is skipped by its length."""
    turned = False
    for _ in range(_MAX_SEGMENTS):
        marker = _marker(file)
        if marker in _STANDALONE:
            continue
        if marker == 0xD9:
            raise _DamagedError("it ends before a frame header")
        length = _unpacked(">HB", file.read(2) + b"\0")[0] - 2
        if length < 0:
            raise _DamagedError("a segment is shorter than its own length field")
        if marker in _START_OF_FRAME:
            height, width = _unpacked(">HH", file.read(5)[1:])
            return (width, height), turned
        if marker == 0xE1:
            turned = turned or _orientation(file.read(length)) in _QUARTER_TURNS
        else:
            file.seek(length, 1)
    raise _DamagedError("it has no frame header")


def _marker(file: BinaryIO) -> int:
    byte = file.read(1)
    if byte != b"\xff":
        raise _DamagedError("no marker where one must be" if byte else "the file ends within its header")
    while byte == b"\xff":
        byte = file.read(1)
    if not byte:
        raise _DamagedError("the file ends within its header")
    return byte[0]


def _orientation(exif: bytes) -> int:
    """Return the orientation tag of the first directory of an EXIF segment, 1 (upright) where there is none."""
    if not exif.startswith(b"Exif\0\0"):
        return 1
    tiff = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (offset,) = struct.unpack_from(order + "I", tiff, 4)
    if offset + 2 > len(tiff):
        return 1
    (n_entries,) = struct.unpack_from(order + "H", tiff, offset)
    for at in range(offset + 2, min(offset + 2 + 12 * n_entries, len(tiff) - 11), 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", tiff, at)
        if (tag, kind, count) == (_ORIENTATION, 3, 1):
            return int(value)
    return 1


def _size_by_pillow(path: str | Path) -> ImageSize:
    try:
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise SourceError(
            f"{path}: neither JPEG, PNG, WebP nor GIF; install vlplan[images] for more formats, or give the size"
        ) from error
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # the header alone is read
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise SourceError(f"{path}: is no picture that Pillow can read") from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return ImageSize(width=width, height=height)
