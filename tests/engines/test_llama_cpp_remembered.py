"""What is remembered is what would be computed: file types share answers only where their formats do not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from planner.catalog.engines import llama_cpp_data
from planner.catalog.models import load_model
from planner.engines.llama_cpp import compute
from planner.engines.llama_cpp.remembered import key_of
from planner.engines.llama_cpp.run import graph_request, resolve_run
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.gpu_catalog import find_gpu
from planner.machine import Host, Machine
from planner.remembered import SIZE, remembered
from planner.units import GIB
from planner.workload import Workload

BOX = Machine(gpus=(find_gpu("RTX 3090"),) * 2, host=Host(total_bytes=64 * GIB, free_bytes=64 * GIB, n_cores=8))
FILE_TYPES = ("F16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K", "IQ4_NL")


def request(name: str, file_type: str, n_gpu_layers: int, **settings):
    """Return the request for compute buffers of a model in one file type."""
    model = load_model(name, file_type)
    words = LlamaCppSettings(n_gpu_layers=n_gpu_layers, **settings)
    run = resolve_run(model, Workload(context_tokens=4096), BOX, words)
    return graph_request(run, llama_cpp_data().traits[model.language.architecture])


@pytest.mark.parametrize("n_gpu_layers", [-1, 7, 0])
@pytest.mark.parametrize("name", ["qwen2.5-vl-3b", "gemma-3-4b", "deepseek-v2-lite", "qwen3.5-2b"])
def test_file_types_share_only_what_is_equal(name: str, n_gpu_layers: int):
    """For every file type the remembered buffers, asked in turn, are those of a simulation of its own."""
    for file_type in FILE_TYPES:
        asked = request(name, file_type, n_gpu_layers, split_mode="layer")
        assert compute.compute_buffers(asked) == compute._reserved(asked, explain=False)
        assert compute._step(asked) == compute._shortened(asked, explain=False)


def test_file_types_do_share():
    """On the GPUs alone, quantised file types of one model are simulated once; on the host each for itself."""
    same = {key_of(request("qwen2.5-vl-3b", word, -1)) for word in ("Q8_0", "Q4_K_M", "Q4_0")}
    assert len(same) == 1
    own = {key_of(request("qwen2.5-vl-3b", word, 7)) for word in ("Q8_0", "Q4_K_M", "Q4_0")}
    assert len(own) == 3


def test_another_model_is_another_question():
    """Layers are told by identity, the rest by value: an equal description with other layers is computed anew."""
    asked = request("qwen2.5-vl-3b", "Q8_0", -1)
    longer = replace(asked.language, layers=(*asked.language.layers[:-1], replace(asked.language.layers[-1])))
    assert key_of(asked) != key_of(replace(asked, language=longer))


def test_the_memory_is_bounded_and_told_by_identity():
    """Equal values are different questions, the same value is one, and old answers are dropped."""
    calls: list[object] = []

    @remembered
    def length(value: list[int], more: int = 0) -> int:
        calls.append(value)
        return len(value) + more

    first, second = [1], [1]
    assert [length(first), length(first), length(second), length(first, 2), length(first, more=2)] == [1, 1, 1, 3, 3]
    assert len(calls) == 4
    for number in range(SIZE):
        length([number])
    assert length(first) == 1
    assert len(calls) == 4 + SIZE + 1
