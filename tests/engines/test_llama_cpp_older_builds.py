"""Older llama.cpp builds: their compute buffers are a range, and the range holds what their logs print."""

import builders as b
import pytest
from field import field_cases

from planner.catalog import load_model
from planner.catalog.engines import load_engine
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
