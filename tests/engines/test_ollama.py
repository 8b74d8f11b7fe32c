"""Ollama: what it hands to llama-server, and what its own runner took before that."""

import json
from dataclasses import replace

import builders as b
import pytest
import yaml
from field import field_cases
from test_support import TABLES

from planner.budget import Budget, DeviceBudget
from planner.catalog import load_model
from planner.engines.ollama import OllamaSettings, ollama_engine
from planner.engines.ollama.own_runner import cache_bytes, cross_tokens, graph_span, own_runner_budget
from planner.engines.ollama.server import (
    automatic_batch,
    default_context,
    fit_target_mib,
    llama_server_settings,
    projector_on_cpu,
    projector_size,
)
from planner.engines.ollama.settings import ollama_rules
from planner.engines.options import options_table
from planner.engines.span import fixed, span_item
from planner.errors import UsageError
from planner.machine import Machine
from planner.workload import Workload

GIB, MIB = b.GIB, 1 << 20
DATA = yaml.safe_load((b.PROFILES / "engines" / "ollama.yaml").read_text())
OPTIONS = yaml.safe_load((b.PROFILES / "engines" / "options" / "ollama.yaml").read_text())
RULES = ollama_rules(DATA, options_table(OPTIONS))


def start(model, machine, version="0.33.0", context=8192, sequences=1, **given):
    """What Ollama starts llama-server with."""
    load = Workload(context_tokens=context, sequences=sequences)
    return llama_server_settings(model, load, machine, OllamaSettings(**given), version, RULES)


def qwen():
    """Qwen2.5-VL 7B in Ollama's usual type."""
    return load_model("qwen2.5-vl-7b", "q4_k_m", "gguf")


@pytest.mark.parametrize(
    ("gib", "version", "tokens"),
    [
        ((8,), "0.30.0", 4096),
        ((22.9,), "0.30.0", 4096),
        ((24,), "0.30.0", 32768),
        ((12, 12), "0.15.5", 32768),
        ((24, 24), "0.30.0", 262144),
        ((80,), "0.15.4", 4096),
        ((80,), "0.5.13", 2048),
    ],
)
def test_context_by_memory(gib, version, tokens):
    """4k, 32k or 256k by the sum of the GPUs since 0.15.5; fixed before."""
    assert default_context(b.box(*gib), 0, version) == tokens


def test_overhead_lowers_the_tier():
    """OLLAMA_GPU_OVERHEAD counts against the total."""
    assert default_context(b.box(24), 2 * GIB, "0.30.0") == 4096


def test_words_for_llama_server():
    """-c is num_ctx times the slots, both batches are one, images have a floor, the projector's room is kept."""
    found = start(qwen(), b.box(24), sequences=2, num_parallel=2)
    assert found.settings["ctx_size"] == 16384
    assert found.settings["parallel"] == 2
    assert found.settings["batch_size"] == found.settings["ubatch_size"] == 1024
    assert found.settings["image_min_tokens"] == 1024
    assert found.settings["fit_target"] == [-(-(projector_size(qwen()) + GIB) // MIB)]
    assert "n_gpu_layers" not in found.settings


@pytest.mark.parametrize(
    ("name", "version", "slots"),
    [
        ("qwen3-vl-8b", "0.30.0", 1),
        ("qwen3-vl-8b", "0.12.6", 4),
        ("qwen2.5-vl-7b", "0.30.0", 4),
        ("qwen3.5-4b", "0.30.0", 1),
    ],
)
def test_one_slot(name, version, slots):
    """Some architectures get one slot whatever is asked, and it is said."""
    found = start(load_model(name, "q4_k_m", "gguf"), b.box(48), version, num_parallel=4)
    assert found.parallel == slots
    assert any("one slot" in note for note in found.notes) is (slots == 1)


@pytest.mark.parametrize(
    ("machine", "given", "reason"),
    [
        (b.box(24), {"num_gpu": 0}, "no layer"),
        (b.box(24), {"num_gpu": 10}, "only part"),
        (b.box(24), {"num_gpu": 29}, None),
        (b.box(2), {}, "less than"),
        (b.box(24, 2), {}, "less than"),
        (Machine(gpus=(), host=b.box(1).host), {}, "no layer"),
        (b.box(24), {}, None),
    ],
)
def test_projector_on_the_cpu(machine, given, reason):
    """The projector leaves the GPU when layers do, or when any GPU is short of its bytes and a GiB."""
    said = projector_on_cpu(qwen(), machine, OllamaSettings(**given))
    assert (reason in said) if reason else said is None


@pytest.mark.parametrize(
    ("gib", "n_tokens", "flash", "batch"),
    [
        (24, 4096, "auto", 512),
        (24, 8192, "auto", 1024),
        (80, 65536, "auto", 2048),
        (9, 32768, "auto", 1024),
        (8, 32768, "auto", 512),
        (8, 8192, "off", 256),
        (24, 8192, "off", 512),
    ],
)
def test_batch_by_context_and_room(gib, n_tokens, flash, batch):
    """512, 1024 or 2048 by context, less where the guess leaves no room, small without flash attention."""
    assert automatic_batch(qwen(), b.box(gib).gpus, n_tokens, flash=flash) == batch


def test_context_is_raised_for_vision_and_cut_to_training():
    """At least 2,048 with a projector, never above the training context."""
    assert start(qwen(), b.box(24), context=512).num_ctx == 2048
    assert start(qwen(), b.box(24), num_ctx=1_000_000).num_ctx == 128000


def test_one_gpu_is_chosen_where_the_guess_fits():
    """Two cards: one is used when the guess is within 80 % of what it has free, both when spread or too large."""
    assert start(qwen(), b.box(24, 16)).gpu_index == 0
    assert start(qwen(), b.box(24, 16), sched_spread=True).gpu_index is None
    assert start(qwen(), b.box(6, 6), context=32768).gpu_index is None


@pytest.mark.parametrize("given", [{"num_ctx": 0}, {"num_gpu": -2}, {"gpu_overhead": -1}, {"num_parallel": 0}])
def test_impossible_parameters(given):
    """A value that can mean nothing is the user's to mend."""
    with pytest.raises(UsageError):
        start(qwen(), b.box(24), **given)


# the runner before 0.30, by its own logs
def test_cache_of_cross_layers_to_the_printed_digit():
    """656.2 MiB for 11B and 1.6 GiB for 90B at 2,048 tokens: cross layers keep 6,404 tokens in 32 bit."""
    cases = field_cases()
    model = load_model("llama-3.2-11b-vision", "q4_k_m", "gguf")
    assert cross_tokens(model.vision) == 6404
    small = sum(cache_bytes(model.language, 2048, 6404)) / MIB
    assert abs(small - cases["ollama-9311-llama3.2-vision-11b-ctx2048"]["measured"]["memory_required_kv_MiB"]) <= 0.05
    large = sum(cache_bytes(load_model("llama-3.2-90b-vision", "q4_k_m", "gguf").language, 2048, 6404)) / GIB
    assert round(large, 1) == cases["ollama-7664-llama3.2-vision-90b-4gpu"]["measured"]["memory_required_kv_GiB"]


def test_graph_of_the_whole_text_model():
    """258.5 MiB for 11B: a batch of 512 times width and vocabulary, 4 bytes each."""
    measured = field_cases()["ollama-9311-llama3.2-vision-11b-ctx2048"]["measured"]
    language = load_model("llama-3.2-11b-vision", "q4_k_m", "gguf").language
    assert round(graph_span(language, whole=True).expected / MIB, 1) == measured["graph_full_MiB"]
    assert graph_span(language, whole=False).high / MIB == pytest.approx(measured["graph_partial_MiB"], rel=0.01)


@pytest.mark.parametrize(
    ("name", "case", "key"),
    [
        ("llama-3.2-11b-vision", "ollama-9311-llama3.2-vision-11b-ctx2048", "weights_total_GiB"),
        ("llama-3.2-90b-vision", "ollama-7664-llama3.2-vision-90b-4gpu", "weights_total_GiB"),
    ],
)
def test_weights_of_the_old_runner(name, case, key):
    """The text model's tensors are within 1 % of what the logs print to one digit."""
    found = own_runner_budget(
        load_model(name, "q4_k_m", "gguf"), Workload(context_tokens=2048), b.box(80), OllamaSettings()
    )
    total = sum(
        i.expected_bytes for d in found.devices for i in d.items if (i.component, i.part) == ("weights", "language")
    )
    assert total / GIB == pytest.approx(field_cases()[case]["measured"][key], rel=0.01)
    tower = next(i for i in found.devices[0].items if (i.component, i.part) == ("weights", "vision"))
    assert tower.low_bytes / GIB <= field_cases()[case]["measured"]["projector_weights_GiB"] + 0.05
    assert tower.high_bytes / GIB >= field_cases()[case]["measured"]["projector_weights_GiB"] - 0.05


def test_old_runner_total_against_its_own_estimate():
    """The log asks for 11.3 GiB with all 41 layers and 21.6 GiB free; so do we, to 4 %, and high is above."""
    case = field_cases()["ollama-9311-llama3.2-vision-11b-ctx2048"]["measured"]
    model = load_model("llama-3.2-11b-vision", "q4_k_m", "gguf")
    device = own_runner_budget(model, Workload(context_tokens=2048), b.box(21.6), OllamaSettings()).devices[0]
    assert device.layers == (0, 39)
    assert device.has_output
    assert device.expected_bytes / GIB == pytest.approx(case["memory_required_full_GiB"], rel=0.04)
    assert device.high_bytes / GIB > case["memory_required_full_GiB"]


def test_old_runner_offloads_part():
    """With 10.6 GiB free, printed to 0.1 GiB, the log puts 34 layers of 0.15 GiB on the GPU; so do we, to one."""
    case = field_cases()["ollama-8310-llama3.2-vision-11b-partial"]
    model = load_model("llama-3.2-11b-vision", "q4_k_m", "gguf")
    found = own_runner_budget(model, Workload(context_tokens=2048), b.box(10.6), OllamaSettings())
    assert abs(found.settings["num_gpu"] - case["config"]["ngl"]) <= 1
    assert found.devices[0].expected_bytes / GIB == pytest.approx(
        case["measured"]["memory_required_partial_GiB"], rel=0.03
    )
    whole = own_runner_budget(model, Workload(context_tokens=2048), b.box(80), OllamaSettings())

    def total(budget, component):
        return sum(
            i.expected_bytes
            for d in budget.devices
            for i in d.items
            if (i.component, i.part) == (component, "language")
        )

    assert total(found, "weights") == total(whole, "weights")
    assert total(found, "kv_cache") == total(whole, "kv_cache")


def linear(model, _workload, machine, settings):
    """A stand-in for llama.cpp's budget: 200 MiB a layer on the GPU."""
    n = model.language.n_layers + 1 if settings.n_gpu_layers < 0 else settings.n_gpu_layers
    gpu = machine.gpus[0]
    items = (span_item("weights", "language", fixed(n * 200 * MIB), basis="exact", formula="", source=""),)
    device = DeviceBudget(device="CUDA0", name="", total_bytes=gpu.total_bytes, free_bytes=gpu.free_bytes, items=items)
    return Budget(devices=(device,), settings={"n_gpu_layers": n, "ctx_size": settings.ctx_size})


def test_layers_are_fitted_to_the_target():
    """With num_gpu left to the engine as many layers go to the GPU as leave the margin free, and not one more."""
    engine = ollama_engine("0.33.0", TABLES, DATA, OPTIONS, linear)
    model = replace(qwen(), vision=None)
    found = engine.budget(model, Workload(), b.box(5), OllamaSettings())
    n = found.settings["n_gpu_layers"]
    assert 5 * 1024 - 200 * n >= fit_target_mib(model) > 5 * 1024 - 200 * (n + 1)
    assert engine.budget(model, Workload(), b.box(24), OllamaSettings()).settings["n_gpu_layers"] == 29


def test_versions_choose_the_engine():
    """llama3.2-vision is refused from 0.30 on; on 0.24 the old runner answers."""
    model = load_model("llama-3.2-11b-vision", "q4_k_m", "gguf")
    assert ollama_engine("0.30.0", TABLES, DATA, OPTIONS, linear).loads(model).verdict == "unsupported"
    old = ollama_engine("0.24.0", TABLES, DATA, OPTIONS, linear)
    assert old.loads(model).verdict == "supported"
    assert any(
        "own runner" in n or "this runner" in n
        for n in old.budget(model, Workload(), b.box(24), OllamaSettings()).notes
    )


def test_emitted_modelfile_and_environment():
    """Parameters go into the Modelfile and the API, server words into the environment; no flag that does not exist."""
    engine = ollama_engine("0.33.0", TABLES, DATA, OPTIONS, linear)
    chosen = OllamaSettings(num_gpu=20, flash_attention=True, kv_cache_type="q8_0")
    emitted = engine.emit(qwen(), Workload(context_tokens=8192), b.box(24), chosen)
    assert emitted.command.startswith("OLLAMA_FLASH_ATTENTION=1 OLLAMA_KV_CACHE_TYPE=q8_0 ollama serve")
    lines = emitted.config.splitlines()
    assert lines[1:3] == ["PARAMETER num_ctx 8192", "PARAMETER num_gpu 20"]
    assert json.loads(lines[-1].removeprefix("# per request: ")) == {"options": {"num_ctx": 8192, "num_gpu": 20}}


def test_every_setting_is_an_option():
    """Each field of the settings is an option of the table, and the other way round."""
    assert set(options_table(OPTIONS)) == set(OllamaSettings.__slots__)
