"""Published speeds as work for the model: what each row's devices do, and what the model says about it."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from planner.gpu_catalog import find_entry, gpu_of
from planner.machine import Gpu, Host
from planner.speed import (
    DecodeWork,
    PrefillWork,
    TowerWork,
    decode_time,
    encode_time,
    gpu_device,
    host_device,
    prefill_time,
)

if TYPE_CHECKING:
    from planner.speed import Device, SpeedTable, StageTime

DATA = Path(__file__).parent / "data" / "field_speed.yaml"
GIB = 1 << 30


@cache
def data() -> dict[str, Any]:
    """Return the whole file."""
    return yaml.safe_load(DATA.read_text(encoding="utf-8"))


def rows(kind: str) -> list[dict[str, Any]]:
    """Return the rows that hold ``decode_tokens_per_s`` or ``prefill_tokens_per_s``."""
    return [row for row in data()["rows"] if kind in row]


def later_rows(kind: str) -> list[dict[str, Any]]:
    """Return rows found after the fit, which take no part in it."""
    return [row for row in data()["later"] if kind in row]


def encode_rows() -> list[dict[str, Any]]:
    """Return the rows about images that count; the others say why they do not."""
    return [row for row in data()["encode"] if "not_counted" not in row]


def encode_rows_not_counted() -> list[dict[str, Any]]:
    """Return the rows about images whose setting is not known or not planned for."""
    return [row for row in data()["encode"] if "not_counted" in row]


def _model(name: str) -> dict[str, Any]:
    return next(model for model in data()["models"] if model["name"] == name)


def _size(row: dict[str, Any]) -> dict[str, int]:
    key = (row["model"], row["quantization"])
    return next(size for size in data()["sizes"] if (size["model"], size["quantization"]) == key)


def gpu(name: str) -> Gpu:
    """Return a card of the catalogue or of the rows' own; its memory does not matter here."""
    card = next((card for card in data()["cards"] if card["name"] == name), None)
    if card is None:
        return gpu_of(find_entry(name), total_bytes=GIB, free_bytes=GIB)
    return Gpu(
        name=name,
        total_bytes=GIB,
        free_bytes=GIB,
        backend=card["backend"],
        architecture=card["architecture"],
        bandwidth_bytes_per_s=round(card["bandwidth_gb_per_s"] * 1e9),
        fp32_flops=round(card["fp32_tflops"] * 1e12),
        fp16_flops=round(card["fp16_tflops"] * 1e12),
    )


def host(row: dict[str, Any]) -> Host:
    """Return the row's host, the assumed one where it names none."""
    given = row.get("host") or {"cpu": "", "cores": 8, "bandwidth": None}
    return Host(
        total_bytes=GIB,
        free_bytes=GIB,
        n_cores=given["cores"],
        cpu=given["cpu"],
        bandwidth_bytes_per_s=given["bandwidth"],
    )


def shares(row: dict[str, Any], table: SpeedTable) -> list[tuple[Device, float, bool]]:
    """Return each device with its layers (a fraction of them where the split is not published) and the output."""
    n_layers = _model(row["model"])["n_layers"]
    gpus = [gpu_device(gpu(name), table) for name in row["gpus"]]
    on_gpus = n_layers if "gpu_layers" not in row else row["gpu_layers"] - 1
    if not gpus:
        return [(host_device(host(row), table), n_layers, True)]
    sizes = [find_entry(name).total_bytes or 1 if len(gpus) > 1 else 1 for name in row["gpus"]]
    parts = [
        (device, on_gpus * size / sum(sizes), i == len(gpus) - 1)
        for i, (device, size) in enumerate(zip(gpus, sizes, strict=True))
    ]
    rest = n_layers - on_gpus
    return [*([(host_device(host(row), table), rest, False)] if rest else []), *parts]


def _part(row: dict[str, Any], layers: float, *, output: bool) -> tuple[int, int]:
    """Return bytes and weights of so many layers, with or without the output matrix."""
    model, active = _model(row["model"]), _size(row)["active_bytes"]
    weights = model["layer_weights"] * layers / model["n_layers"] + (model["output_weights"] if output else 0)
    return round(active * weights / (model["layer_weights"] + model["output_weights"])), round(weights)


def _quantized(row: dict[str, Any]) -> bool:
    return row["quantization"] not in {"F16", "BF16"}


def predict_decode(row: dict[str, Any], table: SpeedTable) -> StageTime:
    """Return the model's seconds per token."""
    model, parallel = _model(row["model"]), row.get("tensor_parallel")
    works = []
    for device, layers, output in shares(row, table):
        layers_here = model["n_layers"] / len(row["gpus"]) if parallel else layers
        n_bytes, n_weights = _part(row, layers_here, output=output or bool(parallel))
        kv = model["kv_bytes_per_token"] * row["context_tokens"] * layers_here / model["n_layers"]
        works.append(
            DecodeWork(
                device=device,
                n_layers=model["n_layers"] if parallel else layers,
                weight_bytes=n_bytes,
                n_weights=n_weights,
                n_superblock_weights=n_weights if "_K" in row["quantization"] or "IQ" in row["quantization"] else 0,
                kv_bytes=round(kv),
                kv_repeat=model["kv_repeat"],
                n_expert_layers=layers_here if model["experts"] else 0,
            )
        )
    return decode_time(works, engine=row["engine"], table=table, tensor_parallel=parallel)


def predict_prefill(row: dict[str, Any], table: SpeedTable) -> StageTime:
    """Return the model's seconds for the prompt."""
    model = _model(row["model"])
    works = []
    for device, layers, _ in shares(row, table):
        n_bytes, n_weights = _part(row, layers, output=False)
        held = _size(row).get("held_bytes", 0) * layers / model["n_layers"]
        works.append(
            PrefillWork(
                device=device,
                n_layers=layers,
                n_weights=n_weights,
                weight_bytes=max(n_bytes, round(held)),
                quantized=_quantized(row),
                experts=model["experts"],
                n_embd=model["n_embd"],
                attention_width=round(model["attention_width"] * layers),
            )
        )
    return prefill_time(works, n_tokens=row["prompt_tokens"], table=table)


def encode_device(row: dict[str, Any], table: SpeedTable) -> Device:
    """Return the device that encodes; under another backend than its usual one where the row says so."""
    if row["gpu"] is None:
        return host_device(host(row), table)
    card = gpu(row["gpu"])
    return gpu_device(replace(card, backend=row.get("backend", card.backend)), table)


def predict_encode(row: dict[str, Any], table: SpeedTable) -> StageTime:
    """Return the model's seconds for the images."""
    tower = next(tower for tower in data()["towers"] if tower["name"] == row["tower"])
    projector, quantized = tower.get("projector_weights", 0), row.get("quantized", False)
    work = TowerWork(
        device=encode_device(row, table),
        n_layers=tower["n_layers"],
        n_embd=tower["n_embd"],
        n_heads=tower["n_heads"],
        n_weights=tower["n_weights"],
        weight_bytes=round((34 / 32 if quantized else 2) * (tower["n_weights"] + projector)),
        quantized=quantized,
        n_projector_weights=projector,
        patches_per_token=tower.get("patches_per_token", 1),
        window_patches=tower.get("window_patches", 0),
        n_full_layers=tower.get("full_layers", 0),
        table_width=tower.get("table_width", 0),
    )
    return encode_time(
        work,
        [row["patches"]] * row["views"],
        engine=row["engine"],
        table=table,
        flash=row.get("flash", True),
        first=row.get("first", False),
    )
