"""NVIDIA GPUs and MIG instances by NVML."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from planner.detect.found import Found, attempt, reason
from planner.detect.visible import chosen_devices
from planner.frozen import dataclass
from planner.gpu_catalog import enrich
from planner.machine import Gpu
from planner.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from planner.machine import Host

_MIG_PROFILE = re.compile(r"\s+MIG\s+(\d+)g\S*", re.IGNORECASE)
_MIG_SLICES = 7  # compute slices of a whole GPU, NVIDIA MIG user guide


@dataclass(frozen=True, slots=True, kw_only=True)
class _Board:
    """One physical GPU: itself, or its MIG instances where it is cut up."""

    gpu: Gpu | None
    uuid: str | None
    mig: bool = False
    instances: tuple[Gpu, ...] = ()
    notes: tuple[str, ...] = ()


def nvidia_gpus(nvml: Any, environ: Mapping[str, str], host: Host) -> Found:  # noqa: ANN401 - pynvml has no types
    """Return the NVIDIA GPUs that a CUDA process would see, in PCI order.

    Args:
        nvml: the ``pynvml`` module or a recorded fake with the same functions.
        environ: for ``CUDA_VISIBLE_DEVICES`` and ``CUDA_DEVICE_ORDER``.
        host: lends its memory to GPUs that have none of their own.
    """
    try:
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the driver, the plan goes on without it
        return Found(notes=(f"no NVIDIA GPU seen: {reason(error)}",))
    try:
        return _listed(nvml, environ, host)
    except Exception as error:  # noqa: BLE001 - see above
        return Found(notes=(f"NVIDIA GPUs could not be listed: {reason(error)}",))
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()


def _listed(nvml: Any, environ: Mapping[str, str], host: Host) -> Found:  # noqa: ANN401
    count = int(nvml.nvmlDeviceGetCount())
    driver = attempt(None, lambda: _text(nvml.nvmlSystemGetDriverVersion()))
    boards = [_board(nvml, index, driver, host) for index in range(count)]
    found = Found(notes=tuple(note for board in boards for note in board.notes))
    return found + _visible(boards, environ)


def _visible(boards: list[_Board], environ: Mapping[str, str]) -> Found:
    instances = [(board, gpu) for board in boards for gpu in board.instances]
    uuids = [board.uuid for board in boards] + [gpu.uuid for _, gpu in instances]
    asked = environ.get("CUDA_VISIBLE_DEVICES")
    positions, note = chosen_devices(asked, uuids, n_indexed=len(boards))
    notes = (note,) if note else ()
    whole = tuple(gpu for p in positions if p < len(boards) and (gpu := boards[p].gpu) is not None)
    cut = [gpu for p in positions for gpu in _instances(p, boards, instances)]
    if cut and (asked is not None or not whole):
        return Found(gpus=(cut[0],), notes=notes) + _mig_note(instances, cut[0])
    return Found(gpus=whole, notes=notes + _order_note(whole, environ)) + _mig_note(instances, None)


def _instances(position: int, boards: list[_Board], instances: list[tuple[_Board, Gpu]]) -> tuple[Gpu, ...]:
    if position >= len(boards):
        return (instances[position - len(boards)][1],)
    return boards[position].instances


def _mig_note(instances: list[tuple[_Board, Gpu]], used: Gpu | None) -> Found:
    others = [f"{gpu.name} {gpu.uuid}" for _, gpu in instances if gpu is not used]
    if not others:
        return Found()
    return Found(notes=(f"a CUDA process sees one MIG instance; others by CUDA_VISIBLE_DEVICES: {'; '.join(others)}",))


def _order_note(gpus: tuple[Gpu, ...], environ: Mapping[str, str]) -> tuple[str, ...]:
    if len({gpu.name for gpu in gpus}) < 2 or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return ()
    return ("unequal GPUs are listed in PCI order; CUDA may count the fastest first: set CUDA_DEVICE_ORDER=PCI_BUS_ID",)


def _board(nvml: Any, index: int, driver: str | None, host: Host) -> _Board:  # noqa: ANN401
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except Exception as error:  # noqa: BLE001 - one refused GPU must not hide the others
        return _Board(gpu=None, uuid=None, notes=(f"NVIDIA GPU {index} left out: {reason(error)}",))
    uuid = attempt(None, lambda: _text(nvml.nvmlDeviceGetUUID(handle)))
    if attempt(0, lambda: int(nvml.nvmlDeviceGetMigMode(handle)[0])) == 1:
        return _cut_board(nvml, index, handle, uuid, driver, host)
    found = _gpu(nvml, handle, f"NVIDIA GPU {index}", driver, host)
    return _Board(gpu=found.gpus[0] if found.gpus else None, uuid=uuid, notes=found.notes)


def _cut_board(nvml: Any, index: int, handle: Any, uuid: str | None, driver: str | None, host: Host) -> _Board:  # noqa: ANN401, PLR0913
    found = Found()
    for slot in range(attempt(0, lambda: int(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)))):
        instance = attempt(None, lambda slot=slot: nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, slot))  # type: ignore[misc]
        if instance is not None:
            found += _gpu(nvml, instance, f"MIG instance {index}.{slot}", driver, host, parent=handle)
    empty = () if found.gpus else (f"NVIDIA GPU {index} is in MIG mode without a usable instance",)
    return _Board(gpu=None, uuid=uuid, mig=True, instances=found.gpus, notes=found.notes + empty)


def _gpu(nvml: Any, handle: Any, where: str, driver: str | None, host: Host, parent: Any = None) -> Found:  # noqa: ANN401, PLR0913
    name = attempt("NVIDIA GPU", lambda: _text(nvml.nvmlDeviceGetName(handle)))
    try:
        total_bytes, free_bytes, unified = _sizes(nvml, handle, host)
    except Exception as error:  # noqa: BLE001 - see _board
        return Found(notes=(f"{where} ({name}) left out: its memory cannot be read: {reason(error)}",))
    if total_bytes <= 0:
        return Found(notes=(f"{where} ({name}) left out: the driver reports {total_bytes} bytes of memory",))
    sane = min(max(free_bytes, 0), total_bytes)
    gpu = Gpu(
        name=name,
        total_bytes=total_bytes,
        free_bytes=sane,
        compute_capability=attempt(None, lambda: _pair(nvml.nvmlDeviceGetCudaComputeCapability(handle))),
        pcie_generation=attempt(None, lambda: int(nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle))),
        pcie_lanes=attempt(None, lambda: int(nvml.nvmlDeviceGetCurrPcieLinkWidth(handle))),
        unified_memory=unified,
        uuid=attempt(None, lambda: _text(nvml.nvmlDeviceGetUUID(handle))),
        driver=driver,
    )
    facts = _with_facts(nvml, handle, gpu) if parent is None else _with_share(nvml, handle, gpu, parent)
    return Found(gpus=(facts,), notes=_size_notes(where, gpu, free_bytes))


def _size_notes(where: str, gpu: Gpu, free_bytes: int) -> tuple[str, ...]:
    if free_bytes != gpu.free_bytes:
        sizes = f"{format_bytes(free_bytes)} free of {format_bytes(gpu.total_bytes)}"
        return (f"{where} ({gpu.name}): the driver reports {sizes}; {format_bytes(gpu.free_bytes)} is planned with",)
    if gpu.unified_memory:
        return (f"{where} ({gpu.name}) has no memory of its own; the host's is counted",)
    return ()


def _sizes(nvml: Any, handle: Any, host: Host) -> tuple[int, int, bool]:  # noqa: ANN401
    """Return total, free and whether that is the host's memory. What the driver reserves is not part of the total."""
    version = getattr(nvml, "nvmlMemory_v2", None)
    memory = attempt(None, lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version)) if version else None
    if memory is not None:
        return int(memory.total) - int(memory.reserved), int(memory.free), False
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        if getattr(error, "value", None) == getattr(nvml, "NVML_ERROR_NOT_SUPPORTED", 3):
            return host.total_bytes, host.free_bytes, True
        raise
    return int(memory.total), int(memory.free), False


def _with_facts(nvml: Any, handle: Any, gpu: Gpu) -> Gpu:  # noqa: ANN401
    """Return ``gpu`` with the catalogue's facts; for a card not in it, with rates derived from its clocks."""
    known = enrich(gpu)
    if known.bandwidth_bytes_per_s is not None:
        return known
    return replace(
        known,
        bandwidth_bytes_per_s=attempt(None, lambda: _bandwidth(nvml, handle)),
        fp32_flops=attempt(None, lambda: _fp32_flops(nvml, handle)),
    )


def _bandwidth(nvml: Any, handle: Any) -> int:  # noqa: ANN401
    """Return bytes per second: two transfers per memory clock (MHz) times the bus (bits)."""
    clock_mhz = int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM))
    return 2 * clock_mhz * 1_000_000 * int(nvml.nvmlDeviceGetMemoryBusWidth(handle)) // 8


def _fp32_flops(nvml: Any, handle: Any) -> int:  # noqa: ANN401
    """Return one multiply-add per core and clock (MHz)."""
    clock_mhz = int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))
    return 2 * clock_mhz * 1_000_000 * int(nvml.nvmlDeviceGetNumGpuCores(handle))


def _with_share(nvml: Any, handle: Any, gpu: Gpu, parent: Any) -> Gpu:  # noqa: ANN401
    """Return a MIG instance with its share of the whole GPU's rates: memory by size, compute by multiprocessors."""
    whole_name = _MIG_PROFILE.sub("", gpu.name)
    whole_bytes = attempt(gpu.total_bytes, lambda: int(nvml.nvmlDeviceGetMemoryInfo(parent).total))
    whole = enrich(replace(gpu, name=whole_name, total_bytes=whole_bytes))
    slices = _MIG_PROFILE.search(gpu.name)
    n_sms = attempt(None, lambda: int(nvml.nvmlDeviceGetAttributes(handle).multiprocessorCount))
    if n_sms is None and whole.n_sms is not None and slices is not None:
        n_sms = whole.n_sms * int(slices[1]) // _MIG_SLICES
    part = (n_sms or 0, whole.n_sms or 1)
    return replace(
        whole,
        name=gpu.name,
        total_bytes=gpu.total_bytes,
        n_sms=n_sms,
        bandwidth_bytes_per_s=_share(whole.bandwidth_bytes_per_s, gpu.total_bytes, max(whole_bytes, 1)),
        fp16_flops=_share(whole.fp16_flops, *part),
        fp32_flops=_share(whole.fp32_flops, *part),
    )


def _share(whole: int | None, numerator: int, denominator: int) -> int | None:
    return None if whole is None or not numerator else whole * numerator // denominator


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pair(value: Any) -> tuple[int, int]:  # noqa: ANN401
    major, minor = value
    return int(major), int(minor)
