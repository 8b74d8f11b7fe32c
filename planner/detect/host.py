"""The host: memory by psutil and the cgroup limits above this process, cores by affinity and quota."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from planner.detect.found import attempt, read_small
from planner.frozen import dataclass
from planner.machine import Host
from planner.units import KIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NO_LIMIT_BYTES = 1 << 60  # version 1 writes a huge number where there is no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupLimit:
    """A memory limit above this process: how much, how much of it is in use and cannot be reclaimed."""

    limit_bytes: int
    used_bytes: int


def cgroup_limits(root: Path) -> tuple[CgroupLimit, ...]:
    """Return every memory limit that holds for this process, from its own cgroup up to the root; v2 and v1.

    Args:
        root: the file system's root; tests pass a recorded one.
    """
    return tuple(limit for folder, names in _folders(root) if (limit := _limit(folder, names)) is not None)


_V2 = ("memory.max", "memory.current", "inactive_file")
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _folders(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    for line in read_small(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            bases, names = ["sys/fs/cgroup", "sys/fs/cgroup/unified"], _V2
        elif "memory" in controllers.split(","):
            bases, names = ["sys/fs/cgroup/memory"], _V1
        else:
            continue
        parts = [part for part in path.split("/") if part not in {"", ".", ".."}]
        for depth in range(len(parts), -1, -1):
            yield from ((root.joinpath(base, *parts[:depth]), names) for base in bases)


def _limit(folder: Path, names: tuple[str, str, str]) -> CgroupLimit | None:
    limit_name, usage_name, cache_name = names
    text = read_small(folder / limit_name).strip()
    if not text.isdigit() or int(text) >= _NO_LIMIT_BYTES:
        return None
    used = read_small(folder / usage_name).strip()
    cache = _field(read_small(folder / "memory.stat"), cache_name)
    return CgroupLimit(limit_bytes=int(text), used_bytes=max(int(used) - cache, 0) if used.isdigit() else 0)


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return 0


def detect_host(psutil: Any, root: Path, cpu: str = "") -> tuple[Host, tuple[str, ...]]:  # noqa: ANN401 - or a fake
    """Return this host, and notes where something limits it or could not be seen.

    Args:
        psutil: the module or a recorded fake; None reads the files of the Linux kernel, which is ten times faster.
        root: the file system's root.
        cpu: the processor's name where the caller knows it.
    """
    memory = kernel_memory(root) if psutil is None else _asked_memory(psutil)
    total_bytes, free_bytes = memory or (0, 0)
    notes = () if memory else ("host memory could not be read; give it with --ram",)
    for limit in cgroup_limits(root):
        if limit.limit_bytes < total_bytes:
            notes = (f"a cgroup limits host memory to {format_bytes(limit.limit_bytes)}",)
        total_bytes = min(total_bytes, limit.limit_bytes)
        free_bytes = min(free_bytes, max(limit.limit_bytes - limit.used_bytes, 0))
    processor, n_physical = _cpuinfo(root)
    n_cores = _n_cores(n_physical if psutil is None else attempt(None, lambda: psutil.cpu_count(logical=False)), root)
    return Host(total_bytes=total_bytes, free_bytes=free_bytes, n_cores=n_cores, cpu=cpu or processor), notes


def kernel_memory(root: Path) -> tuple[int, int] | None:
    """Return total and available bytes by ``/proc/meminfo``, None where there is none."""
    text = read_small(root / "proc/meminfo")
    total, free = (_meminfo(text, name) for name in ("MemTotal:", "MemAvailable:"))
    return (total, min(free, total)) if total else None


def _meminfo(text: str, name: str) -> int:
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdigit():
            return int(words[1]) * KIB
    return 0


def _asked_memory(psutil: Any) -> tuple[int, int] | None:  # noqa: ANN401
    memory = attempt(None, lambda: psutil.virtual_memory())  # noqa: PLW0108 - the attribute may be what is missing
    return None if memory is None else (int(memory.total), min(int(memory.available), int(memory.total)))


def usable_threads(root: Path) -> int:
    """Return how many threads may work at once here: the processors of this process' affinity, within the quota."""
    return _n_cores(os.cpu_count(), root)


def _n_cores(n_physical: int | None, root: Path) -> int:
    n_cores = n_physical or os.cpu_count() or 1
    allowed = attempt(n_cores, lambda: len(os.sched_getaffinity(0)))
    return max(1, min(n_cores, allowed, _quota_cores(root)))


def _quota_cores(root: Path) -> int:
    """Return the whole cores of the tightest CPU quota, a large number where there is none."""
    quota, _, period = read_small(root / "sys/fs/cgroup/cpu.max").strip().partition(" ")
    if not quota:
        quota = read_small(root / "sys/fs/cgroup/cpu/cpu.cfs_quota_us").strip()
        period = read_small(root / "sys/fs/cgroup/cpu/cpu.cfs_period_us").strip()
    if quota.isdigit() and period.isdigit() and int(period) > 0:
        return max(1, -(-int(quota) // int(period)))
    return 1 << 20


def _cpuinfo(root: Path) -> tuple[str, int | None]:
    """Return the processor's name and how many physical cores ``/proc/cpuinfo`` lists, None where it does not say."""
    name, package, cores = "", "", set[tuple[str, str]]()
    for line in read_small(root / "proc/cpuinfo", 8 << 20).splitlines():
        key, _, value = line.partition(":")
        match key.strip():
            case "model name":
                name = name or value.strip()
            case "physical id":
                package = value
            case "core id":
                cores.add((package, value))
    return name, len(cores) or None
