"""The inverse questions on real budgets: what is said to fit fits, the next step does not."""

from dataclasses import replace

import pytest

from planner.advice import judge
from planner.deployment import parse_images, parse_request
from planner.machine_file import machine_of
from planner.questions.limits import find_limits

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
