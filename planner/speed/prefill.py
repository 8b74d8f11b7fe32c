"""Prompt processing: arithmetic over matrix units, attention growing with the square, devices in a pipeline.

No published figure tells engines apart in this stage yet, so that none is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.frozen import dataclass
from planner.speed.stage import StageTime, in_sequence, stage
from planner.speed.table import spread_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.speed.table import Device, SpeedTable

_ACTIVATION_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillWork:
    """What one device does for a prompt.

    Attributes:
        device: where the arithmetic happens.
        n_layers: repeating layers on it.
        n_weights: weights that each token multiplies with; the output matrix serves the last one alone: leave it out.
        weight_bytes: as stored, read once per micro-batch.
        quantized: whether they are in a block format.
        n_embd: width of the model.
        experts: whether its layers are mixtures of experts, whose products are small and many.
        attention_width: query heads x head size, summed over the attention layers on this device.
        link_bytes_per_s: where the weights stay in host memory and are carried over PCI Express, how fast; else None.
    """

    device: Device
    n_layers: int
    n_weights: int
    weight_bytes: int
    quantized: bool
    n_embd: int
    experts: bool = False
    attention_width: int = 0
    link_bytes_per_s: float | None = None


def prefill_flops(work: PrefillWork, n_tokens: int, n_past: int = 0) -> float:
    """Return the operations for ``n_tokens`` after ``n_past``: two per weight and token, four per pair and width."""
    pairs = n_tokens * n_past + n_tokens * (n_tokens + 1) // 2
    return 2.0 * work.n_weights * n_tokens + 4.0 * pairs * work.attention_width


def prefill_time(
    works: Sequence[PrefillWork],
    *,
    n_tokens: int,
    table: SpeedTable,
    ubatch: int = 512,
    n_past: int = 0,
) -> StageTime:
    """Return the seconds until ``n_tokens`` (text and image tokens) are processed and the first answer token stands.

    Args:
        works: the devices in order; several share the prompt's micro-batches like a pipeline.
        n_tokens: of all sequences processed together.
        table: the factors.
        ubatch: tokens per micro-batch.
        n_past: tokens that stand in the cache already.
    """
    n_micro = max(1, -(-n_tokens // max(1, ubatch)))
    stages = [_on_device(work, n_tokens, n_past, n_micro, table) for work in works if work.n_layers or work.n_weights]
    if not stages:
        return stage("prefill", {}, 1.0, "exact")
    whole = in_sequence("prefill", stages)
    return _sped_up(whole, pipeline_speedup(len(stages), n_micro, table))


def pipeline_speedup(n_devices: int, n_micro: int, table: SpeedTable) -> float:
    """Return how much faster ``n_devices`` in a row are on ``n_micro`` micro-batches than one after the other.

    Ideal: n·m / (n + m - 1); a share of the gain over 1 is reached.
    """
    ideal = n_devices * n_micro / (n_devices + n_micro - 1)
    return 1.0 + table.constants.pipeline_gain * (ideal - 1.0)


def _sped_up(time: StageTime, factor: float) -> StageTime:
    return StageTime(
        name=time.name,
        low_s=time.low_s / factor,
        expected_s=time.expected_s / factor,
        high_s=time.high_s / factor,
        bound_by=time.bound_by,
        basis=time.basis,
        source=time.source,
    )


def _on_device(work: PrefillWork, n_tokens: int, n_past: int, n_micro: int, table: SpeedTable) -> StageTime:
    device, kind = work.device, work.device.kind
    share = kind.matrix_share_of(quantized=work.quantized)
    spread = kind.prefill_spread
    if work.experts:
        share *= table.constants.expert_matrix_factor
        spread = max(spread, table.constants.expert_spread)
    reached = device.bandwidth * kind.bandwidth_share
    activations = table.constants.activation_passes * work.n_layers * work.n_embd * _ACTIVATION_BYTES * n_tokens
    parts = {
        "arithmetic": prefill_flops(work, n_tokens, n_past) / (device.matrix_flops * share),
        "weights over memory": work.weight_bytes * n_micro / reached,
        "activations over memory": activations / reached,
    }
    if work.link_bytes_per_s:
        parts["weights over PCI Express"] = work.weight_bytes * n_micro / work.link_bytes_per_s
    return stage("prefill", parts, spread_of(device, spread, table), device.basis, kind.source)
