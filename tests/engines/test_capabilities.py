"""A GPU too old for an engine, or for a setting, is named before anything is downloaded."""

import pytest

from planner import estimate
from planner.catalog import load_data
from planner.catalog.engines import load_engine
from planner.engines.capabilities import applying, capability_rules

ROWS = load_data("engines/capabilities.yaml")


def judged(engine, gpus, version=None, **settings):
    """Return the answer for a small model on cards by name."""
    request = {
        "model": "qwen2-vl-2b",
        "engine": engine,
        "settings": settings,
        "machine": {"gpus": [{"name": name} for name in gpus], "ram": "64GiB"},
    }
    return estimate(request | ({"engine_version": version} if version else {}))


@pytest.mark.parametrize(
    ("engine", "gpu", "version", "settings", "needed"),
    [
        ("vllm", "V100 32GB", "0.33.0", {}, "7.5"),
        ("vllm", "V100 32GB", "0.14.0", {}, None),
        ("vllm", "T4", "0.33.0", {}, None),
        ("vllm", "P40", "0.14.0", {}, "7.0"),
        ("lmdeploy", "P40", None, {}, "7.0"),
        ("lmdeploy", "T4", None, {}, None),
        ("transformers", "P40", None, {"load_in": "int8"}, "7.5"),
        ("transformers", "P40", None, {"load_in": "nf4"}, None),
        ("transformers", "Tesla M40 24GB", None, {"load_in": "nf4"}, "6.0"),
        ("transformers", "T4", None, {"attn_implementation": "flash_attention_2"}, "8.0"),
        ("transformers", "RTX 3090", None, {"attn_implementation": "flash_attention_2"}, None),
        ("llama.cpp", "Tesla M40 24GB", None, {}, None),
    ],
)
def test_the_card_decides(engine, gpu, version, settings, needed):
    """Below the capability that is asked for the engine will not load it, and the sentence names both figures."""
    found = judged(engine, [gpu], version, **settings)
    said = [reason for reason in found["reasons"] if "needs compute capability" in reason]
    assert (found["verdict"] == "will_not_load") == (needed is not None), found["reasons"]
    assert [f"needs compute capability {needed};" in reason for reason in said] == [True] * (needed is not None)


def test_wheels_for_old_cards_are_a_note():
    """PyTorch runs on a card below 7.5, but not from its default wheels."""
    found = judged("transformers", ["P40"])
    assert found["verdict"] == "fits"
    assert any("CUDA 12.6" in reason for reason in found["reasons"])
    assert not any("CUDA 12.6" in reason for reason in judged("transformers", ["RTX 3090"])["reasons"])


def test_a_card_that_holds_nothing_does_not_matter():
    """An old second card is no reason against a plan on the first."""
    assert judged("vllm", ["RTX 3090", "P40"])["verdict"] == "fits"
    assert judged("vllm", ["P40", "P40"])["verdict"] == "will_not_load"
    assert judged("transformers", ["P40"], load_in="int8", device_map="cpu")["verdict"] != "will_not_load"


def test_every_row_names_an_engine_its_settings_and_a_source():
    """Rows are read by some engine; their settings exist there with that value."""
    for row in ROWS:
        assert row["source"]
        engine = load_engine(row["engine"])
        rules = capability_rules([row], row["engine"])
        chosen = engine.settings(**row.get("setting", {}))
        assert list(applying(rules, "999", chosen)) == list(rules)
