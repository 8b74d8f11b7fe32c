"""Published measurements asked through the public path, beside what was measured.

``tests/data/field_requests.yaml`` says how each case is asked; the measured figures stand in the case itself. Models
that the catalogue does not hold are profiles of a user's own, in ``tests/data/field_models``.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from planner.catalog.directories import VARIABLE
from planner.catalog.models import forget_profiles
from planner.cli.batch import answer_line

DATA = Path(__file__).parent / "data"
MODELS = DATA / "field_models"
KINDS = {"engine_buffers", "vllm_profile", "memory_breakdown_after_run", "measured_vram", "nvidia_smi"}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
UNITS = {"MiB": 1 << 20, "GiB": 1 << 30, "MB": 1 << 20, "GB": 10**9}
PARTS = {
    "buffers": ("weights", "kv_cache", "compute"),
    "workings": ("kv_cache", "compute"),
    "cache": ("kv_cache",),
    "held": ("weights", "kv_cache"),
}
HOLDS = {
    "buffers": "weights, cache and compute",
    "workings": "cache and compute",
    "cache": "the cache",
    "held": "torch, after the answer",
    "load": "everything of the process",
    "profile": "weights, activation peak and outside torch",
}


@dataclass(frozen=True)
class Row:
    """One figure of one case. Bytes, or tokens; ``rounding`` is what the printed digits leave open."""

    case: str
    part: str
    engine: str
    source: str
    term: str
    where: str
    fork: bool
    low: int
    expected: int
    high: int
    measured: float
    rounding: float
    as_read: str
    why: str
    fitted: bool
    first: str = ""

    @property
    def is_total(self) -> bool:
        """Whether it is a total with an interval, not a component."""
        return self.term in HOLDS

    @property
    def error(self) -> float:
        """Relative error of what was expected."""
        return self.expected / self.measured - 1

    @property
    def above(self) -> bool:
        """Whether the measured figure is above the high bound."""
        return self.measured - self.rounding > self.high

    @property
    def inside(self) -> bool:
        """Whether the measured figure is inside the interval."""
        return not self.above and self.measured + self.rounding >= self.low


@cache
def published() -> dict[str, dict[str, Any]]:
    """Return every published measurement (not the engines' own estimates) by its id."""
    cases = yaml.load(gzip.decompress((DATA / "field_memory.yaml.gz").read_bytes()), Loader=LOADER)  # noqa: S506
    later = {case["id"]: case for case in _read("field_later.yaml")["cases"] if "measured" in case}
    return {case["id"]: case for case in cases if case["kind"] in KINDS} | later


@cache
def _read(name: str) -> dict[str, Any]:
    table: dict[str, Any] = yaml.load((DATA / name).read_text(encoding="utf-8"), Loader=LOADER)  # noqa: S506 - safe ones
    return table


def left_out() -> dict[str, str]:
    """Return the cases that cannot be asked, each with the reason."""
    reasons: dict[str, str] = _read("field_requests.yaml")["left_out"]
    return reasons


def asked() -> Iterator[dict[str, Any]]:
    """Yield every case as it is asked, series unfolded."""
    for case in (*_read("field_requests.yaml")["cases"], *_read("field_later.yaml")["cases"]):
        if "each" in case:
            yield from _series(case)
        else:
            yield case


def _series(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield one case per model and prompt of 2,048 answer tokens."""
    each = case["each"]
    for name, model in zip(each["id"], each["model"], strict=True):
        for n_prompt in each["prompts"]:
            workload = {"context": n_prompt + 2048, "prompt_tokens": n_prompt, "answer_tokens": 2048}
            why = case["why"].get(name, {}).get(n_prompt, "")
            of = [f"{case['figure']}.{n_prompt}"]
            total = {"holds": "held", "at": "CUDA0", "of": of, "unit": "MiB", "why": why}
            request = {**case["request"], "model": model, "workload": workload}
            yield {"id": name, "part": f"{n_prompt} prompt tokens", "request": request, "totals": [total]}


def compare() -> Iterator[Row]:
    """Yield every figure of every case that can be asked."""
    kept = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(MODELS)
    forget_profiles()
    try:
        for case in asked():
            yield from _rows(case)
    finally:
        if kept is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = kept
        forget_profiles()


def _rows(case: dict[str, Any]) -> Iterator[Row]:
    answer = _answer(json.dumps(case["request"], sort_keys=True))
    for figure in (*case.get("figures", ()), *case.get("totals", ())):
        devices = _devices(answer, figure["at"])
        low, expected, high = _predicted(devices, figure)
        measured, rounding = _measured(published()[case["id"]]["measured"], figure)
        yield Row(
            case=case["id"],
            part=case.get("part", ""),
            engine=published()[case["id"]]["engine"],
            source=published()[case["id"]]["source"],
            term=figure.get("term") or figure["holds"],
            where={"gpus": "GPUs", "all": "all devices", "Host": "host"}.get(figure["at"], figure["at"]),
            fork=case.get("fork", False),
            low=low,
            expected=expected,
            high=high,
            measured=measured,
            rounding=rounding,
            as_read=case.get("as_read", ""),
            why=figure.get("why", ""),
            fitted=figure.get("fitted", False),
            first=figure.get("first", ""),
        )


@cache
def _answer(request: str) -> dict[str, Any]:
    found = answer_line(request.encode(), None)
    if "error" in found or not found["devices"]:
        raise AssertionError(f"{request}: {found.get('error') or found['reasons']}")
    return found


def _devices(answer: dict[str, Any], where: str) -> list[dict[str, Any]]:
    if where == "all":
        return list(answer["devices"])
    wanted = {"gpus": lambda name: name != "Host"}.get(where, lambda name: name == where)
    return [device for device in answer["devices"] if wanted(device["device"])]


def _predicted(devices: list[dict[str, Any]], figure: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return low, expected and high bytes of what a figure holds (or the tokens of a cache)."""
    items = [item for device in devices for item in device["items"]]
    term = figure.get("term") or figure["holds"]
    if term == "tokens":
        n_tokens = next(item["inputs"]["tokens"] for item in items if item["component"] == "kv_cache")
        return n_tokens, n_tokens, n_tokens
    chosen = [item for item in items if _belongs(item, term)]
    low, expected, high = (sum(item[f"{key}_bytes"] for item in chosen) for key in ("low", "expected", "high"))
    most = sum(device["high_bytes"] for device in devices)
    if term == "held":
        return expected, expected, most
    return low, expected, most if term == "load" else min(high, most)


def _belongs(item: Mapping[str, Any], term: str) -> bool:
    if term == "load":
        return True
    if term == "profile":
        return item["component"] in ("weights", "compute") or item["formula"].startswith("memory outside torch")
    return item["component"] in PARTS.get(term, (term,))


def _measured(measured: Mapping[str, Any], figure: Mapping[str, Any]) -> tuple[float, float]:
    """Return the sum of the paths, and what rounding to the printed digits leaves open."""
    total, rounding = 0.0, 0.0
    for path in figure["of"]:
        value = _at(measured, path)
        unit = 1 if figure.get("term") == "tokens" else UNITS[figure.get("unit") or path.rpartition("_")[2]]
        total += value * unit
        rounding += _last_digit(value) * unit
    if "per" in figure:  # the bytes given are rounded too
        given = measured[figure["per"]]
        rounding += total * _last_digit(given) / given
    return total, rounding


def _at(value: Any, path: str) -> float:
    for key in path.split("."):
        value = value[int(key)] if key.isdigit() else value[key]
    return float(value)


def _last_digit(value: float) -> float:
    """Return one unit of the last printed digit: logs round, and llama.cpp's breakdown cuts."""
    decimals = f"{value:.6f}".rstrip("0").partition(".")[2]
    return float(10 ** -len(decimals))
