"""Placement as accelerate does it: tables from transformers 5.23.0 itself, and laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from planner.catalog.data import load_data
from planner.catalog.models import load_model
from planner.catalog.tables import overhead_table
from planner.engines.transformers.budget import TransformersData, budget
from planner.engines.transformers.device_map import balanced_limits, place
from planner.engines.transformers.forms import forms_of
from planner.engines.transformers.room import with_room
from planner.engines.transformers.settings import TransformersSettings
from planner.engines.transformers.weights import part_weights, pieces
from planner.errors import UsageError
from planner.machine import Gpu, Host, Machine
from planner.units import GIB
from planner.workload import ImageSize, Workload

DATA = TransformersData(forms=forms_of(load_data("engines/transformers/moments.yaml")), overhead=overhead_table())

# model, GiB per GPU (the host has 64), last layer of each device as `_get_device_map(model, "auto", ...)` says
ACCELERATE = [
    ("llama-3.1-8b", (8, 8), {"CUDA0": 13, "CUDA1": 31}, "Host"),
    ("llama-3.1-8b", (6,), {"CUDA0": 8, "Host": 31}, "Host"),
    ("gemma-3-27b", (24, 24), {"CUDA0": 24, "CUDA1": 55, "Host": 61}, "CUDA0"),
    ("qwen2.5-vl-7b", (10, 12), {"CUDA0": 12, "CUDA1": 27}, "CUDA1"),
    ("qwen3-vl-2b", (3,), {"CUDA0": 15, "Host": 27}, "CUDA0"),
]


def pieces_of(name):
    """Return what is placed of a model in bf16."""
    model, chosen = load_model(name, None, "hf"), TransformersSettings()
    form = DATA.forms.of(model.architecture_class, model.vision.tower if model.vision else None)
    return tuple(pieces(model, part_weights(model, chosen, form), chosen))


@pytest.mark.parametrize(("name", "sizes", "last_layers", "head"), ACCELERATE)
def test_placement_is_accelerates(name, sizes, last_layers, head):
    """Each device ends with the same layer as in the real map, and the head is where it is there."""
    all_pieces = pieces_of(name)
    limits = {f"CUDA{i}": size * GIB for i, size in enumerate(sizes)} | {"Host": 64 * GIB}
    found = place(all_pieces, balanced_limits(all_pieces, limits, limits, quantized=False))
    last = {
        device: piece.layer_index
        for device, piece in zip(found.devices, all_pieces, strict=True)
        if piece.layer_index is not None
    }
    assert last == last_layers
    assert found.devices[-1] == head


@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4))
@hypothesis_settings(max_examples=30, deadline=None)
def test_every_piece_is_placed_once_and_in_order(sizes):
    """No piece is lost or moved before an earlier one, but for a tied head, and no GPU is filled beyond its size."""
    all_pieces = pieces_of("llama-3.1-8b")
    limits = {f"CUDA{i}": size * GIB for i, size in enumerate(sizes)} | {"Host": 8 * GIB}
    found = place(all_pieces, limits)
    order = [*limits, "disk"]
    assert len(found.devices) == len(all_pieces)
    assert [order.index(device) for device in found.devices] == sorted(order.index(d) for d in found.devices)
    for device, size in limits.items():
        assert sum(all_pieces[i].n_bytes for i in found.indices(device)) <= size


def test_pieces_sum_to_the_weights():
    """What is placed is what is loaded, to the byte."""
    for name in ("gemma-3-27b", "qwen3-vl-8b", "llama-3.2-90b-vision", "qwen3-vl-30b-a3b"):
        model, chosen = load_model(name, None, "hf"), TransformersSettings()
        form = DATA.forms.of(model.architecture_class, model.vision.tower)
        parts = part_weights(model, chosen, form)
        assert sum(piece.n_bytes for piece in pieces(model, parts, chosen)) == sum(part.n_bytes for part in parts)


def machine(*gib, ram=128):
    """Return a described box of RTX 3090s with so much free."""
    gpus = tuple(
        Gpu(name="RTX 3090", total_bytes=g * GIB, free_bytes=g * GIB, compute_capability=(8, 6), n_sms=82) for g in gib
    )
    host = Host(total_bytes=ram * GIB, free_bytes=ram * GIB, n_cores=8)
    return Machine(gpus=gpus, host=host, simulated=True)


WORKLOAD = Workload(images=(ImageSize(width=1024, height=768),), prompt_tokens=256, answer_tokens=256)


@pytest.mark.parametrize("sizes", [(24,), (24, 24), (24, 12), (8, 8, 24, 24)])
def test_budget_covers_the_model_whatever_the_box(sizes):
    """Weights over all devices sum to the model's, each layer is on exactly one device, one device has the head."""
    model = load_model("gemma-3-27b", None, "hf")
    found = budget(DATA, model, WORKLOAD, machine(*sizes), TransformersSettings())
    weights = sum(i.expected_bytes for d in found.devices for i in d.items if i.component == "weights")
    assert weights == pytest.approx(2 * model.parameters.total, rel=1e-5)
    spans = [device.layers for device in found.devices if device.layers]
    assert sorted(i for first, last in spans for i in range(first, last + 1)) == list(range(62))
    assert sum(device.has_output for device in found.devices) == 1


def test_offloaded_layers_run_on_the_first_gpu():
    """Layers in host memory have no cache there; the GPU keeps their cache and room for the largest of them."""
    model = load_model("gemma-3-27b", None, "hf")
    found = budget(DATA, model, WORKLOAD, machine(24), TransformersSettings())
    host = found.devices[-1]
    assert host.layers is not None
    assert not any(item.component == "kv_cache" for item in host.items)
    alone = budget(DATA, model, WORKLOAD, machine(96), TransformersSettings())
    caches = [sum(i.low_bytes for i in b.devices[0].items if i.component == "kv_cache") for b in (found, alone)]
    assert caches[0] == caches[1]


def test_room_is_left_for_the_run():
    """Where accelerate's own map would run out of memory, the chosen sizes do not, and nothing else is changed."""
    model, box = load_model("gemma-3-27b", None, "hf"), machine(24, 24)
    before = budget(DATA, model, WORKLOAD, box, TransformersSettings())
    chosen = with_room(DATA, model, WORKLOAD, box, TransformersSettings())
    after = budget(DATA, model, WORKLOAD, box, chosen)
    assert before.short_devices
    assert not after.short_devices
    assert chosen.max_memory is not None
    small = load_model("qwen2.5-vl-7b", None, "hf")
    assert with_room(DATA, small, WORKLOAD, box, TransformersSettings()) == TransformersSettings()


def test_disk_is_refused():
    """What fits on no device would go to disk: said, with its size."""
    model = load_model("gemma-3-27b", None, "hf")
    found = budget(DATA, model, WORKLOAD, machine(12, ram=8), TransformersSettings())
    assert len(found.refusals) == 1
    assert "disk" in found.refusals[0]


def test_wrong_max_memory_is_one_line():
    """A device that is none is named."""
    model = load_model("qwen2.5-vl-7b", None, "hf")
    for key, size in (("gpu", "1GiB"), ("0", "much")):
        with pytest.raises(UsageError, match=key if key == "gpu" else size):
            budget(DATA, model, WORKLOAD, machine(24), TransformersSettings(max_memory={key: size}))
