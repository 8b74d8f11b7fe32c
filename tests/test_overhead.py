"""Device overhead: a range that holds what was measured, grows with the GPU, and is widest where least is known."""

from __future__ import annotations

import pytest

from planner.catalog.tables import overhead_table
from planner.gpu_catalog import find_gpu, gpu_entries, gpu_of, parse_gpus
from planner.memory.overhead import overhead_bytes
from planner.units import GIB, MIB

ENGINES = ("llama.cpp", "ollama", "transformers", "vllm", "sglang", "lmdeploy", "measured")

# published figures of one process or one idle context, MiB
MEASURED = [
    ("RTX 4060 Ti", "llama.cpp", 107),
    ("RTX 3090", "llama.cpp", 256),
    ("RTX 3090", "llama.cpp", 264),
    ("RTX 3090", "llama.cpp", 279),
    ("RTX 3090", "llama.cpp", 344),
    ("RTX 3090", "transformers", 307),
    ("A10", "vllm", 379),
    ("RTX 4090", "llama.cpp", 472),
    ("RTX PRO 6000", "llama.cpp", 555),
    ("A100 SXM 80GB", "llama.cpp", 424),
    ("Tesla K80", "llama.cpp", 380),
    ("P102-100", "llama.cpp", 128),
    ("RX 9070 XT", "llama.cpp", 164),
    ("RX 7900 XTX", "llama.cpp", 410),
    ("T4", "llama.cpp", 103),
    ("RTX 4090", "llama.cpp", 392),
    ("RTX 5060 Ti 16GB", "llama.cpp", 164),
    ("Tesla V100 SXM2 32GB", "llama.cpp", 394),
]


@pytest.mark.parametrize(("name", "engine", "mib"), MEASURED)
def test_the_range_holds_what_was_measured(name: str, engine: str, mib: int) -> None:
    """Every published figure lies between low and high of its GPU and engine."""
    found = overhead_bytes(find_gpu(name), engine, overhead_table())
    assert found.low_bytes <= mib * MIB <= found.high_bytes


@pytest.mark.parametrize("held_back", ["RTX 4060 Ti 8GB", "RTX 3090", "RTX 4090", "A100 SXM 80GB", "RTX PRO 6000"])
def test_the_band_alone_holds_each_gpu_too(held_back: str) -> None:
    """Growth with multiprocessors bounds each measured GPU without its own row."""
    nameless = find_gpu(held_back)
    figures = [mib for name, _, mib in MEASURED if find_gpu(name).name == nameless.name]
    found = overhead_bytes(_renamed(nameless), "llama.cpp", overhead_table())
    assert found.basis == "modelled"
    assert max(figures) * MIB <= found.high_bytes


def _renamed(gpu):
    from dataclasses import replace

    return replace(gpu, name="unheard of", catalog_name=None)


@pytest.mark.parametrize("engine", ENGINES)
def test_ranges_are_ordered_for_every_gpu(engine: str) -> None:
    """Low, expected, high stand in order, and none is beyond two GiB."""
    for entry in gpu_entries():
        found = overhead_bytes(gpu_of(entry, total_bytes=GIB, free_bytes=GIB), engine, overhead_table())
        assert 0 <= found.low_bytes <= found.expected_bytes <= found.high_bytes < 2 * GIB, entry.name
        assert found.source


def test_it_is_no_constant() -> None:
    """A large GPU's context is several times a small one's."""
    small, large = (
        overhead_bytes(find_gpu(name), "llama.cpp", overhead_table()).expected_bytes for name in ("RTX 3050", "B200")
    )
    assert large > 3 * small


def test_a_nameless_gpu_takes_the_maintainers_range() -> None:
    """Nothing is known about 24GiB, so the published range over GPUs is assumed."""
    (gpu,) = parse_gpus(["24GiB"])
    found = overhead_bytes(gpu, "llama.cpp", overhead_table())
    assert (found.low_bytes, found.high_bytes, found.basis) == (120 * MIB, 550 * MIB, "assumed")


def test_an_unknown_engine_takes_the_widest_extra() -> None:
    """An engine without a row is bounded by the largest one."""
    gpu = find_gpu("A10")
    highs = [overhead_bytes(gpu, engine, overhead_table()).high_bytes for engine in (*ENGINES, "unheard of")]
    assert highs[-1] == max(highs)


def test_expert_staging_is_a_range_of_gibibytes() -> None:
    """The pool that experts in host memory pass through holds the two published cases."""
    staging = overhead_table().expert_staging
    assert staging.low_bytes <= 1600 * MIB
    assert staging.high_bytes >= (3945 - 472) * MIB
