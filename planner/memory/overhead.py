"""Device memory of one process outside the engine's own buffers: a range by GPU and engine, never one constant.

On CUDA GPUs since compute capability 7.0 the context grows with the number of multiprocessors; figures and their
sources stand in ``profiles/engines/overhead.yaml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass

if TYPE_CHECKING:
    from planner.budget import Basis
    from planner.machine import Gpu


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Low, expected and high bytes."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int

    def __add__(self, other: ByteRange) -> ByteRange:
        return ByteRange(
            low_bytes=self.low_bytes + other.low_bytes,
            expected_bytes=self.expected_bytes + other.expected_bytes,
            high_bytes=self.high_bytes + other.high_bytes,
        )

    def times(self, count: int) -> ByteRange:
        """Return the range of ``count`` such things."""
        return ByteRange(
            low_bytes=self.low_bytes * count,
            expected_bytes=self.expected_bytes * count,
            high_bytes=self.high_bytes * count,
        )


NOTHING = ByteRange(low_bytes=0, expected_bytes=0, high_bytes=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextBand:
    """The context of GPUs with this backend and at least this compute capability (None: also where unknown).

    ``whole_process``: the range holds what engines add, too.
    """

    backend: str
    min_compute_capability: tuple[int, int] | None
    per_unit: ByteRange
    fixed: ByteRange
    basis: Basis
    source: str
    whole_process: bool = False

    def fits(self, gpu: Gpu) -> bool:
        """Whether this band speaks of ``gpu``; one per multiprocessor needs their number."""
        if self.backend != gpu.backend or (self.per_unit != NOTHING and gpu.n_sms is None):
            return False
        least = self.min_compute_capability
        return least is None or (gpu.compute_capability is not None and gpu.compute_capability >= least)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredContext:
    """What was measured on one GPU, by its catalogue name."""

    gpu: str
    range: ByteRange
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineExtra:
    """What these engines' libraries add to the context."""

    engines: tuple[str, ...]
    range: ByteRange
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OverheadTable:
    """The content of ``profiles/engines/overhead.yaml``."""

    bands: tuple[ContextBand, ...]
    measured: tuple[MeasuredContext, ...]
    extras: tuple[EngineExtra, ...]
    expert_staging: ByteRange
    expert_staging_source: str
    windows_note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Overhead:
    """Low, expected and high bytes of one process on one GPU, and how they are known."""

    low_bytes: int
    expected_bytes: int
    high_bytes: int
    basis: Basis
    source: str


def overhead_bytes(gpu: Gpu, engine: str, table: OverheadTable) -> Overhead:
    """Return the range of one process of ``engine`` on ``gpu`` outside the engine's buffers.

    context = per multiprocessor x multiprocessors + fixed, replaced by figures measured on this GPU except that
    ``high_bytes`` never falls below the band's; plus what the engine's libraries add.

    Args:
        gpu: backend, compute capability and multiprocessors choose the band; unknown ones the widest.
        engine: ``llama.cpp``, ``ollama``, ``transformers``, ``vllm``, ``sglang``, ``lmdeploy`` or ``measured``.
        table: the figures.
    """
    band = next((band for band in table.bands if band.fits(gpu)), _widest_band(table))
    context, basis, source = _context(band, gpu), band.basis, band.source
    known = next((row for row in table.measured if row.gpu in {gpu.name, gpu.catalog_name}), None)
    if known is not None:
        high_bytes = max(context.high_bytes, known.range.high_bytes)
        context = ByteRange(
            low_bytes=known.range.low_bytes, expected_bytes=known.range.expected_bytes, high_bytes=high_bytes
        )
        basis, source = "measured", known.source
    extra = _extra(engine, table)
    whole = context if band.whole_process else context + extra.range
    return Overhead(
        low_bytes=whole.low_bytes,
        expected_bytes=whole.expected_bytes,
        high_bytes=whole.high_bytes,
        basis=basis,
        source=source if band.whole_process else f"{source}; {extra.source}",
    )


def _context(band: ContextBand, gpu: Gpu) -> ByteRange:
    return band.per_unit.times(gpu.n_sms or 0) + band.fixed


def _widest_band(table: OverheadTable) -> ContextBand:
    return max(table.bands, key=lambda band: band.fixed.high_bytes)


def _extra(engine: str, table: OverheadTable) -> EngineExtra:
    widest = max(table.extras, key=lambda extra: extra.range.high_bytes)
    return next((extra for extra in table.extras if engine in extra.engines), widest)
