"""What was measured on this box: kept atomically, laid over the table, named, and only where the box was detected."""

from dataclasses import replace

import pytest

from planner.catalog.calibration import (
    Calibration,
    calibrated,
    calibrated_overhead,
    calibration_path,
    read_calibrations,
    save_calibrations,
)
from planner.catalog.engines import load_engine
from planner.catalog.models import load_model
from planner.catalog.tables import overhead_table
from planner.errors import SourceError
from planner.gpu_catalog import find_gpu
from planner.machine import Host, Machine
from planner.memory.overhead import overhead_bytes
from planner.units import GIB, MIB
from planner.workload import Workload

GPU = replace(find_gpu("RTX 3090"), name="NVIDIA GeForce RTX 3090", driver="580.142")
BOX = Machine(gpus=(GPU,), host=Host(total_bytes=64 * GIB, free_bytes=64 * GIB, n_cores=8))


def seen(low_mib, high_mib, engine="llama.cpp", **changes):
    """Return one calibration of the box."""
    row = Calibration(
        gpu=GPU.name, driver="580.142", engine=engine, low_bytes=low_mib * MIB, high_bytes=high_mib * MIB, n_runs=1
    )
    return replace(row, **changes)


def test_saved_rows_come_back_and_widen(tmp_path):
    """A second run widens the range of its GPU, driver and engine, and leaves the others."""
    path = tmp_path / "deep" / "calibration.yaml"
    save_calibrations([seen(300, 300), seen(500, 500, "vllm")], path)
    save_calibrations([seen(280, 350)], path)
    assert read_calibrations(path) == (seen(280, 350, n_runs=2), seen(500, 500, "vllm"))
    assert [file.name for file in path.parent.iterdir()] == ["calibration.yaml"]


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    """When the new file cannot take the old one's place, the old one is whole."""
    path = tmp_path / "calibration.yaml"
    save_calibrations([seen(300, 300)], path)
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(SourceError, match="No space left"):
        save_calibrations([seen(1, 900)], path)
    assert read_calibrations(path) == (seen(300, 300),)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "calibrations: 3",
        "calibrations: [{gpu: x}]",
        "calibrations: [{gpu: x, driver: y, engine: z, low_bytes: 9, high_bytes: 1, n_runs: 1}]",
        "calibrations: [{gpu: x, driver: y, engine: z, low_bytes: 1, high_bytes: true, n_runs: 1}]",
        "{" * 5000,
        "a: &x [*x]",
        "\0",
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path, text):
    """A file that holds something else is named, never guessed at."""
    path = tmp_path / "calibration.yaml"
    path.write_text(text)
    with pytest.raises(SourceError, match=r"calibration\.yaml"):
        read_calibrations(path)


def test_place_follows_xdg(tmp_path):
    """The file lies in XDG_DATA_HOME, or in .local/share of the home directory."""
    assert calibration_path({"XDG_DATA_HOME": "/data"}).as_posix() == "/data/vlplan/calibration.yaml"
    assert calibration_path({"HOME": str(tmp_path)}) == tmp_path / ".local/share/vlplan/calibration.yaml"
    assert read_calibrations(tmp_path / "none.yaml") == ()


@pytest.mark.parametrize("engine", ["llama.cpp", "transformers"])
@pytest.mark.parametrize(("low", "high"), [(200, 200), (280, 420), (1500, 1600)])
def test_the_high_bound_covers_table_and_measurement(engine, low, high):
    """The most that was measured is expected; the high bound is at least that, and at least the table's."""
    table = overhead_table()
    before = overhead_bytes(GPU, engine, table)
    after = overhead_bytes(GPU, engine, calibrated_overhead(table, engine, GPU, [seen(low, high, engine)]))
    assert after.basis == "measured"
    assert "on this machine" in after.source
    assert after.high_bytes >= max(before.high_bytes, high * MIB)
    assert after.expected_bytes >= high * MIB


@pytest.mark.parametrize("changes", [{"driver": "1.0"}, {"gpu": "NVIDIA T4"}, {"engine": "vllm"}])
def test_other_boxes_drivers_and_engines_do_not_count(changes):
    """A row speaks only for its own GPU, driver and engine."""
    table = overhead_table()
    assert calibrated_overhead(table, "llama.cpp", GPU, [seen(900, 900, **changes)]) is table


def test_a_detected_machine_uses_and_names_it(tmp_path):
    """The overhead item of the budget is the measured one, and a note says so; nothing else changes."""
    path = tmp_path / "calibration.yaml"
    save_calibrations([seen(700, 800)], path)
    engine, model = load_engine("llama.cpp"), load_model("qwen2.5-vl-7b", "Q4_K_M")
    own = calibrated(engine, BOX, overhead_table(), environment={}, path=path)
    before, after = (one.budget(model, Workload(), BOX, engine.settings()) for one in (engine, own))
    (measured,) = [item for item in after.devices[0].items if item.component == "overhead"]
    assert (measured.expected_bytes, measured.basis) == (800 * MIB, "measured")
    assert measured.low_bytes <= measured.expected_bytes <= measured.high_bytes
    assert any("measured on this machine" in note and str(path) in note for note in after.notes)
    rest = [item for item in after.devices[0].items if item is not measured]
    assert rest == [item for item in before.devices[0].items if item.component != "overhead"]


@pytest.mark.parametrize(
    ("machine", "environment"), [(replace(BOX, simulated=True), {}), (BOX, {"VLPLAN_NO_CALIBRATION": "1"})]
)
def test_described_machines_and_the_switch_never_use_it(tmp_path, machine, environment):
    """A described machine, and any with the switch set, gets the engine as it is."""
    path = tmp_path / "calibration.yaml"
    save_calibrations([seen(700, 800)], path)
    engine = load_engine("llama.cpp")
    assert calibrated(engine, machine, overhead_table(), environment=environment, path=path) is engine


def test_without_a_file_nothing_changes(tmp_path):
    """No calibration: the engine as it is."""
    engine = load_engine("llama.cpp")
    assert calibrated(engine, BOX, overhead_table(), environment={}, path=tmp_path / "none.yaml") is engine
