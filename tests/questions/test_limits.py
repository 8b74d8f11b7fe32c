"""The inverse questions on real budgets: what is said to fit fits, the next step does not."""

import random
from dataclasses import replace

import pytest

from planner.advice import judge
from planner.deployment import parse_images, parse_request
from planner.machine_file import machine_of
from planner.questions.limits import fails_of, find_limits

BOXES = [
    {"gpus": [{"total": "8GiB"}], "ram": "32GiB"},
    {"gpus": [{"total": "12GiB"}, {"total": "8GiB"}], "ram": "32GiB"},
    {"gpus": [], "ram": "12GiB"},
]


def deployment(box, model="qwen2.5-vl-7b", context=8192):
    """Return a deployment of a model on a box."""
    request = {"model": model, "quantization": "Q4_K_M", "workload": {"context": context, "images": ["640x480"]}}
    return parse_request(request, machine=machine_of(box), detect=None)


def with_value(asked, limit, value):
    """Return the deployment at a value of the dimension."""
    workload = asked.workload
    if limit.dimension in ("image", "square"):
        workload = replace(workload, images=parse_images([value]))
    elif limit.dimension == "images":
        count, _, size = value.partition(" x ")
        workload = replace(workload, images=parse_images([f"{size}:{count}"]))
    elif limit.dimension == "context":
        workload = replace(workload, context_tokens=int(value))
    else:
        workload = replace(workload, sequences=int(value))
    return replace(asked, workload=workload)


def fits(asked):
    """Whether the deployment fits as it stands."""
    plan = judge(asked.engine, asked.model, asked.workload, asked.machine, asked.settings)
    return plan.verdict == "fits"


@pytest.mark.parametrize("box", BOXES[::2], ids=["8GiB", "CPU"])
def test_limits_are_tight(box):
    """On one GPU and on the CPU each limit fits and the next step up does not."""
    asked = deployment(box)
    for limit in find_limits(asked):
        if limit.value is not None and limit.next_value is not None:
            assert fits(with_value(asked, limit, limit.value)), limit
            assert not fits(with_value(asked, limit, limit.next_value)), limit


def test_two_gpus_are_filled_by_the_best_split():
    """With two GPUs the layers are spread anew for every question."""
    asked = deployment(BOXES[1])
    found = {limit.dimension: limit for limit in find_limits(asked, ["context"])}
    single = {limit.dimension: limit for limit in find_limits(deployment(BOXES[0]), ["context"])}
    assert int(found["context"].value) > int(single["context"].value)


def test_a_limit_that_takes_another_split_says_which():
    """What is named fits by the engine's own words: with the split that is said, judged exactly, and not without."""
    asked = deployment({"gpus": [{"total": "12GiB"}, {"total": "5GiB"}], "ram": "32GiB"})
    found = find_limits(asked, ["sequences"])[0]
    words, _, shares = found.needs.partition(" ")
    assert words == "tensor_split"
    bare = with_value(asked, found, found.value)
    split = replace(bare.settings, tensor_split=[float(share) for share in shares.split(",")])
    verdicts = [
        judge(one.engine, one.model, one.workload, one.machine, one.settings).verdict
        for one in (bare, replace(bare, settings=split))
    ]
    assert verdicts == ["does_not_fit", "fits"]


def test_the_best_file_type():
    """The best file type fits; the next better one is shown failing."""
    found = find_limits(deployment(BOXES[0]), ["quantization"])[0]
    assert (found.value, found.next_value) == ("Q5_K_M", "Q6_K")
    assert "short" in found.reason


def test_text_models_have_no_image_limit():
    """A model without a tower is asked nothing about images."""
    request = {"model": "llama-3.1-8b", "workload": {"context": 4096}}
    asked = parse_request(request, machine=machine_of(BOXES[0]), detect=None)
    assert {limit.dimension for limit in find_limits(asked)} == {"context", "sequences"}


MODELS = ("qwen2.5-vl-7b", "llava-1.6-mistral-7b", "gemma-3-4b", "smolvlm2-2.2b", "internvl3-2b", "minicpm-v-4")


def random_deployment(seed):
    """Return a model on one to three unequal GPUs, with some context and an image."""
    rng = random.Random(seed)
    gpus = [{"total": rng.randrange(3 << 20, 24 << 20) << 10} for _ in range(rng.randrange(0, 4))]
    request = {
        "model": rng.choice(MODELS),
        "quantization": rng.choice(["Q4_K_M", "Q8_0"]),
        "workload": {
            "context": rng.choice([4096, 8192, 16384]),
            "images": [f"{rng.randrange(100, 2500)}x{rng.randrange(100, 2500)}"],
        },
    }
    machine = {"gpus": gpus, "ram": rng.randrange(4 << 20, 64 << 20) << 10}
    return parse_request(request, machine=machine_of(machine), detect=None)


@pytest.mark.parametrize("block", range(4))
def test_limits_are_tight_on_random_boxes(block):
    """On random boxes what is named passes and the next step is refused, by the same whole budget."""
    n_named = 0
    for seed in range(10 * block, 10 * block + 10):
        asked = random_deployment(seed)
        for limit in find_limits(asked):
            fails = fails_of(asked)
            if limit.value is not None:
                n_named += 1
                assert fails(with_value(asked, limit, limit.value).workload) is None, (seed, limit)
            if limit.next_value is not None:
                assert fails(with_value(asked, limit, limit.next_value).workload) is not None, (seed, limit)
    assert n_named > 5
