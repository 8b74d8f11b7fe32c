"""What was measured on this very box: the memory of a process outside the engine's buffers, kept between runs.

The file is ``$XDG_DATA_HOME/vlplan/calibration.yaml``. It speaks only for GPUs that were detected, with the driver it
was measured under; described machines, and everything while ``VLPLAN_NO_CALIBRATION`` is set, never see it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner.catalog.foreign import parse_foreign_yaml
from planner.errors import SourceError
from planner.frozen import dataclass
from planner.memory.overhead import NOTHING, ByteRange, MeasuredContext, Overhead, OverheadTable, overhead_bytes
from planner.units import format_bytes

if TYPE_CHECKING:
    from planner.budget import Budget, Item
    from planner.engines.engine import Engine
    from planner.machine import Gpu, Machine
    from planner.model import Model
    from planner.workload import Workload

OFF = "VLPLAN_NO_CALIBRATION"
MAX_BYTES = 1 << 20
MAX_ROWS = 1000
_KEYS = {"gpu": str, "driver": str, "engine": str, "low_bytes": int, "high_bytes": int, "n_runs": int}


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Least and most bytes that processes of one engine were seen to take on one GPU beside the engine's buffers."""

    gpu: str  # the driver's name
    driver: str
    engine: str
    low_bytes: int
    high_bytes: int
    n_runs: int


def calibration_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where calibrations are kept."""
    home = environment.get("HOME") or environment.get("USERPROFILE") or "~"
    data = environment.get("XDG_DATA_HOME") or Path(home).expanduser() / ".local" / "share"
    return Path(data) / "vlplan" / "calibration.yaml"


def read_calibrations(path: Path | None = None) -> tuple[Calibration, ...]:
    """Return what is kept; nothing where there is no file.

    Raises:
        SourceError: the file is there but is no calibration.
    """
    path = path or calibration_path()
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise SourceError(f"{path}: over {format_bytes(MAX_BYTES)}; delete it, or set {OFF}=1")
    data = parse_foreign_yaml(raw.decode("utf-8", "replace"), str(path))
    rows = data.get("calibrations") if isinstance(data, dict) else None
    if not isinstance(rows, list) or len(rows) > MAX_ROWS:
        raise SourceError(f"{path}: is no list of calibrations; delete it, or set {OFF}=1")
    return tuple(_row(row, path) for row in rows)


def _row(row: Any, path: Path) -> Calibration:  # noqa: ANN401 - YAML holds anything
    if not isinstance(row, dict) or set(row) != set(_KEYS) or any(type(row[key]) is not _KEYS[key] for key in _KEYS):
        raise SourceError(f"{path}: a calibration needs {', '.join(_KEYS)}; delete the file, or set {OFF}=1")
    found = Calibration(**row)
    if not 0 <= found.low_bytes <= found.high_bytes <= 1 << 40:
        raise SourceError(f"{path}: {found.gpu[:60]}: low and high bytes are out of order; delete the file")
    return found


def save_calibrations(new: Sequence[Calibration], path: Path | None = None) -> Path:
    """Add what was measured to what is kept and return where; the old file stays whole until the new one is.

    Raises:
        SourceError: the directory or file cannot be written.
    """
    import tempfile  # noqa: PLC0415 - only where a calibration is written

    import yaml  # noqa: PLC0415 - only when something is saved

    path = path or calibration_path()
    kept = {(one.gpu, one.driver, one.engine): one for one in read_calibrations(path)}
    for one in new:
        key = (one.gpu, one.driver, one.engine)
        kept[key] = _joined(kept[key], one) if key in kept else one
    rows = [{key: getattr(one, key) for key in _KEYS} for one in kept.values()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".calibration.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yaml.safe_dump({"calibrations": rows[-MAX_ROWS:]}, file, sort_keys=False, allow_unicode=True)
        Path(name).replace(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be written: {error.strerror}") from error
    return path


def _joined(old: Calibration, new: Calibration) -> Calibration:
    return replace(
        old,
        low_bytes=min(old.low_bytes, new.low_bytes),
        high_bytes=max(old.high_bytes, new.high_bytes),
        n_runs=old.n_runs + new.n_runs,
    )


def calibrated_overhead(
    table: OverheadTable, engine: str, gpu: Gpu, calibrations: Sequence[Calibration], place: str = "calibration.yaml"
) -> OverheadTable:
    """Return ``table`` with what was measured for ``engine`` on ``gpu`` laid over its rows.

    ``overhead_bytes`` of the result is labelled measured, expects the most that was measured, and its high bound is
    neither below that nor below the table's own.
    """
    own = next((one for one in calibrations if _speaks(one, engine, gpu)), None)
    if own is None:
        return table
    extra = next((extra.range for extra in table.extras if engine in extra.engines), NOTHING)
    band = next((band for band in table.bands if band.fits(gpu)), None)
    if band is not None and band.whole_process:
        extra = NOTHING
    times = f"{own.n_runs} run{'s' if own.n_runs > 1 else ''}"
    row = MeasuredContext(
        gpu=gpu.name,
        range=ByteRange(
            low_bytes=max(0, own.low_bytes - extra.low_bytes),
            expected_bytes=max(0, own.high_bytes - extra.expected_bytes),
            high_bytes=max(0, own.high_bytes - extra.high_bytes),
        ),
        source=f"measured on this machine in {times}, driver {own.driver or 'unknown'} ({place})",
    )
    return replace(table, measured=(row, *table.measured))


def _speaks(one: Calibration, engine: str, gpu: Gpu) -> bool:
    return (one.gpu, one.driver, one.engine) == (gpu.name, gpu.driver or "", engine)


def calibrated(
    engine: Engine,
    machine: Machine,
    table: OverheadTable,
    *,
    environment: Mapping[str, str] = os.environ,
    path: Path | None = None,
) -> Engine:
    """Return ``engine`` with budgets that use what ``vlplan verify --save`` kept for this machine's GPUs, and say so.

    A described machine, or ``VLPLAN_NO_CALIBRATION`` set to anything, gets the engine as it is.

    Raises:
        SourceError: the kept file is damaged.
    """
    if machine.simulated or environment.get(OFF):
        return engine
    path = path or calibration_path(environment)
    kept = [one for one in read_calibrations(path) if any(_speaks(one, engine.name, gpu) for gpu in machine.gpus)]
    return replace(engine, budget=partial(_budget, engine, table, tuple(kept), str(path))) if kept else engine


def _budget(  # noqa: PLR0913 - an engine's four arguments, and the layer
    engine: Engine,
    table: OverheadTable,
    kept: tuple[Calibration, ...],
    place: str,
    model: Model,
    workload: Workload,
    machine: Machine,
    settings: object,
) -> Budget:
    budget = engine.budget(model, workload, machine, settings)
    devices, notes = [*budget.devices], [*budget.notes]
    for index, gpu in enumerate(machine.gpus[: budget.n_gpus]):
        layered = calibrated_overhead(table, engine.name, gpu, kept, place)
        if layered is table:
            continue
        before, after = (overhead_bytes(gpu, engine.name, one) for one in (table, layered))
        items = tuple(_item(item, before, after) for item in devices[index].items)
        if items != devices[index].items:
            devices[index] = replace(devices[index], items=items)
            notes.append(f"{devices[index].device}: {format_bytes(after.expected_bytes)} overhead, {after.source}")
    return replace(budget, devices=tuple(devices), notes=tuple(notes))


def _item(item: Item, before: Overhead, after: Overhead) -> Item:
    """Return the item in the new range where it is the process's overhead; every other as it is."""
    if item.component != "overhead" or item.source != before.source:
        return item
    return replace(
        item,
        resident_bytes=after.expected_bytes,
        low_bytes=min(after.low_bytes, after.expected_bytes),
        expected_bytes=after.expected_bytes,
        high_bytes=max(after.high_bytes, item.high_bytes),
        basis=after.basis,
        source=after.source,
    )
