"""The catalogue of GPUs: names as people and drivers write them become facts, and ``--gpu`` words become GPUs."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from planner.catalog.data import load_data, parse_yaml, profiles_folder, read_text
from planner.errors import UsageError
from planner.frozen import dataclass
from planner.machine import Backend, Gpu
from planner.units import format_bytes, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_GPUS = 64
_NVIDIA_WORDS = ("nvidia", "geforce", "tesla", "quadro", "rtx", "gtx")
_OTHER_WORDS = ("amd", "radeon", "rx", "intel", "arc", "apple", "graphics", "gpu", "generation", "gen", "edition")
_BRANDS = frozenset((*_NVIDIA_WORDS, *_OTHER_WORDS, "r", "tm"))
_CARD = re.compile(r"^(?=- )", re.MULTILINE)
_FACT = re.compile(r"^  (?!aliases:)\w", re.MULTILINE)  # where the names of a card end
_WORD = re.compile(r"(?:rtx|gtx|rx)(?=\d)|[a-z0-9+]+")
_MEMORY = re.compile(r"\s+\(?(\d{1,4})\s*gi?b?\)?\s*$", re.IGNORECASE)
_TIMES = re.compile(
    r"(?:([1-9]\d{0,2})\s*[x\u00d7]\s*(\S.*)|(.*[^\sA-Za-z]|.*\S(?=\s))\s*[x\u00d7]\s*([1-9]\d{0,2}))", re.IGNORECASE
)
_SIZE = re.compile(r"\s*\d+(?:\.\d+)?\s*[KMGT](?:i?B)?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuEntry:
    """One card of the catalogue. Sizes are None where the GPU takes its memory from the host (``unified``)."""

    name: str
    aliases: tuple[str, ...]
    pci: tuple[str, ...]
    memory_bytes: int | None  # as printed on the box
    total_bytes: int | None  # as the driver reports it
    total_basis: str
    unified: str | None
    bandwidth_bytes_per_s: int
    fp16_flops: int | None
    fp32_flops: int
    n_units: int
    compute_capability: tuple[int, int] | None
    pcie_generation: int | None
    pcie_lanes: int | None
    backend: Backend
    architecture: str
    source: str
    checked: str


def _capability(text: str | None) -> tuple[int, int] | None:
    major, _, minor = (text or "").partition(".")
    return (int(major), int(minor)) if major else None


def _entry(raw: Mapping[str, Any]) -> GpuEntry:
    pcie = raw.get("pcie") or {}
    sizes = {key: parse_bytes(raw[key]) if key in raw else None for key in ("memory", "total")}
    return GpuEntry(
        name=raw["name"],
        aliases=tuple(raw.get("aliases", ())),
        pci=tuple(raw.get("pci", ())),
        memory_bytes=sizes["memory"],
        total_bytes=sizes["total"],
        total_basis=raw.get("total_basis", ""),
        unified=raw.get("unified"),
        bandwidth_bytes_per_s=round(raw["bandwidth_gb_per_s"] * 1e9),
        fp16_flops=round(raw["fp16_tflops"] * 1e12) if "fp16_tflops" in raw else None,
        fp32_flops=round(raw["fp32_tflops"] * 1e12),
        n_units=raw["units"],
        compute_capability=_capability(raw.get("compute_capability")),
        pcie_generation=pcie.get("generation"),
        pcie_lanes=pcie.get("lanes"),
        backend=cast("Backend", raw["backend"]),
        architecture=raw["architecture"],
        source=raw["source"],
        checked=str(raw["checked"]),
    )


@cache
def gpu_entries() -> tuple[GpuEntry, ...]:
    """Return every card of ``profiles/gpus/``, file by file."""
    return tuple(_parsed(text) for text in _texts())


@cache
def _texts() -> dict[str, str]:
    """Return the text of every card, unparsed, with the key of its names: whatever a card is called is in that."""
    names = sorted(file.name for file in profiles_folder().joinpath("gpus").iterdir() if file.name.endswith(".yaml"))
    texts = (text for name in names for text in _CARD.split(read_text(f"gpus/{name}"))[1:])
    return {text: _key(_FACT.split(text, maxsplit=1)[0]) for text in texts}


@cache
def _parsed(text: str) -> GpuEntry:
    return _entry(parse_yaml(text, "profiles/gpus")[0])


def _key(name: str) -> str:
    """Return ``name`` without case, brands, spaces and punctuation: ``NVIDIA GeForce RTX 3090`` is ``3090``."""
    words = _WORD.findall(name.lower().replace("(r)", " ").replace("(tm)", " "))
    return "".join(word for word in words if word not in _BRANDS)


def _bare(name: str) -> str:
    """Return ``name`` without a trailing memory size."""
    return _MEMORY.sub("", name)


@cache
def _called(key: str) -> tuple[GpuEntry, ...]:
    """Return the entries one of whose names has this key; no other cards are parsed than those whose text holds it."""
    entries = (_parsed(text) for text, text_key in _texts().items() if key in text_key)
    return tuple(entry for entry in entries if key in _keys(entry))


def _keys(entry: GpuEntry) -> set[str]:
    return {_key(name) for name in (entry.name, _bare(entry.name), *entry.aliases)}


def _named(name: str) -> tuple[GpuEntry, ...]:
    """Return the entries called ``name``; a trailing size chooses among those that are called the rest."""
    exact = _called(_key(name))
    size = _MEMORY.search(name)
    if exact or size is None:
        return exact
    nominal_bytes = parse_bytes(f"{size[1]}GiB")
    rest = _called(_key(_bare(name)))
    return tuple(entry for entry in rest if entry.memory_bytes in {nominal_bytes, None})


def _unknown(name: str) -> UsageError:
    import difflib  # noqa: PLC0415 - only errors need it

    if name.strip().lower() in {"", "none", "no", "cpu"}:
        return UsageError(f"unknown GPU {name[:60]!r}: a box without GPUs is described by --ram alone")
    by_lower = {entry.name.lower(): entry.name for entry in gpu_entries()}
    typed = "" if name.strip().isdigit() else _bare(name).lower()[:60]
    near = difflib.get_close_matches(typed, by_lower, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(by_lower[one] for one in near)}? " if near else ""
    return UsageError(f"unknown GPU {name[:60]!r}: {hint}A GPU without a name is written by its memory, like 24GiB")


def find_entry(name: str, *, total_bytes: int | None = None) -> GpuEntry:
    """Return the card called ``name``, in any case, with or without its maker's words.

    Where several sizes share a name, ``total_bytes`` chooses the nearest; without it the entry called just so,
    else the smallest and slowest, so that no plan relies on memory that may not be there.

    Raises:
        UsageError: no such card; the message names the nearest ones.
    """
    entry = known_entry(name, total_bytes=total_bytes)
    if entry is None:
        raise _unknown(name)
    return entry


def known_entry(name: str, *, total_bytes: int | None = None) -> GpuEntry | None:
    """Return the card called ``name`` as ``find_entry`` does, None where there is no such card."""
    return min(
        _named(name),
        key=lambda entry: (_distance(entry, name, total_bytes), entry.bandwidth_bytes_per_s, entry.n_units),
        default=None,
    )


def _distance(entry: GpuEntry, name: str, total_bytes: int | None) -> int:
    size = entry.memory_bytes or 0
    if total_bytes is not None:
        return abs(size - total_bytes)
    return 0 if _key(entry.name) == _key(name) else size


def find_by_pci(vendor: str, device: str, revision: str) -> tuple[GpuEntry, ...]:
    """Return the cards with these PCI ids (four hexadecimal digits, revision two), the exact revision first."""
    short = f"{vendor}:{device}"
    exact = tuple(entry for entry in gpu_entries() if f"{short}:{revision}" in entry.pci)
    return exact or tuple(entry for entry in gpu_entries() if any(pci.startswith(short) for pci in entry.pci))


def unified_total_bytes(kind: str, host_bytes: int) -> int:
    """Return how much of ``host_bytes`` a GPU may take that has no memory of its own (profiles/machines/)."""
    rows = load_data("machines/unified_memory.yaml")[kind]["rows"]
    row = next(row for row in rows if "up_to" not in row or host_bytes <= parse_bytes(row["up_to"]))
    return host_bytes * int(row["numerator"]) // int(row["denominator"])


def gpu_of(entry: GpuEntry, *, total_bytes: int, free_bytes: int) -> Gpu:
    """Return the catalogue's facts as a GPU with these sizes."""
    return Gpu(
        name=entry.name,
        catalog_name=entry.name,
        total_bytes=total_bytes,
        free_bytes=free_bytes,
        backend=entry.backend,
        architecture=entry.architecture,
        compute_capability=entry.compute_capability,
        bandwidth_bytes_per_s=entry.bandwidth_bytes_per_s,
        fp16_flops=entry.fp16_flops,
        fp32_flops=entry.fp32_flops,
        n_sms=entry.n_units,
        pcie_generation=entry.pcie_generation,
        pcie_lanes=entry.pcie_lanes,
        unified_memory=entry.unified is not None,
    )


def find_gpu(name: str, *, host_bytes: int | None = None) -> Gpu:
    """Return the card called ``name`` as an empty GPU: free is the total that its driver reports.

    Args:
        name: in any case; see ``find_entry``. A size behind the name of a GPU without own memory is the host's.
        host_bytes: the host's memory, needed where the GPU shares it.

    Raises:
        UsageError: no such card, or one that shares a host memory that is not given.
    """
    entry = find_entry(name)
    total_bytes = entry.total_bytes
    if total_bytes is None:
        size = _MEMORY.search(name)
        host_bytes = parse_bytes(f"{size[1]}GiB") if size else host_bytes or entry.memory_bytes
        if host_bytes is None:
            raise UsageError(f"{entry.name} shares the host's memory: add --ram, like --ram 64GiB")
        total_bytes = unified_total_bytes(str(entry.unified), host_bytes)
    return gpu_of(entry, total_bytes=total_bytes, free_bytes=total_bytes)


def enrich(gpu: Gpu) -> Gpu:
    """Return ``gpu`` with what the catalogue knows about its name; what was seen stays as it is.

    A card that is not in it gets at least the architecture of those with its compute capability.
    """
    if not _named(gpu.name):
        return replace(gpu, architecture=gpu.architecture or _architecture_of(gpu.compute_capability))
    facts = gpu_of(find_entry(gpu.name, total_bytes=gpu.total_bytes), total_bytes=0, free_bytes=0)
    fields = ("catalog_name", "architecture", "compute_capability", "bandwidth_bytes_per_s", "fp16_flops", "fp32_flops")
    missing = [field for field in (*fields, "n_sms", "pcie_generation", "pcie_lanes") if getattr(gpu, field) is None]
    return replace(gpu, **{field: getattr(facts, field) for field in missing})


def _architecture_of(capability: tuple[int, int] | None) -> str | None:
    """Return the architecture of the catalogue's cards with this compute capability."""
    if capability is None:
        return None
    return next((entry.architecture for entry in gpu_entries() if entry.compute_capability == capability), None)


def parse_gpus(specs: Iterable[str], *, host_bytes: int | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that words like ``RTX 3090:2``, ``24GiB`` or ``RTX 3090:free=20GiB`` describe, in order.

    A word is a name or a memory size, then ``:2`` for two of them, ``:free=SIZE`` and ``:total=SIZE``. ``2x`` before
    it counts, too, and so does ``x2`` behind it.

    Raises:
        UsageError: an unknown name, a malformed part, free above total, or more than 64 GPUs.
    """
    gpus = tuple(gpu for spec in specs for gpu in _parse_spec(spec, host_bytes))
    if len(gpus) > MAX_GPUS:
        raise UsageError(f"--gpu describes {len(gpus)} GPUs; one machine has at most {MAX_GPUS}")
    return gpus


def _parse_spec(spec: str, host_bytes: int | None) -> tuple[Gpu, ...]:
    name, *parts = (part.strip() for part in re.split(r"[:,]", spec))
    count, name = _times(name)
    sizes = dict[str, int]()
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals and part.isascii() and part.isdigit() and len(part) < 4 and int(part) > 0:
            count = int(part)
        elif equals and key.strip() in {"free", "total"}:
            sizes[key.strip()] = parse_bytes(value)
        else:
            raise UsageError(f"--gpu {spec[:80]!r}: {part!r} is neither a count nor free=SIZE nor total=SIZE")
    return (
        sized_gpu(name, sizes.get("total"), sizes.get("free"), host_bytes=host_bytes, where=f"--gpu {spec[:80]!r}"),
    ) * count


def _times(name: str) -> tuple[int, str]:
    """Return how many of which: ``2x RTX 4090`` and ``RTX 4090 x2`` are two, what the catalogue calls so is one."""
    times = None if _named(name) else _TIMES.fullmatch(name)
    if times is None:
        return 1, name
    count, one = (times[1], times[2]) if times[1] else (times[4], times[3])
    return int(count), one.strip()


def shared_host_bytes(specs: Iterable[str]) -> int | None:
    """Return the host memory that a GPU without own memory is named with, like ``M3 Max 36GB``; None: none is."""
    for spec in specs:
        name = re.split(r"[:,]", spec)[0]
        size, entries = _MEMORY.search(name), _named(name)
        if size and entries and all(entry.total_bytes is None for entry in entries):
            return parse_bytes(f"{size[1]}GiB")
    return None


def sized_gpu(name: str, total_bytes: int | None, free_bytes: int | None, *, host_bytes: int | None, where: str) -> Gpu:
    """Return one described GPU; what is not given comes from the catalogue, free defaults to all of it.

    Args:
        name: a catalogue name, a memory size for a GPU without one, or any name beside ``total_bytes``.
        total_bytes: replaces the catalogue's total.
        free_bytes: what is free of it. Above the catalogue's total, but not above what is printed on the box, it
            raises the total: some drivers reserve less.
        host_bytes: the host's memory, for GPUs that share it.
        where: what to name in an error.

    Raises:
        UsageError: nothing says how much memory there is, or free is above total.
    """
    try:
        gpu = _described(name, total_bytes, host_bytes)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
    total = gpu.total_bytes if total_bytes is None else total_bytes
    free = total if free_bytes is None else free_bytes
    if total_bytes is None and free > total:
        total = max(total, _printed_bytes(name))
    if total <= 0:
        raise UsageError(f"{where}: a GPU needs memory; write its size, like 24GiB")
    if free > total:
        sizes = f"{format_bytes(free)} free of {format_bytes(total)}"
        raise UsageError(f"{where}: {sizes} cannot be; lower free or raise total")
    return replace(gpu, total_bytes=total, free_bytes=free)


def _printed_bytes(name: str) -> int:
    return 0 if _SIZE.fullmatch(name) else find_entry(name).memory_bytes or 0


def _described(name: str, total_bytes: int | None, host_bytes: int | None) -> Gpu:
    if _SIZE.fullmatch(name):
        size = parse_bytes(name)
        return Gpu(name=f"GPU {format_bytes(size)}", total_bytes=size, free_bytes=size)
    if total_bytes is None:
        return find_gpu(name, host_bytes=host_bytes)
    if _named(name):
        entry = find_entry(name, total_bytes=total_bytes)
        return gpu_of(entry, total_bytes=total_bytes, free_bytes=total_bytes)
    return Gpu(name=name or f"GPU {format_bytes(total_bytes)}", total_bytes=total_bytes, free_bytes=total_bytes)
