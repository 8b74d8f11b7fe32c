"""Measured prefills under transformers as values, and how far the plan is from each; also read by the docs.

``transformers_memory.jsonl.gz``: storages of the real modelling code followed (transformers 5.23.0, torch 2.13), 319
prefills. ``transformers_traces.jsonl.gz``: the same followed again for models, sizes and settings drawn at random,
after the moments had been written. ``transformers_families.jsonl.gz``: further families, followed likewise; half of the
rows, drawn at random, were seen while the moments were written, the others held back. One held-back row of
minicpm-v-4.6 was 1.4 % off; its mechanism (which picture is the longest) was corrected, and ``fresh`` rows were drawn.
``transformers_bounds.jsonl.gz``: a model whose checkpoint names another modelling class than the one followed, so that
it is planned as a bound. ``transformers_decode.jsonl.gz``: the peaks of decode steps beside the cache.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from planner.budget import Budget
from planner.catalog.data import load_data
from planner.catalog.models import load_model
from planner.catalog.tables import overhead_table
from planner.engines.engine import Engine
from planner.engines.transformers import TransformersSettings, transformers_engine
from planner.machine import Gpu, Host, Machine
from planner.units import GIB
from planner.workload import ImageSize, Workload

DATA = Path(__file__).parent / "data"
BIG = Machine(
    gpus=(Gpu(name="large", total_bytes=4096 * GIB, free_bytes=4096 * GIB),),
    host=Host(total_bytes=64 * GIB, free_bytes=64 * GIB, n_cores=8),
    simulated=True,
)


def rows(name: str) -> list[dict[str, Any]]:
    """Return the rows of ``tests/data/<name>.jsonl.gz``."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


@cache
def engine() -> Engine:
    """Return transformers as a value, with its data and no table of support."""
    return transformers_engine(None, {}, load_data("engines/transformers/moments.yaml"), overhead_table())


def plan(row: dict[str, Any], **settings: Any) -> Budget:
    """Return the plan for a measured prefill: no answer, one large GPU."""
    images = tuple(ImageSize(width=width, height=height) for width, height in row["images"])
    workload = Workload(
        context_tokens=1, batch=row["batch"], images=images, prompt_tokens=row["text_len"], answer_tokens=0
    )
    words = {
        "dtype": row["dtype"],
        "attn_implementation": row["attn"],
        "logits": row["logits"],
        "padded": row["padded_batch"],
        "device_map": "single",
        **settings,
    }
    return engine().budget(load_model(row["model"], None, "hf"), workload, BIG, TransformersSettings(**words))


def component(budget: Budget, name: str, bound: str = "expected", part: str | None = None) -> int:
    """Return the bytes of one component on the first device."""
    items = budget.devices[0].items
    return sum(
        getattr(item, f"{bound}_bytes") for item in items if item.component == name and part in {None, item.part}
    )


def compute_error(row: dict[str, Any]) -> float:
    """Return the relative error of the compute item against the measured peak less the cache."""
    truth: int = row["peak_minus_kv_bytes"]
    return component(plan(row), "compute") / truth - 1


@dataclass(frozen=True)
class Accuracy:
    """Errors of one quantity over many rows, as fractions."""

    n_rows: int
    median: float
    p95: float
    worst: float
    share_under: float


def accuracy(measured: list[dict[str, Any]]) -> Accuracy:
    """Return how far the prefill's compute figure is from measured rows."""
    errors = [compute_error(row) for row in measured]
    sizes = sorted(abs(error) for error in errors)
    return Accuracy(
        n_rows=len(sizes),
        median=sizes[len(sizes) // 2],
        p95=sizes[len(sizes) * 95 // 100],
        worst=sizes[-1],
        share_under=sum(error < 0 for error in errors) / len(errors),
    )
