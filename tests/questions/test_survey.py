"""The survey of the catalogue says what the exact budget of every model says."""

import pytest

from planner.catalog import list_profiles, load_model
from planner.catalog.engines import load_engine
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.errors import UsageError
from planner.machine_file import describe_machine
from planner.questions.survey import survey
from planner.workload import ImageSize, Workload


@pytest.mark.parametrize(
    ("gpus", "images"),
    [(["4GiB"], (ImageSize(width=3200, height=2400),)), (["3GiB", "2GiB"], ()), ([], ())],
    ids=["one GPU, a large image", "two small GPUs", "CPU"],
)
def test_nothing_that_fits_is_left_out_and_nothing_named_is_too_large(gpus, images):
    """Against the exact budget of every small model in every file type that the survey may offer."""
    machine = describe_machine(tuple(gpus), "6GiB")
    workload = Workload(context_tokens=4096, images=images)
    named = {fitting.model: fitting.quantization for fitting in survey(machine, workload)}
    engine = load_engine("llama.cpp")
    for profile in list_profiles("gguf"):
        if profile.parameters is None or profile.parameters.total > 3_500_000_000:
            continue
        best = None
        for word in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0"):
            model = load_model(profile.name, word, "gguf")
            if engine.loads(model).verdict == "unsupported" or (images and model.vision is None):
                break
            try:
                budget = engine.budget(model, workload, machine, LlamaCppSettings())
            except UsageError:
                break
            tokens = sum(image.tokens + image.extra_tokens for image in budget.image_tokens)
            if tokens < 4096 and not budget.refusals and not budget.short_devices and not budget.unknown:
                best = word
                break
        assert named.get(profile.name) == best, profile.name


def test_a_model_whose_images_need_more_context_gets_more():
    """With a given context it is left out; without one the context grows in steps of 1024."""
    machine = describe_machine(("24GiB",), "32GiB")
    workload = Workload(context_tokens=4096, images=(ImageSize(width=3200, height=2400),))
    fixed = {fitting.model for fitting in survey(machine, workload)}
    grown = {fitting.model: fitting for fitting in survey(machine, workload, grow=True)}
    more = [fitting for name, fitting in grown.items() if name not in fixed]
    assert more
    assert all(f.context_tokens >= f.image_tokens + 1024 and f.context_tokens % 1024 == 0 for f in more)
