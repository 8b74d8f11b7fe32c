"""Measured answers of the real engine (llama.cpp 0.5.0-dev), as requests for compute buffers and the bytes it gave.

``llamacpp_text.csv.gz``, ``llamacpp_text_2026.csv.gz``: one line per case and device; sizes without allocation.
``llamacpp_fresh.jsonl.gz``: random models and settings that were never looked at while the simulation was written;
lines with ``tensors`` describe a model, the others are cases of it, some of them really allocated.
``llamacpp_families.jsonl.gz``: the same for architectures added since, asked after their data had been written.
"""

from __future__ import annotations

import csv
import gzip
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from gguf_headers import headers, read_bytes

from planner.catalog import load_data
from planner.engines.llama_cpp.run import Run, graph_request, resolve_run
from planner.engines.llama_cpp.settings import LlamaCppSettings
from planner.engines.llama_cpp.traits import GraphRequest, traits_from
from planner.machine import Gpu, Host, Machine
from planner.model import Language, Model
from planner.sources.gguf import GgufFile, language_from_gguf
from planner.sources.gguf.header import StoredTensor
from planner.units import GIB, MIB
from planner.workload import Workload

DATA = Path(__file__).parents[1] / "data"
HOST = "Host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One question to the engine and what it gave: compute bytes by device (CUDA0, ..., Host)."""

    name: str
    language: Language
    settings: LlamaCppSettings
    machine: Machine
    allocated: bool
    n_copies: int
    compute_bytes: dict[str, int]
    weight_bytes: dict[str, int] = field(default_factory=dict)  # nothing where the file was mapped
    cache_bytes: dict[str, int] = field(default_factory=dict)  # of the GPUs

    def run(self) -> Run:
        """Return the run that the settings lead to."""
        model = Model(name=self.name, family=self.language.architecture, language=self.language)
        return resolve_run(model, Workload(), self.machine, self.settings)

    def request(self) -> GraphRequest:
        """Return the request for compute buffers of this case."""
        return graph_request(self.run(), traits()[self.language.architecture], pinned=self.allocated)

    def missed(self, found: tuple[int, ...]) -> dict[str, tuple[int, int]]:
        """Return the devices where ``found`` (the host's last) is not what the engine gave, with both figures."""
        names = [f"CUDA{i}" for i in range(len(found) - 1)] + [HOST]
        given = dict(zip(names, found, strict=True))
        truth = self.compute_bytes
        return {name: (truth[name], given.get(name, 0)) for name in truth if truth[name] != given.get(name, 0)}


@cache
def traits():
    """Return the graph traits of every architecture in the table."""
    table = load_data("engines/llama_cpp/graphs.yaml")["architectures"]
    return {word: traits_from(entry) for word, entry in table.items()}


@cache
def measured_language(model: str, file_type: str) -> Language:
    """Return the language model behind a row of the measured tables."""
    name = f"{model}.{file_type}.gguf"
    return language_from_gguf(read_bytes(headers()[name], name))


def table(name: str) -> list[list[dict[str, str]]]:
    """Return the cases of a measured table, each as its lines (one per device)."""
    with gzip.open(DATA / name, "rt", newline="") as file:
        cases: dict[str, list[dict[str, str]]] = {}
        for row in csv.DictReader(file):
            cases.setdefault(row["case"], []).append(row)
    return list(cases.values())


def measured_case(rows: list[dict[str, str]]) -> Case:
    """Return a case of a measured table."""
    row = rows[0]
    free = [int(float(size)) * MIB for size in row["device_free_mib"].split("/") if size]
    only_first = sum(line["device"].startswith("CUDA") for line in rows) < len(free)
    split = [float(share) for share in row["tensor_split"].split("/") if share]
    settings = LlamaCppSettings(
        program="llama-cli" if row["logits_rows"] == "ubatch" else "llama-server",
        ctx_size=int(row["n_ctx_asked"]),
        batch_size=int(row["n_batch"]),
        ubatch_size=int(row["n_ubatch"]),
        parallel=int(row["n_parallel"]),
        kv_unified=row["kv_unified"] == "1",
        flash_attn=row["flash_attn"],
        cache_type_k=row["cache_type_k"],
        cache_type_v=row["cache_type_v"],
        n_gpu_layers=int(row["n_gpu_layers"]),
        tensor_split=split or None,
        split_mode="none" if only_first else "layer",
        n_cpu_moe=int(row["n_cpu_moe"] or 0),
        no_kv_offload=row["no_kv_offload"] == "1",
        no_op_offload=row["no_op_offload"] == "1",
        swa_full=row["swa_full"] == "1",
    )
    return Case(
        name=row["case"],
        language=measured_language(row["model"], row["ftype"]),
        settings=settings,
        machine=machine(free, int(row["compute_capability"]), asynchronous=row["async_devices"] == "1"),
        allocated=False,
        n_copies=int(row["sched_copies"]),
        compute_bytes={line["device"]: int(line["compute_bytes"]) for line in rows if line["device"] != "CPU_REPACK"},
    )


def machine(free_bytes: list[int], capability: int = 890, *, asynchronous: bool = True) -> Machine:
    """Return a box with GPUs that have ``free_bytes`` each."""
    gpus = tuple(
        Gpu(
            name=f"GPU {i}",
            total_bytes=size,
            free_bytes=size,
            compute_capability=(capability // 100, capability % 100 // 10),
            async_copies=asynchronous,
        )
        for i, size in enumerate(free_bytes)
    )
    return Machine(gpus=gpus, host=Host(total_bytes=512 * GIB, free_bytes=512 * GIB, n_cores=16))


@cache
def fresh_cases() -> list[Case]:
    """Return the cases of the random models."""
    languages: dict[str, Language] = {}
    cases = []
    for name in ("llamacpp_fresh", "llamacpp_families"):
        with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as file:
            for line in file:
                record = json.loads(line)
                if "tensors" in record:
                    languages[record["model"]] = _fresh_language(record)
                else:
                    cases.append(_fresh_case(record, languages[record["model"]]))
    return cases


def _fresh_language(record: dict) -> Language:
    metadata = {key: tuple(value) if isinstance(value, list) else value for key, value in record["metadata"].items()}
    tensors = tuple(
        StoredTensor(name=name, shape=tuple(shape), format=kind, offset_bytes=0, n_bytes=0)
        for name, shape, kind in record["tensors"]
    )
    file = GgufFile(
        name=record["model"], metadata=metadata, array_lengths={}, tensors=tensors, data_offsets=(0,), file_bytes=0
    )
    return language_from_gguf(file)


def _fresh_case(record: dict, language: Language) -> Case:
    asked = record["settings"]
    return Case(
        name=f"{record['model']} {json.dumps(asked)}",
        language=language,
        settings=LlamaCppSettings(**asked),
        machine=machine([size * MIB for size in record["device_free_mib"]], record["compute_capability"]),
        allocated=record["allocated"],
        n_copies=record["sched_copies"],
        compute_bytes=record["compute_bytes"],
        weight_bytes=record.get("weight_bytes", {}),
        cache_bytes=record.get("cache_bytes", {}),
    )
