"""SGLang: the share it computes, the tokens that share holds, and what must fit beside it."""

from dataclasses import replace

import builders as b
import pytest
import yaml
from field import field_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from test_support import TABLES

from planner.catalog import load_model
from planner.engines.options import options_table
from planner.engines.sglang import SglangSettings, sglang_engine
from planner.engines.sglang.budget import cell_bytes
from planner.engines.sglang.settings import sglang_rules, static_share, tower_factor
from planner.errors import UsageError
from planner.workload import ImageSize, Workload

MIB = 1 << 20
DATA = yaml.safe_load((b.PROFILES / "engines" / "sglang.yaml").read_text())
OPTIONS = yaml.safe_load((b.PROFILES / "engines" / "options" / "sglang.yaml").read_text())
RULES = sglang_rules(DATA, options_table(OPTIONS))
ENGINE = sglang_engine(None, TABLES, DATA, OPTIONS)


@pytest.mark.parametrize(
    ("mib", "share"), [(15360, 0.735), (24576, 0.704), (32607, 0.777), (46068, 0.843), (81559, 0.83), (143771, 0.903)]
)
def test_share_for_text_models(mib, share):
    """T4, 24 GB, 5090, L40S, H100 and H200 as the release computes them."""
    assert static_share(b.llama31_8b(), SglangSettings(), mib * MIB, RULES) == pytest.approx(share, abs=0.0011)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("qwen2-vl-2b", 0.83),
        ("qwen2-vl-7b", 0.76),
        ("qwen2.5-vl-7b", 0.897),
        ("qwen3-vl-8b", 0.925),
        ("llava-1.5-7b", 0.95),
        ("minicpm-v-2.6", 0.909),
    ],
)
def test_factor_of_the_tower(name, factor):
    """The tower lowers the share; some configurations name their fields so that another tower is seen."""
    assert tower_factor(load_model(name, None, "hf"), RULES) == pytest.approx(factor, abs=0.006)


def test_share_of_a_vision_model_on_24_gib():
    """0.720 before the tower's factor: prefill graphs are off for most vision models."""
    model = load_model("llava-1.5-7b", None, "hf")
    assert static_share(model, SglangSettings(), 24576 * MIB, RULES) == pytest.approx(
        0.720 * tower_factor(model, RULES), abs=0.002
    )


def test_tokens_of_the_published_pool():
    """367,404 tokens at 48,128 bytes are the 16.46 GiB that the log prints for K and V."""
    case = field_cases()["vllm-21348-qwen3-235b-fp8-4xh100"]["measured"]
    cell = cell_bytes(b.qwen3_235b(), SglangSettings(tp_size=4), 0)
    assert cell == 48128
    assert case["sglang_tokens"] * cell / b.GIB == pytest.approx(case["sglang_K_GB"] + case["sglang_V_GB"], rel=0.001)


def test_pool_of_that_start_on_four_h100():
    """With mem_fraction_static 0.93 the logged tokens lie between low and high."""
    case = field_cases()["vllm-21348-qwen3-235b-fp8-4xh100"]["measured"]
    chosen = SglangSettings(tp_size=4, mem_fraction_static=0.93, quantization="fp8_block")
    found = ENGINE.budget(b.qwen3_235b(), Workload(), b.box(*[79.18] * 4, name="H100"), chosen)
    kv = next(i for i in found.devices[0].items if i.component == "kv_cache")
    assert kv.low_bytes <= case["sglang_tokens"] * 48128 <= kv.high_bytes


def test_image_must_fit_beside_the_share():
    """A large image raises the peak beside the static share, and the bytes are said."""
    model, machine = b.qwen25vl_7b(), b.box(24)
    plain = ENGINE.budget(model, Workload(), machine, SglangSettings())
    image = ENGINE.budget(model, Workload(images=(ImageSize(width=3000, height=3000),)), machine, SglangSettings())
    assert image.devices[0].high_bytes > plain.devices[0].high_bytes
    assert image.image_tokens[0].tokens > 10_000


@settings(max_examples=25, deadline=None)
@given(gib=st.integers(17, 140), share=st.floats(0.3, 0.95))
def test_items_are_bounded(gib, share):
    """Every item is low <= expected <= high, and the ceiling is above the expected sum."""
    device = ENGINE.budget(b.llama31_8b(), Workload(), b.box(gib), SglangSettings(mem_fraction_static=share)).devices[0]
    for item in device.items:
        assert item.low_bytes <= item.expected_bytes <= item.high_bytes
    assert device.expected_bytes <= device.high_bytes


@pytest.mark.parametrize(
    ("given_settings", "reason"),
    [
        ({"tp_size": 3}, "does not divide"),
        ({"tp_size": 8}, "there are 4"),
        ({"mem_fraction_static": 0.3}, "weights alone"),
        ({"context_length": 500_000}, "beyond the model's"),
    ],
)
def test_refusals(given_settings, reason):
    """What SGLang says no to at start is said beforehand."""
    found = ENGINE.budget(b.qwen25vl_7b(), Workload(), b.box(24, 24, 24, 24), SglangSettings(**given_settings))
    assert any(reason in said for said in (*found.refusals, *found.shortfalls)), found


@pytest.mark.parametrize("given_settings", [{"mem_fraction_static": 1.0}, {"tp_size": 0}, {"context_length": 0}])
def test_impossible_settings(given_settings):
    """A value that can mean nothing is the user's to mend."""
    with pytest.raises(UsageError):
        ENGINE.budget(b.llama31_8b(), Workload(), b.box(24), SglangSettings(**given_settings))


def test_mllama_loads_and_the_command_says_so():
    """SGLang kept the architecture that others dropped; its command names the model and the context."""
    model = replace(b.mllama_11b(), hf_id="meta-llama/Llama-3.2-11B-Vision-Instruct")
    assert ENGINE.loads(model).verdict == "supported"
    emitted = ENGINE.emit(model, Workload(context_tokens=8192), b.box(48), SglangSettings(mem_fraction_static=0.8))
    assert emitted.command == (
        "python -m sglang.launch_server --model-path meta-llama/Llama-3.2-11B-Vision-Instruct --context-length 8192 "
        "--mem-fraction-static 0.8"
    )
    assert yaml.safe_load(emitted.config)["services"]["sglang"]["image"] == "lmsysorg/sglang:v0.5.23"


def test_every_setting_is_an_option():
    """Each field of the settings is an option of the table, and the other way round."""
    assert set(options_table(OPTIONS)) == set(SglangSettings.__slots__)
