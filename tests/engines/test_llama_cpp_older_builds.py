"""Older llama.cpp builds and files made with an importance matrix: ranges that hold what published logs print."""

from dataclasses import replace

import builders as b
import pytest
from field import field_cases

from planner.catalog import load_model
from planner.catalog.engines import load_engine
from planner.catalog.models import forget_profiles
from planner.engines.llama_cpp.older_builds import is_older
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.workload import Workload

MIB = 1 << 20


def compute(version, model="qwen3-vl-8b", context=16384, device=0, **given):
    """The compute item of one device at one release, text only."""
    engine = load_engine("llama.cpp", version)
    settings = LlamaCppSettings(parallel=1, kv_unified=False, ctx_size=context, **given)
    loaded = load_model(model, "Q4_K_M", "gguf")
    found = engine.budget(loaded, Workload(context_tokens=context), b.box(24), settings)
    return next(i for i in found.devices[device].items if i.component == "compute" and i.part == "language")


@pytest.mark.parametrize(
    ("version", "older"), [("b6895", True), ("B9499", True), ("b9500", False), ("b10456", False), ("0.5", False)]
)
def test_which_builds_are_older(version, older):
    """Builds before the change of May 2026; releases and no version at all are after it."""
    assert is_older(version) is older
    assert not is_older(None)


def test_the_published_buffer_is_the_high_bound():
    """The mask held in F32 and F16 is the whole difference to a log of November 2025: 6 bytes a cell and token."""
    printed = field_cases()["lmstudio-1176-qwen3vl-q8kv"]["measured"]["compute_buffer"]["CUDA0_MiB"]
    given = {"batch_size": 512, "flash_attn": "on", "cache_type_k": "q8_0", "cache_type_v": "q8_0"}
    old = compute("b6895", **given)
    now = compute(None, program="llama-cli", **given)
    assert old.high_bytes - now.expected_bytes == 6 * 16384 * 512
    assert old.high_bytes / MIB == pytest.approx(printed, abs=0.03)
    assert old.low_bytes < now.expected_bytes == old.expected_bytes
    assert old.basis == "modelled"


def test_the_server_reserved_logits_of_every_token():
    """A server of those builds is expected to need what llama-cli needs; today's needs rows of sequences alone."""
    given = {"flash_attn": "on"}
    assert compute("b6895", **given).expected_bytes == compute(None, program="llama-cli", **given).expected_bytes
    assert compute("b6895", **given).expected_bytes > compute(None, **given).expected_bytes


def test_without_flash_attention_no_mask_is_converted():
    """Without flash attention the mask stays F32 in all builds: nothing is added on the GPU."""
    old = compute("b6895", flash_attn="off", program="llama-cli")
    assert old.high_bytes == old.expected_bytes


def test_logits_on_the_host_where_the_output_lies_there():
    """With no layer on the GPU the host's high has room for the logits of a ubatch."""
    old = compute("b6895", device=1, n_gpu_layers=0, flash_attn="off", program="llama-cli")
    assert old.high_bytes - old.expected_bytes == 4 * 512 * (151936 + 4096)


def weights(quantization, source=None):
    """The weights item of a GPU that holds all of Llama 3.1 8B."""
    loaded = load_model("llama-3.1-8b", quantization, "gguf")
    model = loaded if source is None else replace(loaded, source=source)
    settings = LlamaCppSettings(ctx_size=4096, parallel=1, kv_unified=False)
    found = load_engine("llama.cpp").budget(model, Workload(context_tokens=4096), b.box(24), settings)
    return next(i for i in found.devices[0].items if i.component == "weights")


def test_an_importance_matrix_spares_the_first_eighth_of_ffn_down():
    """IQ4_XS of a profile: low has the first 4 of 32 ffn_down at 4.25 bits, expected and high at 5.5."""
    item = weights("IQ4_XS")
    assert item.expected_bytes - item.low_bytes == 4 * 4096 * 14336 * (176 - 136) // 256
    assert item.high_bytes == item.expected_bytes


@pytest.mark.parametrize(("quantization", "block_bytes"), [("Q4_0", 20 - 18), ("Q5_0", 24 - 22)])
def test_an_importance_matrix_adds_a_minimum_to_each_block(quantization, block_bytes):
    """Q4_0 of a profile: high has the first 4 of 32 ffn_down in Q4_1, expected and low in Q4_0; Q5_0 likewise."""
    item = weights(quantization)
    assert item.high_bytes - item.expected_bytes == 4 * 4096 * 14336 * block_bytes // 32
    assert item.low_bytes == item.expected_bytes


@pytest.mark.parametrize(
    ("quantization", "source"), [("IQ4_XS", "model.gguf"), ("Q4_0", "model.gguf"), ("Q4_K_M", None), ("Q8_0", None)]
)
def test_files_and_other_types_are_exact(quantization, source):
    """A file says itself what is in it, and other types do not depend on it: low is high."""
    item = weights(quantization, source)
    assert item.low_bytes == item.expected_bytes == item.high_bytes
    assert item.basis == "exact"


def test_published_file_made_with_an_importance_matrix():
    """The log of GLM-Z1-32B in IQ4_XS holds on the GPU what low says, to its last digit."""
    path = b.PROFILES.parent / "tests" / "data" / "field_models"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLPLAN_PROFILES", str(path))
        forget_profiles()
        loaded = load_model("glm-z1-32b-0414", "IQ4_XS", "gguf")
    forget_profiles()
    settings = LlamaCppSettings(ctx_size=32768, parallel=1, kv_unified=False)
    found = load_engine("llama.cpp").budget(loaded, Workload(context_tokens=32768), b.box(24), settings)
    item = next(i for i in found.devices[0].items if i.component == "weights")
    printed = field_cases()["ik-042"]["measured"]["model_buffer"]["CUDA0_MiB"]
    assert item.low_bytes / MIB == pytest.approx(printed, abs=0.01)
