"""The table of ``torch.cuda.memory_summary()``: what PyTorch's allocator holds, now and at its peak."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from planner.logs.found import Figure, Log, LoggedDevice, printed

_TITLE = re.compile(r"PyTorch CUDA memory summary, device ID (\d{1,3})")
_ROW = re.compile(
    r"\|\s*(Allocated memory|GPU reserved memory)\s*\|\s*(\d{1,12}) (B|KiB|MiB|GiB|TiB)\s*"
    r"\|\s*(\d{1,12}) (B|KiB|MiB|GiB|TiB)\s*\|"
)
_TERMS = {"Allocated memory": "allocated", "GPU reserved memory": "reserved"}


@dataclass(slots=True)
class TorchReader:
    """Reads line by line; ``finish`` returns what was found, or None."""

    device: str | None = None
    figures: dict[tuple[str, str], Figure] = field(default_factory=dict)

    def feed(self, line: str) -> None:
        """Take one line."""
        if "memory summary" in line and (title := _TITLE.search(line)):
            self.device = f"CUDA{int(title[1])}"
        elif self.device is not None and "memory" in line and (row := _ROW.search(line)):
            word = _TERMS[row[1]]
            for moment, number, unit in (("load", row[2], row[3]), ("peak", row[4], row[5])):
                self._add(f"{word} {'now' if moment == 'load' else 'peak'}", moment, number, unit)

    def _add(self, term: str, moment: str, number: str, unit: str) -> None:
        n_bytes, low, high = printed(number, unit, cut_off=True)
        device = self.device or "CUDA0"
        self.figures[device, term] = Figure(
            device=device,
            component="total",
            part="all",
            term=term,
            n_bytes=n_bytes,
            low_bytes=low,
            high_bytes=high,
            moment=moment,  # type: ignore[arg-type] # load or peak
        )

    def finish(self) -> Log | None:
        """Return the last table of each device, or None."""
        if not self.figures:
            return None
        devices = sorted({figure.device for figure in self.figures.values()})
        return Log(
            kind="torch",
            engine="transformers",
            devices=tuple(LoggedDevice(device=device) for device in devices),
            figures=tuple(self.figures.values()),
        )
