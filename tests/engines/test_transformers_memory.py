"""transformers against followed prefills: weights and cache to the byte, the peak within a thousandth."""

from __future__ import annotations

from functools import cache

import pytest
from transformers_rows import BIG, accuracy, component, compute_error, engine, plan, rows

from planner.catalog.models import load_model
from planner.engines.transformers.decode import decode_step_bytes
from planner.engines.transformers.kv_cache import layer_cache_bytes
from planner.engines.transformers.prefill import prefill_of
from planner.engines.transformers.settings import TransformersSettings
from planner.workload import Workload

TABLES = ("transformers_memory", "transformers_traces", "transformers_families")


@cache
def planned(table: str) -> tuple:
    """Return rows with their plans, computed once."""
    return tuple((row, plan(row)) for row in rows(table))


def named(row: dict) -> str:
    """Return which prefill a failure is about."""
    keys = ("model", "dtype", "attn", "batch", "images", "text_len", "logits", "padded_batch")
    return " ".join(f"{key}={row[key]}" for key in keys)


@pytest.mark.parametrize("table", TABLES)
def test_cache_is_exact(table):
    """The KV cache of a prompt is the measured one to the byte, windows and cross-attention included."""
    wrong = [named(row) for row, found in planned(table) if component(found, "kv_cache") != row["kv_bytes"]]
    assert wrong == []


@pytest.mark.parametrize("table", TABLES)
def test_sum_of_running_items_is_the_peak(table):
    """Cache, compute and the rows windows will cut add up to the peak of all that is no weight."""
    for row, found in planned(table):
        cut = row["kv_storage_bytes"] - row["kv_bytes"]
        whole = component(found, "kv_cache") + component(found, "compute") + cut
        assert whole == pytest.approx(row["peak_nonweight_bytes"], rel=2e-3), named(row)


@pytest.mark.parametrize("table", TABLES)
def test_compute_is_within_a_thousandth(table):
    """Half of the peaks are exact, 95 of 100 within 0.01 %, none is further than 0.2 % off."""
    found = accuracy([row for row, _ in planned(table)])
    assert found.median == 0
    assert found.p95 < 1e-4
    assert found.worst < 2e-3


@pytest.mark.parametrize("table", [*TABLES, "transformers_bounds"])
def test_high_bound_is_never_below_the_truth(table):
    """What feasibility is judged on covers every measured prefill, and low stays under it."""
    for row, found in planned(table):
        truth = row["peak_minus_kv_bytes"]
        assert component(found, "compute", "low") <= truth <= component(found, "compute", "high"), named(row)


def test_high_bound_is_no_excuse():
    """The bound is at most 4 % and a megabyte above the whole peak, so that it still says something."""
    for row, found in planned("transformers_memory"):
        spread = component(found, "compute", "high") - component(found, "compute")
        assert spread <= row["peak_nonweight_bytes"] * 0.051 + 2**20, named(row)


def test_weights_are_exact():
    """Parameters in their dtype with buffers: the published total to a few bytes in ten million, part by part."""
    seen = {(row["model"], row["dtype"]): (row, found) for row, found in planned("transformers_memory")}
    for row, found in seen.values():
        truth = row["weights_bytes"]
        assert component(found, "weights") == pytest.approx(truth["total"], rel=1e-6), named(row)
        for part in ("language", "vision", "projector"):
            assert component(found, "weights", part=part) == pytest.approx(truth[part], rel=1e-5, abs=0), named(row)


@pytest.mark.parametrize("load_in", ["int8", "nf4", "nf4_double"])
def test_quantised_weights(load_in):
    """Forms of bitsandbytes within 0.1 %: linears but the head, packed experts left as they are."""
    seen = {row["model"]: row for row in rows("transformers_memory") if "bnb_weights_bytes" in row}
    for row in seen.values():
        found = component(plan({**row, "dtype": "bf16"}, load_in=load_in), "weights")
        assert found == pytest.approx(row["bnb_weights_bytes"][load_in], rel=1e-3), row["model"]


def test_further_families_have_the_built_modules_bytes():
    """Parameters and buffers of the modules built from the profile's sizes, whatever the dtype."""
    for row, found in planned("transformers_families"):
        assert component(found, "weights") == row["weights_total_bytes"], named(row)


def test_processors_give_as_many_image_tokens():
    """Image tokens of the further families are those that their own processors counted when the rows were made."""
    for row, found in planned("transformers_families"):
        assert sum(image.tokens for image in found.image_tokens) == row["image_tokens"], named(row)


def test_the_held_back_rows_are_no_worse():
    """Rows that nobody saw while the moments were written are as exact as the others: within 0.1 %."""
    held = [row for row, _ in planned("transformers_families") if row["half"] != "written"]
    assert len(held) > 100
    assert accuracy(held).worst < 1e-3


def test_vision_peak_is_shown():
    """The tower's own peak stands in the inputs of the compute item, and never exceeds the whole."""
    for row, found in planned("transformers_memory"):
        item = next(item for item in found.devices[0].items if item.component == "compute")
        assert 0 <= item.inputs["vision_peak"] <= item.expected_bytes + item.inputs["kv_cache_held"], named(row)
        assert bool(item.inputs["vision_peak"]) == bool(row["images"])


def test_fp32_grouped_heads_take_the_unfused_path():
    """Llama-3.1-8B at 1024 tokens in fp32: more than 400 MiB of scores that bf16 does not have."""
    found = {
        (row["dtype"]): component(plan(row), "compute")
        for row in rows("transformers_memory")
        if row["model"] == "llama-3.1-8b" and row["attn"] == "sdpa" and row["batch"] == 1
        if row["text_len"] == 1024 and row["logits"] == "last"
    }
    assert found["fp32"] - 2 * found["bf16"] > 250 * 2**20


def test_answer_grows_the_expected_cache_and_context_the_high_one():
    """Low is the prompt's cache, expected has the answer's tokens too, high the whole context."""
    row = next(row for row in rows("transformers_memory") if row["model"] == "qwen2.5-vl-7b")
    workload = Workload(context_tokens=8192, prompt_tokens=64, answer_tokens=100)
    found = engine().budget(load_model(row["model"], None, "hf"), workload, BIG, TransformersSettings())
    per_token = 28 * 2 * 4 * 128 * 2
    bounds = [component(found, "kv_cache", bound) for bound in ("low", "expected", "high")]
    assert bounds == [64 * per_token, 164 * per_token, 8192 * per_token]


def prefill_at(row: dict):
    """Return the prefill of a row of decode steps."""
    model = load_model(row["model"], None, "hf")
    settings = TransformersSettings(dtype=row["dtype"], padded=row["padded_batch"])
    workload = Workload(prompt_tokens=row["n_tokens"], batch=row["batch"])
    return prefill_of(model, workload, settings, (), engine_forms().of_model(model))


def test_decode_step_copies_a_layer():
    """A decode step holds the keys of one layer twice: half of that layer's cache, in 16 bit without a mask."""
    row = {"model": "llama-3.1-8b", "dtype": "bf16", "padded_batch": False, "batch": 1, "n_tokens": 20_000}
    p = prefill_at(row)
    layer = layer_cache_bytes(p, p.language.layers[0], 20_000)
    assert decode_step_bytes(p, "sdpa", 20_000) == pytest.approx(layer / 2, rel=0.05)
    assert decode_step_bytes(p, "eager", 20_000) > 4 * layer


def test_decode_steps_are_covered():
    """Followed decode steps: none is above the bound, and the bound is no more than half as much again and 9 MiB."""
    for row in rows("transformers_decode"):
        found = decode_step_bytes(prefill_at(row), row["attn"], row["n_tokens"])
        assert row["step_bytes"] <= found <= row["step_bytes"] * 1.5 + 9 * 2**20, row


def engine_forms():
    """Return the forms as the engine reads them."""
    from planner.catalog.data import load_data
    from planner.engines.transformers.forms import forms_of

    return forms_of(load_data("engines/transformers/moments.yaml"))


def test_errors_are_signed():
    """The measure itself sees a wrong figure: twice the truth is an error of minus a half."""
    row = rows("transformers_memory")[0]
    assert compute_error(row) == 0
    assert compute_error({**row, "peak_minus_kv_bytes": 2 * row["peak_minus_kv_bytes"]}) == pytest.approx(-0.5)
