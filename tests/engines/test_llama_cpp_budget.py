"""llama.cpp's whole budget: what the parts of other tests add up to."""

import pytest

from planner.catalog import load_model
from planner.catalog.engines import load_engine
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.machine_file import machine_of
from planner.workload import ImageSize, Workload


def budget(model="qwen2.5-vl-7b", machine=None, **settings):
    """Return the budget of a model on a box."""
    box = machine_of(machine or {"gpus": [{"total": "24GiB"}], "ram": "64GiB"})
    workload = Workload(context_tokens=8192, images=(ImageSize(width=640, height=480),))
    return load_engine("llama.cpp").budget(
        load_model(model, "Q4_K_M", "gguf"), workload, box, LlamaCppSettings(**settings)
    )


def items(device, component):
    """Return a device's items of one component."""
    return [item for item in device.items if item.component == component]


def test_unified_memory_is_counted_once():
    """What a GPU of unified memory takes is no longer free on the host."""
    box = {"gpus": [{"name": "Apple M2 Max"}], "ram": "64GiB"}
    gpu, host = budget(machine=box).devices
    assert host.free_bytes == (64 << 30) - gpu.high_bytes


def test_other_back_ends_are_bounds():
    """Where a back end's rules were not read, compute is a labelled bound above the CUDA figure."""
    cuda = budget().devices[0]
    rocm = budget(machine={"gpus": [{"name": "RX 7900 XTX"}], "ram": "64GiB"}).devices[0]
    for ours, theirs in zip(items(cuda, "compute"), items(rocm, "compute"), strict=True):
        assert theirs.basis == "assumed"
        assert theirs.high_bytes > ours.expected_bytes


def test_experts_on_the_host_are_staged_through_the_gpu():
    """Beside the process a pool for staged experts is reserved for, bounded by the largest expert tensor."""
    all_on_gpu = budget("qwen3-vl-30b-a3b").devices[0]
    spilled = budget("qwen3-vl-30b-a3b", n_cpu_moe=10).devices[0]
    kept = budget("qwen3-vl-30b-a3b", n_cpu_moe=10, no_op_offload=True).devices[0]
    assert [len(items(device, "overhead")) for device in (all_on_gpu, spilled, kept)] == [1, 2, 1]


def test_no_gpu_is_used_when_told_so():
    """With device none everything lies on the host and the GPU is listed empty."""
    gpu, host = budget(device="none").devices
    assert gpu.items == ()
    assert host.layers == (0, 27)


def test_the_projector_goes_where_it_is_told():
    """--no-mmproj-offload moves the tower's weights and buffers to the host."""
    gpu, host = budget(no_mmproj_offload=True).devices
    assert not [item for item in gpu.items if item.part == "vision"]
    assert {item.component for item in host.items if item.part == "vision"} == {"weights", "compute"}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"cache_type_v": "q4_0", "flash_attn": "off"}, "flash attention"),
        ({"cache_type_k": "q8_0", "split_mode": "row"}, None),
    ],
)
def test_refusals_and_unknowns(settings, said):
    """What the engine refuses is a refusal; what is not modelled is unknown and never fits."""
    found = budget(**settings)
    if said is None:
        assert found.unknown
    else:
        assert said in found.refusals[0]
