"""`vlplan verify`: predicted beside measured as a user meets it, with its exit codes."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_nvml import MIB, FakeNvml, gpu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.catalog.calibration import read_calibrations
from planner.cli import main
from planner.detect.processes import gpu_processes
from planner.errors import SourceError, UsageError
from planner.logs import read_log, read_text
from planner.questions.rebuild import request_of
from planner.sources.ollama import RunningModel

LOGS = Path(__file__).resolve().parents[1] / "data" / "logs"


def run(*words):
    """Run the command in this process and return (exit code, stdout, stderr)."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["verify", *map(str, words)])
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()


def rows_of(*words):
    """Return the exit code and the rows by device, component and part."""
    code, out, _ = run(*words, "--json")
    answer = json.loads(out)
    return code, {(row["device"], row["component"], row["part"]): row for row in answer["rows"]}


EXACT = {
    "llama_server_one_gpu.log": 6,
    "llama_cli_two_gpus.log": 9,
    "llama_server_vision.log": 9,
    "llama_cli_hybrid_partial.log": 6,
    "llama_cli_partial_no_flash.log": 6,
}


@pytest.mark.parametrize("name", EXACT)
def test_true_runs_are_predicted_to_the_printed_digit(name):
    """Logs of real runs: every judged figure is predicted exactly, and the exit code says so."""
    code, rows = rows_of(LOGS / name)
    judged = [row for row in rows.values() if row["within"] is not None]
    assert code == 0
    assert len(judged) == EXACT[name]
    assert {row["why"] for row in judged} == {"as predicted, to the printed digit"}
    for row in judged:
        least, most = row["measured_range_bytes"]
        assert least <= row["expected_bytes"] <= most


def test_the_span_of_a_mapped_file_is_told_apart():
    """With layers on the host the mapped file counts from its first to its last host tensor: said, not judged."""
    _, rows = rows_of(LOGS / "llama_cli_partial_no_flash.log")
    row = rows["Host", "weights", "language"]
    assert row["within"] is None
    assert row["difference_bytes"] > 0
    assert "stretch of the file" in row["why"]


def test_a_figure_outside_is_exit_3_and_named(tmp_path):
    """A figure that the budget does not cover is named with its distance."""
    path = tmp_path / "server.log"
    path.write_text((LOGS / "llama_server_one_gpu.log").read_text().replace("476.00 MiB", "577.00 MiB"))
    code, out, _ = run(path)
    assert code == 3
    assert out.startswith("OUTSIDE: 1 of 6 measured figures; worst CUDA0 kv_cache language, 101.00 MiB off")


def test_estimates_alone_prove_nothing():
    """A log with the engine's guesses only is no verification: exit 3, and a headline that says so."""
    code, out, _ = run(LOGS / "ollama_estimate.log")
    assert code == 3
    assert out.startswith("NOTHING MEASURED")


def test_the_screen_fits_80_columns():
    """No line of the table is wider than a small terminal."""
    for path in sorted(LOGS.glob("llama_*.log")):
        _, out, _ = run(path, "--model", "qwen2.5-vl-7b")
        assert max(map(len, out.splitlines()), default=0) <= 80


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((), 2, "nothing to verify"),
        (("/nowhere.log",), 1, "cannot be read"),
        ((LOGS / "torch_summary.txt",), 2, "name it with --model"),
        ((LOGS / "nvidia_smi_gpus.csv",), 2, "names no engine"),
        ((LOGS / "ik_latent_cache.log",), 2, "'DeepSeek V3 0324'"),
        ((LOGS / "llama_cli_cpu.log", "--set", "no_such_key=1"), 2, "no_such_key"),
        ((LOGS / "llama_cli_cpu.log", "--request", "/nowhere.yaml"), 1, "cannot be read"),
    ],
)
def test_what_cannot_be_compared_is_one_line(words, code, said):
    """Missing files are exit 1, missing words exit 2; each is one line on stderr that says what to do."""
    found, out, err = run(*words)
    assert (found, out) == (code, "")
    assert said in err
    assert err.count("\n") == 1


def test_what_the_user_says_comes_before_the_log():
    """--model, --set, --context and a described machine replace what the log says."""
    _, out, _ = run(LOGS / "llama_server_one_gpu.log", "--set", "ctx_size=8192", "--context", "8192", "--json")
    answer = json.loads(out)
    assert answer["request"]["settings"]["ctx_size"] == 8192
    assert answer["request"]["workload"] == {"context": 8192, "sequences": 4}
    assert answer["all_within"] is False


def test_a_request_file_fills_what_a_log_lacks(tmp_path):
    """PyTorch's table names no model: a request file does."""
    request = tmp_path / "request.yaml"
    request.write_text(
        "model: qwen2.5-vl-7b\nworkload: {context: 4096}\nmachine: {gpus: [{name: RTX 3090}], ram: 64GiB}\n"
    )
    code, out, _ = run(LOGS / "torch_summary.txt", "--request", request, "--json")
    answer = json.loads(out)
    assert (answer["model"], answer["engine"], code) == ("qwen2.5-vl-7b", "transformers", 3)
    assert answer["rows"][0]["expected_bytes"] > 15 * 2**30


def test_the_rebuilt_request_is_the_engines_own():
    """A log gives model, file type, context, sequences and settings; a text run gets no projector."""
    request = request_of(read_log(LOGS / "llama_cli_two_gpus.log"))
    assert request["quantization"] == "Q4_K_M"
    assert request["projector"] == "none"
    assert request["workload"] == {"context": 8192, "sequences": 1}
    assert request["settings"]["tensor_split"] == [17.5, 11.5]
    assert "projector" not in request_of(read_log(LOGS / "llama_server_vision.log"))


def test_an_unknown_model_is_asked_for():
    """A name that nothing here answers to leads to the question, with the names that the log has."""
    log = read_text("print_info: general.name = Someones Own Model\nload_tensors: CUDA0 model buffer size = 1.00 MiB")
    with pytest.raises(UsageError, match="Someones Own Model"):
        request_of(log)


def test_a_process_beside_the_log_gives_the_overhead_and_save_keeps_it(tmp_path, monkeypatch):
    """Process less buffers is the overhead outside them; --save keeps it under the driver's name and version."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    smi = tmp_path / "smi.csv"
    processes = (LOGS / "nvidia_smi_processes.csv").read_text()
    smi.write_text((LOGS / "nvidia_smi_gpus.csv").read_text() + "\n" + processes)
    code, out, err = run(LOGS / "llama_server_one_gpu.log", smi, "--save")
    assert code == 0
    assert "overhead of llama.cpp on NVIDIA GeForce RTX 3090: 297.82 MiB" in out
    assert "kept in" in err
    (row,) = read_calibrations(tmp_path / "vlplan" / "calibration.yaml")
    assert (row.gpu, row.driver, row.engine, row.n_runs) == ("NVIDIA GeForce RTX 3090", "580.142", "llama.cpp", 1)
    assert round(row.high_bytes / MIB, 2) == 297.82


def test_save_without_the_process_says_what_is_missing(tmp_path, monkeypatch):
    """A log alone does not show what lies outside the buffers: nothing is written, and the missing query is named."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    code, _, err = run(LOGS / "llama_server_one_gpu.log", "--save")
    assert code == 0
    assert "nvidia-smi --query-compute-apps" in err
    assert list(tmp_path.iterdir()) == []


class Busy(FakeNvml):
    """A driver with processes on its GPUs."""

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: D102, N802 - NVML's own
        return handle["running"]

    def nvmlSystemGetProcessName(self, pid):  # noqa: D102, N802 - NVML's own
        return f"/usr/bin/engine-{pid}".encode()


def process(pid, mib):
    """Return a process as NVML reports it; None where its memory is hidden."""
    return SimpleNamespace(pid=pid, usedGpuMemory=None if mib is None else mib * MIB)


BUSY = Busy(gpu("NVIDIA GeForce RTX 3090", running=[process(7, 5090), process(8, 12), process(9, None)]))


def test_live_beside_a_log(monkeypatch):
    """--live adds the driver's process to an engine's log."""
    monkeypatch.setattr("planner.cli.verify._nvml", lambda: BUSY)
    code, rows = rows_of(LOGS / "llama_server_one_gpu.log", "--live")
    row = rows["CUDA0", "total", "all"]
    assert code == 0
    assert (row["term"], row["measured_bytes"], row["within"]) == ("process 7 engine-7", 5090 * MIB, True)


def test_live_asks_a_running_ollama(monkeypatch):
    """Without a log the model that /api/ps reports is planned for and compared."""
    running = RunningModel(name="qwen2.5vl:7b", size_bytes=7 * 2**30, vram_bytes=7 * 2**30, context_tokens=4096)
    monkeypatch.setattr("planner.sources.ollama.running_models", lambda *_: (running,))
    monkeypatch.setattr("planner.cli.verify._nvml", lambda: BUSY)
    code, out, _ = run("--live", "--gpu", "RTX 3090", "--ram", "64GiB", "--json")
    answer = json.loads(out)
    assert (answer["engine"], answer["model"]) == ("ollama", "qwen2.5-vl-7b")
    assert answer["request"]["settings"]["num_ctx"] == 4096
    assert {row["term"] for row in answer["rows"]} >= {"size_vram", "process 7 engine-7"}
    assert code in {0, 3}


def test_live_with_nothing_running_is_one_line(monkeypatch):
    """No server and no process: exit 1 and one line."""
    monkeypatch.setattr("planner.cli.verify._nvml", lambda: Busy(gpu("NVIDIA T4", running=[])))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    code, out, err = run("--live")
    assert (code, out) == (1, "")
    assert err.count("\n") == 1


def test_a_driver_that_does_not_answer():
    """NVML's refusal is an error of the source; a GPU that refuses leaves the others."""
    with pytest.raises(SourceError, match="NVML does not answer"):
        gpu_processes(FakeNvml(init=RuntimeError("no driver")))
    assert gpu_processes(FakeNvml(gpu("NVIDIA T4"))) == ()
    assert [one.pid for one in gpu_processes(BUSY)] == [7, 8]


def test_later_answers_use_what_was_kept(tmp_path, monkeypatch):
    """A request for the detected machine plans with the kept overhead and names it; a described one does not."""
    from dataclasses import replace

    from planner.advice import judge
    from planner.catalog.calibration import Calibration, save_calibrations
    from planner.deployment import parse_request
    from planner.gpu_catalog import find_gpu
    from planner.machine import Host, Machine

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.delenv("VLPLAN_NO_CALIBRATION", raising=False)
    name, size = "NVIDIA GeForce RTX 3090", 777 * MIB
    save_calibrations(
        [Calibration(gpu=name, driver="580.142", engine="llama.cpp", low_bytes=size, high_bytes=size, n_runs=1)]
    )
    box = Machine(
        gpus=(replace(find_gpu("RTX 3090"), name=name, driver="580.142"),),
        host=Host(total_bytes=2**36, free_bytes=2**36, n_cores=8),
    )
    for machine, used in ((box, True), (replace(box, simulated=True), False)):
        asked = parse_request({"model": "qwen2.5-vl-7b"}, machine=machine, detect=lambda: box)
        plan = judge(asked.engine, asked.model, asked.workload, asked.machine, asked.settings)
        overhead = [item for item in plan.budget.devices[0].items if item.component == "overhead"]
        assert (overhead[0].expected_bytes == size) is used
        assert any("measured on this machine" in reason for reason in plan.reasons) is used


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_disturbed_logs_never_end_in_a_traceback(tmp_path, data):
    """Odd numbers, odd digits and missing lines lead to a comparison or to one line, with one of the four codes."""
    text = data.draw(st.sampled_from(sorted(LOGS.glob("*_*.log")))).read_text()
    odd = st.sampled_from(["0", "-1", "\u00b2", "\u0663", "9" * 20, "1e9", "nan", "", "\x00", "q4_1", "CUDA99", "\n"])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(odd) + text[at + data.draw(st.integers(0, 6)) :]
    path = tmp_path / "disturbed.log"
    path.write_text(text)
    code, out, err = run(path)
    assert code in {0, 1, 2, 3}
    assert out if code in {0, 3} else err.count("\n") <= 2


DOCS = Path(__file__).resolve().parents[2] / "docs" / "verify.md"


def test_a_full_length_cache_of_windowed_layers_is_recognised(tmp_path):
    """A fork that keeps sliding layers at full length is outside, and the cause is named."""
    path = tmp_path / "fork.log"
    path.write_text(
        "llm_load_print_meta: model ftype      = Q4_0\nllm_load_print_meta: general.name     = gemma-3-27b-it\n"
        "llm_load_tensors: offloaded 63/63 layers to GPU\nllama_new_context_with_model: n_ctx      = 32768\n"
        "llama_new_context_with_model: n_ubatch   = 512\nllama_new_context_with_model: flash_attn = 1\n"
        "llama_new_context_with_model: fused_moe  = 0\nllama_kv_cache_init:      CUDA0 KV buffer size = 15872.00 MiB\n"
        "llama_new_context_with_model:      CUDA0 compute buffer size =   522.62 MiB\n"
        "llama_new_context_with_model:  CUDA_Host compute buffer size =   138.51 MiB\n"
    )
    code, rows = rows_of(path)
    assert code == 3
    assert "sliding-window layers hold the whole context" in rows["CUDA0", "kv_cache", "language"]["why"]
    assert rows["CUDA0", "compute", "language"]["why"] == "as predicted, to the printed digit"
    assert rows["Host", "compute", "language"]["why"].startswith("the log is of ik_llama.cpp")


def test_the_page_shows_the_real_screen():
    """The first screen of the page is what the command prints for that log."""
    _, out, _ = run(LOGS / "llama_server_one_gpu.log")
    assert f"$ vlplan verify server.log\n{out.strip()}\n```" in DOCS.read_text()


def test_the_page_explains_what_is_said():
    """Every explanation in the page's table is one that the command gives."""
    import inspect

    from planner.questions import verify

    table = DOCS.read_text().split("| said | meaning |")[1].split("\n\n")[0]
    said = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert len(said) == 10
    assert [words for words in said if words not in inspect.getsource(verify)] == []
