"""Small boxes for the search: a tiny model, GPUs of a few MiB, and an engine whose buffers follow the real one's shape.

The buffers depend on the plan as llama.cpp's do: more where the output lies, more on every GPU of a pipeline, more on
the first GPU when layers stay on the host.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from itertools import product

from planner.budget import Budget, DeviceBudget, exact_item
from planner.engines.llama_cpp.layout import HOST, layout_of
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.machine import Gpu, Host, Machine
from planner.model import Attention, DenseFfn, Language, Layer, Model, Tensor
from planner.placement.llama_cpp import place_costs
from planner.workload import Workload

KIB = 1024


def tiny_model(n_layers: int, rng: random.Random) -> Model:
    """Return a model of ``n_layers`` layers of random weight, and an output."""
    attention = Attention(n_heads=2, n_kv_heads=1, key_dim=32, value_dim=32)
    layer = Layer(mixer=attention, ffn=DenseFfn(n_ff=128))
    widths = [rng.choice([256, 512, 768]) for _ in range(n_layers)]
    tensors = [Tensor(name="token_embd.weight", shape=(64, 512), format="f16")]
    tensors += [
        Tensor(name=f"blk.{index}.ffn_up.weight", shape=(64, width), format="f16") for index, width in enumerate(widths)
    ]
    tensors += [Tensor(name="output.weight", shape=(64, 1024), format="f16")]
    language = Language(
        architecture="tiny",
        n_embd=64,
        n_vocab=512,
        n_context_train=4096,
        layers=(layer,) * n_layers,
        tensors=tuple(tensors),
    )
    return Model(name="tiny", family="tiny", language=language)


@dataclass(frozen=True)
class Box:
    """A machine with the sizes of the engine's buffers on it."""

    machine: Machine
    base: int
    output: int
    pipeline: int
    spill: int

    def budget(self, model: Model, workload: Workload, settings: LlamaCppSettings) -> Budget:
        """Return a budget whose buffers depend on the plan."""
        gpus = self.machine.gpus
        layout = layout_of(model.language, settings, [gpu.free_bytes for gpu in gpus])
        costs, _ = place_costs(model, workload, settings, flash_attn=True)
        n_gpus = len(gpus)
        places = (*layout.slots, layout.output)
        devices = []
        for index, gpu in enumerate(gpus):
            held = [i for i, device in enumerate(places) if device == index]
            compute = self.base if held else 0
            compute += self.output if layout.output == index else 0
            compute += self.pipeline if held and n_gpus > 1 and layout.all_offloaded else 0
            compute += self.spill if index == 0 and HOST in places else 0
            layers = [i for i in held if i < model.language.n_layers]
            items = (
                exact_item("weights", "language", sum(costs[i] for i in held), formula="", source=""),
                exact_item("compute", "language", compute, formula="", source=""),
            )
            devices.append(
                DeviceBudget(
                    device=f"CUDA{index}",
                    name="",
                    total_bytes=gpu.total_bytes,
                    free_bytes=gpu.free_bytes,
                    items=items,
                    layers=(layers[0], layers[-1]) if layers else None,
                    has_output=layout.output == index,
                )
            )
        host = DeviceBudget(device="Host", name="", total_bytes=1 << 40, free_bytes=1 << 40, items=())
        return Budget(devices=(*devices, host))


def random_box(rng: random.Random, n_gpus: int) -> Box:
    """Return a box whose GPUs hold anything from nothing to all of a tiny model."""
    sizes = [rng.randrange(0, 700) * KIB for _ in range(n_gpus)]
    gpus = tuple(Gpu(name="", total_bytes=size, free_bytes=size) for size in sizes)
    return Box(
        machine=Machine(gpus=gpus, host=Host(total_bytes=1 << 40, free_bytes=1 << 40, n_cores=4)),
        base=rng.randrange(0, 60) * KIB,
        output=rng.randrange(0, 60) * KIB,
        pipeline=rng.randrange(0, 30) * KIB,
        spill=rng.randrange(0, 60) * KIB,
    )


def every_plan(model: Model, box: Box, workload: Workload) -> list[tuple[int, int]]:
    """Return (places on GPUs, bytes the fullest GPU keeps) of every split that fits."""
    n_places = model.language.n_layers + 1
    n_gpus = len(box.machine.gpus)
    found = []
    for counts in product(range(n_places + 1), repeat=n_gpus):
        n = sum(counts)
        if n > n_places:
            continue
        settings = LlamaCppSettings(
            n_gpu_layers=n, tensor_split=[float(c) for c in counts] if n and n_gpus > 1 else None
        )
        budget = box.budget(model, workload, settings)
        if not budget.short_devices:
            found.append((n, headroom(budget)))
    return found


def headroom(budget: Budget) -> int:
    """Return what the fullest GPU keeps."""
    return min((device.headroom_bytes for device in budget.devices[:-1]), default=0)


def with_more(box: Box, index: int, extra: int) -> Box:
    """Return the box with more bytes on one GPU."""
    gpus = list(box.machine.gpus)
    gpus[index] = replace(
        gpus[index], total_bytes=gpus[index].total_bytes + extra, free_bytes=gpus[index].free_bytes + extra
    )
    return replace(box, machine=replace(box.machine, gpus=tuple(gpus)))
