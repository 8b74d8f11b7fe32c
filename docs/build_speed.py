"""Write ``docs/speed.md``: predicted beside published for every row, errors by class, and rows held back.

``python docs/build_speed.py``; the held-back part fits the factors once per GPU and takes about a minute.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parent / "tests")]

import fit_speed  # noqa: E402 - beside this script
import speed_rows  # noqa: E402 - beside the tests

from planner.catalog.tables import speed_table  # noqa: E402 - after the path

if TYPE_CHECKING:
    from collections.abc import Callable

    from planner.speed import StageTime

Row = dict[str, Any]
TABLE = speed_table()

HEAD = """# How fast: predicted beside published

Written by `python docs/build_speed.py`; do not edit. Factors: `profiles/engines/speed.yaml`; published figures with
their sources: `tests/data/field_speed.yaml`; the fit: `docs/fit_speed.py`.

## The model

Each stage is a sum of named parts; its largest part is printed as what bounds it.

- **load**: the file over the disk, or its bytes over PCI Express (generation x lanes), whichever is slower
- **image decode**: pixels on one CPU core
- **encode**: 2 x weights x patches, the projector's x image tokens, over the share of the matrix rate that a prompt
  reaches too; 4 x pairs of patches x width, over a part of it in flash attention (over the FP32 rate where the kernel
  has no matrix units); without flash attention, asked for or in llama.cpp before November 2025, every head's scores over
  memory; activations and weights over memory; launches. llama.cpp takes tile after tile, computes windows as a mask over
  all pairs, and fills a resampler's table of positions on one core; transformers and the servers take all images at once
  and skip what lies outside of a window. A process's first image costs more, up to which every range reaches
- **prefill**: 2 x weights x tokens + 4 x pairs of tokens x width, over a share of the matrix rate; weights per
  micro-batch and activations over memory; several devices pipeline micro-batches at a share of the ideal gain
- **decode**: device after device, active weight bytes and KV bytes over a share of the bandwidth, the arithmetic of
  super-block formats, a fixed cost per layer; hand-overs between devices. Tensor parallel: the slowest device plus two
  all-reduces per layer

Load and image decode have no published row to be checked against: their ranges are assumed and wide. A range is the
expected value divided and multiplied by the class's spread; a GPU whose rates are not known gets a factor of three.

"""


def count_of(row: Row, key: str) -> float:
    """Return what the predicted seconds are for."""
    return row["prompt_tokens"] if key.startswith("prefill") else 1


def title(row: Row) -> str:
    """Return the devices of a row in short."""
    gpus = row.get("gpus", [row["gpu"]] if row.get("gpu") else [])
    names = [f"{gpus.count(name)} x {name}" if gpus.count(name) > 1 else name for name in dict.fromkeys(gpus)]
    layers = f", {row['gpu_layers']} layers on it" if "gpu_layers" in row else ""
    return " + ".join(names or ["CPU"]) + layers


def table_of(rows: list[Row], key: str, predict: Callable[[Row, Any], StageTime]) -> tuple[list[str], list[float], int]:
    """Return Markdown lines, the relative errors, and how many rows lie in their range."""
    lines = [
        "| row | device | model | published | predicted | range | error | bound by |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    errors, n_inside = [], 0
    for row in rows:
        time, count = predict(row, TABLE), count_of(row, key)
        low, expected, high = time.per_second(count)
        error = expected / row[key] - 1
        errors.append(error)
        within = low <= row[key] <= high
        n_inside += within
        mark = "" if within else " (outside)"
        what = f"{row['model']} {row['quantization']}, {row['engine']}"
        lines.append(
            f"| {row['id']} | {title(row)} | {what} | {row[key]:.4g} | {expected:.4g} "
            f"| {low:.3g} to {high:.3g}{mark} | {100 * error:+.0f} % | {time.bound_by} |"
        )
    return lines, errors, n_inside


def class_lines(rows: list[Row], errors: list[float]) -> list[str]:
    """Return the errors by class of devices."""
    by_class = defaultdict(list)
    for row, error in zip(rows, errors, strict=True):
        by_class[" + ".join(sorted(fit_speed.classes_of(row)))].append(abs(error))
    lines = ["", "| class | rows | median error | largest |", "|---|--:|--:|--:|"]
    return lines + [
        f"| {name} | {len(sizes)} | {100 * statistics.median(sizes):.0f} % | {100 * max(sizes):.0f} % |"
        for name, sizes in sorted(by_class.items())
    ]


def held_back_line(stage: str, predict: Callable[[Row, Any], StageTime]) -> str:
    """Return the sentence about rows whose GPU the fit did not see."""
    raw = yaml.safe_load(fit_speed.PROFILE.read_text(encoding="utf-8"))
    errors = fit_speed.held_back(raw, stage)
    spreads = [math.log(time.high_s / time.expected_s) for time in (predict(row, TABLE) for row, _ in errors)]
    n_inside = sum(abs(error) <= spread for (_, error), spread in zip(errors, spreads, strict=True))
    median = statistics.median(abs(math.expm1(error)) for _, error in errors)
    return (
        f"With all rows of its GPU held back from the fit, {len(errors)} rows that another GPU of their class teaches: "
        f"median error {100 * median:.1f} %, {n_inside} of {len(errors)} inside their range."
    )


def section(stage: str, heading: str, rows: list[Row], predict: Callable[[Row, Any], StageTime]) -> list[str]:
    """Return one stage's part of the page."""
    key, factors, _ = fit_speed.STAGES[stage]
    lines, errors, n_inside = table_of(rows, key, predict)
    left = sum(key in row.get("not_fitted", ()) for row in rows)
    summary = (
        f"{len(rows)} rows ({left} of them not fitted), {len(factors)} fitted factors. Median error "
        f"{100 * statistics.median(abs(error) for error in errors):.1f} %, {n_inside} of {len(rows)} inside the range. "
    )
    return [f"## {heading}", "", summary + held_back_line(stage, predict), *class_lines(rows, errors), "", *lines, ""]


def later_section() -> list[str]:
    """Return the rows found after the fit."""
    note = (
        "Found when the factors stood, most with builds of 2026 and models that the fit never saw. They moved no fitted "
        "factor. What they did change: the spreads of decoding on HBM and of prompts on GDDR and HBM were widened, the "
        "factors for layers with experts were chosen on later-10 and later-11, and discrete cards under Vulkan got a "
        "class of their own. Prompts on Blackwell (speed-068, borne out by later-05 to later-07) and, for quantised "
        "weights, on Hopper (a published micro-benchmark) have a gain of their own. Still missed by more "
        "than a factor of 1.9: later-11, later-13 and later-14, whose layers are mostly recurrent. The model counts those "
        "as products with weights alone, which holds on RTX cards (later-01, later-03, later-05 to later-07) and not on "
        "A100, M4 and Arc."
    )
    lines = ["## Rows found after the fit", "", note, ""]
    for key, predict in (
        ("decode_tokens_per_s", speed_rows.predict_decode),
        ("prefill_tokens_per_s", speed_rows.predict_prefill),
    ):
        rows = speed_rows.later_rows(key)
        table, errors, n_inside = table_of(rows, key, predict)
        median = 100 * statistics.median(abs(error) for error in errors)
        summary = f"{key}: median error {median:.0f} %, {n_inside} of {len(rows)} inside the range."
        lines += [summary, "", *table, ""]
    return lines


def encode_section() -> list[str]:
    """Return the part about images."""
    rows = speed_rows.encode_rows()
    fit, held = ([row for row in rows if row["held_back"] is flag] for flag in (False, True))
    note = (
        f"{len(fit_speed.ENCODE)} fitted factors on {len(fit)} rows, {len(held)} rows held back, {len(rows)} in all. Which "
        "ones are held back was decided before any prediction, by the hash of their source; the form of the model was "
        "chosen with all of them in view, the table of positions by what one of them (speed-097 to speed-099) publishes "
        "about batches. The model before it, with a share of the matrix rate of its own for each class, had 11 of the 22 "
        "and 8 of the 14 within a factor of two, the worst off by 6.8."
    )
    lines = ["## Image encoding, milliseconds", "", f"{note} {_turns_line()}", "", *_factor_lines(fit, held), ""]
    lines += _encode_lines(rows, lambda row: "held back" if row["held_back"] else "fitted")
    lines += ["", "These do not count, for the reason given; the prediction stands beside them all the same.", ""]
    return [*lines, *_encode_lines(speed_rows.encode_rows_not_counted(), lambda row: row["not_counted"]), ""]


def _turns_line() -> str:
    """Return the sentence about every source held back in turn."""
    raw = yaml.safe_load(fit_speed.PROFILE.read_text(encoding="utf-8"))
    away = [math.exp(abs(error)) for _, error in fit_speed.each_source_held_back(raw)]
    return (
        f"With each source held back in turn, {sum(factor <= 2 for factor in away)} of {len(away)} are within a factor of "
        f"two, the median is off by {statistics.median(away):.2f}, the worst by {max(away):.2f}."
    )


def _factor_lines(fit: list[Row], held: list[Row]) -> list[str]:
    """Return how far predictions are from the published time, as a factor either way, by class."""
    lines = [
        "| rows | number | median factor | largest | within two | inside the range |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    by_class = defaultdict(list)
    for row in (*fit, *held):
        by_class[speed_rows.encode_device(row, TABLE).kind.name].append(row)
    for name, rows in (("fitted", fit), ("held back", held), *sorted(by_class.items())):
        times = [(row["encode_ms"] / 1e3, speed_rows.predict_encode(row, TABLE)) for row in rows]
        away = [math.exp(abs(math.log(time.expected_s / published))) for published, time in times]
        within, inside = (
            sum(factor <= 2 for factor in away),
            sum(time.low_s <= published <= time.high_s for published, time in times),
        )
        lines.append(
            f"| {name} | {len(rows)} | {statistics.median(away):.2f} | {max(away):.2f} | {within} of {len(rows)} "
            f"| {inside} of {len(rows)} |"
        )
    return lines


def _encode_lines(rows: list[Row], status: Callable[[Row], str]) -> list[str]:
    """Return one line per row."""
    lines = [
        "| row | device | images | published | predicted | range | factor | bound by | |",
        "|---|---|---|--:|--:|--:|--:|---|---|",
    ]
    for row in rows:
        time = speed_rows.predict_encode(row, TABLE)
        low, expected, high = (1e3 * seconds for seconds in (time.low_s, time.expected_s, time.high_s))
        mark = "" if low <= row["encode_ms"] <= high else " (outside)"
        device = title(row) if row["gpu"] else row["host"]["cpu"]
        lines.append(
            f"| {row['id']} | {device}, {row['engine']} | {row['tower']}, {row['views']} x {row['patches']} patches "
            f"| {row['encode_ms']:.4g} | {expected:.4g} | {low:.3g} to {high:.3g}{mark} "
            f"| {expected / row['encode_ms']:.2f} | {time.bound_by} | {status(row)} |"
        )
    return lines


def notes_section() -> list[str]:
    """Return what the rows' notes say, and the rows that cannot be compared."""
    noted = [
        row
        for row in (*speed_rows.data()["rows"], *speed_rows.data()["later"], *speed_rows.data()["encode"])
        if row.get("note")
    ]
    left = speed_rows.data()["left_out"]
    return [
        "## Notes on rows",
        "",
        *(f"- {row['id']}: {row['note']}" for row in noted),
        *(f"- {row['id']} is left out: {row['reason']}" for row in left),
        "",
    ]


def main() -> None:
    """Write the page."""
    decode, prefill = speed_rows.rows("decode_tokens_per_s"), speed_rows.rows("prefill_tokens_per_s")
    lines = [
        *section("decode", "Decoding, tokens per second", decode, speed_rows.predict_decode),
        *section("prefill", "Prompt processing, tokens per second", prefill, speed_rows.predict_prefill),
        *encode_section(),
        *later_section(),
        *notes_section(),
    ]
    (HERE / "speed.md").write_text(HEAD + "\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
