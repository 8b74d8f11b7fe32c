"""What happens before the first stage on the GPU: reading the file, and decoding and resizing images on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.speed.stage import StageTime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from planner.machine import Gpu
    from planner.speed.table import SpeedTable
    from planner.workload import ImageSize


def link_bytes_per_s(gpu: Gpu, table: SpeedTable) -> float | None:
    """Return what a copy from host memory reaches: the printed rate of its PCI Express link times a share.

    None where the GPU shares the host's memory or its link is not known.
    """
    if gpu.unified_memory or gpu.pcie_generation is None or gpu.pcie_lanes is None:
        return None
    rates = table.constants.link_bytes_per_s_per_lane
    per_lane = rates.get(gpu.pcie_generation, rates[max(rates)])
    return per_lane * gpu.pcie_lanes * table.constants.link_share


def load_time(
    file_bytes: int, per_gpu: Sequence[tuple[Gpu, int]], *, table: SpeedTable, cached: bool = False
) -> StageTime:
    """Return the seconds to load a model: the slower of the disk and the links, GPU after GPU.

    Args:
        file_bytes: read from disk.
        per_gpu: each GPU with the bytes copied to it.
        table: the factors.
        cached: the file stands in the page cache already, so that the disk does not count.
    """
    links = sum(n_bytes / rate for gpu, n_bytes in per_gpu if (rate := link_bytes_per_s(gpu, table)))
    fast, usual, slow = (0.0 if cached else file_bytes / rate for rate in reversed(table.constants.disk_bytes_per_s))
    return StageTime(
        name="load",
        low_s=max(fast, links),
        expected_s=max(usual, links),
        high_s=max(slow, links * 2),
        bound_by="PCI Express" if links > usual else "disk",
        basis="assumed",
        source="disks from SATA to NVMe; the link by generation and lanes",
    )


def image_decode_time(images: Sequence[ImageSize], *, table: SpeedTable) -> StageTime:
    """Return the seconds that one CPU core needs to decode and resize ``images``, by their pixels."""
    pixels = sum(image.width * image.height for image in images)
    slow, usual, fast = table.constants.pixels_per_s
    return StageTime(
        name="image_decode",
        low_s=pixels / fast,
        expected_s=pixels / usual,
        high_s=pixels / slow,
        bound_by="CPU",
        basis="assumed",
        source="JPEG or PNG decoding and a bicubic resize on one core",
    )
