"""A picture's size from its header, and nothing else."""

from __future__ import annotations

import os
import struct
import sys
import time
import types
import zlib
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import SourceError
from planner.sources.picture import picture_size


def png(width: int, height: int) -> bytes:
    """Return the start of a PNG file."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def gif(width: int, height: int) -> bytes:
    """Return the start of a GIF file."""
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + bytes(20)


def segment(marker: int, body: bytes) -> bytes:
    """Return a JPEG segment."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def exif(orientation: int, order: str = "<") -> bytes:
    """Return an EXIF segment that holds an orientation."""
    mark = b"II" if order == "<" else b"MM"
    tiff = mark + struct.pack(order + "HI", 42, 8) + struct.pack(order + "HHHIHH", 1, 0x0112, 3, 1, orientation, 0)
    return segment(0xE1, b"Exif\0\0" + tiff)


def jpeg(width: int, height: int, *before: bytes, frame: int = 0xC0) -> bytes:
    """Return the start of a JPEG file: segments, then the frame header."""
    body = struct.pack(">BHHB", 8, height, width, 3) + bytes(9)
    return b"\xff\xd8" + segment(0xE0, b"JFIF\0" + bytes(9)) + b"".join(before) + segment(frame, body)


def webp(kind: bytes, body: bytes) -> bytes:
    """Return the start of a WebP file of one chunk."""
    return b"RIFF" + bytes(4) + b"WEBP" + kind + struct.pack("<I", len(body)) + body + bytes(16)


def lossy(width: int, height: int) -> bytes:
    """Return a lossy WebP; the upper two bits of each side are a scale."""
    return webp(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width | 0x4000, height))


def lossless(width: int, height: int) -> bytes:
    """Return a lossless WebP."""
    return webp(b"VP8L", b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14))


def extended(width: int, height: int) -> bytes:
    """Return an extended WebP."""
    return webp(b"VP8X", bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"))


def written(tmp_path: Path, data: bytes) -> Path:
    """Return a file that holds the data."""
    path = tmp_path / "picture"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("make", [png, gif, jpeg, lossy, lossless, extended])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (640, 480), (1080, 1920), (8000, 6000)])
def test_width_and_height_are_read(tmp_path: Path, make: object, width: int, height: int) -> None:
    """Every format's header gives width and height, in that order."""
    size = picture_size(written(tmp_path, make(width, height)))
    assert (size.width, size.height) == (width, height)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_phone_photo_is_turned_upright(tmp_path: Path, order: str, orientation: int) -> None:
    """Orientations 5 to 8 swap the sides for engines that heed them, and never for those that do not."""
    path = written(tmp_path, jpeg(4000, 3000, exif(orientation, order)))
    turned = picture_size(path)
    assert (turned.width, turned.height) == ((3000, 4000) if orientation >= 5 else (4000, 3000))
    assert picture_size(path, upright=False).width == 4000


@pytest.mark.parametrize("frame", [0xC0, 0xC1, 0xC2, 0xC9, 0xCF])
def test_every_kind_of_jpeg_frame_is_known(tmp_path: Path, frame: int) -> None:
    """Baseline, progressive, arithmetic and lossless frames carry the size alike; tables before them do not."""
    data = jpeg(320, 200, segment(0xC4, bytes(40)), segment(0xDB, bytes(65)), b"\xff\xff\x01", frame=frame)
    assert picture_size(written(tmp_path, data)).width == 320


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (jpeg(640, 480)[:26], "the file ends within its header"),
        (b"\xff\xd8" + b"\xff\xe0\x00\x01" + bytes(40), "shorter than its own length field"),
        (b"\xff\xd8" + bytes(40), "no marker where one must be"),
        (b"\xff\xd8\xff\xd9" + bytes(40), "it ends before a frame header"),
        (b"\xff\xd8" + b"\xff\x01" * 70000, "it has no frame header"),
        (jpeg(0, 480), "its header says 0x480 pixels"),
        (png(640, 480)[:20], "the file ends within its header"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "no IHDR chunk first"),
        (png(2**31, 5), "its header says 2147483648x5 pixels"),
        (gif(5, 5)[:8], "the file ends within its header"),
        (lossy(5, 5)[:22], "the file ends within its header"),
        (lossless(5, 5)[:22], "unknown or cut WebP chunk b'VP8L'"),
        (webp(b"ANIM", b""), "unknown or cut WebP chunk b'ANIM'"),
    ],
)
def test_a_damaged_picture_is_one_line(tmp_path: Path, data: bytes, reason: str) -> None:
    """A cut or contradictory header is an error that names the file and the fault."""
    with pytest.raises(SourceError, match=reason) as error:
        picture_size(written(tmp_path, data))
    assert "\n" not in str(error.value)
    assert "damaged picture" in str(error.value)


def test_a_missing_file_a_folder_and_a_pipe_are_one_line(tmp_path: Path) -> None:
    """What cannot be read as a file says so at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (tmp_path / "none.png", tmp_path, pipe):
        with pytest.raises(SourceError, match="cannot be read"):
            picture_size(path)


def test_another_format_asks_for_pillow_or_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow an unknown format is refused with what to install."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SourceError, match=r"install vlplan\[images\]"):
        picture_size(written(tmp_path, b"BM" + bytes(60)))


@pytest.mark.parametrize("readable", [True, False])
def test_pillow_reads_what_is_not_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, readable: bool) -> None:
    """With Pillow other formats' headers are read by it, its own limit of pixels put back after; else one line."""

    class UnidentifiedError(OSError):
        pass

    class Opened:
        size = (7, 5)

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def opened(_: object) -> Opened:
        if readable:
            return Opened()
        raise UnidentifiedError

    image = types.SimpleNamespace(MAX_IMAGE_PIXELS=99, open=opened)
    monkeypatch.setitem(
        sys.modules, "PIL", types.SimpleNamespace(Image=image, UnidentifiedImageError=UnidentifiedError)
    )
    path = written(tmp_path, b"BM" + bytes(60))
    if readable:
        assert str(picture_size(path)) == "7x5"
    else:
        with pytest.raises(SourceError, match="is no picture that Pillow can read"):
            picture_size(path)
    assert image.MAX_IMAGE_PIXELS == 99


@pytest.mark.parametrize(
    "body",
    [
        b"http://ns.adobe.com/xap/1.0/\0<x/>",
        b"Exif\0\0XX\x2a\0" + bytes(20),
        b"Exif\0\0II\x2a\0\xff\xff\xff\x7f",
        b"Exif\0\0II\x2a\0\x08\0\0\0\xff\xff" + bytes(30),
    ],
)
def test_odd_exif_segments_leave_the_picture_upright(tmp_path: Path, body: bytes) -> None:
    """Segments that hold no orientation, or lie about where it is, change nothing."""
    path = written(tmp_path, jpeg(640, 480, segment(0xE1, body)))
    assert picture_size(path).width == 640


def test_a_bomb_costs_nothing(tmp_path: Path) -> None:
    """A header that promises 10^12 pixels is answered in well under a second."""
    start = time.process_time()
    assert picture_size(written(tmp_path, png(1_000_000, 1_000_000))).width == 1_000_000
    assert time.process_time() - start < 1


@given(data=st.binary(max_size=400), start=st.sampled_from([b"", b"\xff\xd8", png(3, 3)[:12], b"RIFF0000WEBP"]))
def test_any_bytes_give_a_size_or_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, start: bytes) -> None:
    """Nothing that a file may hold crashes the reader."""
    path = tmp_path_factory.getbasetemp() / "anything"
    path.write_bytes(start + data)
    try:
        size = picture_size(path)
    except SourceError:
        return
    assert size.width > 0
    assert size.height > 0
