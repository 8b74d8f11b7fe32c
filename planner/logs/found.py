"""What a log says: which model, with which settings, on which devices, and how many bytes each part took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from fractions import Fraction
from typing import Literal

from planner.frozen import dataclass
from planner.units import GIB, KIB, MIB

Kind = Literal["llama.cpp", "ollama", "vllm", "nvidia-smi", "torch"]
Moment = Literal["load", "peak", "estimate", "outside"]
_FACTORS = {"B": 1, "KIB": KIB, "KB": KIB, "MIB": MIB, "MB": MIB, "GIB": GIB, "GB": GIB, "TIB": 1 << 40, "TB": 1 << 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One amount a log prints. The true bytes lie from ``low_bytes`` to ``high_bytes``: print rounds, or cuts off.

    ``component`` and ``part`` are the budget's words, or ``total`` and ``all`` where the log does not divide.
    ``moment``: after load, at the peak, the engine's own guess before load, or seen from outside the process.
    """

    device: str  # CUDA0, Host, ...: as the log calls it, host buffers under one name
    component: Literal["weights", "kv_cache", "compute", "overhead", "total"]
    part: Literal["language", "vision", "all"]
    term: str  # the log's own word
    n_bytes: int
    low_bytes: int
    high_bytes: int
    moment: Moment = "load"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDevice:
    """A GPU as a log names it; sizes are what the log says, or None."""

    device: str
    name: str = ""
    total_bytes: int | None = None
    free_bytes: int | None = None  # before the load
    driver: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedModel:
    """The model as a log names it."""

    name: str | None = None
    file: str | None = None
    architecture: str | None = None
    file_type: str | None = None  # as the catalogue writes it: Q4_K_M
    n_layers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """One log read. ``settings`` are in the engine's own words; ``facts`` are counts that are no bytes."""

    kind: Kind
    engine: str | None
    engine_version: str | None = None
    model: LoggedModel = field(default_factory=LoggedModel)
    settings: Mapping[str, object] = field(default_factory=dict)
    devices: tuple[LoggedDevice, ...] = ()
    figures: tuple[Figure, ...] = ()
    facts: Mapping[str, int | str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def printed(number: str, unit: str, *, cut_off: bool = False) -> tuple[int, int, int]:
    """Return the bytes a printed figure means, and the least and most that print to it.

    Args:
        number: decimal digits, maybe with sign and fraction, as the log has them.
        unit: B, KiB, MiB, GiB or the same without i: engines divide by 1024 whichever they write.
        cut_off: the log drops the rest (an integer division) instead of rounding.
    """
    factor = _FACTORS[unit.upper()]
    value = Fraction(number) * factor
    digits = len(number.partition(".")[2])
    step = Fraction(factor, 10**digits)
    if factor == 1 and not digits:
        return int(value), int(value), int(value)
    if cut_off:
        return int(value), int(value), max(int(value), int(value + step) - 1)
    least, most = -int(-(value - step / 2) // 1), int((value + step / 2) // 1)
    return round(value), min(least, round(value)), max(most, round(value))
