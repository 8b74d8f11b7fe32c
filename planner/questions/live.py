"""What runs now as a log: processes on the GPUs, and the models a running Ollama says it has loaded."""

from __future__ import annotations

from collections.abc import Sequence

from planner.detect.processes import GpuProcess
from planner.errors import SourceError
from planner.logs.found import Figure, Log, LoggedDevice, LoggedModel
from planner.sources.ollama import RunningModel


def log_of_processes(processes: Sequence[GpuProcess]) -> Log:
    """Return what NVML says as the log of a driver.

    Raises:
        SourceError: no process with memory on a GPU is visible.
    """
    if not processes:
        raise SourceError("no process with memory on a GPU is visible; start the engine, or pass its log")
    devices = {
        f"CUDA{one.gpu_index}": LoggedDevice(device=f"CUDA{one.gpu_index}", name=one.gpu_name, driver=one.driver)
        for one in processes
    }
    figures = tuple(
        Figure(
            device=f"CUDA{one.gpu_index}",
            component="total",
            part="all",
            term=f"process {one.pid} {one.name.replace(chr(92), '/').rsplit('/', 1)[-1]}".strip(),
            n_bytes=one.used_bytes,
            low_bytes=one.used_bytes,
            high_bytes=one.used_bytes,
            moment="outside",
        )
        for one in processes
    )
    return Log(kind="nvidia-smi", engine=None, devices=tuple(devices.values()), figures=figures)


def log_of_running(running: RunningModel) -> Log:
    """Return what ``/api/ps`` says of one model as the log of Ollama: its own account of all buffers, by place."""
    host_bytes = max(0, running.size_bytes - running.vram_bytes)
    places = (("all", "size_vram", running.vram_bytes), ("Host", "size", host_bytes))
    figures = tuple(
        Figure(
            device=device,
            component="total",
            part="all",
            term=term,
            n_bytes=n_bytes,
            low_bytes=n_bytes,
            high_bytes=n_bytes,
        )
        for device, term, n_bytes in places
    )
    settings = {} if running.context_tokens is None else {"num_ctx": running.context_tokens}
    return Log(kind="ollama", engine="ollama", model=LoggedModel(name=running.name), settings=settings, figures=figures)
