"""CSV of ``nvidia-smi --query-gpu=... --format=csv`` and of ``--query-compute-apps``: memory seen from outside.

Columns may come in any order; sizes are MiB, with the unit in every cell unless ``nounits`` was asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from planner.logs.found import Figure, Log, LoggedDevice, printed

_CELL = re.compile(r"(\d{1,9})(?: MiB)?")
_UNIT = re.compile(r" \[[^\]]{1,10}\]$")
_PROCESS_COLUMNS = ("used_gpu_memory", "used_memory")


@dataclass(slots=True)
class NvidiaSmiReader:
    """Reads line by line; ``finish`` returns what was found, or None."""

    columns: tuple[str, ...] = ()
    devices: dict[str, LoggedDevice] = field(default_factory=dict)
    uuids: dict[str, str] = field(default_factory=dict)
    used: dict[str, Figure] = field(default_factory=dict)
    processes: list[tuple[str, str, str, int]] = field(default_factory=list)  # uuid, pid, name, bytes

    def feed(self, line: str) -> None:
        """Take one line."""
        if ", " not in line:
            self.columns = () if line.strip() else self.columns
            return
        cells = [cell.strip() for cell in line[:4096].split(", ")]
        names = tuple(_UNIT.sub("", cell) for cell in cells)
        if "memory.used" in names or ({"pid"} & set(names) and set(_PROCESS_COLUMNS) & set(names)):
            self.columns = names
        elif self.columns and len(cells) == len(self.columns):
            self._row(dict(zip(self.columns, cells, strict=True)))

    def _row(self, row: dict[str, str]) -> None:
        if "pid" in row:
            self._process(row)
            return
        index = row.get("index", str(len(self.devices)))
        if not index.isdecimal() or len(index) > 3 or len(self.devices) > 256:
            return
        device = f"CUDA{int(index)}"
        total = _CELL.fullmatch(row.get("memory.total", ""))
        self.devices[device] = LoggedDevice(
            device=device,
            name=row.get("name") or row.get("gpu_name", ""),
            total_bytes=None if total is None else printed(total[1], "MiB")[0],
            driver=row.get("driver_version"),
        )
        self.uuids[row.get("uuid") or row.get("gpu_uuid", device)] = device
        used = _CELL.fullmatch(row.get("memory.used", ""))
        if used is not None:
            self.used[device] = _figure(device, "memory.used", used[1])

    def _process(self, row: dict[str, str]) -> None:
        size = _CELL.fullmatch(row.get("used_gpu_memory") or row.get("used_memory", ""))
        if size is not None and len(self.processes) < 1024:
            name = row.get("process_name") or row.get("name", "")
            self.processes.append((row.get("gpu_uuid", ""), row["pid"], name, int(size[1])))

    def finish(self) -> Log | None:
        """Return what is used per device and per process, or None where there is no such table."""
        figures = [*self.used.values()]
        order: dict[str, str] = {}
        for uuid, pid, name, mib in self.processes:
            device = self.uuids.get(uuid) or order.setdefault(uuid, f"CUDA{len(order)}")
            figures.append(_figure(device, f"process {pid} {name.replace(chr(92), '/').rsplit('/', 1)[-1]}", str(mib)))
        if not figures:
            return None
        return Log(kind="nvidia-smi", engine=None, devices=tuple(self.devices.values()), figures=tuple(figures))


def _figure(device: str, term: str, mib: str) -> Figure:
    n_bytes, low, high = printed(mib, "MiB", cut_off=True)
    return Figure(
        device=device,
        component="total",
        part="all",
        term=term,
        n_bytes=n_bytes,
        low_bytes=low,
        high_bytes=high,
        moment="outside",
    )
