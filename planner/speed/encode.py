"""Encoding images: a tower is a short language model without a cache, whose every patch sees the others."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.speed.stage import StageTime, stage
from planner.speed.table import engine_factors, spread_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.speed.table import Device, EngineFactors, SpeedTable

_SCORE_BYTES = _ACTIVATION_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerWork:
    """A vision tower and where it runs.

    Attributes:
        device: where the arithmetic happens.
        n_layers: blocks that run.
        n_embd: their width.
        n_heads: of attention, each with a score for every pair of patches.
        n_weights: of the tower, which every patch multiplies with.
        weight_bytes: of tower and projector as stored.
        quantized: whether they are in a block format.
        n_projector_weights: which every image token multiplies with.
        patches_per_token: how many patches the projector makes one token of.
        window_patches: what a patch sees in layers with windows, 0 where there are none.
        n_full_layers: layers in which every patch sees every other one although the others have windows.
        table_width: numbers per patch in a table of positions that the engine fills on the CPU, 0 where it does not.
    """

    device: Device
    n_layers: int
    n_embd: int
    n_weights: int
    weight_bytes: int
    n_heads: int = 16
    quantized: bool = False
    n_projector_weights: int = 0
    patches_per_token: float = 1.0
    window_patches: int = 0
    n_full_layers: int = 0
    table_width: int = 0


def weight_flops(work: TowerWork, n_patches: int) -> float:
    """Return the operations of one sequence with weights: two per weight and patch, or image token."""
    return 2.0 * n_patches * (work.n_weights + work.n_projector_weights / work.patches_per_token)


def attended_pairs(work: TowerWork, n_patches: int, *, windows: bool) -> int:
    """Return the pairs of patches over all layers; ``windows``: the engine skips what lies outside of them."""
    if not windows or not work.window_patches:
        return work.n_layers * n_patches * n_patches
    seen = min(n_patches, work.window_patches)
    return n_patches * (work.n_full_layers * n_patches + (work.n_layers - work.n_full_layers) * seen)


def encode_time(  # noqa: PLR0913 - what is asked decides the time
    work: TowerWork,
    sequences: Sequence[int],
    *,
    engine: str,
    table: SpeedTable,
    flash: bool = True,
    first: bool = False,
) -> StageTime:
    """Return the seconds to encode images.

    Args:
        work: the tower and its device.
        sequences: patches of each sequence that the tower sees (a tile or a whole image).
        engine: its name.
        table: the factors.
        flash: whether attention runs without its scores in memory.
        first: whether it is the process's first image. The range reaches up to that in any case.
    """
    device, factors = work.device, engine_factors(engine, table)
    parts = _parts(work, sequences, factors, table, flash=flash)
    start = 0.0 if device.kind is table.host else factors.first_image_s
    if first:
        parts["first image of a process"] = start
    spread = spread_of(device, max(device.kind.encode_spread, factors.encode_spread), table)
    basis = "assumed" if factors.basis == "assumed" else device.basis
    time = stage("encode", parts, spread, basis, device.kind.source)
    return time if first or not sequences else replace(time, high_s=time.high_s + start)


def _parts(
    work: TowerWork, sequences: Sequence[int], factors: EngineFactors, table: SpeedTable, *, flash: bool
) -> dict[str, float]:
    device, kind, constants = work.device, work.device.kind, table.constants
    reached = device.bandwidth * kind.bandwidth_share
    n_calls = min(1, len(sequences)) if factors.framework else len(sequences)
    n_bytes = _ACTIVATION_BYTES // 2 if factors.framework else _ACTIVATION_BYTES
    n_patches = sum(sequences)
    numbers = work.n_embd * work.n_layers * n_patches
    pairs = sum(attended_pairs(work, n, windows=factors.framework) for n in sequences)
    scores = 0 if flash else constants.score_passes * _SCORE_BYTES * work.n_heads * pairs
    flops = sum(weight_flops(work, n) for n in sequences)
    parts = {
        "arithmetic": flops / _matrix_rate(device, factors, table, quantized=work.quantized),
        "attention": 4.0 * pairs * work.n_embd / _attention_rate(device, factors, table, flash=flash),
        "attention scores over memory": scores / reached,
        "activations over memory": constants.activation_passes * numbers * n_bytes / reached,
        "weights over memory": work.weight_bytes * n_calls / reached,
        "table of positions on the CPU": work.table_width * n_patches / constants.table_entries_per_s,
    }
    launches = work.n_layers * n_calls * (kind.layer_s if factors.layer_s is None else factors.layer_s)
    hidden = sum(parts.values()) if factors.overlapped else 0.0
    return parts | {"layer launches": max(0.0, launches - hidden)}


def _matrix_rate(device: Device, factors: EngineFactors, table: SpeedTable, *, quantized: bool) -> float:
    """Return the operations per second in products with weights."""
    if factors.framework:
        return device.fp16_flops * table.constants.framework_share
    return device.matrix_flops * device.kind.matrix_share_of(quantized=quantized)


def _attention_rate(device: Device, factors: EngineFactors, table: SpeedTable, *, flash: bool) -> float:
    """Return the operations per second in attention: two products, in flash attention with all that lies between."""
    if factors.framework or not flash:
        return _matrix_rate(device, factors, table, quantized=False)
    if device.kind.vector_attention:
        return device.fp32_flops * device.kind.matrix_share
    return device.matrix_flops * device.kind.matrix_share * table.constants.attention_factor
