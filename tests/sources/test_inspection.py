"""A profile written from a file or folder loads back to the same model and the same tensors."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date

import pytest
import yaml
from gguf_headers import headers, language_headers, read_bytes
from sources.checkpoints import gguf_bytes, tiny_llama
from sources.configurations import CONFIGURATIONS
from sources.test_hf import TINY, folder, read

from planner.catalog.build import model_of
from planner.catalog.foreign import parse_foreign_yaml
from planner.catalog.merging import unfolded
from planner.catalog.models import load_model, with_tensors
from planner.catalog.profile import Profile
from planner.catalog.writing import profile_name, profile_yaml
from planner.errors import UsageError
from planner.report.inspection import inspection_mapping, inspection_screen
from planner.sources.gguf.model import model_from_files
from planner.sources.image_rules import with_mtmd_rule
from planner.sources.inspection import inspect, kv_bytes_per_token
from planner.sources.opening import open_model
from planner.strict import read_record

DAY = date(2026, 11, 20)
STEMS = sorted({name.rsplit(".", 2)[0] for name in language_headers()})


def loaded(text):
    """Return the model of a profile's text."""
    return model_of(read_record(Profile, unfolded(parse_foreign_yaml(text, "p.yaml"), gguf=True)))


def stored(tensors):
    """Return tensors by name, as they are stored."""
    return {tensor.name: (tensor.shape, tensor.format) for tensor in tensors}


@pytest.mark.parametrize("stem", STEMS)
def test_profile_of_a_file_loads_back(stem):
    """For every true header in four file types: the profile gives the same layers, facts, tensors and formats."""
    projector = headers().get(f"mmproj-{stem}.gguf")
    for kind in ("F16", "Q4_0", "Q4_K_M", "Q8_0"):
        file = read_bytes(headers()[f"{stem}.{kind}.gguf"], f"{stem}.{kind}.gguf")
        vision = read_bytes(projector, "mmproj.gguf") if projector else None
        model = with_mtmd_rule(model_from_files(file, vision))
        back = loaded(profile_yaml(model, checked=DAY))
        assert replace(back.language, tensors=()) == replace(model.language, tensors=())
        assert back.parameters == model.parameters
        whole = with_tensors(back, kind)
        assert stored(whole.language.tensors) == stored(model.language.tensors)
        if model.vision is not None:
            assert whole.vision is not None
            assert stored(whole.vision.tensors) == stored(model.vision.tensors)
            assert whole.vision.rules == model.vision.rules


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_profile_of_a_folder_loads_back(tmp_path, name):
    """The profile of a folder gives the folder's model: layers, tower, rules, facts."""
    model = read(folder(tmp_path / name, *CONFIGURATIONS[name]))
    back = loaded(profile_yaml(model, checked=DAY))
    assert back.language == model.language
    assert back.vision == model.vision
    assert (back.family, back.architecture_class) == (model.family, model.architecture_class)


@pytest.mark.parametrize(("name", "kept"), [("qwen2.5-vl-7b", ()), ("gpt-oss-20b", ("MXFP4_MOE",))])
def test_a_type_that_is_only_the_usual_one_limits_no_profile(name, kept):
    """What is planned as Q4_K_M unless told otherwise may be had in any type; what exists in one alone stays so."""
    written = yaml.safe_load(profile_yaml(load_model(name), checked=DAY))
    assert tuple(written.get("quantizations", ())) == kept


def test_profile_of_unknown_layers_is_refused(tmp_path):
    """A profile is written only where it can lead to a budget."""
    model = read(folder(tmp_path / "m", {**TINY, "model_type": "brandnew", "mamba_d_state": 16}))
    with pytest.raises(UsageError, match="brandnew"):
        profile_yaml(model, checked=DAY)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Qwen2.5 VL 7B Instruct", "qwen2.5-vl-7b-instruct"),
        ("../../etc/passwd", "etc-passwd"),
        ("a..b", "a.b"),
        ("", "model"),
        ("Ä", "model"),
    ],
)
def test_names_of_profiles_are_names_of_files(text, name):
    """Whatever a file calls itself, the profile's name is a plain file name."""
    assert profile_name(text) == name


def test_inspection_counts_what_is_stored(tmp_path):
    """Formats by bytes sum to the tensors, layers by kind to the layers."""
    path = tmp_path / "tiny.gguf"
    path.write_bytes(gguf_bytes(*tiny_llama()))
    model = open_model(str(path))
    found = inspect(model)
    assert sum(kind.n_layers for kind in found.kinds) == found.n_layers == 2
    assert sum(each.n_tensors for each in found.formats) == len(model.language.tensors)
    assert found.kv_bytes_per_token == 2 * 2 * 2 * (16 + 16)
    assert found.parameters == model.parameters
    screen, mapping = inspection_screen(found), inspection_mapping(found)
    assert "2 x      full attention, 4 heads, 2 KV heads of 16; dense, 128 wide" in screen
    assert json.loads(json.dumps(mapping))["kv_bytes_per_token"] == 256


def test_inspection_says_what_is_unknown(tmp_path):
    """An unknown architecture shows exact bytes and an unknown cache, never a zero."""
    model = read(folder(tmp_path / "m", {**TINY, "model_type": "brandnew", "mamba_d_state": 16}))
    found = inspect(model)
    assert found.kv_bytes_per_token is None
    assert "KV cache      unknown" in inspection_screen(found)
    assert "kv_bytes_per_token" not in inspection_mapping(found)


def test_every_profile_can_be_inspected():
    """The words of every layer kind in the catalogue fit on a line; growth per token is known."""
    for name in (
        "gemma-4-e2b",
        "kimi-vl-a3b",
        "qwen3.5-35b-a3b",
        "lfm2-vl-450m",
        "llama-3.2-11b-vision",
        "gpt-oss-20b",
    ):
        model = load_model(name, None, "gguf")
        found = inspect(model)
        assert all(len(kind.words) < 110 for kind in found.kinds)
        assert found.kv_bytes_per_token
        assert kv_bytes_per_token(model.language.layers) == found.kv_bytes_per_token
        assert found.name in inspection_screen(found)
