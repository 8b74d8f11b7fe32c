"""Against the engine's own ``--fit`` on the boxes where it was asked (883 of them; here every 29th)."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from planner.catalog import load_model
from planner.catalog.engines import llama_cpp_data
from planner.engines.llama_cpp import engine
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.machine import Gpu, Host, Machine
from planner.placement.llama_cpp import place
from planner.units import MIB
from planner.workload import Workload

DATA = Path(__file__).parents[1] / "data"


def rows():
    """Return every 29th box of the two tables."""
    found = []
    for name in ("llamacpp_fit", "llamacpp_fit_2026"):
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as lines:
            found += [json.loads(line) for line in lines]
    return found[::29]


def machine_of(row):
    """Return the box with the margin that ``--fit`` was to leave already taken."""
    config = row["config"]
    margin = int(config["fitt"].split(",")[0])
    gpus = tuple(
        Gpu(name="", total_bytes=int(size) * MIB, free_bytes=(int(size) - margin) * MIB, compute_capability=(8, 9))
        for size in config["devs"].split(",")
    )
    return Machine(gpus=gpus, host=Host(total_bytes=1 << 45, free_bytes=1 << 45, n_cores=8))


def fit_kept_its_margin(row, machine):
    """Whether the engine's own choice left what it was told to leave."""
    held = [
        sum(row["devices"].get(f"CUDA{i}", {}).get(f"{term}_bytes", 0) for term in ("model", "context", "compute"))
        for i in range(len(machine.gpus))
    ]
    return all(n <= gpu.free_bytes for n, gpu in zip(held, machine.gpus, strict=True))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['model']}-{row['ftype']}-{row['config']['devs']}")
def test_never_fewer_layers_than_fit_and_always_the_margin(row, monkeypatch):
    """Our plan keeps the margin on every GPU, and offloads no fewer layers than ``--fit`` did where it kept it too."""
    monkeypatch.setattr(engine, "_overheads", lambda *_: ())  # the margin is for what the engine does not count
    data, machine, config = llama_cpp_data(), machine_of(row), row["config"]
    model = replace(load_model(row["model"], row["ftype"], "gguf"), vision=None)
    settings = LlamaCppSettings(
        program="llama-cli" if config["nout"] == 0 else "llama-server",
        ctx_size=row["n_ctx"],
        parallel=config["np"],
        kv_unified=bool(config["kvu"]),
    )
    placed = place(
        model,
        Workload(),
        machine,
        settings,
        lambda choice: engine.budget(data, model, Workload(), machine, choice),
        all_gpus=True,
    )
    assert placed.fits
    if fit_kept_its_margin(row, machine):
        n_places = model.language.n_layers + model.language.n_mtp_layers + 1
        assert min(placed.settings.n_gpu_layers, n_places) >= row["n_layers_offloaded"]
