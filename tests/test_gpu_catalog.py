"""The GPU catalogue: every entry is whole and sourced, and names are found as people and drivers write them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import UsageError
from planner.gpu_catalog import _named, enrich, find_by_pci, find_entry, find_gpu, gpu_entries, parse_gpus
from planner.machine import Gpu
from planner.units import GIB, MIB


def test_the_catalogue_is_large_and_spans_the_generations() -> None:
    """At least 60 cards, from Kepler and Maxwell to Blackwell, and other makers' beside NVIDIA's."""
    entries = gpu_entries()
    architectures = {entry.architecture for entry in entries}
    assert len(entries) >= 60
    assert {"kepler", "maxwell", "pascal", "volta", "turing", "ampere", "ada", "hopper", "blackwell"} <= architectures
    assert {entry.backend for entry in entries} >= {"cuda", "rocm", "metal", "sycl", "vulkan"}


@pytest.mark.parametrize("entry", gpu_entries(), ids=lambda entry: entry.name)
def test_every_name_finds_its_card(entry) -> None:
    """A card is found among all by each of its names: of an unparsed card no name is overlooked."""
    assert find_entry(entry.name) == entry
    for alias in entry.aliases:
        assert entry in _named(alias)


def test_names_are_unique() -> None:
    """No two entries share a name."""
    names = [entry.name for entry in gpu_entries()]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("entry", gpu_entries(), ids=lambda entry: entry.name)
def test_every_entry_is_whole(entry) -> None:
    """An entry says what it holds, how fast it is, how its total is known, where that was read, and when."""
    assert entry.source
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", entry.checked)
    assert 50e9 <= entry.bandwidth_bytes_per_s <= 10e12
    assert 1e12 <= entry.fp32_flops <= 200e12
    assert 1 <= entry.n_units <= 400
    assert (entry.compute_capability is not None) == (entry.backend == "cuda")
    if entry.unified is None:
        assert entry.memory_bytes is not None
        assert entry.total_bytes is not None
        assert entry.memory_bytes * 0.85 <= entry.total_bytes <= entry.memory_bytes
        assert entry.total_basis.startswith(("measured", "assumed"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rtx 3090", "RTX 3090"),
        ("3090", "RTX 3090"),
        ("RTX3090", "RTX 3090"),
        ("NVIDIA GeForce RTX 3090", "RTX 3090"),
        ("RTX 3090 24GB", "RTX 3090"),
        ("RTX 3060", "RTX 3060"),
        ("RTX 3060 12GB", "RTX 3060"),
        ("RTX 3060 8GB", "RTX 3060 8GB"),
        ("4060 ti 16gb", "RTX 4060 Ti 16GB"),
        ("RTX 4060 Ti", "RTX 4060 Ti 8GB"),
        ("Tesla M40", "Tesla M40 12GB"),
        ("Tesla M40 24GB", "Tesla M40 24GB"),
        ("Tesla P40", "Tesla P40"),
        ("NVIDIA A100-SXM4-80GB", "A100 SXM 80GB"),
        ("NVIDIA A100 80GB PCIe", "A100 PCIe 80GB"),
        ("NVIDIA A100-PCIE-40GB", "A100 PCIe 40GB"),
        ("NVIDIA H100 80GB HBM3", "H100 SXM"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA RTX 6000 Ada Generation", "RTX 6000 Ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "RTX PRO 6000 Blackwell Workstation"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "RTX PRO 6000 Blackwell Max-Q"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", "RTX 4090 Laptop"),
        ("NVIDIA RTX A6000", "RTX A6000"),
        ("Quadro RTX 8000", "Quadro RTX 8000"),
        ("Tesla V100-SXM2-32GB", "Tesla V100 SXM2 32GB"),
        ("NVIDIA GB10", "GB10"),
        ("NVIDIA GH200 480GB", "GH200 96GB"),
        ("AMD Radeon RX 7900 XTX", "RX 7900 XTX"),
        ("Radeon Pro 5600M", "Radeon Pro 5600M"),
        ("AMD Instinct MI300X", "MI300X"),
        ("Intel(R) Arc(TM) A770 Graphics", "Arc A770 8GB"),
        ("Apple M1 7-core", "Apple M1 7-core"),
        ("Apple M4 Max", "Apple M4 Max 32-core"),
    ],
)
def test_names_as_written_and_as_printed(name: str, expected: str) -> None:
    """People's spellings and drivers' names find the card; where sizes share a name the smallest is taken."""
    assert find_entry(name).name == expected


@pytest.mark.parametrize(
    ("name", "total_mib", "expected"),
    [
        ("NVIDIA GeForce RTX 4060 Ti", 16100, "RTX 4060 Ti 16GB"),
        ("NVIDIA GeForce RTX 3060", 11906, "RTX 3060"),
        ("NVIDIA GeForce RTX 3060", 7900, "RTX 3060 8GB"),
        ("Orin", 62800, "Jetson AGX Orin 64GB"),
        ("Orin", 7600, "Jetson Orin Nano 8GB"),
    ],
)
def test_the_total_chooses_among_sizes(name: str, total_mib: int, expected: str) -> None:
    """A driver prints one name for several sizes; the total that it reports tells them apart."""
    assert find_entry(name, total_bytes=total_mib * MIB).name == expected


@pytest.mark.parametrize(
    ("name", "total_mib"),
    [
        ("RTX 3090", 24117),
        ("RTX 4090", 24077),
        ("RTX 5090", 32606),
        ("RTX 3060", 11906),
        ("RTX 2060", 5738),
        ("RTX PRO 6000", 97247),
        ("RX 9070 XT", 16304),
        ("Arc A770 16GB", 15473),
        ("A10G", 22587),
        ("L40S", 45467),
        ("H200", 143156),
        ("B200", 182631),
        ("RTX 5070 Ti", 15808),
    ],
)
def test_totals_are_the_drivers(name: str, total_mib: int) -> None:
    """A described card has the total that programs see on Linux, the lowest published one, not the printed size."""
    gpu = find_gpu(name)
    assert (gpu.total_bytes, gpu.free_bytes) == (total_mib * MIB, total_mib * MIB)


@pytest.mark.parametrize(("ram_gib", "share"), [(16, (2, 3)), (32, (2, 3)), (36, (3, 4)), (64, (3, 4))])
def test_unified_memory_takes_its_share(ram_gib: int, share: tuple[int, int]) -> None:
    """Metal's limit is two thirds of a small memory, three quarters of a large one."""
    gpu = find_gpu("Apple M3 Max", host_bytes=ram_gib * GIB)
    assert gpu.total_bytes == ram_gib * GIB * share[0] // share[1]
    assert gpu.unified_memory
    assert find_gpu(f"Apple M3 Max {ram_gib}GB") == gpu


def test_unified_memory_needs_the_hosts() -> None:
    """Without the host's memory a GPU that shares it has no size, and the message says what to add."""
    with pytest.raises(UsageError, match="--ram"):
        find_gpu("Apple M2")


@pytest.mark.parametrize(("name", "near"), [("RTX 3099", "RTX 3090"), ("RTX 5O90", "RTX 5090"), ("A6001", "A100")])
def test_unknown_names_are_answered_with_the_nearest(name: str, near: str) -> None:
    """An unknown name is a usage error that offers real ones."""
    with pytest.raises(UsageError, match="unknown GPU") as caught:
        find_gpu(name)
    assert near in str(caught.value) or "24GiB" in str(caught.value)


def test_a_wrong_size_is_not_another_card() -> None:
    """There is no RTX 3090 with 12 GB, so that name finds nothing rather than the 24 GB one."""
    with pytest.raises(UsageError):
        find_gpu("RTX 3090 12GB")


def test_specs_become_gpus() -> None:
    """Counts repeat, free and total replace, sizes alone are nameless GPUs."""
    gpus = parse_gpus(["RTX 3090:2", "24GiB", "RTX 3090:free=20GiB", "24GiB:free=22GiB:2"])
    assert [gpu.free_bytes for gpu in gpus] == [
        24117 * MIB,
        24117 * MIB,
        24 * GIB,
        20 * GIB,
        22 * GIB,
        22 * GIB,
    ]
    assert [gpu.total_bytes for gpu in gpus[2:]] == [24 * GIB, 24117 * MIB, 24 * GIB, 24 * GIB]
    assert gpus[2].bandwidth_bytes_per_s is None


@pytest.mark.parametrize(
    ("spec", "name", "count"),
    [
        ("2x4090", "RTX 4090", 2),
        ("2x RTX 4090", "RTX 4090", 2),
        ("RTX 4090 x2", "RTX 4090", 2),
        ("RTX 4090x2", "RTX 4090", 2),
        ("8xH100", "H100 PCIe", 8),
        ("RX 7900 XTX x 3", "RX 7900 XTX", 3),
        ("RX 580", "RX 580 8GB", 1),
        ("MI300X", "MI300X", 1),
        ("2x24GiB", "GPU 24.00 GiB", 2),
    ],
)
def test_a_count_may_stand_before_or_behind(spec: str, name: str, count: int) -> None:
    """``2x`` and ``x2`` count as ``:2`` does; an x that belongs to a name does not."""
    gpus = parse_gpus([spec])
    assert ({gpu.name for gpu in gpus}, len(gpus)) == ({name}, count)


def test_free_up_to_the_printed_size_is_believed() -> None:
    """Windows reserves less of a card; what the user saw free there is not refused for the Linux total."""
    (gpu,) = parse_gpus(["RTX 3090:free=24300MiB"])
    assert (gpu.free_bytes, gpu.total_bytes) == (24300 * MIB, 24 * GIB)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        ":",
        "RTX 3090:0",
        "RTX 3090:x",
        "RTX 3090:free=",
        "RTX 3090:free=25GiB",
        "0GiB",
        "24",
        "RTX 3090:999",
        "RTX 3090 x0",
        "0x RTX 3090",
        "nil:2",
    ],
)
def test_malformed_specs_are_usage_errors(spec: str) -> None:
    """Whatever is wrong with a word, the answer is one line and exit code 2."""
    with pytest.raises(UsageError) as caught:
        parse_gpus([spec])
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_crashes_the_parser(text: str) -> None:
    """Any text is GPUs or a usage error."""
    try:
        gpus = parse_gpus([text])
    except UsageError:
        return
    assert all(0 <= gpu.free_bytes <= gpu.total_bytes for gpu in gpus)


def test_enrich_keeps_what_was_seen() -> None:
    """The catalogue fills gaps; it never overwrites what the driver said, and leaves unknown names alone."""
    seen = Gpu(name="NVIDIA GeForce RTX 3090", total_bytes=24 * GIB, free_bytes=GIB, pcie_lanes=4)
    known = enrich(seen)
    assert (known.name, known.total_bytes, known.free_bytes, known.pcie_lanes) == (seen.name, 24 * GIB, GIB, 4)
    assert known.bandwidth_bytes_per_s == 936_200_000_000
    assert known.architecture == "ampere"
    stranger = Gpu(name="NVIDIA Prototype X1", total_bytes=GIB, free_bytes=GIB)
    assert enrich(stranger) == stranger


def test_pci_ids_find_cards() -> None:
    """The revision tells cards with one device id apart; an unknown one offers all of them."""
    assert [entry.name for entry in find_by_pci("1002", "744c", "c8")] == ["RX 7900 XTX"]
    assert {entry.name for entry in find_by_pci("1002", "744c", "00")} >= {"RX 7900 XTX", "RX 7900 XT"}
    assert find_by_pci("1002", "0000", "00") == ()
