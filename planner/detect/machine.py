"""Everything that detection looks at, and the one function that asks all of it."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.detect import host as host_files
from planner.detect.apple import apple_gpus, run_sysctl
from planner.detect.found import Found
from planner.frozen import dataclass
from planner.machine import Host, Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What detection looks at. The defaults are this computer; tests pass recorded ones.

    ``nvml`` and ``psutil`` are modules, imported only where needed; ``root`` is where the file system begins.
    """

    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    root: Path = Path("/")
    platform: str = sys.platform
    nvml: Any = None
    psutil: Any = None
    sysctl: Callable[[str], str] = run_sysctl


def _module(name: str) -> Any:  # noqa: ANN401 - modules have no types of their own
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _host(around: Surroundings) -> tuple[Host, tuple[str, ...]]:
    cpu = around.sysctl("machdep.cpu.brand_string") if around.platform == "darwin" else ""
    psutil = around.psutil
    if psutil is None and host_files.kernel_memory(around.root) is None:
        psutil = _module("psutil")
    return host_files.detect_host(psutil, around.root, cpu)


def detect_host(around: Surroundings | None = None) -> Host:
    """Return this host alone: memory within the cgroup's limits, and cores."""
    return _host(around or Surroundings())[0]


def detect_machine(around: Surroundings | None = None) -> Machine:
    """Return the machine that this process runs on, with what is free now.

    What could not be seen, and why, stands in ``notes``; the command prints it once on stderr. Never raises.
    """
    around = around or Surroundings()
    host, notes = _host(around)
    found = Found(notes=notes) + _gpus(around, host)
    return Machine(gpus=found.gpus, host=host, notes=found.notes)


def _gpus(around: Surroundings, host: Host) -> Found:
    if around.platform == "darwin":
        return apple_gpus(around.sysctl, host)
    found = _nvidia(around, host)
    if not around.platform.startswith("linux"):
        return found
    from planner.detect.sysfs import drm_gpus  # noqa: PLC0415 - Linux only

    others = drm_gpus(around.root, around.environ)
    return others if others.gpus and not found.gpus and _absent(found) else found + others


def _absent(found: Found) -> bool:
    """Whether there is no NVIDIA driver at all: not worth a note beside the GPUs of another maker."""
    return any("driver library" in note or "not installed" in note for note in found.notes)


def _has_library(name: str) -> bool:
    """Whether the loader finds a shared library: a fraction of what importing a package to ask it takes."""
    import ctypes  # noqa: PLC0415 - Linux only

    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def _nvidia(around: Surroundings, host: Host) -> Found:
    if around.nvml is None and around.platform.startswith("linux") and not _has_library("libnvidia-ml.so.1"):
        return Found(notes=("no NVIDIA GPU seen: there is no driver library (libnvidia-ml.so.1)",))
    nvml = around.nvml or _module("pynvml")
    if nvml is None:
        return Found(notes=("no NVIDIA GPU seen: the Python package nvidia-ml-py is not installed",))
    from planner.detect.nvidia import nvidia_gpus  # noqa: PLC0415 - not on a Mac

    return nvidia_gpus(nvml, around.environ, host)
