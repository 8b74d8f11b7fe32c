"""Published cases: every excerpt that carries buffer lines is read back to the digit, in each engine's spelling."""

import gzip
from pathlib import Path

import pytest
import yaml
from log_lines import SPELLINGS, breakdown_log, buffers_of, llama_cpp_log, ollama_estimate_log, vllm_log

from planner.logs import read_text
from planner.logs.llama_cpp_devices import is_host
from planner.units import GIB, MIB

DATA = Path(__file__).resolve().parents[1] / "data" / "field_memory.yaml.gz"
CASES = {case["id"]: case for case in yaml.safe_load(gzip.decompress(DATA.read_bytes()))}
COMPONENTS = {"model": "weights", "kv": "kv_cache", "compute": "compute"}
WITH_BUFFERS = [name for name, case in CASES.items() if any(buffers_of(case))]
WITH_TABLE = [name for name, case in CASES.items() if {"breakdown", "breakdown_projected"} & set(case["measured"])]
PROFILED = [name for name, case in CASES.items() if "model_weights_GiB" in case["measured"]]
ESTIMATED = [name for name, case in CASES.items() if "memory_required_full_GiB" in case["measured"]]


def test_no_kind_of_case_has_gone_missing():
    """The published cases carry as many excerpts of each kind as were counted in them."""
    counts = [len(names) for names in (WITH_BUFFERS, WITH_TABLE, PROFILED, ESTIMATED)]
    assert counts == [64, 9, 14, 15]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name", WITH_BUFFERS)
def test_buffer_lines_to_the_digit(name, spelling):
    """Each buffer comes back with its device, its component and its printed digits, whichever release wrote it."""
    expected = [
        ("Host" if is_host(buffer) else buffer, COMPONENTS[kind], f"{mib:.2f}")
        for kind, buffer, mib in buffers_of(CASES[name])
    ]
    log = read_text(llama_cpp_log(CASES[name], spelling))
    found = [(figure.device, figure.component, f"{figure.n_bytes / MIB:.2f}") for figure in log.figures]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("name", [name for name in WITH_BUFFERS if "/" in str(CASES[name]["config"].get("ngl", ""))])
def test_settings_of_the_same_excerpts(name):
    """Context, ubatch and offloaded layers of the excerpt come back."""
    config = CASES[name]["config"]
    settings = read_text(llama_cpp_log(CASES[name], "2026")).settings
    asked, whole = map(int, config["ngl"].split("/"))
    assert settings["n_gpu_layers"] == (-1 if asked >= whole else asked)
    assert settings.get("ctx_size") == config.get("ctx")


@pytest.mark.parametrize("name", WITH_TABLE)
def test_tables_to_the_mebibyte(name):
    """The engine's table gives weights, cache and compute; what is unaccounted only counts after the run."""
    measured = CASES[name]["measured"]
    rows = {
        device: row
        for device, row in (measured.get("breakdown") or measured["breakdown_projected"]).items()
        if "model_MiB" in row
    }
    log = read_text(breakdown_log(rows))
    found = {(figure.device, figure.component): figure.n_bytes // MIB for figure in log.figures}
    for device, row in rows.items():
        assert found[device, "weights"] == row["model_MiB"]
        assert found[device, "kv_cache"] == row.get("context_MiB", 0)
        assert found[device, "compute"] == row.get("compute_MiB", 0)
        after = row.get("unaccounted_MiB", -1)
        assert found.get((device, "overhead")) == (after if after >= 0 else None)


@pytest.mark.parametrize("name", PROFILED)
def test_profiles_of_vllm_to_the_digit(name):
    """Weights, memory outside torch, the peak and the pool come back in binary units, whatever the log called them."""
    measured = CASES[name]["measured"]
    log = read_text(vllm_log(measured))
    found = {figure.term: figure for figure in log.figures}
    weights = measured.get("load_weights_GB", measured["model_weights_GiB"])
    assert found["model loading"].n_bytes == pytest.approx(weights * GIB, abs=1)
    for term, key in (("non-torch", "non_torch_memory_GiB"), ("activation peak", "pytorch_activation_peak_GiB")):
        if key in measured:
            assert f"{found[term].n_bytes / GIB:.2f}" == f"{measured[key]:.2f}"
    if "kv_cache_GiB" in measured:
        assert f"{found['KV pool'].n_bytes / GIB:.2f}" == f"{measured['kv_cache_GiB']:.2f}"
    assert log.facts.get("kv_tokens") == measured.get("kv_tokens")


@pytest.mark.parametrize("name", ESTIMATED)
def test_estimates_of_ollama_to_the_digit(name):
    """The scheduler's terms come back, marked as estimates."""
    measured = CASES[name]["measured"]
    found = {figure.term: figure for figure in read_text(ollama_estimate_log(measured)).figures}
    assert {figure.moment for figure in found.values()} == {"estimate"}
    assert f"{found['memory.required.full'].n_bytes / GIB:.1f}" == f"{measured['memory_required_full_GiB']:.1f}"
    for key, term, unit in (
        ("weights_total_GiB", "memory.weights.total", GIB),
        ("graph_full_MiB", "memory.graph.full", MIB),
    ):
        if key in measured:
            assert f"{found[term].n_bytes / unit:.1f}" == f"{measured[key]:.1f}"


@pytest.mark.parametrize(
    ("line", "component", "mib"),
    [
        ("clip_model_load: params backend buffer size =  2537.81 MB (520 tensors)", "weights", "2537.81"),
        ("clip_model_load: compute allocated memory: 198.93 MB", "compute", "198.93"),
        ("mllama_model_load: compute allocated memory: 2853.34 MB", "compute", "2853.34"),
        ("alloc_compute_meta:      ROCm0 compute buffer size =   100.30 MiB", "compute", "100.30"),
        ("load_hparams: model size:         1291.40 MiB", "weights", "1291.40"),
    ],
)
def test_lines_of_the_vision_tower(line, component, mib):
    """The tower's lines of old and new builds count as vision; its "MB" are binary."""
    (figure,) = read_text(f"clip_ctx: CLIP using ROCm0 backend\n{line}").figures
    assert (figure.device, figure.component, figure.part) == ("ROCm0", component, "vision")
    assert f"{figure.n_bytes / MIB:.2f}" == mib
