"""Machines written down: what is read is what was written, and every wrong value is named in one line."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import SourceError, UsageError, VlplanError
from planner.gpu_catalog import gpu_entries, gpu_of
from planner.machine import Gpu, Host, Machine
from planner.machine_file import describe_machine, machine_of, machine_yaml, read_machine
from planner.units import GIB, MIB

HOST = Host(total_bytes=64 * GIB, free_bytes=60 * GIB, n_cores=12, cpu="AMD Ryzen 9 7900")


def test_the_requests_own_example() -> None:
    """A named GPU takes the catalogue's facts, a nameless one has its sizes, and the machine is simulated."""
    machine = machine_of(
        {"gpus": [{"name": "RTX 3090", "free": "23.4GiB"}, {"total": "24000MiB", "free": "23000MiB"}], "ram": "64GiB"}
    )
    first, second = machine.gpus
    assert (first.total_bytes, first.free_bytes) == (24117 * MIB, int(23.4 * GIB))
    assert first.compute_capability == (8, 6)
    assert (second.total_bytes, second.free_bytes, second.bandwidth_bytes_per_s) == (24000 * MIB, 23000 * MIB, None)
    assert machine.simulated
    assert machine.host.free_bytes == machine.host.total_bytes == 64 * GIB


def test_everything_can_be_said() -> None:
    """Each option lands in its field."""
    machine = machine_of(
        {
            "gpus": [
                {
                    "name": "prototype",
                    "count": 2,
                    "total": "10GiB",
                    "backend": "rocm",
                    "compute_capability": "9.0",
                    "async_copies": False,
                    "bandwidth": "936.2 GB/s",
                    "fp16_tflops": 71.2,
                    "units": 60,
                    "pcie_generation": 3,
                    "pcie_lanes": 8,
                }
            ],
            "ram": "32GiB",
            "ram_free": "30GiB",
            "cores": 6,
            "host_bandwidth": 50_000_000_000,
        }
    )
    gpu = machine.gpus[1]
    assert len(machine.gpus) == 2
    assert (gpu.name, gpu.backend, gpu.compute_capability, gpu.async_copies) == ("prototype", "rocm", (9, 0), False)
    assert (gpu.bandwidth_bytes_per_s, gpu.fp16_flops, gpu.n_sms) == (936_200_000_000, 71_200_000_000_000, 60)
    assert (gpu.pcie_generation, gpu.pcie_lanes) == (3, 8)
    assert machine.host == Host(
        total_bytes=32 * GIB, free_bytes=30 * GIB, n_cores=6, bandwidth_bytes_per_s=50_000_000_000
    )


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (None, "machine"),
        ([], "machine"),
        ({}, "machine.ram"),
        ({"ram": "lots"}, "machine.ram"),
        ({"ram": -1}, "machine.ram"),
        ({"ram": 1.5}, "machine.ram"),
        ({"ram": True}, "machine.ram"),
        ({"ram": "64GiB", "gpu": []}, "machine.gpu: unknown key"),
        ({"ram": "64GiB", "gpus": {}}, "machine.gpus"),
        ({"ram": "64GiB", "gpus": [{}]}, "machine.gpus[0]: give a name"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090", "fre": 1}]}, "machine.gpus[0].fre: unknown key"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090"}, {"name": "XYZ"}]}, "machine.gpus[1]: unknown GPU"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090", "free": "30GiB"}]}, "machine.gpus[0]: 30.00 GiB free"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090", "count": 1000}]}, "machine.gpus[0].count"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090", "count": 40}] * 2}, "80 GPUs"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090", "bandwidth": "fast"}]}, "machine.gpus[0].bandwidth"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090", "backend": "opencl"}]}, "machine.gpus[0].backend"),
        ({"ram": "64GiB", "gpus": [{"name": "RTX 3090", "compute_capability": "new"}]}, "compute_capability"),
        ({"ram": "64GiB", "gpus": [{"total": 0}]}, "machine.gpus[0]"),
        ({"ram": "64GiB", "ram_free": "65GiB"}, "machine.ram_free"),
        ({"ram": "64GiB", "cores": 0}, "machine.cores"),
    ],
)
def test_wrong_values_are_named(mapping: object, words: str) -> None:
    """One line, exit code 2, with the key that is wrong."""
    with pytest.raises(UsageError) as caught:
        machine_of(mapping)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["gpus", "ram", "ram_free", "cores", "cpu", "host_bandwidth", "name", "total", "free", "count"])


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        KEYS, JSON_VALUES | st.lists(st.dictionaries(KEYS, JSON_VALUES, max_size=4), max_size=2), max_size=4
    )
)
def test_no_mapping_crashes_the_reader(mapping: dict[str, object]) -> None:
    """Any mapping is a machine or one line of refusal."""
    try:
        refusal = ""
        machine_of(mapping)
    except VlplanError as error:
        refusal = str(error)
    assert "\n" not in refusal


SIZES = st.integers(min_value=1, max_value=1 << 45)
PER_MILLION = st.integers(930_000, 1_010_000)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(gpu_entries()), PER_MILLION, st.integers(0, 100), st.booleans()), max_size=4),
    SIZES,
    st.integers(0, 100),
)
def test_a_saved_machine_loads_back_equal(rows, ram: int, free_percent: int) -> None:
    """Whatever was detected or described is the same after saving and loading, but for being simulated.

    A driver reports 93 to 101 % of what is printed on the box; the size tells cards of one name apart.
    """
    gpus = tuple(
        replace(
            gpu_of(entry, total_bytes=total, free_bytes=total * percent // 100),
            uuid="GPU-1" if detected else None,
            name=f"{entry.aliases[0]}" if detected and entry.aliases else entry.name,
        )
        for entry, share, percent, detected in rows
        for total in [(entry.memory_bytes or 64 * GIB) * share // 1_000_000]
    )
    host = replace(HOST, total_bytes=ram, free_bytes=ram * free_percent // 100)
    machine = Machine(gpus=gpus, host=host)
    again = machine_of(_parsed(machine_yaml(machine)))
    assert (again.gpus, again.host, again.simulated) == (machine.gpus, machine.host, True)


def _parsed(text: str) -> object:
    import yaml

    return yaml.safe_load(text)


def test_an_unknown_detected_gpu_loads_back_equal(tmp_path) -> None:
    """A GPU that no catalogue knows keeps its name and its gaps."""
    gpu = Gpu(name="NVIDIA Prototype X1", total_bytes=GIB, free_bytes=GIB // 2, uuid="GPU-7", unified_memory=True)
    path = tmp_path / "box.yaml"
    path.write_text(machine_yaml(Machine(gpus=(gpu,), host=HOST)))
    assert read_machine(path).gpus == (gpu,)


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"{", b"ram: 64GiB\nram: 32GiB\n", b"&a [*a]", b"[" * 100_000, b"x" * (1 << 21), b""],
    ids=["encoding", "unclosed", "twice", "cycle", "deep", "large", "empty"],
)
def test_hostile_box_files_are_refused_in_one_line(tmp_path, content: bytes) -> None:
    """A broken or hostile file is an error with its path, never a crash or a hang."""
    path = tmp_path / "box.yaml"
    path.write_bytes(content)
    with pytest.raises(VlplanError) as caught:
        read_machine(path)
    assert "box.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_box_file_says_so(tmp_path) -> None:
    """The path stands in the message."""
    with pytest.raises(SourceError, match="nowhere"):
        read_machine(tmp_path / "nowhere.yaml")


def test_command_line_words_describe_a_machine() -> None:
    """``--gpu`` and ``--ram`` replace what they name; the rest is this computer's, and a note says so."""
    machine = describe_machine(["RTX 3090:2"], "32GiB")
    assert (len(machine.gpus), machine.host.total_bytes, machine.simulated) == (2, 32 * GIB, True)
    assert (machine.host.n_cores, machine.notes) == (8, ("8 CPU cores are assumed",))
    kept = describe_machine([], HOST)
    assert kept.host == HOST
    assert any("this computer" in note for note in kept.notes)
    shared = describe_machine(["Apple M4 Pro"], "48GiB")
    assert shared.gpus[0].total_bytes == 36 * GIB


def test_a_size_behind_a_gpu_that_shares_the_hosts_memory_is_the_hosts() -> None:
    """Never another computer's memory beside it; a size that contradicts ``--ram`` is refused."""
    machine = describe_machine(["M3 Max 36GB"], HOST)
    assert (machine.host.total_bytes, machine.gpus[0].total_bytes) == (36 * GIB, 27 * GIB)
    assert describe_machine(["M3 Max 36GB"], "36GiB").host.total_bytes == 36 * GIB
    with pytest.raises(UsageError, match="leave one of them out"):
        describe_machine(["M3 Max 36GB"], "64GiB")
