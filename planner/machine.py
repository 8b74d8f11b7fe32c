"""What a machine is: its GPUs with what is free on each, and its host memory. A value, detected or described."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from planner.frozen import dataclass

Backend = Literal["cuda", "rocm", "metal", "vulkan", "sycl", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One device. ``free_bytes`` is what a new process can have now; everything may be unknown but the sizes."""

    name: str
    total_bytes: int
    free_bytes: int
    backend: Backend = "cuda"
    architecture: str | None = None  # the catalogue's word (turing, ada, rdna3, apple, ...); selects data, never code
    compute_capability: tuple[int, int] | None = None
    bandwidth_bytes_per_s: int | None = None
    fp16_flops: int | None = None
    fp32_flops: int | None = None
    n_sms: int | None = None
    pcie_generation: int | None = None
    pcie_lanes: int | None = None
    unified_memory: bool = False
    async_copies: bool = True
    catalog_name: str | None = field(default=None, compare=False)  # where ``name`` is the driver's own
    uuid: str | None = None
    driver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """CPU and memory. ``total_bytes`` respects the cgroup limit; ``free_bytes`` is available without swapping."""

    total_bytes: int
    free_bytes: int
    n_cores: int
    cpu: str = ""
    bandwidth_bytes_per_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A box to plan for. ``simulated``: it was described, not detected."""

    gpus: tuple[Gpu, ...]
    host: Host
    simulated: bool = False
    notes: tuple[str, ...] = ()
