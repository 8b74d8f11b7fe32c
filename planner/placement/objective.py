"""What "best" means: an explicit order, first difference wins. The user picks one of five.

=========== ==========================================================================================
prefer      order of comparison
=========== ==========================================================================================
balanced    fits; fast enough to read along (10 tokens/s) or as fast as it gets, in steps of a third; all on
            the GPUs, if that does not need a file type worse than Q4_K_S; quality; cache quality;
            context; speed; headroom
quality     fits; quality; cache quality; speed; context; headroom
speed       fits; speed; quality; cache quality; context; headroom
context     fits; context; fast enough; quality; cache quality; headroom
headroom    fits; headroom; fast enough; quality; cache quality; context
=========== ==========================================================================================

Speed is that of one decode stream: the bytes a token reads on each device over that device's bandwidth, one device
after the other, because layers run in sequence. More GPUs therefore never make it faster by themselves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from planner.budget import Budget, DeviceBudget
from planner.frozen import dataclass
from planner.machine import Machine
from planner.model import Language, Model, MoeFfn
from planner.quantization import tensor_bytes
from planner.remembered import remembered

Prefer = Literal["balanced", "quality", "speed", "context", "headroom"]
READING_TOKENS_PER_S = 10.0
SPEED_STEP = 4 / 3
LOSSLESS_RISE = 10
GOOD_RISE = 300  # up to 4-bit types of mixed precision; what is worse is not worth staying on the GPU for
GPU_BANDWIDTH = 300_000_000_000  # assumed where the card is unknown
HOST_BANDWIDTH = 45_000_000_000  # assumed: two channels of DDR4-3200 with all cores reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How file types and cache types rank: perplexity rise in thousandths, and an order of cache types."""

    rise: Mapping[str, int]
    cache_order: tuple[str, ...]

    def loss(self, quantization: str | None) -> int:
        """Return the rise of perplexity of a file type; lossless types count 0, unknown ones as the worst."""
        rise = self.rise.get((quantization or "F16").upper(), max(self.rise.values()))
        return 0 if rise <= LOSSLESS_RISE else rise

    def cache_loss(self, type_k: str, type_v: str) -> int:
        """Return the rank of the worse of the two cache types; 16 bits and more count 0."""
        ranks = [self.cache_order.index(name) for name in (type_k, type_v)]
        return max(0, max(ranks) - self.cache_order.index("bf16"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a plan is judged by. ``tokens_per_s`` ranks plans; it is no promise. ``on_gpu``: no layer on the host."""

    fits: bool
    on_gpu: bool
    tokens_per_s: float
    loss: int
    cache_loss: int
    context_tokens: int
    headroom_bytes: int

    def key(self, prefer: Prefer) -> tuple[float, ...]:
        """Return the sort key under ``prefer``: larger is better."""
        speed = round(self.tokens_per_s, 1)
        enough = _speed_step(min(self.tokens_per_s, READING_TOKENS_PER_S))
        quality = (-self.loss, -self.cache_loss)
        context, headroom = self.context_tokens, self.headroom_bytes
        orders: dict[str, tuple[float, ...]] = {
            "balanced": (enough, float(self.on_gpu and self.loss <= GOOD_RISE), *quality, context, speed, headroom),
            "quality": (*quality, speed, context, headroom),
            "speed": (speed, *quality, context, headroom),
            "context": (context, enough, *quality, headroom),
            "headroom": (headroom, enough, *quality, context),
        }
        return (float(self.fits), *orders[prefer])


def _speed_step(tokens_per_s: float) -> float:
    """Return the speed in steps of a third: what lies within one step is no reason to give up quality."""
    return float(math.floor(math.log(max(tokens_per_s, 1e-3) / READING_TOKENS_PER_S) / math.log(SPEED_STEP) + 1e-9))


def active_fraction(model: Model) -> float:
    """Return the share of the stored weights that one token reads: all but the experts it is not routed to."""
    return _active_fraction(model.language)


@remembered
def _active_fraction(language: Language) -> float:
    total = idle = 0.0
    experts = next((layer.ffn for layer in language.layers if isinstance(layer.ffn, MoeFfn)), None)
    share = experts.n_experts_used / experts.n_experts if experts else 1.0
    for tensor in language.tensors:
        n_bytes = tensor_bytes(tensor.format, tensor.shape)
        if tensor.name.startswith(("token_embd", "per_layer_token_embd")):
            continue
        total += n_bytes
        idle += n_bytes * (1 - share) if "_exps." in tensor.name else 0
    return (total - idle) / total if total else 1.0


def decode_tokens_per_s(budget: Budget, machine: Machine, active: float) -> float:
    """Return the decode speed of one stream by bytes moved: the sum over devices of bytes over bandwidth."""
    seconds = 0.0
    for index, device in enumerate(budget.devices):
        on_gpu = index < len(machine.gpus)
        bandwidth = machine.gpus[index].bandwidth_bytes_per_s if on_gpu else machine.host.bandwidth_bytes_per_s
        seconds += _bytes_per_token(device, active) / (bandwidth or (GPU_BANDWIDTH if on_gpu else HOST_BANDWIDTH))
    return 1 / seconds if seconds else float("inf")


def _bytes_per_token(device: DeviceBudget, active: float) -> float:
    if device.layers is None and not device.has_output:
        return 0.0  # the embedding on the host: one row
    weights = sum(i.expected_bytes for i in device.items if i.component == "weights" and i.part == "language")
    cache = sum(i.expected_bytes for i in device.items if i.component == "kv_cache")
    return weights * active + cache
