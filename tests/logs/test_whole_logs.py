"""Whole logs, each written down with what it says: every figure to the digit, the settings, the model, the devices."""

from pathlib import Path

import pytest

from planner.logs import read_log
from planner.units import GIB, MIB

LOGS = Path(__file__).resolve().parents[1] / "data" / "logs"
UNITS = {"MiB": MIB, "GiB": GIB, "GB": GIB, "MB": MIB, "B": 1}

# device, component, part, moment, the number and unit as printed | the log's word for it
FIGURES = {
    "ik_latent_cache.log": """
        Host weights language load 212744.00 MiB | model buffer
        Host weights language load 938.98 MiB | model buffer
        CUDA0 weights language load 17744.02 MiB | model buffer
        CUDA0 kv_cache language load 1166.65 MiB | KV buffer
        Host overhead language load 0.49 MiB | output buffer
        CUDA0 compute language load 3588.01 MiB | compute buffer
        Host compute language load 312.02 MiB | compute buffer
    """,
    "llama_2024_two_gpus.log": """
        Host weights language load 22994.45 MiB | model buffer
        CUDA0 weights language load 12633.25 MiB | model buffer
        CUDA1 weights language load 8652.00 MiB | model buffer
        Host kv_cache language load 64.00 MiB | KV buffer
        CUDA0 kv_cache language load 1472.00 MiB | KV buffer
        CUDA1 kv_cache language load 1024.00 MiB | KV buffer
        Host overhead language load 0.98 MiB | output buffer
        CUDA0 compute language load 1108.50 MiB | compute buffer
    """,
    "llama_cli_cpu.log": """
        Host weights language load 4460.45 MiB | model buffer (mapped file)
        Host weights language load 2976.75 MiB | model buffer (repacked)
        Host overhead language load 0.58 MiB | output buffer
        Host kv_cache language load 448.00 MiB | KV buffer
        Host compute language load 311.00 MiB | compute buffer
    """,
    "llama_cli_hybrid_partial.log": """
        Host weights language load 571.15 MiB | model buffer (mapped file)
        CUDA0 weights language load 1031.62 MiB | model buffer
        Host overhead language load 0.95 MiB | output buffer
        Host kv_cache language load 16.00 MiB | KV buffer
        CUDA0 kv_cache language load 80.00 MiB | KV buffer
        Host kv_cache language load 4.28 MiB | RS buffer
        CUDA0 kv_cache language load 14.98 MiB | RS buffer
        CUDA0 compute language load 493.00 MiB | compute buffer
        Host compute language load 24.09 MiB | compute buffer
    """,
    "llama_cli_partial_no_flash.log": """
        Host weights language load 8036.70 MiB | model buffer (mapped file)
        CUDA0 weights language load 11498.41 MiB | model buffer
        Host overhead language load 0.58 MiB | output buffer
        Host kv_cache language load 400.00 MiB | KV buffer
        CUDA0 kv_cache language load 624.00 MiB | KV buffer
        CUDA0 compute language load 378.02 MiB | compute buffer
        Host compute language load 32.01 MiB | compute buffer
    """,
    "llama_cli_two_gpus.log": """
        Host weights language load 292.36 MiB | model buffer (mapped file)
        CUDA0 weights language load 2388.25 MiB | model buffer
        CUDA1 weights language load 1779.84 MiB | model buffer
        Host overhead language load 0.58 MiB | output buffer
        CUDA0 kv_cache language load 288.00 MiB | KV buffer
        CUDA1 kv_cache language load 160.00 MiB | KV buffer
        CUDA0 compute language load 192.06 MiB | compute buffer
        CUDA1 compute language load 364.07 MiB | compute buffer
        Host compute language load 67.08 MiB | compute buffer
    """,
    "llama_cuda_breakdown.log": """
        CUDA0 weights language load 17904 MiB | model
        CUDA0 kv_cache language load 384 MiB | context
        CUDA0 compute language load 898 MiB | compute
        Host weights language load 58259 MiB | model
        Host kv_cache language load 0 MiB | context
        Host compute language load 12 MiB | compute
        CUDA0 overhead language outside 3945 MiB | unaccounted
    """,
    "llama_metal_breakdown.log": """
        MTL0 weights language load 2368 MiB | model
        MTL0 kv_cache language load 334 MiB | context
        MTL0 compute language load 517 MiB | compute
        Host weights language load 525 MiB | model
        Host kv_cache language load 0 MiB | context
        Host compute language load 29 MiB | compute
        MTL0 overhead language outside 0 MiB | unaccounted
    """,
    "llama_server_one_gpu.log": """
        Host weights language load 292.36 MiB | model buffer (mapped file)
        CUDA0 weights language load 4168.09 MiB | model buffer
        Host overhead language load 2.32 MiB | output buffer
        CUDA0 kv_cache language load 476.00 MiB | KV buffer
        CUDA0 compute language load 148.09 MiB | compute buffer
        Host compute language load 30.10 MiB | compute buffer
    """,
    "llama_server_vision.log": """
        Host weights language load 292.36 MiB | model buffer (mapped file)
        CUDA0 weights language load 4168.09 MiB | model buffer
        Host overhead language load 2.32 MiB | output buffer
        CUDA0 kv_cache language load 476.00 MiB | KV buffer
        CUDA0 compute language load 148.09 MiB | compute buffer
        Host compute language load 30.10 MiB | compute buffer
        CUDA0 weights vision load 1291.40 MiB | projector
        CUDA0 compute vision load 704.79 MiB | compute buffer
        Host compute vision load 292.41 MiB | compute buffer
    """,
    "nvidia_smi_gpus.csv": """
        CUDA0 total all outside 15005 MiB | memory.used
        CUDA1 total all outside 617 MiB | memory.used
    """,
    "nvidia_smi_processes.csv": """
        CUDA0 total all outside 5090 MiB | process 4711 llama-server
        CUDA0 total all outside 91 MiB | process 812 gnome-shell
    """,
    "ollama_engine.log": """
        Host weights all load 1.7 GiB | model weights
        CUDA0 weights all load 12.7 GiB | model weights
        CUDA0 compute all load 167.7 MiB | compute graph
        Host compute all load 9.0 GiB | compute graph
    """,
    "ollama_estimate.log": """
        CUDA0 total all estimate 17.8 GiB | memory.required.allocations
        CUDA1 total all estimate 7.9 GiB | memory.required.allocations
        all total all estimate 25.6 GiB | memory.required.full
        all kv_cache language estimate 640.0 MiB | memory.required.kv
        all weights language estimate 13.1 GiB | memory.weights.total
        all compute language estimate 426.7 MiB | memory.graph.full
        all weights vision estimate 769.3 MiB | projector.weights
        all compute vision estimate 8.8 GiB | projector.graph
    """,
    "ollama_llama_lines.log": """
        Host weights language load 292.36 MiB | model buffer (mapped file)
        CUDA0 weights language load 4168.09 MiB | model buffer
    """,
    "torch_summary.txt": """
        CUDA0 total all load 15829 MiB | allocated now
        CUDA0 total all peak 16482 MiB | allocated peak
        CUDA0 total all load 16610 MiB | reserved now
        CUDA0 total all peak 16610 MiB | reserved peak
    """,
    "vllm_2025_profile.log": """
        CUDA0 weights all load 14.9888 GB | model loading
        CUDA0 overhead all load 0.05 GiB | non-torch
        CUDA0 compute all peak 0.22 GiB | activation peak
        CUDA0 kv_cache all load 4.60 GiB | KV pool
    """,
    "vllm_2026_two_ranks.log": """
        CUDA0 weights all load 11.42 GiB | model loading
        CUDA1 weights all load 11.42 GiB | model loading
        CUDA0 kv_cache all load 8.16 GiB | KV pool
        CUDA1 kv_cache all load 8.16 GiB | KV pool
        CUDA0 overhead all load 0.11 GiB | CUDA graphs
    """,
    "vllm_one_gpu_vision.log": """
        CUDA0 weights all load 15.6269 GiB | model loading
    """,
}

SETTINGS = {
    "ik_latent_cache.log": {"ctx_size": 32768, "ubatch_size": 2048, "cache_type_k": "q8_0", "n_gpu_layers": -1},
    "llama_2024_two_gpus.log": {"ctx_size": 8192, "flash_attn": "off", "n_gpu_layers": 79, "cache_type_v": "f16"},
    "llama_cli_cpu.log": {"ctx_size": 8192, "n_gpu_layers": 0, "program": "llama-cli"},
    "llama_cli_hybrid_partial.log": {"n_gpu_layers": 20, "flash_attn": "on"},
    "llama_cli_partial_no_flash.log": {"n_gpu_layers": 40, "flash_attn": "off"},
    "llama_cli_two_gpus.log": {"n_gpu_layers": -1, "parallel": 1, "kv_unified": False},
    "llama_metal_breakdown.log": {"ctx_size": 8192, "parallel": 1},
    "llama_server_one_gpu.log": {"program": "llama-server", "parallel": 4, "kv_unified": True, "cache_type_k": "q8_0"},
    "llama_server_vision.log": {"program": "llama-server", "ctx_size": 16384, "parallel": 4},
    "ollama_engine.log": {"num_gpu": 40},
    "ollama_estimate.log": {"num_ctx": 4096, "num_gpu": 41, "num_parallel": 1, "flash_attention": True},
    "ollama_llama_lines.log": {"num_ctx": 2048, "num_parallel": 4, "num_gpu": -1, "flash_attention": False},
    "vllm_2025_profile.log": {"max_model_len": 131072, "gpu_memory_utilization": 0.9, "tensor_parallel_size": 1},
    "vllm_2026_two_ranks.log": {"max_model_len": 131072, "tensor_parallel_size": 2, "max_num_batched_tokens": 8192},
    "vllm_one_gpu_vision.log": {"max_model_len": 8192},
}

# engine, its version, the model's name, its file type
HEADS = {
    "ik_latent_cache.log": ("llama.cpp", "b3822", "DeepSeek V3 0324", None),
    "llama_2024_two_gpus.log": ("llama.cpp", "an older build", "Meta Llama 3.1 70B Instruct", None),
    "llama_cuda_breakdown.log": ("llama.cpp", "b6895", None, None),
    "llama_metal_breakdown.log": ("llama.cpp", "an older build", "gemma-3-4b-it", "Q4_K_M"),
    "llama_server_one_gpu.log": ("llama.cpp", "b9867", "qwen2.5-vl-7b", "Q4_K_M"),
    "ollama_engine.log": ("ollama", "0.7.1", "Mistral-Small-3.1-24B", "Q4_K_M"),
    "ollama_estimate.log": ("ollama", "0.6.8", "Mistral-Small-3.1-24B-Instruct-2503", "Q4_K_M"),
    "ollama_llama_lines.log": ("ollama", "0.5.7", "Qwen2 VL 7B Instruct", "Q4_K_M"),
    "vllm_2025_profile.log": ("vllm", "0.8.2", "meta-llama/Llama-3.1-8B", None),
    "vllm_2026_two_ranks.log": ("vllm", "0.20.0", "google/gemma-4-12b-it", None),
    "nvidia_smi_gpus.csv": (None, None, None, None),
    "torch_summary.txt": ("transformers", None, None, None),
}

# device: name, total MiB, free MiB
DEVICES = {
    "llama_server_one_gpu.log": {"CUDA0": ("NVIDIA GeForce RTX 3090", 24159, 23256)},
    "llama_cli_two_gpus.log": {
        "CUDA0": ("NVIDIA GeForce RTX 3060", 12044, 11900),
        "CUDA1": ("NVIDIA GeForce RTX 3060", 12042, 7900),
    },
    "llama_cuda_breakdown.log": {"CUDA0": ("NVIDIA GeForce RTX 4090", 24077, 24077)},
    "llama_metal_breakdown.log": {"MTL0": ("Apple M3 Max", 49152, 49151)},
    "nvidia_smi_gpus.csv": {
        "CUDA0": ("NVIDIA GeForce RTX 3090", 24576, None),
        "CUDA1": ("NVIDIA GeForce RTX 3060", 12288, None),
    },
}


def test_there_are_at_least_ten_and_none_is_forgotten():
    """Every log that is kept has its figures written down here."""
    assert len(FIGURES) >= 10
    assert {path.name for path in LOGS.iterdir()} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figures_to_the_digit(name):
    """Each figure is the printed number, and the range around it is what prints to the same digits."""
    expected = [line.strip().split(" | ") for line in FIGURES[name].strip().splitlines()]
    found = read_log(LOGS / name).figures
    assert len(found) == len(expected)
    for figure, (words, term) in zip(found, expected, strict=True):
        *place, number, unit = words.split()
        assert [figure.device, figure.component, figure.part, figure.moment] == place
        assert figure.term == term
        digits = len(number.partition(".")[2])
        assert f"{figure.n_bytes / UNITS[unit]:.{digits}f}" == number
        assert figure.low_bytes <= figure.n_bytes <= figure.high_bytes
        assert figure.high_bytes - figure.low_bytes <= UNITS[unit] / 10**digits


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_in_the_engines_own_words(name):
    """The settings a log shows come out under the engine's names."""
    found = read_log(LOGS / name).settings
    assert {key: found[key] for key in SETTINGS[name]} == SETTINGS[name]


@pytest.mark.parametrize("name", HEADS)
def test_engine_and_model(name):
    """Engine, version, model and file type are read; what the log does not say stays None."""
    log = read_log(LOGS / name)
    assert (log.engine, log.engine_version, log.model.name, log.model.file_type) == HEADS[name]


@pytest.mark.parametrize("name", DEVICES)
def test_devices_with_their_sizes(name):
    """Names and sizes of the GPUs come from whichever line has them."""
    found = {
        one.device: (one.name, *(None if n is None else n // MIB for n in (one.total_bytes, one.free_bytes)))
        for one in read_log(LOGS / name).devices
    }
    assert found == DEVICES[name]


def test_facts_that_are_no_bytes():
    """Token counts of a KV pool are kept beside the figures."""
    facts = read_log(LOGS / "vllm_2026_two_ranks.log").facts
    assert facts == {"encoder_budget_tokens": 16384, "kv_tokens": 384019, "max_concurrency": "2.93"}
    assert read_log(LOGS / "vllm_2025_profile.log").facts["gpu_blocks"] == 2356


def test_a_dry_load_is_no_measurement():
    """Figures of a load that allocates nothing, and graphs reserved before the last time, do not count."""
    log = read_log(LOGS / "llama_server_vision.log")
    compute = [figure for figure in log.figures if figure.component == "compute" and figure.part == "language"]
    assert [figure.n_bytes // MIB for figure in compute] == [148, 30]
    assert any("2 loads" in remark for remark in log.remarks)
