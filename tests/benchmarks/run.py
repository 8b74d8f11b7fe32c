"""What the program costs: one table of commands and calls with their medians, beside what they may cost.

Run it as ``python tests/benchmarks/run.py``. Commands are timed as whole processes, calls within one process, both by
processor time, which neighbours on the machine disturb little.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice, product
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[2]
MODEL = "llava-1.6-7b"
BOX = ["--gpu", "RTX 3070", "--ram", "32GiB"]
UNEQUAL = ["RTX 3070", "RTX 3090", "RTX 4090", "RTX 3060 12GB", "A100 80GB", "L4", "T4", "RTX 4080"]
EIGHT = [word for name in UNEQUAL for word in ("--gpu", name)]
AXES = {
    "--quantization": ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"],
    "--context": ["2048", "4096", "8192", "16384", "32768"],
    "--image": ["none", "640x480", "1024x1024", "1920x1080"],
    "--gpu": ["RTX 3070", "RTX 3090", "RTX 4090", "A100 80GB", "RTX 3090:2"],
}
BY_CLOCK = "batch, 1,000 requests, by clock"  # of two or more processors, which it uses
SWEEP = [word for option, values in AXES.items() for value in values for word in (option, value)]


def commands(folder: Path) -> Iterator[tuple[str, list[str], float, int]]:
    """Yield each command: its name, its words, the seconds it may take, and how often it is run."""
    requests = folder / "requests.jsonl"
    requests.write_text("".join(json.dumps(one) + "\n" for one in varied_requests(1000)), encoding="utf-8")
    yield "--help", ["--help"], 0.12, 7
    yield "recommend, this machine", ["recommend", MODEL], 0.2, 7
    yield "recommend, one GPU", ["recommend", MODEL, *BOX], 0.2, 7
    yield "recommend, eight unequal GPUs", ["recommend", MODEL, *EIGHT, "--ram", "64GiB"], 0.25, 7
    yield "limits", ["limits", MODEL, *BOX], 0.3, 7
    yield "recommend, whole catalogue", ["recommend", *BOX], 1.0, 3
    yield "sweep, 1,000 cells", ["sweep", MODEL, "qwen2.5-vl-7b", *SWEEP], 1.5, 3
    yield BY_CLOCK, ["batch", str(requests), *BOX], 2.0, 3


def varied_requests(count: int) -> Iterator[dict[str, object]]:
    """Yield ``count`` requests about one model, hardly two of them alike."""
    axes = product(
        (2048, 8192, 32768), (1, 2, 4), (128, 512, 1024), ("auto", "on", "off"), (33, 20, 10), AXES["--quantization"]
    )
    for context, sequences, ubatch, flash_attn, n_gpu_layers, file_type in islice(cycle(axes), count):
        settings = {"ubatch_size": ubatch, "flash_attn": flash_attn, "n_gpu_layers": n_gpu_layers}
        workload = {"context": context, "sequences": sequences}
        yield {"model": MODEL, "quantization": file_type, "workload": workload, "settings": settings}


def calls() -> Iterator[tuple[str, Callable[[], object], float, int]]:
    """Yield calls within one process: name, call, the seconds one may take, how often it is made.

    Every estimate has a context of its own, so that no answer is remembered.
    """
    from planner.catalog.engines import llama_cpp_data
    from planner.catalog.models import load_model
    from planner.engines.llama_cpp.bound import bound_bytes
    from planner.engines.llama_cpp.engine import budget
    from planner.engines.llama_cpp.run import graph_request, resolve_run
    from planner.engines.llama_cpp.settings import LlamaCppSettings
    from planner.gpu_catalog import find_gpu
    from planner.machine import Host, Machine
    from planner.workload import Workload

    data, settings, model = llama_cpp_data(), LlamaCppSettings(flash_attn="on"), load_model(MODEL, "Q4_K_M")
    machine = Machine(gpus=(find_gpu("RTX 3090"),), host=Host(total_bytes=1 << 36, free_bytes=1 << 36, n_cores=8))
    workloads = (Workload(context_tokens=256 * n) for n in range(8, 10_000))
    traits = data.traits[model.language.architecture]
    run = resolve_run(model, Workload(context_tokens=4096), machine, settings)
    request = graph_request(run, traits)
    bound_bytes(request)
    yield "one exact estimate", lambda: budget(data, model, next(workloads), machine, settings), 0.01, 50
    yield "one bound", lambda: bound_bytes(replace(request, n_cells=next(workloads).context_tokens)), 0.00005, 2000


def seconds_of_command(words: list[str], *, by_clock: bool = False) -> float:
    """Return the processor time of one whole run of the command, or how long one waits for it."""
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = [sys.executable, "-c", "from planner.cli import main; main()", *words]
    found = subprocess.run(program, cwd=ROOT, capture_output=True, check=False)
    if found.returncode not in (0, 3, 4):
        raise SystemExit(found.stderr.decode())
    if by_clock:
        return time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_of_call(call: Callable[[], object]) -> float:
    """Return the processor time of one call."""
    before = time.process_time()
    call()
    return time.process_time() - before


def row(name: str, seconds: list[float], allowed_s: float) -> str:
    """Return one line of the table, in milliseconds."""
    middle = median(seconds)
    verdict = "" if middle <= allowed_s else "  over"
    return f"{name:32} {1000 * middle:10.3f} {1000 * min(seconds):10.3f} {1000 * allowed_s:10.3f}{verdict}"


def main() -> None:
    """Print the table."""
    print(f"{'milliseconds of processor time':32} {'median':>10} {'least':>10} {'allowed':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for name, words, allowed_s, n_runs in commands(Path(folder)):
            seconds_of_command(words)  # writes the byte code
            print(
                row(name, [seconds_of_command(words, by_clock=name == BY_CLOCK) for _ in range(n_runs)], allowed_s),
                flush=True,
            )
    sys.path.insert(0, str(ROOT))
    for name, call, allowed_s, n_runs in calls():
        print(row(name, [seconds_of_call(call) for _ in range(n_runs)], allowed_s), flush=True)


if __name__ == "__main__":
    main()
