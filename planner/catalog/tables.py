"""Figures that hold for all engines, from ``profiles/engines/``: device overhead and speed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from planner.catalog.data import load_data
from planner.memory.overhead import (
    NOTHING,
    ByteRange,
    ContextBand,
    EngineExtra,
    MeasuredContext,
    OverheadTable,
)
from planner.units import parse_bytes

if TYPE_CHECKING:
    from planner.speed.table import Constants, DeviceClass, EngineFactors, SpeedTable


@cache
def overhead_table() -> OverheadTable:
    """Return ``profiles/engines/overhead.yaml``, read once."""
    raw = load_data("engines/overhead.yaml")
    return OverheadTable(
        bands=tuple(_band(row) for row in raw["bands"]),
        measured=tuple(
            MeasuredContext(gpu=row["gpu"], range=_range(row), source=row["source"]) for row in raw["measured"]
        ),
        extras=tuple(
            EngineExtra(engines=tuple(row["engines"]), range=_range(row["fixed"]), source=row["source"])
            for row in raw["engines"]
        ),
        expert_staging=_range(raw["expert_staging"]["fixed"]),
        expert_staging_source=raw["expert_staging"]["source"],
        windows_note=raw["notes"]["windows"],
    )


def _band(row: dict[str, Any]) -> ContextBand:
    capability = row.get("min_compute_capability")
    return ContextBand(
        backend=row["backend"],
        min_compute_capability=None if capability is None else _pair(capability),
        per_unit=_range(row["per_unit"]) if "per_unit" in row else NOTHING,
        fixed=_range(row["fixed"]),
        basis=row["basis"],
        source=row["source"],
        whole_process=row.get("whole_process", False),
    )


def _range(row: dict[str, Any]) -> ByteRange:
    low, expected, high = (parse_bytes(str(row[key])) for key in ("low", "expected", "high"))
    return ByteRange(low_bytes=low, expected_bytes=expected, high_bytes=high)


def _pair(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)


@cache
def speed_table() -> SpeedTable:
    """Return ``profiles/engines/speed.yaml``, read once."""
    return speed_table_of(load_data("engines/speed.yaml"))


def speed_table_of(raw: dict[str, Any]) -> SpeedTable:
    """Return the factors that a mapping like ``profiles/engines/speed.yaml`` holds; a fit tries others."""
    from planner.speed.table import SpeedTable  # noqa: PLC0415 - only where a speed is asked for

    return SpeedTable(
        classes=tuple(kind for row in raw["classes"] for kind in _classes(row, raw)),
        host=_class(raw["host"], None, raw),
        engines=tuple(_engine(row) for row in raw["engines"]),
        constants=_constants(raw["constants"]),
    )


def _classes(row: dict[str, Any], raw: dict[str, Any]) -> list[DeviceClass]:
    """Return one class per architecture, since the rates of their matrix units are theirs."""
    return [_class(row, name, raw) for name in row["architectures"] or (None,)]


def _class(row: dict[str, Any], architecture: str | None, raw: dict[str, Any]) -> DeviceClass:
    from planner.speed.table import DeviceClass  # noqa: PLC0415 - see speed_table_of

    own = {"backends", "architectures", "layer_us"}
    return DeviceClass(
        **{key: value for key, value in row.items() if key not in own},
        backends=tuple(row["backends"]),
        architectures=() if architecture is None else (architecture,),
        layer_s=row["layer_us"] / 1e6,
        matrix_per_fp32=raw["matrix_per_fp32"].get(architecture),
        quantized_matrix_gain=raw["quantized_matrix_gain"].get(architecture, 1.0),
    )


def _engine(row: dict[str, Any]) -> EngineFactors:
    from planner.speed.table import EngineFactors  # noqa: PLC0415 - see speed_table_of

    own = {"engines", "layer_us", "first_image_ms", "position_tables"}
    layer_us = row["layer_us"]
    return EngineFactors(
        **{key: value for key, value in row.items() if key not in own},
        engines=tuple(row["engines"]),
        first_image_s=row["first_image_ms"] / 1e3,
        position_tables=tuple(row["position_tables"]),
        layer_s=None if layer_us is None else layer_us / 1e6,
    )


def _constants(row: dict[str, Any]) -> Constants:
    from planner.speed.table import Constants  # noqa: PLC0415 - see speed_table_of

    disk, pixels = row["disk_gb_per_s"], row["image_megapixels_per_s"]
    slow, usual, fast = (round(disk[key] * 1e9) for key in ("slow", "usual", "fast"))
    return Constants(
        activation_passes=row["activation_passes"],
        attention_factor=row["attention_factor"],
        framework_share=row["framework_share"],
        score_passes=row["score_passes"],
        table_entries_per_s=row["table_entries_per_s"],
        pipeline_gain=row["pipeline_gain"],
        expert_layer_factor=row["expert_layer_factor"],
        expert_matrix_factor=row["expert_matrix_factor"],
        expert_spread=row["expert_spread"],
        hop_s=row["hop_us"] / 1e6,
        link_share=row["link_share"],
        all_reduce_s={link: us / 1e6 for link, us in row["all_reduce_us"].items()},
        assumed_gpu_bandwidth=round(row["assumed_gpu_bandwidth_gb_per_s"] * 1e9),
        assumed_host_bandwidth=round(row["assumed_host_bandwidth_gb_per_s"] * 1e9),
        assumed_flops=round(row["assumed_tflops"] * 1e12),
        host_flops_per_core=round(row["host_gflops_per_core"] * 1e9),
        unknown_spread=row["unknown_spread"],
        disk_bytes_per_s=(slow, usual, fast),
        link_bytes_per_s_per_lane={lane: round(rate * 1e9) for lane, rate in row["link_gb_per_s_per_lane"].items()},
        pixels_per_s=(round(pixels["slow"] * 1e6), round(pixels["usual"] * 1e6), round(pixels["fast"] * 1e6)),
    )
