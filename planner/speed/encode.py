"""Encoding an image: the tower's arithmetic by its patches, tile after tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.speed.stage import StageTime, stage
from planner.speed.table import engine_factors, spread_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.speed.table import Device, SpeedTable


@dataclass(frozen=True, slots=True, kw_only=True)
class TowerWork:
    """A vision tower and where it runs. ``attended_patches``: a window's, 0 where every patch sees every other one."""

    device: Device
    n_layers: int
    n_embd: int
    n_weights: int  # of tower and projector
    weight_bytes: int
    attended_patches: int = 0


def encode_flops(work: TowerWork, n_patches: int) -> float:
    """Return the operations for one sequence of patches: two per weight and patch, four per pair, width and layer."""
    seen = min(n_patches, work.attended_patches) if work.attended_patches else n_patches
    return 2.0 * work.n_weights * n_patches + 4.0 * n_patches * seen * work.n_embd * work.n_layers


def encode_time(work: TowerWork, sequences: Sequence[int], *, engine: str, table: SpeedTable) -> StageTime:
    """Return the seconds to encode images.

    Args:
        work: the tower and its device.
        sequences: patches of each sequence that the tower sees (a tile or a whole image).
        engine: its name.
        table: the factors.
    """
    device, kind = work.device, work.device.kind
    factors = engine_factors(engine, table)
    reached = device.matrix_flops * min(1.0, kind.encode_share * factors.encode_gain)
    parts = {
        "arithmetic": sum(encode_flops(work, n) for n in sequences) / reached,
        "weights over memory": work.weight_bytes * len(sequences) / (device.bandwidth * kind.bandwidth_share),
        "layer launches": work.n_layers * kind.layer_s * len(sequences),
    }
    spread = spread_of(device, max(kind.encode_spread, factors.encode_spread), table)
    return stage("encode", parts, spread, device.basis if factors.encode_gain == 1 else "assumed", kind.source)
