"""A profile alone leads to the same bytes as the true file: whole budgets, not only tensors."""

from __future__ import annotations

from dataclasses import replace

import pytest
from gguf_headers import headers, language_headers, projector_headers, read_bytes

from planner.catalog import load_data, load_model
from planner.catalog.engines import load_engine
from planner.engines.llama_cpp.encoder import Picture, encoder_buffers, encoder_kinds
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.machine import Gpu, Host, Machine
from planner.sources.gguf import language_from_gguf, vision_from_gguf
from planner.units import GIB
from planner.workload import Workload

GPUS = tuple(Gpu(name="RTX 3090", total_bytes=size * GIB, free_bytes=size * GIB) for size in (24, 12))
MACHINE = Machine(gpus=GPUS, host=Host(total_bytes=256 * GIB, free_bytes=250 * GIB, n_cores=8))
SETTINGS = (
    LlamaCppSettings(ctx_size=8192),
    LlamaCppSettings(ctx_size=16384, n_gpu_layers=9, flash_attn="off"),
)


def figures(budget) -> list[tuple]:
    """Return every item of every device with its bytes."""
    return [
        (device.device, [(i.component, i.part, i.resident_bytes, i.expected_bytes, i.high_bytes) for i in device.items])
        for device in budget.devices
    ]


@pytest.mark.parametrize("name", [name for name in language_headers() if name.endswith(".Q4_K_M.gguf")])
def test_budgets_from_profile_and_file_are_equal(name):
    """Two unequal GPUs, all layers or nine of them: every item has the bytes that the true header leads to."""
    engine = load_engine("llama.cpp", None)
    planned = replace(load_model(name.rsplit(".", 2)[0], "Q4_K_M"), vision=None)
    true = replace(planned, language=language_from_gguf(read_bytes(headers()[name])))
    for settings in SETTINGS:
        ours, theirs = (engine.budget(model, Workload(), MACHINE, settings) for model in (planned, true))
        assert figures(ours) == figures(theirs)
        assert not ours.unknown


@pytest.mark.parametrize("name", projector_headers())
def test_encoders_from_profile_and_file_are_equal(name):
    """The encoder's weights and buffers, with and without flash attention, are those of the true projector file."""
    kinds = encoder_kinds(load_data("engines/llama_cpp/encoders.yaml"))
    planned = load_model(name.removeprefix("mmproj-").removesuffix(".gguf"), "F16").vision
    true = vision_from_gguf(read_bytes(headers()[name]))
    side = 24 * planned.patch_size  # patches that merge by 2, 3 or 4
    for flash in ("on", "off"):
        ours, theirs = (
            encoder_buffers(vision, kinds, [Picture(width=side, height=side)], flash_attn=flash)
            for vision in (planned, true)
        )
        assert ours == theirs
        assert ours.weights_bytes > 0
