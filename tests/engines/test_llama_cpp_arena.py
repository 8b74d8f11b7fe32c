"""The allocator on its own: blocks, the pass over a schedule, and what happens in place."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.engines.llama_cpp.arena import Arena, Schedule, reserve

GPU, HOST = 0, 1
ALIGNMENTS = (128, 32)


def schedule(sizes, steps, *, leafs=(), in_place=(), roots=None, **flags):
    """Return a schedule of tensors 0, 1, ... with these sizes; those of equal size have the same layout."""
    n = len(sizes)
    return Schedule(
        n_bytes=list(sizes),
        roots=roots or [-1] * n,
        layouts=list(sizes),
        in_place=[t in in_place for t in range(n)],
        leafs=list(leafs),
        steps=list(steps),
        **flags,
    )


def test_takes_the_tightest_gap():
    """A request goes to the smallest gap that holds it, not to the first."""
    arena = Arena(32)
    addresses = [arena.take(size) for size in (320, 32, 96, 32)]
    arena.give(addresses[0], 320)
    arena.give(addresses[2], 96)
    assert arena.take(64) == addresses[2]


def test_takes_the_higher_of_equal_gaps():
    """Of two gaps of the same size the one at the higher address is used."""
    arena = Arena(32)
    addresses = [arena.take(64) for _ in range(4)]
    arena.give(addresses[0], 64)
    arena.give(addresses[2], 64)
    assert arena.take(64) == addresses[2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 30)), max_size=60), st.sampled_from([32, 128]))
def test_blocks_never_overlap_and_all_come_back(requests, alignment):
    """Live blocks are aligned and disjoint, the peak holds them all, and when all are given back nothing is missing."""
    arena, live = Arena(alignment), {}
    for size, victim in requests:
        padded = -(-size // alignment) * alignment
        address = arena.take(size)
        assert address % alignment == 0
        assert all(address >= a + n or address + padded <= a for a, n in live.items())
        live[address] = padded
        assert arena.peak_bytes >= max(a + n for a, n in live.items())
        if victim < len(live) and victim % 2:
            address = sorted(live)[victim]
            arena.give(address, live.pop(address))
    for address, size in live.items():
        arena.give(address, size)
    assert len(arena.starts) == 1
    assert arena.starts[0] == 0


def test_a_result_takes_the_place_of_an_operand_read_for_the_last_time():
    """An operation that may work in place costs nothing when its operand dies with it."""
    once = schedule([256, 256], [(0, GPU, ()), (1, GPU, (0,))], in_place={1})
    assert reserve(once, ALIGNMENTS).arena_bytes == [256, 0]


def test_an_operand_that_is_still_needed_is_not_taken_over():
    """With another reader to come the result needs memory of its own."""
    twice = schedule([256, 256, 64], [(0, GPU, ()), (1, GPU, (0,)), (2, GPU, (0,))], in_place={1})
    assert reserve(twice, ALIGNMENTS).arena_bytes[GPU] == 256 + 256 + 128


@pytest.mark.parametrize("kept", [set(), {0}])
def test_outputs_are_never_released(kept):
    """Memory of an output is not used again, neither in place nor after its last reader."""
    steps = [(0, GPU, ()), (1, GPU, (0,)), (2, GPU, (1,))]
    found = reserve(schedule([128, 64, 128], steps, outputs=kept), ALIGNMENTS)
    assert found.arena_bytes[GPU] == (128 + 128 + 128 if kept else 128 + 128)


def test_a_view_keeps_the_tensor_it_looks_into():
    """A tensor lives as long as something looks into it, though no operation reads it directly."""
    with_view = schedule(
        [512, 0, 512, 64],
        [(0, GPU, ()), (1, GPU, (0,)), (2, GPU, ()), (3, GPU, (1, 2))],
        roots=[-1, 0, -1, -1],
    )
    assert reserve(with_view, ALIGNMENTS).arena_bytes[GPU] == 512 + 512 + 128


def test_inputs_lie_at_the_bottom():
    """Inputs are placed before anything else, whenever they are first read."""
    found = reserve(
        schedule([1024, 64, 32], [(0, HOST, ()), (2, HOST, (0, 1))], inputs={1}),
        ALIGNMENTS,
    )
    assert found.addresses[1] == 0
    assert found.addresses[0] == 64


def test_scratch_is_asked_on_gpus_only_and_given_back_by_a_successor_in_place():
    """Extra bytes of an operation count on its GPU, not on the host, and end with the tensor they belong to."""
    steps = [(0, GPU, ()), (1, GPU, (0,)), (2, GPU, (1,))]
    found = reserve(schedule([128, 128, 256], steps, in_place={1}, scratch={0: 1024}), ALIGNMENTS)
    assert found.arena_bytes[GPU] == 128 + 1024
    on_host = schedule([128], [(0, HOST, ())], scratch={0: 1024})
    assert reserve(on_host, ALIGNMENTS).arena_bytes == [0, 128]


def test_the_peak_is_explained_by_what_lives_there():
    """The tensors alive at the peak step of an arena fill it when nothing lies between them."""
    found = reserve(schedule([256, 512, 128], [(0, GPU, ()), (1, GPU, (0,)), (2, GPU, (1,))]), ALIGNMENTS)
    live = found.live_at(GPU, found.peak_steps[GPU])
    assert live == [0, 1]
    assert found.arena_bytes[GPU] == 256 + 512


def test_empty_tensors_do_not_disturb():
    """Tensors of no bytes leave empty blocks behind, which may come to lie out of order; nothing breaks."""
    arena = Arena(128)
    first, second = arena.take(256), arena.take(256)
    empty = arena.take(0)
    arena.give(first, 256)
    arena.give(empty, 0)
    arena.give(second, 256)
    assert arena.take(512) == 0
    assert arena.peak_bytes == 512
