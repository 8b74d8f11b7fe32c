"""Fit the factors of ``profiles/engines/speed.yaml`` on the published rows, and say how well they do on rows held back.

``python docs/fit_speed.py`` prints the fit and the leave-one-GPU-out errors; ``--write`` puts the factors into the
file; ``prefill``, ``encode`` or ``decode`` names the stages to fit, all of them else. Coordinate descent on the logarithm e of predicted over published, mean of |e| + 2 e²: the square shares the
error between rows that contradict each other. No dependency, the same result twice.
"""

from __future__ import annotations

import copy
import math
import re
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import speed_rows  # noqa: E402 - beside the tests

from planner.catalog.tables import speed_table, speed_table_of  # noqa: E402 - after the path

if TYPE_CHECKING:
    from collections.abc import Callable

PROFILE = ROOT / "profiles" / "engines" / "speed.yaml"
Row = dict[str, Any]
GDDR, HBM, OLD, ROCM = "CUDA, GDDR memory", "CUDA, HBM memory", "CUDA before Volta", "ROCm"
APPLE, DISCRETE, HOST = "Metal, Apple chips", "Metal, discrete GPUs", "host"
VULKAN, SYCL = "Vulkan, integrated GPUs", "SYCL"

# What each fit may move: the block's name and the key in it.
DECODE = (
    (GDDR, "bandwidth_share"),
    (GDDR, "dequantize_share"),
    (GDDR, "layer_us"),
    (HBM, "bandwidth_share"),
    (HBM, "layer_us"),
    (OLD, "bandwidth_share"),
    (ROCM, "bandwidth_share"),
    (APPLE, "bandwidth_share"),
    (APPLE, "dequantize_share"),
    (DISCRETE, "bandwidth_share"),
    (VULKAN, "bandwidth_share"),
    (SYCL, "bandwidth_share"),
    (HOST, "bandwidth_share"),
    ("transformers", "layer_us"),
    ("transformers", "kv_traffic"),
    ("all_reduce_us", "host"),
    ("all_reduce_us", "direct"),
)
PREFILL = (
    (GDDR, "matrix_share"),
    (GDDR, "quantized_matrix_share"),
    (HBM, "matrix_share"),
    (HBM, "quantized_matrix_share"),
    (ROCM, "quantized_matrix_share"),
    (APPLE, "matrix_share"),
    (APPLE, "quantized_matrix_share"),
    (DISCRETE, "quantized_matrix_share"),
    (VULKAN, "quantized_matrix_share"),
    (SYCL, "quantized_matrix_share"),
    (HOST, "quantized_matrix_share"),
    ("constants", "activation_passes"),
    ("constants", "pipeline_gain"),
)
ENCODE = (
    ("constants", "attention_factor"),
    (HOST, "matrix_share"),
    ("llama.cpp", "first_image_ms"),
    ("constants", "framework_share"),
)
CAPS = {
    "attention_factor": 1.0,
    "framework_share": 0.9,
    "bandwidth_share": 0.95,
    "matrix_share": 0.9,
    "quantized_matrix_share": 0.9,
    "pipeline_gain": 1.0,
}

STAGES: dict[str, tuple[str, tuple[tuple[str, str], ...], Callable[[Row, Any], float]]] = {
    "decode": ("decode_tokens_per_s", DECODE, lambda row, table: 1 / speed_rows.predict_decode(row, table).expected_s),
    "prefill": (
        "prefill_tokens_per_s",
        PREFILL,
        lambda row, table: row["prompt_tokens"] / speed_rows.predict_prefill(row, table).expected_s,
    ),
    "encode": ("encode_ms", ENCODE, lambda row, table: 1e3 * speed_rows.predict_encode(row, table).expected_s),
}


def block(raw: Row, name: str) -> Row:
    """Return the mapping of ``raw`` that holds a factor."""
    if name == "constants":
        return raw["constants"]
    if name == "all_reduce_us":
        return raw["constants"]["all_reduce_us"]
    return next(row for row in (*raw["classes"], raw["host"], *raw["engines"]) if row["name"] == name)


def rows_of(key: str) -> list[Row]:
    """Return the rows that a fit uses."""
    if key == "encode_ms":
        return [row for row in speed_rows.encode_rows() if not row["held_back"]]
    return [row for row in speed_rows.rows(key) if key not in row.get("not_fitted", ())]


def log_errors(raw: Row, rows: list[Row], key: str, predict: Callable[[Row, Any], float]) -> list[float]:
    """Return ln(predicted / published) of each row."""
    table = speed_table_of(raw)
    return [math.log(predict(row, table) / row[key]) for row in rows]


def fit(raw: Row, stage: str, rows: list[Row], rounds: int = 12) -> Row:
    """Return ``raw`` with the stage's factors moved to the smallest mean absolute error over ``rows``."""
    key, factors, predict = STAGES[stage]
    raw = copy.deepcopy(raw)

    def loss() -> float:
        return statistics.fmean(abs(error) + 2 * error * error for error in log_errors(raw, rows, key, predict))

    best, step = loss(), 0.25
    for _ in range(rounds):
        for name, factor in factors:
            best = _move(block(raw, name), factor, step, loss, best)
        step *= 0.7
    return raw


def _move(holder: Row, factor: str, step: float, loss: Callable[[], float], best: float) -> float:
    for ratio in (math.exp(step), math.exp(-step)):
        before = holder[factor]
        holder[factor] = min(before * ratio, CAPS.get(factor, math.inf))
        now = loss()
        if now < best - 1e-9:
            return now
        holder[factor] = before
    return best


def device_key(row: Row) -> str:
    """Return what a fold holds back: all rows of one GPU."""
    gpus = row.get("gpus", [row.get("gpu")])
    return "+".join(sorted({str(gpu) for gpu in gpus})) or "CPU"


def classes_of(row: Row) -> set[str]:
    """Return what a row can teach: its devices' classes, or the engine whose launches bound it."""
    if "gpus" not in row:
        return {str(row.get("gpu"))}
    own = {row["engine"]} if row["engine"] == "transformers" else set()
    return own | {device.kind.name for device, _, _ in speed_rows.shares(row, speed_table())}


def held_back(raw: Row, stage: str, rounds: int = 6) -> list[tuple[Row, float]]:
    """Return rows with ln(predicted / published) by factors fitted without any row of their GPU.

    A row is left out where no other GPU of its class would teach the fit anything.
    """
    key, _, predict = STAGES[stage]
    rows = rows_of(key)
    errors = []
    for device in sorted({device_key(row) for row in rows}):
        rest = [row for row in rows if device_key(row) != device]
        known = set().union(*(classes_of(row) for row in rest))
        out = [row for row in rows if device_key(row) == device and classes_of(row) <= known]
        if out:
            errors += zip(out, log_errors(fit(raw, stage, rest, rounds), out, key, predict), strict=True)
    return errors


def each_source_held_back(raw: Row, rounds: int = 6) -> list[tuple[Row, float]]:
    """Return every row about images with ln(predicted / published) by factors fitted without any row of its source."""
    key, _, predict = STAGES["encode"]
    rows = speed_rows.encode_rows()
    errors = []
    for source in sorted({row["source"] for row in rows}):
        out, rest = ([row for row in rows if (row["source"] == source) is flag] for flag in (True, False))
        errors += zip(out, log_errors(fit(raw, "encode", rest, rounds), out, key, predict), strict=True)
    return errors


def write(raw: Row) -> None:
    """Put the factors of ``raw`` into the profile, three digits each, and leave everything else as it is."""
    text = PROFILE.read_text(encoding="utf-8")
    for name, factor in (*DECODE, *PREFILL, *ENCODE):
        value = float(f"{block(raw, name)[factor]:.3g}")
        start = text.index(f"{name}:" if name in {"constants", "all_reduce_us"} else f"name: {name}\n")
        found = re.compile(rf"({factor}: )[0-9.e+-]+").search(text, start)
        if found is not None:
            text = f"{text[: found.start()]}{found[1]}{value:g}{text[found.end() :]}"
    PROFILE.write_text(text, encoding="utf-8")


def summary(errors: list[float]) -> str:
    """Return the median and the 90th percentile of the absolute error in per cent."""
    sizes = sorted(math.expm1(abs(error)) for error in errors)
    return f"median {100 * statistics.median(sizes):.1f} %, 90th percentile {100 * sizes[int(0.9 * len(sizes))]:.0f} %"


def main() -> None:
    """Fit, print, and write if asked to."""
    raw = yaml.safe_load(PROFILE.read_text(encoding="utf-8"))
    start = copy.deepcopy(raw)
    for stage in [name for name in STAGES if name in sys.argv] or STAGES:
        key, factors, predict = STAGES[stage]
        rows = rows_of(key)
        raw = fit(raw, stage, rows)
        print(f"{stage}: {len(rows)} rows, {len(factors)} factors: {summary(log_errors(raw, rows, key, predict))}")
        for name, factor in factors:
            print(f"    {name}, {factor}: {block(raw, name)[factor]:.3g}")
        if stage == "encode":
            held = [row for row in speed_rows.encode_rows() if row["held_back"]]
            print(f"  {len(held)} rows held back: {summary(log_errors(raw, held, key, predict))}")
            print(f"  each source held back in turn: {summary([error for _, error in each_source_held_back(start)])}")
        elif "--quick" not in sys.argv:
            errors = [error for _, error in held_back(start, stage)]
            print(f"  {len(errors)} rows with their GPU held back: {summary(errors)}")
    if "--write" in sys.argv:
        write(raw)


if __name__ == "__main__":
    main()
