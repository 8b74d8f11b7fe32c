"""Grids are complete, ordered and deterministic; models that share a box never take the same bytes."""

import csv
import io
import json

import pytest

from planner.advice import judge
from planner.catalog.quality import quality_table
from planner.deployment import parse_request
from planner.errors import UsageError
from planner.machine_file import machine_of
from planner.questions.compare import recommend_any
from planner.questions.share import share
from planner.questions.survey import survey
from planner.questions.sweep import Grid, sweep
from planner.report.sweep import render
from planner.workload import Workload

SMALL = machine_of({"gpus": [{"name": "RTX 3070"}], "ram": "32GiB"})
LARGE = machine_of({"gpus": [{"name": "RTX 3090"}], "ram": "64GiB"})


def grid(**changes):
    """Return a small grid."""
    values = {
        "models": ("gemma-3-4b", "qwen2.5-vl-3b"),
        "quantizations": ("Q4_K_M", "Q8_0"),
        "images": ("none", "640x480"),
        "batches": (1,),
        "contexts": (4096, 32768),
        "machines": (("small", SMALL), ("large", LARGE)),
    }
    return Grid(**{**values, **changes})


def test_every_combination_once():
    """Each combination of the axes is one cell, machines varying fastest."""
    cells = list(sweep(grid()))
    keys = [(c.model, c.quantization, c.image, c.batch, c.context, c.machine) for c in cells]
    assert len(keys) == len(set(keys)) == grid().n_cells == 32
    assert [cell.machine for cell in cells[:4]] == ["small", "large", "small", "large"]


def test_more_memory_never_turns_a_fit_into_a_miss():
    """Where the smaller box fits, the larger does."""
    cells = list(sweep(grid()))
    for small, large in zip(cells[::2], cells[1::2], strict=True):
        assert small.verdict != "fits" or large.verdict == "fits"


@pytest.mark.parametrize(
    ("model", "engine"),
    [("lfm2-vl-450m", "sglang"), ("deepseek-vl-7b", "transformers"), ("qwen2.5-vl-3b", "llama.cpp")],
)
def test_a_cells_verdict_is_that_of_the_plan(model, engine):
    """What is not known to load, or cannot be computed, is unknown in a sweep as it is anywhere else."""
    (cell,) = sweep(
        grid(
            models=(model,),
            engine=engine,
            quantizations=(None,),
            images=("none",),
            contexts=(4096,),
            machines=(("large", LARGE),),
        )
    )
    asked = {"model": model, "engine": engine, "workload": {"context": 4096}}
    one = parse_request(asked, machine=LARGE, detect=None)
    plan = judge(one.engine, one.model, one.workload, one.machine, one.settings)
    assert cell.verdict == plan.verdict
    assert not cell.reason or cell.reason == plan.reasons[0]


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama"])
def test_more_memory_never_costs_quality_where_quality_comes_first(engine):
    """Asked for quality, a larger GPU gets a file type at least as good, whether or not all layers lie on it."""
    losses = []
    for size in ("4GiB", "6GiB", "8GiB", "10GiB", "16GiB", "24GiB"):
        machine = machine_of({"gpus": [{"total": size}], "ram": "32GiB"})
        asked = {"model": "qwen2.5-vl-7b", "engine": engine, "workload": {"context": 8192}}
        plan = recommend_any(asked, prefer="quality", machine=machine, detect=None)
        assert plan.verdict == "fits"
        losses.append(quality_table().loss(plan.model.quantization))
    assert losses == sorted(losses, reverse=True)


def test_parts_sum_to_the_whole():
    """Weights, cache, compute and overhead are all there is."""
    for cell in sweep(grid(models=("gemma-3-4b",))):
        parts = cell.weights_bytes + cell.kv_cache_bytes + cell.compute_bytes + cell.overhead_bytes
        assert parts == cell.expected_bytes <= cell.high_bytes


def test_formats_hold_the_same_cells():
    """CSV and JSON carry every cell; Markdown one line each; HTML draws without script or network."""
    cells = list(sweep(grid(contexts=(4096,))))
    rows = list(csv.DictReader(io.StringIO(render(cells, "csv"))))
    found = json.loads(render(cells, "json"))["cells"]
    assert [row["verdict"] for row in rows] == [cell["verdict"] for cell in found]
    assert len(render(cells, "markdown").splitlines()) == len(cells) + 2
    page = render(cells, "html")
    assert page == render(cells, "html")
    assert "<svg" in page
    assert "<script" not in page
    assert "http://www.w3.org" in page
    assert "https://" not in page.replace("https://www.w3.org", "")


def test_absurd_grids_are_refused():
    """A grid beyond reason is refused before anything is computed."""
    with pytest.raises(UsageError, match="at most"):
        list(sweep(grid(contexts=tuple(range(1, 100_000)))))


def test_models_share_a_box():
    """Each model is planned on what those before it leave free."""
    requests = [{"model": "qwen2.5-vl-7b", "workload": {}}, {"model": "gemma-3-4b", "workload": {}}]
    first, second = share(requests, prefer="balanced", machine=LARGE)
    assert first.verdict == second.verdict == "fits"
    assert second.machine.gpus[0].free_bytes == LARGE.gpus[0].free_bytes - first.budget.devices[0].high_bytes
    assert second.budget.devices[0].high_bytes <= second.machine.gpus[0].free_bytes


def test_the_survey_names_what_fits():
    """Every model the survey names has room to spare; a larger box is offered no fewer."""
    small, large = (survey(machine, Workload(context_tokens=4096)) for machine in (SMALL, LARGE))
    assert all(fitting.headroom_bytes >= 0 for fitting in small)
    assert {fitting.model for fitting in small} <= {fitting.model for fitting in large}
