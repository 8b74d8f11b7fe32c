"""Apple silicon by sysctl: the GPU takes a share of the host's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from planner.detect.found import Found, attempt
from planner.gpu_catalog import find_entry, gpu_of, unified_total_bytes
from planner.machine import Gpu
from planner.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable

    from planner.machine import Host


def run_sysctl(name: str) -> str:
    """Return the value of a sysctl, empty where there is none; gives up after two seconds."""
    import subprocess  # noqa: PLC0415 - only on a Mac

    command = ["/usr/sbin/sysctl", "-n", name]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=2, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""


def apple_gpus(sysctl: Callable[[str], str], host: Host) -> Found:
    """Return the GPU of an Apple chip. ``iogpu.wired_limit_mb``, where set, replaces Metal's own limit."""
    chip = sysctl("machdep.cpu.brand_string")
    if not chip.startswith("Apple"):
        return Found(notes=("no Apple GPU: this Mac has no Apple chip; describe its GPU with --gpu",))
    wired = sysctl("iogpu.wired_limit_mb")
    limited = wired.isdigit() and 0 < int(wired) * MIB <= host.total_bytes
    total_bytes = int(wired) * MIB if limited else unified_total_bytes("metal", host.total_bytes)
    free_bytes = min(total_bytes, host.free_bytes)
    entry = attempt(None, lambda: find_entry(chip))
    gpu = Gpu(name=chip, total_bytes=total_bytes, free_bytes=free_bytes, backend="metal", unified_memory=True)
    return Found(gpus=(gpu if entry is None else gpu_of(entry, total_bytes=total_bytes, free_bytes=free_bytes),))
