"""The device lines of ggml's back ends, and llama.cpp's tables of memory by device."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import field, replace

from planner.frozen import dataclass
from planner.logs.found import Figure, LoggedDevice, printed
from planner.units import MIB

_LISTED = re.compile(r"(?:^|\s)Device (\d{1,3}): (.{1,120}?), (?:compute capability \d|gfx)(?:.*VRAM: (\d{1,9}) MiB)?")
_USED = re.compile(r"using device (\w{1,20}) \((.{1,120}?)\)(?: \([^)]{1,40}\))? - (\d{1,9}) MiB free")
_SIZED = re.compile(
    r"\b((?:CUDA|ROCm|Vulkan|SYCL|MTL|Metal)\d{0,3})\s*: (.{1,120}) \((\d{1,9}) MiB, (\d{1,9}) MiB free\)"
)
_TABLE = re.compile(
    r"\|\s+- (\w{1,30})(?: \((.{1,120}?)\))?\s*\|\s*(?:(-?\d{1,9})\s*=\s*(-?\d{1,9}) \+ \()?"
    r"\s*(\d{1,9}) =\s*(\d{1,9}) \+\s*(\d{1,9}) \+\s*(\d{1,9})\)?(?:\s*\+\s*(-?\d{1,9}))?\s*\|"
)
_BACKENDS = re.compile(r"found \d{1,3} (CUDA|ROCm) devices")
_HOST = ("CPU", "Host", "BLAS")


def is_host(name: str) -> bool:
    """Whether a buffer of this name lies in host memory: CPU, CPU_Mapped, CPU_REPACK, CUDA_Host, ..."""
    return name.startswith(_HOST) or name.endswith("_Host")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One device's line of the table, in MiB; ``unaccounted`` only where the device's own figures stand there."""

    model: str
    context: str
    compute: str
    unaccounted: str | None


@dataclass(slots=True)
class Devices:
    """Gathers devices with their sizes, and the last table."""

    found: dict[str, LoggedDevice] = field(default_factory=dict)
    table: dict[str, _Row] = field(default_factory=dict)
    backend: str = "CUDA"

    def feed(self, line: str) -> bool:
        """Take one line; say whether it was about devices."""
        if "Device " in line and (listed := _LISTED.search(line)):
            self._note(f"{self.backend}{int(listed[1])}", listed[2], listed[3], None)
        elif "using device" in line and (used := _USED.search(line)):
            self._note(used[1], used[2], None, used[3])
        elif " MiB free)" in line and (sized := _SIZED.search(line)):
            self._note(sized[1], sized[2], sized[3], sized[4])
        elif "memory breakdown" in line:
            self.table = {}
        elif "|" in line and "- " in line and (row := _TABLE.search(line)):
            self._row(*row.groups())
        elif " devices" in line and (backend := _BACKENDS.search(line)):
            self.backend = backend[1]
        else:
            return False
        return True

    def _note(self, device: str, name: str, total: str | None, free: str | None) -> None:
        if len(self.found) > 256:
            return
        known = self.found.get(device, LoggedDevice(device=device))
        self.found[device] = replace(
            known,
            name=known.name or name,
            total_bytes=int(total) * MIB if total else known.total_bytes,
            free_bytes=int(free) * MIB if free else known.free_bytes,
        )

    def _row(  # noqa: PLR0913 - the table's columns
        self,
        device: str,
        name: str | None,
        total: str | None,
        free: str | None,
        self_: str,
        model: str,
        context: str,
        compute: str,
        unaccounted: str | None,
    ) -> None:
        del self_
        projected = unaccounted is not None and int(unaccounted) < 0  # printed before the load: free is still free
        if name is not None:
            self._note(device, name, total, free if projected else None)
        if len(self.table) < 256:
            self.table[device] = _Row(
                model=model, context=context, compute=compute, unaccounted=None if projected else unaccounted
            )

    def with_breakdown(self, figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
        """Return the figures with what only the table says: all of it where no buffer was logged."""
        own = () if any(figure.part == "language" for figure in figures) else tuple(self._amounts())
        rest = tuple(
            _figure(device, "overhead", "unaccounted", row.unaccounted, "outside")
            for device, row in self.table.items()
            if row.unaccounted is not None and not is_host(device)
        )
        return (*figures, *own, *rest)

    def _amounts(self) -> Iterable[Figure]:
        for device, row in self.table.items():
            yield _figure(device, "weights", "model", row.model)
            yield _figure(device, "kv_cache", "context", row.context)
            yield _figure(device, "compute", "compute", row.compute)

    def listed(self, figures: tuple[Figure, ...]) -> tuple[LoggedDevice, ...]:
        """Return the GPUs in order, also those that only hold a buffer."""
        names = dict.fromkeys((*self.found, *sorted({figure.device for figure in figures})))
        used = {figure.device for figure in figures if figure.component != "total"}
        return tuple(
            self.found.get(name, LoggedDevice(device=name))
            for name in names
            if not is_host(name) and not name.endswith("_Split") and (name in used or name in self.found)
        )


def _figure(device: str, component: str, term: str, number: str, moment: str = "load") -> Figure:
    n_bytes, low, high = printed(number, "MiB", cut_off=True)
    return Figure(
        device="Host" if is_host(device) else device,
        component=component,  # type: ignore[arg-type] # a word of the budget
        part="language",
        term=term,
        n_bytes=n_bytes,
        low_bytes=low,
        high_bytes=high,
        moment=moment,  # type: ignore[arg-type] # one of the two above
    )
