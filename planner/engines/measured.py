"""Models known by their measured peaks only: weights, one item's activations and a constant, fitted and bounded.

``peak = weights x bytes(type) + activations x bytes(type) x batch x pixels + constant``, all three not negative. Every
measured point bounds them, a run out of memory from below; the answer is the range that all points leave, and the
least-squares fit within it.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Literal

from planner.budget import Basis, Budget, DeviceBudget, Item
from planner.engines.engine import Emitted, Engine, Support
from planner.engines.least_bounds import Row, Vector, bounds, corners, least_squares
from planner.engines.span import Span, span_item
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Gpu, Machine
from planner.model import Measurement, Model
from planner.units import MIB, format_bytes
from planner.workload import Workload

MAX_POINTS = 12
WIDENING = (0, 1, 2, 5, 10, 20)  # percent by which points are widened until they agree
BEYOND = Fraction(5, 100)  # added to the upper bound beyond the largest point measured
CONTEXT = Span(low=0, expected=250 * MIB, high=600 * MIB)
_TYPE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
Dtype = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredSettings:
    """The type that the model runs in."""

    dtype: Dtype = "fp32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The peak for one question, and by how many percent the points had to be widened to agree."""

    span: Span
    basis: Basis
    widened_percent: int = 0


def measured_peak(points: tuple[Measurement, ...], dtype: Dtype, batch: int, n_pixels: int | None) -> Answer:
    """Return the peak of ``batch`` images of ``n_pixels`` in ``dtype``.

    Raises:
        UsageError: too few points for a question that was not measured itself, or points that contradict each other.
    """
    if not points:
        raise UsageError("no measured points: add at least one under 'points'")
    same = [p for p in points if _question(p) == (_TYPE_BYTES[dtype], batch, n_pixels) and p.high_bytes is not None]
    if same:
        low, high = min(p.low_bytes for p in same), max(p.high_bytes or 0 for p in same)
        return Answer(span=Span(low=low, expected=(low + high) // 2, high=high), basis="measured")
    rows = merged_rows(points)
    if len(rows) < 2:
        raise UsageError(
            f"one measured point answers its own question only ({points[0].dtype}, batch {points[0].batch}); "
            "measure another type, batch or image size"
        )
    return _fitted(points, rows, dtype, batch, n_pixels)


def _fitted(points: tuple[Measurement, ...], rows: list[Row], dtype: Dtype, batch: int, n_pixels: int | None) -> Answer:
    features = _features(dtype, batch, n_pixels, _unit_pixels(points))
    for percent in WIDENING:
        widened = [_widened(row, percent) for row in rows]
        found = corners(widened, len(features))
        if found:
            low, high = bounds(found, features)
            fitted = sum(
                (a * b for a, b in zip(features, least_squares(widened, len(features)), strict=True)), Fraction(0)
            )
            high = high * (1 + BEYOND) if _beyond(points, dtype, batch, n_pixels) else high
            middle = min(max(fitted, low), high)
            return Answer(
                span=Span(low=int(low), expected=int(middle), high=-int(-high // 1)),
                basis="modelled",
                widened_percent=percent,
            )
    raise UsageError(
        f"the measured points contradict each other by more than {WIDENING[-1]} %: a larger batch, image or type "
        "must not take less; check them"
    )


def merged_rows(points: tuple[Measurement, ...]) -> list[Row]:
    """Return one row per question; repeated points of one question span what was seen.

    Raises:
        UsageError: more distinct questions than are fitted.
    """
    unit = _unit_pixels(points)
    rows: dict[Vector, Row] = {}
    for point in points:
        features = _features(point.dtype, point.batch, point.n_pixels, unit)
        high = None if point.high_bytes is None else Fraction(point.high_bytes)
        row = Row(features, Fraction(point.low_bytes), high)
        rows[features] = _joined(rows[features], row) if features in rows else row
    if len(rows) > MAX_POINTS:
        raise UsageError(f"{len(rows)} different measured points; at most {MAX_POINTS} are fitted")
    return list(rows.values())


def _joined(one: Row, other: Row) -> Row:
    if one.high is None or other.high is None:
        high = one.high if other.high is None else other.high
        return Row(one.features, max(one.low, other.low) if high is None else _known_low(one, other), high)
    return Row(one.features, min(one.low, other.low), max(one.high, other.high))


def _known_low(one: Row, other: Row) -> Fraction:
    return one.low if one.high is not None else other.low


def _widened(row: Row, percent: int) -> Row:
    share = Fraction(percent, 100)
    return Row(row.features, row.low * (1 - share), None if row.high is None else row.high * (1 + share))


def _question(point: Measurement) -> tuple[int, int, int | None]:
    return _TYPE_BYTES[point.dtype], point.batch, point.n_pixels


def _unit_pixels(points: tuple[Measurement, ...]) -> int:
    return max((p.n_pixels for p in points if p.n_pixels), default=1)


def _features(dtype: str, batch: int, n_pixels: int | None, unit_pixels: int) -> Vector:
    """Return the factors of weights, activations and constant; pixels in units of the largest image measured."""
    size = Fraction(_TYPE_BYTES[dtype])
    image = Fraction(n_pixels, unit_pixels) if n_pixels else Fraction(1)
    return size, size * batch * image, Fraction(1)


def _beyond(points: tuple[Measurement, ...], dtype: str, batch: int, n_pixels: int | None) -> bool:
    """Whether the question is larger than every peak that was seen."""
    seen = (_TYPE_BYTES[p.dtype] * p.batch * (p.n_pixels or 1) for p in points if p.high_bytes is not None)
    return _TYPE_BYTES[dtype] * batch * (n_pixels or 1) > max(seen, default=0)


def budget(model: Model, workload: Workload, machine: Machine, settings: MeasuredSettings) -> Budget:
    """Return the peak on the GPU with most free memory, or on the host where there is none.

    Raises:
        UsageError: the points do not answer the question.
    """
    image = workload.images[0] if workload.images else None
    n_pixels = image.width * image.height if image is not None and _sized(model) else None
    batch = max(workload.batch, workload.sequences) * max(1, len(workload.images))
    answer = measured_peak(model.measurements, settings.dtype, batch, n_pixels)
    return Budget(
        devices=(_device(model, machine, answer, settings),),
        settings={"dtype": settings.dtype},
        notes=_notes(answer, model),
    )


def _sized(model: Model) -> bool:
    return any(point.n_pixels is not None for point in model.measurements)


def _device(model: Model, machine: Machine, answer: Answer, settings: MeasuredSettings) -> DeviceBudget:
    best = max(range(len(machine.gpus)), key=lambda i: machine.gpus[i].free_bytes, default=None)
    peak = span_item(
        "compute",
        "vision",
        answer.span,
        basis=answer.basis,
        formula="weights x type bytes + activations x type bytes x batch x pixels + constant",
        source=model.source or "measured points",
        dtype=settings.dtype,
        n_points=len(model.measurements),
    )
    items = [peak]
    if model.measured_with_context is not True:
        items.append(
            span_item(
                "overhead",
                "language",
                CONTEXT if model.measured_with_context is None else replace(CONTEXT, low=100 * MIB),
                basis="assumed",
                formula="device context, where the measured peaks leave it out",
                source="ranges of published logs",
            )
        )
    if best is None:
        host = machine.host
        return DeviceBudget(
            device="Host", name=host.cpu, total_bytes=host.total_bytes, free_bytes=host.free_bytes, items=(peak,)
        )
    return _on(machine.gpus[best], f"CUDA{best}", tuple(items))


def _on(gpu: Gpu, device: str, items: tuple[Item, ...]) -> DeviceBudget:
    total, free = gpu.total_bytes, gpu.free_bytes
    return DeviceBudget(device=device, name=gpu.name, total_bytes=total, free_bytes=free, items=items)


def _notes(answer: Answer, model: Model) -> tuple[str, ...]:
    span = answer.span
    notes = [
        f"peak {format_bytes(span.low)} to {format_bytes(span.high)} from {len(model.measurements)} measured points"
    ]
    if answer.basis != "measured":
        notes.append(
            "memory is taken to grow in proportion to type, batch and pixels; measure the case itself to be sure"
        )
    if answer.widened_percent:
        notes.append(f"the points agree only when each is widened by {answer.widened_percent} %")
    return tuple(notes)


def measured_engine(version: str | None = None) -> Engine:
    """Return the engine for models known by measured points; it has no releases."""

    def loads(model: Model) -> Support:
        if model.measurements:
            return Support(verdict="supported", reason="it was run: there are measured points", source=model.source)
        return Support(verdict="unknown", reason=f"{model.name} has no measured points")

    def emit(model: Model, workload: Workload, machine: Machine, settings: MeasuredSettings) -> Emitted:  # noqa: ARG001 - the protocol's
        return Emitted(command="")

    return Engine(
        name="measured", version=version or "1", settings=MeasuredSettings, loads=loads, budget=budget, emit=emit
    )
