"""Every measured row asked through the public path, a request mapping in and an answer out, beside the truth.

One ``Compared`` per figure. The tables of llama.cpp hold the engine's estimate without allocation; where an item says
that this differs from what is really allocated, that estimate is compared.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "engines"))

from llamacpp_rows import fresh_cases

from planner.cli.batch import answer_line
from planner.engines.llama_cpp.compute import compute_buffers
from planner.engines.llama_cpp.kv_cache import kv_cache_bytes
from planner.engines.llama_cpp.layout import HOST
from planner.engines.llama_cpp.weights import weights_bytes

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Compared:
    """One predicted figure beside the measured one, in bytes (or tokens)."""

    table: str
    term: str
    setting: str
    model: str
    truth: int
    expected: int
    high: int

    @property
    def error(self) -> float:
        """Relative error of what was expected."""
        if self.truth == 0:
            return 0.0 if self.expected == 0 else 1.0
        return self.expected / self.truth - 1


def ask(request: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to one request, as ``vlplan batch`` gives it."""
    found = answer_line(json.dumps(request).encode(), None)
    if "error" in found:
        raise AssertionError(f"{request['model']}: {found['error']}")
    return found


# ---- llama.cpp: language models


def text_cases(name: str) -> list[list[dict[str, str]]]:
    """Return the cases of a table: their rows, one per device."""
    cases: OrderedDict[str, list[dict[str, str]]] = OrderedDict()
    with gzip.open(DATA / f"{name}.csv.gz", "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            cases.setdefault(row["case"], []).append(row)
    return list(cases.values())


def compare_text(name: str, start: int = 0, step: int = 1) -> Iterator[Compared]:
    """Yield weights, cache and compute of every ``step``-th case of a table, device by device."""
    for rows in text_cases(name)[start::step]:
        answer = ask(text_request(rows))
        devices = {device["device"]: device for device in answer["devices"]}
        setting = text_setting(rows[0])
        for device, truth in _truth(rows).items():
            items = devices[device]["items"]
            where = "host" if device == "Host" else "GPU"
            for term, component in (("weights", "weights"), ("cache", "kv_cache"), ("compute", "compute")):
                found = [item for item in items if item["component"] == component]
                expected = sum(_comparable(item) for item in found)
                high = max(sum(item["high_bytes"] for item in found), expected)
                label = f"{term} on the {where}" if term == "compute" else term
                yield Compared(name, label, setting, rows[0]["model"], truth[term], expected, high)


def compare_random(start: int = 0, step: int = 1) -> Iterator[Compared]:
    """Yield cache and compute of every ``step``-th case of the random models, device by device.

    Their shapes and settings were drawn after the simulation had been written. These headers are no files, so they are
    asked below the public path.
    """
    for case in fresh_cases()[start::step]:
        run, found = case.run(), compute_buffers(case.request())
        assert found is not None, case.name
        names = [*(f"CUDA{i}" for i in range(run.layout.n_gpus)), "Host"]
        sizes = dict(zip(names, found.bytes_by_device, strict=True))
        weights = weights_bytes(run.language, run.layout)
        caches = kv_cache_bytes(run.language, run.layout, run.cache)
        for term, truths, expected in (
            ("compute", case.compute_bytes, sizes),
            ("weights", case.weight_bytes, {name: weights.get(_number(name), 0) for name in names}),
            ("cache", case.cache_bytes, {name: caches.get(_number(name), 0) for name in names}),
        ):
            for name, truth in truths.items():
                n_bytes = expected.get(name, 0)
                yield Compared("llamacpp_random", term, case.language.architecture, "random", truth, n_bytes, n_bytes)


def _number(device: str) -> int:
    return HOST if device == "Host" else int(device.removeprefix("CUDA"))


def _comparable(item: dict[str, Any]) -> int:
    estimate: int = item["inputs"].get("estimate_without_allocation_bytes", item["expected_bytes"])
    return estimate


def _truth(rows: list[dict[str, str]]) -> dict[str, dict[str, int]]:
    """Return what each device holds; weights the CPU back end repacks lie on the host."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        device = "Host" if row["device"] == "CPU_REPACK" else row["device"]
        held = found.setdefault(device, {"weights": 0, "cache": 0, "compute": 0})
        held["weights"] += int(row["model_bytes"])
        held["cache"] += int(row["context_bytes"])
        held["compute"] += int(row["compute_bytes"])
    return found


def text_request(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the request that a case of the table was asked with."""
    row = rows[0]
    sizes = [size for size in row["device_free_mib"].split("/") if size]
    capability = int(row["compute_capability"])
    gpu = {
        "compute_capability": f"{capability // 100}.{capability % 100 // 10}",
        "async_copies": row["async_devices"] == "1",
    }
    settings: dict[str, Any] = {
        "program": "llama-cli" if row["logits_rows"] == "ubatch" else "llama-server",
        "ctx_size": int(row["n_ctx_asked"]),
        "batch_size": int(row["n_batch"]),
        "ubatch_size": int(row["n_ubatch"]),
        "parallel": int(row["n_parallel"]),
        "kv_unified": row["kv_unified"] == "1",
        "flash_attn": row["flash_attn"],
        "cache_type_k": row["cache_type_k"],
        "cache_type_v": row["cache_type_v"],
        "n_gpu_layers": int(row["n_gpu_layers"]),
        "n_cpu_moe": int(row["n_cpu_moe"]),
        "no_kv_offload": row["no_kv_offload"] == "1",
        "no_op_offload": row["no_op_offload"] == "1",
        "swa_full": row["swa_full"] == "1",
    }
    if row["tensor_split"]:
        shares = [float(share) for share in row["tensor_split"].split("/")]
        settings["tensor_split"] = shares + [0.0] * (len(sizes) - len(shares))
    if len(sizes) > 1 and _only_first_gpu(rows):
        settings["split_mode"] = "none"
    return {
        "model": row["model"],
        "quantization": row["ftype"],
        "projector": "none",
        "machine": {"gpus": [{"total": f"{size}MiB", **gpu} for size in sizes], "ram": "2048GiB"},
        "settings": settings,
    }


def _only_first_gpu(rows: list[dict[str, str]]) -> bool:
    """Whether all layers lie on the first of several GPUs: asked with split_mode none, which no column says."""
    return rows[0]["n_gpu_layers"] == "-1" and [r["device"] for r in rows if r["device"] != "Host"] == ["CUDA0"]


def text_setting(row: dict[str, str]) -> str:
    """Return what sets a case apart, in words."""
    sizes = [size for size in row["device_free_mib"].split("/") if size]
    attention = f"flash attention {row['flash_attn']}"
    if not sizes:
        return f"CPU only, {attention}"
    boxes = "1 GPU" if len(sizes) == 1 else "several GPUs"
    for column, words in (
        ("n_cpu_moe", "experts on the host"),
        ("no_kv_offload", "cache on the host"),
        ("no_op_offload", "no op offload"),
    ):
        if row[column] != "0":
            return f"{boxes}, {words}"
    if row["cache_type_k"] != "f16":
        return f"{boxes}, quantised cache"
    depth = "all layers" if row["n_gpu_layers"] == "-1" else "given -ngl"
    return f"{boxes}, {depth}, {attention}"


# ---- llama.cpp: vision encoders


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of ``tests/data/<name>.jsonl.gz``."""
    with gzip.open(DATA / f"{name}.jsonl.gz", "rt") as lines:
        return [json.loads(line) for line in lines]


def compare_vision(name: str, start: int = 0, step: int = 1) -> Iterator[Compared]:
    """Yield tokens, weights, warm-up and peak of every ``step``-th row of a projector table."""
    for row in rows_of(name)[start::step]:
        gpu = row["device"] == "cuda"
        found = ask(vision_request(row))
        image = found["image_tokens"][0]
        setting = f"{'GPU' if gpu else 'CPU'}, flash attention {row['fa']}"

        def compared(term: str, truth: int, expected: int, high: int) -> Compared:
            return Compared(name, term, setting, row["mmproj"], truth, expected, high)  # noqa: B023 - used at once

        yield compared("image tokens", row["tokens"], image["tokens"], image["tokens"])
        items = found["devices"][0]["items"]
        weights = sum(i["expected_bytes"] for i in items if i["component"] == "weights" and i["part"] != "language")
        key = "CUDA0" if gpu else "CPU"
        yield compared("projector weights", row["weights_only_usage"][key], weights, weights)
        compute = next(i for i in items if i["component"] == "compute" and i["part"] == "vision")
        at_load = row["mtmd_get_memory_usage"][key] - row["weights_only_usage"][key]
        resident = compute["resident_bytes"]
        yield compared("encoder at load", at_load, resident, max(resident, compute["high_bytes"]))
        if gpu:
            peak = row["compute_bytes_after_encode"]
            yield compared("encoder after the image", peak, compute["expected_bytes"], compute["high_bytes"])


def vision_request(row: dict[str, Any]) -> dict[str, Any]:
    """Return the request that a row of a projector table was asked with, its image alone."""
    settings: dict[str, Any] = {"flash_attn": row["fa"], "ctx_size": 200_000, "program": "llama-mtmd-cli"}
    if "IMG_MAX_TOKENS" in row["env"]:
        settings["image_max_tokens"] = int(row["env"]["IMG_MAX_TOKENS"])
    gpu: dict[str, Any] = {"total": "80000MiB"}
    if "FAKECUDA_CC" in row["env"]:
        gpu["compute_capability"] = "6.1"
    return {
        "model": row["mmproj"],
        "machine": {"gpus": [gpu] if row["device"] == "cuda" else [], "ram": "512GiB"},
        "workload": {"images": [row["image"]], "context": 200_000},
        "settings": settings,
    }


# ---- transformers


HALVES = {"written": "rows they were written on", "held_back": "rows held back", "fresh": "rows drawn afterwards"}


def compare_transformers(name: str = "transformers_memory", start: int = 0, step: int = 1) -> Iterator[Compared]:
    """Yield weights, cache and prefill peak of every ``step``-th traced prefill of a table."""
    for row in rows_of(name)[start::step]:
        found = ask(transformers_request(row))
        sums = {
            component: [
                sum(item[key] for item in found["devices"][0]["items"] if item["component"] == component)
                for key in ("expected_bytes", "high_bytes")
            ]
            for component in ("weights", "kv_cache", "compute")
        }
        setting = HALVES[row["half"]] if "half" in row else f"{row['dtype']}, {row['attn']}"

        def compared(term: str, truth: int, pair: list[int]) -> Compared:
            return Compared(name, term, setting, row["model"], truth, *pair)  # noqa: B023

        weights = row["weights_bytes"]["total"] if "weights_bytes" in row else row["weights_total_bytes"]
        yield compared("weights", weights, sums["weights"])
        yield compared("cache", row["kv_bytes"], sums["kv_cache"])
        yield compared("prefill peak less the cache held", row["peak_minus_kv_bytes"], sums["compute"])


def transformers_request(row: dict[str, Any]) -> dict[str, Any]:
    """Return the request of a traced prefill: no answer, one very large GPU."""
    return {
        "model": row["model"],
        "engine": "transformers",
        "machine": {"gpus": [{"total": "16384GiB"}], "ram": "4096GiB"},
        "workload": {
            "context": row["seq_len"],
            "batch": row["batch"],
            "images": [f"{width}x{height}" for width, height in row["images"]],
            "prompt_tokens": row["text_len"],
            "answer_tokens": 0,
        },
        "settings": {
            "dtype": row["dtype"],
            "attn_implementation": row["attn"],
            "logits": row["logits"],
            "padded": row["padded_batch"],
        },
    }


def compare_tokens(start: int = 0, step: int = 1) -> Iterator[Compared]:
    """Yield image tokens of every ``step``-th row of the processors' table."""
    for row in rows_of("vision_tokens_hf")[start::step]:
        request = {
            "model": row["model"],
            "engine": "transformers",
            "machine": {"gpus": [{"total": "4096GiB"}], "ram": "4096GiB"},
            "workload": {"context": 1_000_000, "images": [f"{row['width']}x{row['height']}"]},
        }
        image = ask(request)["image_tokens"][0]
        yield Compared(
            "vision_tokens_hf",
            "image tokens",
            "processors of transformers",
            row["model"],
            row["image_tokens"],
            image["tokens"],
            image["tokens"],
        )
