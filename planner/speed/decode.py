"""Decoding: every token reads the active weights and the cache once, device after device or in parallel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.speed.stage import StageTime, in_sequence, stage
from planner.speed.table import engine_factors, spread_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.speed.table import Device, EngineFactors, Link, SpeedTable

_LINK_SPREAD = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeWork:
    """What one device does for one token (of each sequence).

    Attributes:
        device: where.
        n_layers: repeating layers on it.
        weight_bytes: bytes of the weights that a token uses: all of a dense model's, the used experts of a mixture;
            the input embedding is not read.
        n_weights: how many weights these are.
        n_superblock_weights: how many of them are stored in super-blocks of 256 (the k and i formats), which cost
            arithmetic to turn back into numbers; plain blocks of 32 cost next to none.
        kv_bytes: bytes of the cache read for one token of one sequence at its context.
        kv_repeat: query heads per KV head.
        n_expert_layers: how many of the layers are mixtures of experts, which take more launches.
        n_hops: how often a token's activations are handed to this device: once in a split by layers, once per layer
            where only the experts are elsewhere.
    """

    device: Device
    n_layers: int
    weight_bytes: int
    n_weights: int
    n_superblock_weights: int
    kv_bytes: int
    kv_repeat: int = 1
    n_expert_layers: int = 0
    n_hops: int = 1


def decode_time(
    works: Sequence[DecodeWork],
    *,
    engine: str,
    table: SpeedTable,
    sequences: int = 1,
    tensor_parallel: Link | None = None,
) -> StageTime:
    """Return the seconds of one step that gives each sequence one token.

    Layer split: the devices work one after the other, so that a second device never makes a single stream faster.
    Tensor parallel: they work at the same time, and two all-reduces per layer over the named link are added.

    Args:
        works: the devices in order.
        engine: its name.
        table: the factors.
        sequences: decoded together; weights are read once for all of them, caches once for each.
        tensor_parallel: the link between the devices, None for a split by layers.
    """
    factors = engine_factors(engine, table)
    stages = [_on_device(work, factors, table, sequences) for work in works if work.n_layers or work.weight_bytes]
    if not stages:
        return stage("decode", {}, 1.0, "exact")
    if tensor_parallel is None or len(stages) == 1:
        n_hops = sum(work.n_hops for work in works if work.n_layers or work.weight_bytes) - 1
        return in_sequence("decode", [*stages, _over_link("hops", max(0, n_hops) * table.constants.hop_s)])
    n_layers = max(work.n_layers for work in works)
    seconds = 2 * n_layers * table.constants.all_reduce_s[tensor_parallel]
    slowest = max(stages, key=lambda one: one.expected_s)
    return in_sequence("decode", [slowest, _over_link("all-reduces", seconds)])


def _over_link(name: str, seconds: float) -> StageTime:
    return stage(name, {name: seconds}, _LINK_SPREAD, "modelled")


def _on_device(work: DecodeWork, factors: EngineFactors, table: SpeedTable, sequences: int) -> StageTime:
    device, kind = work.device, work.device.kind
    reached = device.bandwidth * kind.bandwidth_share
    kv_traffic = factors.kv_traffic * (work.kv_repeat if factors.kv_repeated else 1)
    parts = {
        "weights over memory": work.weight_bytes / reached,
        "KV cache over memory": work.kv_bytes * sequences * kv_traffic / reached,
    }
    if kind.dequantize_share is not None:
        parts["dequantisation"] = 2 * work.n_superblock_weights / (device.fp32_flops * kind.dequantize_share)
    if sequences > 1:
        arithmetic = 2 * work.n_weights * sequences / (device.matrix_flops * kind.quantized_matrix_share)
        parts["arithmetic"] = max(0.0, arithmetic - sum(parts.values()))
    n_launched = work.n_layers + work.n_expert_layers * (table.constants.expert_layer_factor - 1)
    _add_launches(parts, n_launched * (kind.layer_s if factors.layer_s is None else factors.layer_s), factors)
    spread = spread_of(device, max(kind.decode_spread, factors.spread), table)
    return stage("decode", parts, spread, device.basis, kind.source)


def _add_launches(parts: dict[str, float], seconds: float, factors: EngineFactors) -> None:
    """Add the fixed cost of layers; where it overlaps, only what the device's work does not hide."""
    parts["layer launches"] = max(0.0, seconds - sum(parts.values())) if factors.overlapped else seconds
