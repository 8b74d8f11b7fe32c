"""AMD and Intel GPUs by the files of the Linux kernel's display drivers, without any library of theirs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from planner.detect.found import Found, attempt, read_small
from planner.detect.visible import chosen_devices
from planner.gpu_catalog import enrich, find_by_pci, gpu_of
from planner.machine import Gpu
from planner.units import GIB, MIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from planner.gpu_catalog import GpuEntry

_AMD, _INTEL = "0x1002", "0x8086"
_GENERATION = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5, "64.0": 6}  # GT/s per lane of PCI Express
_CARVE_OUT_BYTES = 4 * GIB  # an integrated GPU with less of its own takes the host's memory as well


def drm_gpus(root: Path, environ: Mapping[str, str]) -> Found:
    """Return AMD GPUs, then Intel's, as far as the kernel describes them.

    Args:
        root: the file system's root.
        environ: for ``HIP_VISIBLE_DEVICES`` and ``ROCR_VISIBLE_DEVICES``.
    """
    cards = [card for card in root.glob("sys/class/drm/card[0-9]*") if card.name.removeprefix("card").isdigit()]
    devices = [card / "device" for card in sorted(cards, key=lambda card: int(card.name.removeprefix("card")[:6]))]
    amd = Found(gpus=tuple(gpu for device in devices if (gpu := _amd(root, device)) is not None))
    intel = [_intel(device) for device in devices if _line(device / "vendor") == _INTEL]
    return sum(intel, _visible_amd(amd, environ))


def _visible_amd(found: Found, environ: Mapping[str, str]) -> Found:
    for variable in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if variable in environ and found.gpus:
            positions, note = chosen_devices(environ[variable], [gpu.uuid for gpu in found.gpus], variable=variable)
            found = Found(gpus=tuple(found.gpus[p] for p in positions), notes=(*found.notes, *([note] if note else [])))
    return found


def _line(path: Path) -> str:
    return read_small(path).strip()


def _bytes(path: Path) -> int | None:
    text = _line(path)
    return int(text) if text.isdigit() and len(text) < 19 else None


def _entries(device: Path) -> tuple[GpuEntry, ...]:
    ids = [_line(device / name).removeprefix("0x").lower() for name in ("vendor", "device", "revision")]
    return find_by_pci(ids[0], ids[1], ids[2])


def _link(device: Path) -> tuple[int | None, int | None]:
    speed = _line(device / "max_link_speed").partition(" ")[0]
    lanes = _line(device / "current_link_width")
    return _GENERATION.get(speed), int(lanes) if lanes.isdigit() and 0 < int(lanes) <= 16 else None


def _amd(root: Path, device: Path) -> Gpu | None:
    total_bytes = _bytes(device / "mem_info_vram_total")
    if _line(device / "vendor") != _AMD or not total_bytes:
        return None
    used_bytes = _bytes(device / "mem_info_vram_used") or 0
    shared = total_bytes < _CARVE_OUT_BYTES
    if shared:
        total_bytes += _bytes(device / "mem_info_gtt_total") or 0
        used_bytes += _bytes(device / "mem_info_gtt_used") or 0
    generation, lanes = _link(device)
    entries = _entries(device)
    nearest = min(entries, key=lambda entry: abs((entry.memory_bytes or 0) - total_bytes), default=None)
    unique = _line(device / "unique_id")
    gpu = Gpu(
        name=nearest.name if nearest else _line(device / "product_name") or f"AMD GPU {_line(device / 'device')}",
        total_bytes=total_bytes,
        free_bytes=max(total_bytes - used_bytes, 0),
        backend="rocm" if (root / "dev/kfd").exists() else "vulkan",
        pcie_generation=generation,
        pcie_lanes=lanes,
        unified_memory=shared,
        uuid=f"GPU-{unique}" if re.fullmatch(r"[0-9a-f]{1,32}", unique) else None,
    )
    return enrich(gpu)


def _intel(device: Path) -> Found:
    entries = _entries(device)
    if not entries:
        return Found()  # an integrated GPU, or one that nobody has described yet
    window_bytes = _largest_window_bytes(_line(device / "resource"))
    entry = min(entries, key=lambda one: abs((one.memory_bytes or 0) - window_bytes))
    total_bytes = entry.total_bytes or 0
    generation, lanes = _link(device)
    gpu = gpu_of(entry, total_bytes=total_bytes, free_bytes=total_bytes)
    note = f"{entry.name}: how much memory is free is not known; all {format_bytes(total_bytes)} is assumed to be"
    return Found(
        gpus=(replace(gpu, pcie_generation=generation or gpu.pcie_generation, pcie_lanes=lanes or gpu.pcie_lanes),),
        notes=(note,),
    )


def _largest_window_bytes(resource: str) -> int:
    """Return the size of the largest memory window of a PCI ``resource`` file (start, end, flags in hexadecimal)."""
    rows = [line.split() for line in resource.splitlines()]
    spans = [attempt(0, lambda row=row: int(row[1], 16) - int(row[0], 16) + 1) for row in rows if len(row) == 3]  # type: ignore[misc]
    return max([span for span in spans if span >= MIB], default=0)
