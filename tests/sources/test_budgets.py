"""File, folder and profile of one model give the same budget, device by device and item by item."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gguf_headers import headers, read_bytes
from sources.configurations import CONFIGURATIONS
from sources.test_hf import TINY, folder

from planner.advice import judge
from planner.catalog.engines import load_engine
from planner.catalog.models import load_model
from planner.machine import Gpu, Host, Machine
from planner.sources.gguf.model import model_from_files
from planner.sources.image_rules import with_mtmd_rule
from planner.sources.opening import open_model
from planner.workload import ImageSize, Workload

GIB = 1 << 30
GPUS = (
    Gpu(name="A", total_bytes=24 * GIB, free_bytes=23 * GIB),
    Gpu(name="B", total_bytes=24 * GIB, free_bytes=22 * GIB),
)
MACHINE = Machine(gpus=GPUS, host=Host(total_bytes=64 * GIB, free_bytes=60 * GIB, n_cores=8), simulated=True)
WORKLOAD = Workload(context_tokens=8192, images=(ImageSize(width=1280, height=720),))

# models that are there three times
THRICE = sorted(name for name in CONFIGURATIONS if f"{name}.Q4_K_M.gguf" in headers())


def items(model):
    """Return every item of a budget on two GPUs: device, component, part and its four sizes."""
    engine = load_engine("llama.cpp")
    workload = WORKLOAD if model.vision else replace(WORKLOAD, images=())
    budget = engine.budget(model, workload, MACHINE, engine.settings(n_gpu_layers=20, flash_attn="on"))
    return [
        (device.device, i.component, i.part, i.resident_bytes, i.low_bytes, i.expected_bytes, i.high_bytes, i.basis)
        for device in budget.devices
        for i in device.items
    ], budget.image_tokens


def of_file(name):
    """Return the model of the true header, with the true projector where there is one."""
    projector = headers().get(f"mmproj-{name}.gguf")
    file = read_bytes(headers()[f"{name}.Q4_K_M.gguf"], f"{name}.gguf")
    return with_mtmd_rule(model_from_files(file, read_bytes(projector, "mmproj.gguf") if projector else None))


@pytest.mark.parametrize("name", THRICE)
def test_same_budget_from_file_folder_and_profile(tmp_path, name):
    """The three readings of one model lead to the same bytes, on each device, in each item."""
    file = of_file(name)
    path = folder(tmp_path / name, *CONFIGURATIONS[name])
    projector = None if file.vision else "none"
    ours = open_model(str(path), engine="llama.cpp", quantization="Q4_K_M", projector=projector)
    profile = open_model(name, engine="llama.cpp", quantization="Q4_K_M", projector=projector)
    assert items(profile) == items(file)
    if name.startswith("llava-1."):  # the GGUF file keeps the first publisher's vocabulary of 32000 rows
        assert ours.language.n_vocab == file.language.n_vocab + 64
    else:
        assert items(ours) == items(profile)


def test_folder_of_a_serving_engine_equals_the_profile(tmp_path):
    """For vLLM a folder without weights has no parameter counts; with the profile's it gives the same budget."""
    path = folder(tmp_path / "m", *CONFIGURATIONS["qwen2.5-vl-7b"])
    profile = load_model("qwen2.5-vl-7b", None, "hf")
    ours = replace(open_model(str(path), engine="vllm"), parameters=profile.parameters, quantization=None)
    engine = load_engine("vllm")
    budgets = [engine.budget(model, WORKLOAD, MACHINE, engine.settings()) for model in (ours, profile)]
    assert budgets[0].devices == budgets[1].devices
    assert budgets[0].image_tokens == budgets[1].image_tokens


@pytest.mark.parametrize("engine", ["llama.cpp", "ollama", "transformers", "vllm", "sglang", "lmdeploy"])
def test_layers_that_are_not_known_never_fit(tmp_path, engine):
    """A folder whose layers no data explains is judged unknown by every engine, with the reason, on any machine."""
    config = {**TINY, "model_type": "brandnew", "mamba_d_state": 16, "architectures": ["BrandNewForCausalLM"]}
    model = open_model(str(folder(tmp_path / "m", config)), engine=engine)
    chosen = load_engine(engine)
    plan = judge(chosen, model, Workload(context_tokens=256), MACHINE, chosen.settings())
    assert plan.verdict == "unknown"
    assert any("brandnew" in reason for reason in plan.reasons)
