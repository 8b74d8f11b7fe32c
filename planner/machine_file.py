"""A machine written down: the ``machine`` mapping of a request, a box file, the words of ``--gpu`` and ``--ram``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from planner.catalog.foreign import parse_foreign_yaml
from planner.errors import SourceError, UsageError
from planner.frozen import dataclass
from planner.gpu_catalog import MAX_GPUS, GpuEntry, known_entry, parse_gpus, shared_host_bytes, sized_gpu
from planner.machine import Backend, Gpu, Host, Machine
from planner.strict import Between, read_record
from planner.units import GIB, KIB, MIB, format_bytes, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_FILE_BYTES = 1 << 20
ASSUMED_CORES = 8
CORES_NOTE = f"{ASSUMED_CORES} CPU cores are assumed"
_RATE = re.compile(r"\s*(\d{1,9}(?:\.\d{1,6})?)\s*([MGT])B/s\s*")
_DECIMAL = {"M": 10**6, "G": 10**9, "T": 10**12}

Size = Annotated[int, Between(0, 1 << 60)] | str
Rate = Annotated[int, Between(1, 1 << 60)] | str
Tflops = Annotated[float | int, Between(1e-6, 1e6)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Gpu:
    name: Annotated[str, Between(0, 200)] = ""
    count: Annotated[int, Between(1, MAX_GPUS)] = 1
    total: Size | None = None
    free: Size | None = None
    backend: Backend | None = None
    architecture: Annotated[str, Between(0, 60)] | None = None
    compute_capability: str | float | None = None
    bandwidth: Rate | None = None
    fp16_tflops: Tflops | None = None
    fp32_tflops: Tflops | None = None
    units: Annotated[int, Between(1, 100_000)] | None = None
    pcie_generation: Annotated[int, Between(1, 9)] | None = None
    pcie_lanes: Annotated[int, Between(1, 32)] | None = None
    unified_memory: bool | None = None
    async_copies: bool | None = None
    uuid: Annotated[str, Between(0, 200)] | None = None
    driver: Annotated[str, Between(0, 60)] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Machine:
    gpus: Annotated[tuple[_Gpu, ...], Between(0, MAX_GPUS)] = ()
    ram: Size
    ram_free: Size | None = None
    cores: Annotated[int, Between(1, 100_000)] | None = None
    cpu: Annotated[str, Between(0, 200)] = ""
    host_bandwidth: Rate | None = None


def machine_of(mapping: object, where: str = "machine") -> Machine:
    """Return the machine that a mapping of the request schema describes, marked as simulated.

    A GPU's facts come from the catalogue by its name; each one written beside it replaces the catalogue's. Free
    memory defaults to all of it: a described box is assumed to be empty.

    Args:
        mapping: ``gpus`` and ``ram`` with their options, as YAML or JSON gives them.
        where: the file or key, for errors.

    Raises:
        UsageError: a wrong key or value, in one line that names it.
    """
    raw = read_record(_Machine, mapping, where)
    host = _host(raw, where)
    gpus = tuple(
        gpu
        for i, one in enumerate(raw.gpus)
        for gpu in (_gpu(one, host.total_bytes, f"{where}.gpus[{i}]"),) * one.count
    )
    if len(gpus) > MAX_GPUS:
        raise UsageError(f"{where}.gpus: {len(gpus)} GPUs; one machine has at most {MAX_GPUS}")
    return Machine(gpus=gpus, host=host, simulated=True, notes=_assumptions(gpus, raw))


def read_machine(path: Path | str) -> Machine:
    """Return the machine of a box file, as ``vlplan detect --save`` writes it.

    Raises:
        SourceError: no such file, too large, or not YAML.
        UsageError: a wrong key or value in it.
    """
    try:
        with Path(path).open("rb") as file:
            text = file.read(MAX_FILE_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if len(text) > MAX_FILE_BYTES:
        raise SourceError(f"{path}: over {format_bytes(MAX_FILE_BYTES)}; a machine file has a few lines")
    return machine_of(parse_foreign_yaml(text, str(path)), str(path))


def describe_machine(gpus: Sequence[str], host: str | Host) -> Machine:
    """Return the machine that ``--gpu`` and ``--ram`` describe, marked as simulated.

    Args:
        gpus: words like ``RTX 3090:2`` or ``24GiB``; none for a box without GPUs.
        host: the host's memory, like ``32GiB``, or this computer's host where that is not described.

    Raises:
        UsageError: an unknown GPU or a malformed size.
    """
    described = host if isinstance(host, Host) else _assumed_host(parse_bytes(host))
    shared_bytes = shared_host_bytes(gpus)
    if shared_bytes is not None and shared_bytes != described.total_bytes:
        if host is not described:
            sizes = f"{format_bytes(shared_bytes)} with it, {format_bytes(described.total_bytes)} by --ram"
            raise UsageError(f"--gpu names a GPU that shares the host's memory: {sizes}; leave one of them out")
        described = _assumed_host(shared_bytes)
    found = parse_gpus(gpus, host_bytes=described.total_bytes)
    note = "host memory and cores are this computer's" if host is described else CORES_NOTE
    return Machine(gpus=found, host=described, simulated=True, notes=(note, *_basis_notes(found)))


def _assumed_host(n_bytes: int) -> Host:
    """Return a host of which only the memory is known, so that an answer is the same wherever it is asked."""
    return Host(total_bytes=n_bytes, free_bytes=n_bytes, n_cores=ASSUMED_CORES)


def machine_yaml(machine: Machine) -> str:
    """Return ``machine`` as a box file; reading it gives the same machine, marked as simulated."""
    import yaml  # noqa: PLC0415 - only when a file is written

    host = machine.host
    mapping: dict[str, Any] = {
        "gpus": [_written_gpu(gpu) for gpu in machine.gpus],
        "ram": _written_size(host.total_bytes),
        "ram_free": _written_size(host.free_bytes),
        "cores": host.n_cores,
        "cpu": host.cpu,
    }
    if host.bandwidth_bytes_per_s is not None:
        mapping["host_bandwidth"] = host.bandwidth_bytes_per_s
    return str(yaml.safe_dump(mapping, sort_keys=False, allow_unicode=True))


def _host(raw: _Machine, where: str) -> Host:
    total_bytes = _bytes(raw.ram, f"{where}.ram")
    free_bytes = total_bytes if raw.ram_free is None else _bytes(raw.ram_free, f"{where}.ram_free")
    if free_bytes > total_bytes:
        raise UsageError(f"{where}.ram_free: {format_bytes(free_bytes)} is more than ram, {format_bytes(total_bytes)}")
    rate = None if raw.host_bandwidth is None else _rate(raw.host_bandwidth, f"{where}.host_bandwidth")
    return Host(
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        n_cores=raw.cores or ASSUMED_CORES,
        cpu=raw.cpu,
        bandwidth_bytes_per_s=rate,
    )


def _gpu(raw: _Gpu, host_bytes: int, where: str) -> Gpu:
    total_bytes = None if raw.total is None else _bytes(raw.total, f"{where}.total")
    free_bytes = None if raw.free is None else _bytes(raw.free, f"{where}.free")
    if not raw.name and total_bytes is None and free_bytes is None:
        raise UsageError(f"{where}: give a name or a total")
    known_bytes = free_bytes if not raw.name and total_bytes is None else total_bytes
    gpu = sized_gpu(raw.name, known_bytes, free_bytes, host_bytes=host_bytes, where=where)
    facts = {
        "backend": raw.backend,
        "architecture": raw.architecture,
        "compute_capability": _capability(raw.compute_capability, f"{where}.compute_capability"),
        "bandwidth_bytes_per_s": None if raw.bandwidth is None else _rate(raw.bandwidth, f"{where}.bandwidth"),
        "fp16_flops": _flops(raw.fp16_tflops),
        "fp32_flops": _flops(raw.fp32_tflops),
        "n_sms": raw.units,
        "pcie_generation": raw.pcie_generation,
        "pcie_lanes": raw.pcie_lanes,
        "unified_memory": raw.unified_memory,
        "async_copies": raw.async_copies,
        "uuid": raw.uuid,
        "driver": raw.driver,
    }
    named = {"name": raw.name} if raw.uuid is not None else {}  # saved from a detected box: keep the driver's name
    return replace(
        gpu, **cast("dict[str, Any]", named | {key: value for key, value in facts.items() if value is not None})
    )


def _bytes(size: int | str, where: str) -> int:
    if isinstance(size, int):
        return size
    try:
        return parse_bytes(size)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error


def _rate(rate: int | str, where: str) -> int:
    if isinstance(rate, int):
        return rate
    match = _RATE.fullmatch(rate)
    if match is None:
        raise UsageError(f"{where}: {rate[:40]!r} is not a bandwidth; write it like 936 GB/s, or as bytes per second")
    return round(float(match[1]) * _DECIMAL[match[2]])


def _flops(tflops: float | None) -> int | None:
    return None if tflops is None else round(tflops * 1e12)


def _capability(value: str | float | None, where: str) -> tuple[int, int] | None:
    if value is None:
        return None
    major, dot, minor = str(value).partition(".")
    if not (
        dot and major.isascii() and major.isdigit() and minor.isascii() and minor.isdigit() and len(str(value)) < 6
    ):
        raise UsageError(f'{where}: {str(value)[:20]!r} is not a compute capability; write it like "8.6"')
    return int(major), int(minor)


def _assumptions(gpus: tuple[Gpu, ...], raw: _Machine) -> tuple[str, ...]:
    full = any(one.free is None for one in raw.gpus)
    notes = ("the GPUs are assumed to be empty: free is all of their memory",) if full else ()
    cores = () if raw.cores else (CORES_NOTE,)
    return notes + cores + _basis_notes(gpus)


def _basis_notes(gpus: tuple[Gpu, ...]) -> tuple[str, ...]:
    """Return, for each catalogue GPU whose total was not measured, how it was derived."""
    entries = {gpu.name: entry for gpu in gpus if (entry := _entry(gpu)) is not None}
    return tuple(
        f"{name}: {format_bytes(entry.total_bytes or 0)} is {entry.total_basis}"
        for name, entry in entries.items()
        if entry.total_basis.startswith("assumed")
    )


def _entry(gpu: Gpu) -> GpuEntry | None:
    entry = known_entry(gpu.name)
    return entry if entry is not None and entry.total_bytes == gpu.total_bytes else None


def _written_gpu(gpu: Gpu) -> dict[str, Any]:
    capability = None if gpu.compute_capability is None else ".".join(map(str, gpu.compute_capability))
    facts = {
        "name": gpu.name,
        "total": _written_size(gpu.total_bytes),
        "free": _written_size(gpu.free_bytes),
        "backend": gpu.backend,
        "architecture": gpu.architecture,
        "compute_capability": capability,
        "bandwidth": gpu.bandwidth_bytes_per_s,
        "fp16_tflops": None if gpu.fp16_flops is None else gpu.fp16_flops / 1e12,
        "fp32_tflops": None if gpu.fp32_flops is None else gpu.fp32_flops / 1e12,
        "units": gpu.n_sms,
        "pcie_generation": gpu.pcie_generation,
        "pcie_lanes": gpu.pcie_lanes,
        "unified_memory": gpu.unified_memory,
        "async_copies": gpu.async_copies,
        "uuid": gpu.uuid,
        "driver": gpu.driver,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _written_size(n_bytes: int) -> int | str:
    for factor, suffix in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if n_bytes and n_bytes % factor == 0:
            return f"{n_bytes // factor}{suffix}"
    return n_bytes
