"""A file of measured points → a model that is known by them only.

``GB`` is written for both 10^9 and 2^30 bytes; such a peak is taken as anything between, and half of the last digit
either way. ``GiB`` and ``MiB`` mean what they say.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from planner.catalog.foreign import parse_foreign_yaml
from planner.errors import SourceError, UsageError
from planner.model import Language, Measurement, Model
from planner.workload import parse_image_size

if TYPE_CHECKING:
    from pathlib import Path

MAX_POINTS = 200
MAX_FILE_BYTES = 1 << 20
USABLE = Fraction(95, 100)  # of a card's marked decimal size that a run can have at least
_PEAK = re.compile(r"\s*(\d{1,9})(?:\.(\d{1,6}))?\s*(B|[KMGT]i?B)\s*", re.IGNORECASE)
_POWER = {"k": 1, "m": 2, "g": 3, "t": 4}


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class _Point(_Strict):
    dtype: Literal["fp32", "fp16", "bf16", "int8"]
    batch: Annotated[int, Field(ge=1, le=65536)] = 1
    image: str | None = None
    peak: str | int | None = None
    out_of_memory_at: str | int | None = None


class _File(_Strict):
    name: Annotated[str, Field(max_length=200)]
    source: Annotated[str, Field(max_length=1000)] = ""
    with_context: bool | None = None
    points: Annotated[list[_Point], Field(min_length=1, max_length=MAX_POINTS)]


def read_measured(path: Path) -> Model:
    """Return the model that a YAML file of measured points describes.

    Raises:
        SourceError: the file cannot be read, is too long, or is no such file.
        UsageError: a size or an image is malformed.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise SourceError(f"{path}: longer than {MAX_FILE_BYTES} bytes; a file of measured points is not")
    return measured_model(parse_foreign_yaml(text, str(path)), str(path))


def measured_model(data: object, name: str) -> Model:
    """Return the model that parsed points describe; ``name`` is for messages.

    Raises:
        SourceError: not such a file.
        UsageError: a size or an image is malformed.
    """
    try:
        found = _File.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SourceError(f"{name}: {where}: {first['msg']}") from None
    return Model(
        name=found.name,
        family="measured",
        language=Language(architecture="", n_embd=0, n_vocab=0, n_context_train=0, layers=()),
        source=found.source or name,
        measurements=tuple(_measurement(point, name) for point in found.points),
        measured_with_context=found.with_context,
    )


def _measurement(point: _Point, name: str) -> Measurement:
    if (point.peak is None) == (point.out_of_memory_at is None):
        raise SourceError(f"{name}: a point has either 'peak' or 'out_of_memory_at'")
    size = parse_image_size(point.image) if point.image is not None else None
    low, high = byte_range(point.peak if point.peak is not None else point.out_of_memory_at)
    if point.peak is None:
        low = int(low * USABLE)
    return Measurement(
        dtype=point.dtype,
        batch=point.batch,
        n_pixels=size.width * size.height if size is not None else None,
        low_bytes=low,
        high_bytes=None if point.peak is None else high,
    )


def byte_range(size: str | int | None) -> tuple[int, int]:
    """Return the least and most bytes that ``size`` can mean.

    Raises:
        UsageError: it is no size.
    """
    if isinstance(size, int) and 0 <= size < 1 << 60:
        return size, size
    match = _PEAK.fullmatch(size) if isinstance(size, str) else None
    if match is None:
        raise UsageError(f"{str(size)[:40]!r} is not a measured size; write it like 14.2GB, 13.3GiB or 9012MiB")
    whole, digits, unit = match.groups()
    value = Fraction(f"{whole}.{digits or 0}")
    half = Fraction(1, 2 * 10 ** len(digits or ""))
    low, high = _factors(unit.lower())
    return int(max(Fraction(0), value - half) * low), int((value + half) * high)


def _factors(unit: str) -> tuple[int, int]:
    if unit == "b":
        return 1, 1
    power = _POWER[unit[0]]
    return (1024**power if "i" in unit else 1000**power), 1024**power
