"""The answer's nouns: who holds which bytes, how sure we are, and whether that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from planner.frozen import dataclass

Basis = Literal["exact", "modelled", "measured", "assumed"]
Component = Literal["weights", "kv_cache", "compute", "overhead"]
Part = Literal["language", "vision", "projector"]
Verdict = Literal["fits", "fits_with_changes", "does_not_fit", "will_not_load", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One term of a device's memory. ``resident_bytes`` stand after load; low, expected and high are the peak."""

    component: Component
    part: Part
    resident_bytes: int
    low_bytes: int
    expected_bytes: int
    high_bytes: int
    basis: Basis
    formula: str
    source: str
    inputs: Mapping[str, int | float | str] = field(default_factory=dict)


def exact_item(
    component: Component, part: Part, n_bytes: int, *, formula: str, source: str, **inputs: float | str
) -> Item:
    """Return an item whose bytes are known: resident, low, expected and high are the same."""
    return Item(
        component=component,
        part=part,
        resident_bytes=n_bytes,
        low_bytes=n_bytes,
        expected_bytes=n_bytes,
        high_bytes=n_bytes,
        basis="exact",
        formula=formula,
        source=source,
        inputs=inputs,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceBudget:
    """What one device holds. ``layers`` are the first and last repeating layer on it, or None."""

    device: str  # CUDA0, CUDA1, ..., Host
    name: str
    total_bytes: int
    free_bytes: int
    items: tuple[Item, ...]
    layers: tuple[int, int] | None = None
    has_output: bool = False
    ceiling_bytes: int | None = None  # an engine that sizes a pool to what is left never takes more than this

    @property
    def expected_bytes(self) -> int:
        """Expected peak."""
        return sum(item.expected_bytes for item in self.items)

    @property
    def high_bytes(self) -> int:
        """The bound that feasibility is judged on: the sum of the items' bounds, or the engine's own ceiling."""
        total = sum(item.high_bytes for item in self.items)
        return total if self.ceiling_bytes is None else min(total, self.ceiling_bytes)

    @property
    def headroom_bytes(self) -> int:
        """Free memory less the high bound; negative where it does not fit."""
        return self.free_bytes - self.high_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTokens:
    """What one image becomes. ``tokens`` are its own, ``extra_tokens`` the structural ones around them.

    ``counting`` says by whose rule: the model's own processor (transformers, vLLM, SGLang, LMDeploy) or mtmd's.
    """

    image: str
    tokens: int
    extra_tokens: int
    resized_to: str
    wasted_pixels: int
    tiles: int = 1
    encoder_sequences: tuple[int, ...] = ()  # patches of each sequence the tower sees
    cross_tokens: int | None = None
    counting: Literal["processor", "mtmd"] = "processor"
    patch_grids: tuple[tuple[int, int], ...] = ()  # patches across and down, of each view
    chunk_tokens: tuple[int, ...] = ()  # tokens of each chunk that is decoded on its own
    token_grid: tuple[int, int] = (0, 0)  # columns and rows of the tiles' tokens, where padding among them is dropped
    n_positions: int = 0  # places taken in the sequence with the structural tokens; fewer than tokens under M-RoPE


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The whole of an engine's memory for one model, machine and workload, device by device."""

    devices: tuple[DeviceBudget, ...]
    image_tokens: tuple[ImageTokens, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)  # as resolved, in the engine's own words
    notes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()  # what the engine itself would say no to at start
    unknown: tuple[str, ...] = ()  # what could not be computed; such a budget never "fits"
    shortfalls: tuple[str, ...] = ()  # memory missing inside what the engine allows itself, such as a cache too small

    @property
    def n_gpus(self) -> int:
        """Number of devices before the host."""
        return len(self.devices) - 1

    @property
    def short_devices(self) -> tuple[DeviceBudget, ...]:
        """Devices whose high bound is above what is free."""
        return tuple(device for device in self.devices if device.headroom_bytes < 0)
