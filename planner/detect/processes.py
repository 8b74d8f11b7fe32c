"""Which processes hold how much memory on which NVIDIA GPU, by NVML."""

from __future__ import annotations

import contextlib
from typing import Any

from planner.detect.found import attempt, reason
from planner.errors import SourceError
from planner.frozen import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """One process on one GPU; its bytes count everything it has there, context included."""

    gpu_index: int
    gpu_name: str
    driver: str | None
    pid: int
    name: str
    used_bytes: int


def gpu_processes(nvml: Any) -> tuple[GpuProcess, ...]:  # noqa: ANN401 - pynvml has no types
    """Return the processes that compute on NVIDIA GPUs; those whose memory the driver hides are left out.

    Args:
        nvml: the ``pynvml`` module or a recorded fake with the same functions.

    Raises:
        SourceError: the driver does not answer.
    """
    try:
        nvml.nvmlInit()
        count = int(nvml.nvmlDeviceGetCount())
    except Exception as error:  # noqa: BLE001 - a driver may raise anything
        raise SourceError(f"NVML does not answer: {reason(error)}; nothing can be asked live") from None
    try:
        driver = attempt(None, lambda: _text(nvml.nvmlSystemGetDriverVersion()))
        return tuple(one for index in range(count) for one in _on(nvml, index, driver))
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()


def _on(nvml: Any, index: int, driver: str | None) -> list[GpuProcess]:  # noqa: ANN401
    handle = attempt(None, lambda: nvml.nvmlDeviceGetHandleByIndex(index))
    if handle is None:
        return []
    gpu = attempt("NVIDIA GPU", lambda: _text(nvml.nvmlDeviceGetName(handle)))
    running: list[Any] = attempt([], lambda: list(nvml.nvmlDeviceGetComputeRunningProcesses(handle)))
    return [
        GpuProcess(
            gpu_index=index,
            gpu_name=gpu,
            driver=driver,
            pid=int(one.pid),
            name=attempt("", lambda one=one: _text(nvml.nvmlSystemGetProcessName(one.pid))),  # type: ignore[misc]
            used_bytes=int(one.usedGpuMemory),
        )
        for one in running
        if one.usedGpuMemory is not None
    ]


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
