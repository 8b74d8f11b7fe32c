"""The search over splits: equal to trying everything, and never hurt by more memory."""

import random
from dataclasses import replace

import pytest
from placement.boxes import every_plan, headroom, random_box, tiny_model, with_more

from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.machine import Gpu
from planner.placement.llama_cpp import place
from planner.workload import Workload

WORKLOAD = Workload(context_tokens=256)
SETTINGS = LlamaCppSettings(ctx_size=256)


def objective(model, box):
    """Return what the search reaches: places on the GPUs, then what the fullest keeps; None if nothing fits."""
    placed = place(model, WORKLOAD, box.machine, SETTINGS, lambda s: box.budget(model, WORKLOAD, s), all_gpus=True)
    return (placed.settings.n_gpu_layers, headroom(placed.budget)) if placed.fits else None


@pytest.mark.parametrize("block", range(20))
def test_no_split_is_better(block):
    """In 2,000 random boxes of one to four GPUs the search reaches what trying every split reaches."""
    for seed in range(100 * block, 100 * block + 100):
        rng = random.Random(seed)
        model = tiny_model(rng.randrange(2, 6), rng)
        box = random_box(rng, rng.randrange(1, 5))
        assert objective(model, box) == max(every_plan(model, box, WORKLOAD), default=None), seed


def test_more_memory_never_hurts():
    """One more free byte, or a page more, on any GPU never makes the plan worse."""
    for seed in range(200):
        rng = random.Random(seed)
        model = tiny_model(rng.randrange(2, 6), rng)
        box = random_box(rng, rng.randrange(1, 4))
        before = objective(model, box) or (0, 0)
        for index in range(len(box.machine.gpus)):
            after = objective(model, with_more(box, index, rng.choice([1, 4096, 65536]))) or (0, 0)
            assert after[0] >= before[0], seed


def test_one_more_gpu_never_hurts_without_pipelines():
    """A further GPU never makes fewer places fit; with pipeline copies the buffers themselves may grow."""
    for seed in range(200):
        rng = random.Random(seed)
        model = tiny_model(rng.randrange(2, 6), rng)
        box = replace(random_box(rng, rng.randrange(1, 4)), pipeline=0)
        extra = Gpu(name="", total_bytes=1 << 18, free_bytes=1 << 18)
        larger = replace(box, machine=replace(box.machine, gpus=(*box.machine.gpus, extra)))
        assert (objective(model, larger) or (0, 0))[0] >= (objective(model, box) or (0, 0))[0], seed


def test_planning_twice_is_the_same():
    """The same question has the same answer."""
    rng = random.Random(7)
    model, box = tiny_model(5, rng), random_box(rng, 3)
    assert objective(model, box) == objective(model, box)


def test_as_few_gpus_as_hold_it():
    """When one GPU holds everything, the plan leaves the others empty."""
    rng = random.Random(3)
    model = tiny_model(4, rng)
    box = with_more(with_more(random_box(rng, 3), 1, 1 << 22), 2, 1 << 21)
    placed = place(model, WORKLOAD, box.machine, SETTINGS, lambda s: box.budget(model, WORKLOAD, s))
    assert placed.fits
    assert sum(1 for share in placed.settings.tensor_split if share) == 1
