"""LMDeploy: a cache that is a share of free memory, a tower beside the engine, and what follows from both."""

import ast
from dataclasses import replace

import builders as b
import pytest
import yaml
from field import field_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from test_support import TABLES

from planner.engines.lmdeploy import LmdeploySettings, lmdeploy_engine
from planner.engines.lmdeploy.kv_cache import cache_of
from planner.engines.options import options_table
from planner.errors import UsageError
from planner.workload import ImageSize, Workload

GIB = b.GIB
RULES = yaml.safe_load((b.PROFILES / "engines" / "lmdeploy.yaml").read_text())
OPTIONS = yaml.safe_load((b.PROFILES / "engines" / "options" / "lmdeploy.yaml").read_text())


def engine(version):
    """LMDeploy at one release, with its data."""
    return lmdeploy_engine(version, TABLES, RULES, OPTIONS)


def plan(model, machine, version="0.13.0", context=2048, batch=1, images=(), **given_settings):
    """The budget of one model on one machine."""
    load = Workload(context_tokens=context, batch=batch, images=images)
    return engine(version).budget(model, load, machine, LmdeploySettings(**given_settings))


def items(found, component, device=0):
    """The items of one component on one device."""
    return [i for i in found.devices[device].items if i.component == component]


@pytest.mark.parametrize(
    ("model", "policy", "n_ranks", "n_bytes"),
    [
        (b.minicpm26, 0, 1, 57344),
        (b.minicpm26, 8, 1, 29568),
        (b.minicpm26, 4, 1, 15232),
        (b.minicpm26, 0, 2, 28672),
        (b.minicpm25, 0, 1, 131072),
        (b.minicpm25, 8, 1, 67584),
        (b.minicpm25, 4, 1, 34816),
        (b.minicpm25, 0, 8, 16384),
        (b.minicpm25, 0, 16, 16384),
    ],
)
def test_bytes_per_token(model, policy, n_ranks, n_bytes):
    """K and V of all layers, quantised values with scale and zero; ranks beyond the KV heads keep one head each."""
    assert cache_of(model().language.layers, policy, n_ranks, "turbomind").token_bytes == n_bytes


@pytest.mark.parametrize(
    ("given_settings", "key"), [({}, "fp16_used_GB_about"), ({"model_format": "awq"}, "used_GB_about")]
)
def test_quantising_weights_barely_lowers_use(given_settings, key):
    """An 80 GiB card holds 69 GiB with fp16 weights and 67 with 4-bit ones: the cache takes what they free."""
    measured = field_cases()["lmdeploy-2875-minicpmv2.6-int4"]["measured"][key]
    device = plan(b.minicpm26(), b.box(79.2, name="A800"), "0.6.3", 8192, **given_settings).devices[0]
    assert device.expected_bytes / GIB == pytest.approx(measured, rel=0.02)
    assert device.high_bytes / GIB > measured


def test_tower_whole_on_the_first_gpu():
    """Two A40: 43 and 32 GB are reported; the six-billion tower sits on the first, the cache is equal on both."""
    measured = field_cases()["lmdeploy-1563-internvl1.5-2xA40"]["measured"]["lmdeploy_GB"]
    found = plan(b.internvl15_26b(), b.box(44.42, 44.42, name="A40"), "0.4.1", tp=2)
    assert items(found, "kv_cache", 0)[0].expected_bytes == items(found, "kv_cache", 1)[0].expected_bytes
    for device, gib in zip(found.devices, measured, strict=False):
        assert device.expected_bytes / GIB == pytest.approx(gib, rel=0.04)
        assert device.high_bytes / GIB > gib


def test_sixteen_requests_on_two_gpus():
    """MiniCPM-Llama3-V-2.5, tp 2, sessions of 2,048, batch 16, on LMDeploy 0.13.0: loads, fits two 24 GiB cards."""
    model = b.minicpm25()
    assert engine("0.13.0").loads(model).verdict == "supported"
    assert engine("0.14.0").loads(model).verdict != "supported"
    found = plan(model, b.box(24, 24), tp=2, session_len=2048, max_batch_size=16, batch=16)
    assert not found.refusals
    assert not found.shortfalls
    assert not found.short_devices
    assert items(found, "kv_cache")[0].inputs["tokens_low"] >= 16 * 2048
    assert items(found, "kv_cache")[0].inputs["bytes_per_token"] == 65536


def test_too_small_for_sixteen():
    """On two 10 GiB cards the cache is what is left of almost nothing, and that is said."""
    found = plan(b.minicpm25(), b.box(10, 10), tp=2, session_len=2048, max_batch_size=16, batch=16)
    assert found.shortfalls or found.short_devices


# version, backend, settings, part of the reason
REFUSED = [
    ("0.13.0", {"tp": 3}, "does not divide the 32 attention heads"),
    ("0.13.0", {"tp": 4}, "there are 2"),
    ("0.15.0", {"cache_max_entry_count": 2000.0}, "a count of blocks is refused"),
    ("0.13.0", {"quant_policy": 16}, "TurboMind has 0, 4 and 8"),
    ("0.13.0", {"session_len": 9000}, "beyond the model's 8192 positions"),
    ("0.13.0", {"language_model_only": True}, "has no option language_model_only"),
    ("0.13.0", {"max_batch_size": 4}, "below the 16 requests"),
]


@pytest.mark.parametrize(("version", "given_settings", "reason"), REFUSED)
def test_refusals(version, given_settings, reason):
    """What LMDeploy says no to, or would cut, is said beforehand."""
    machine = b.box(80, 80, 80) if given_settings.get("tp") == 3 else b.box(80, 80)
    found = plan(b.minicpm25(), machine, version, batch=16, backend="turbomind", **given_settings)
    assert any(reason in said for said in (*found.refusals, *found.shortfalls)), found


@pytest.mark.parametrize(
    "given_settings", [{"tp": 0}, {"cache_max_entry_count": 0.0}, {"quant_policy": 5}, {"session_len": 0}]
)
def test_impossible_settings(given_settings):
    """A value that can mean nothing is the user's to mend."""
    with pytest.raises(UsageError):
        plan(b.minicpm25(), b.box(80), **given_settings)


def test_share_of_total_in_the_oldest_releases():
    """0.2.0 took half of the device's total, not of what is free."""
    found = plan(b.llama31_8b(), b.box(40), "0.2.0", 2048)
    kv = items(found, "kv_cache")[0]
    assert 0 <= 20 * GIB - kv.expected_bytes < kv.inputs["block_bytes"]


@settings(max_examples=30, deadline=None)
@given(gib=st.integers(20, 90), share=st.floats(0.05, 0.95), batch=st.integers(1, 64))
def test_items_are_bounded_and_the_ceiling_holds(gib, share, batch):
    """Every item is low <= expected <= high, the ceiling is above the expected sum and below free memory plus slack."""
    found = plan(b.minicpm25(), b.box(gib), cache_max_entry_count=share, max_batch_size=batch)
    device = found.devices[0]
    for item in device.items:
        assert item.low_bytes <= item.expected_bytes <= item.high_bytes
    assert device.expected_bytes <= device.high_bytes


@settings(max_examples=30, deadline=None)
@given(free=st.integers(20, 80))
def test_more_free_memory_never_unfits(free):
    """What fits with some free bytes fits with one GiB more."""
    machine = b.box(81)
    found = [
        plan(b.minicpm25(), replace(machine, gpus=(replace(machine.gpus[0], free_bytes=n * GIB),)), max_batch_size=16)
        for n in (free, free + 1)
    ]
    if not found[0].shortfalls and not found[0].short_devices:
        assert not found[1].shortfalls
        assert not found[1].short_devices


def test_pytorch_engine_keeps_room_for_logits():
    """8,192 tokens and twice the batch, two bytes per vocabulary entry, are left out of the cache."""
    found = plan(
        b.qwen25vl_7b(), b.box(40), "0.18.0", 8192, backend="pytorch", images=(ImageSize(width=640, height=480),)
    )
    assert items(found, "compute")[0].low_bytes == (8192 + 2 * 128) * 152064 * 2
    assert found.settings["backend"] == "pytorch"


def test_emitted_command_and_python():
    """The server's words exist in the release; the Python text parses and says the same."""
    model = replace(b.minicpm25(), hf_id="openbmb/MiniCPM-Llama3-V-2_5")
    chosen = LmdeploySettings(tp=2, session_len=2048, max_batch_size=16, vision_max_batch_size=4)
    emitted = engine("0.13.0").emit(model, Workload(context_tokens=2048), b.box(24, 24), chosen)
    assert emitted.command == (
        "lmdeploy serve api_server openbmb/MiniCPM-Llama3-V-2_5 --backend turbomind --session-len 2048 --tp 2 "
        "--max-batch-size 16 --vision-max-batch-size 4 --trust-remote-code"
    )
    ast.parse(emitted.config)
    assert "TurbomindEngineConfig(tp=2, session_len=2048, max_batch_size=16)" in emitted.config
    assert "VisionConfig(max_batch_size=4), trust_remote_code=True)" in emitted.config
    older = engine("0.12.0").emit(model, Workload(context_tokens=2048), b.box(24, 24), chosen)
    assert "trust" not in older.command + older.config


def test_every_setting_is_an_option():
    """Each field of the settings is an option of the table, and the other way round."""
    assert set(options_table(OPTIONS)) == set(LmdeploySettings.__slots__)
