"""Logs that are damaged, cut, foreign or enormous: one clear line, no crash, no wait, no memory."""

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.errors import SourceError
from planner.logs import read_log, read_text
from planner.logs.found import printed
from planner.logs.lines import HEAD_BYTES, MAX_LINE, TAIL_BYTES
from planner.units import MIB

LOGS = sorted((Path(__file__).resolve().parents[1] / "data" / "logs").iterdir())
FOREIGN = {
    "empty": b"",
    "blank": b"\n\n\n",
    "binary": bytes(range(256)) * 64,
    "access log": b'127.0.0.1 - - [10/Oct/2026:13:55:36] "GET /v1/models HTTP/1.1" 200 2326\n' * 50,
    "yaml": b"model: x\nworkload: {context: 4096}\n",
    "csv": b"a, b, c\n1, 2, 3\n",
    "zeros": b"\0" * 100_000,
    "unclosed quotes": b'msg="offload memory.required.full="1.0' * 200,
}


def read_or_none(text):
    """Return the log, or None where the clear line is raised."""
    try:
        return read_text(text)
    except SourceError:
        return None


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_is_one_clear_line(tmp_path, name):
    """What has no line about memory is refused by name, with what would be read."""
    path = tmp_path / "some.log"
    path.write_bytes(FOREIGN[name])
    with pytest.raises(SourceError) as error:
        read_log(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert "llama.cpp" in str(error.value)


@pytest.mark.parametrize("path", ["/nowhere/at/all.log", "/", "a\0b"])
def test_what_cannot_be_opened_is_one_clear_line(path):
    """A missing file, a folder and an impossible name are errors of the source."""
    with pytest.raises(SourceError, match="cannot be read"):
        read_log(path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("prefix", ["", "Feb 06 10:00:01 box engine[812]: ", "engine-1  | ", "\x1b[32mINFO\x1b[0m "])
def test_shells_and_services_in_between(tmp_path, encoding, ends, prefix):
    """What PowerShell, journald, compose or a terminal adds around the lines changes no figure and no setting."""
    path = tmp_path / "some.log"
    text = next(one for one in LOGS if one.name == "llama_cli_two_gpus.log").read_text()
    dressed = ends.join(prefix + line for line in text.splitlines())
    path.write_bytes((b"\xfe\xff" if encoding == "utf-16-be" else b"") + dressed.encode(encoding))
    plain, found = read_text(text), read_log(path)
    assert found.figures == plain.figures
    assert found.settings == plain.settings
    assert found.devices == plain.devices


def test_dockers_json_is_taken_off(tmp_path):
    """The file that Docker keeps wraps each line in JSON; the lines within are read, a cut one is passed over."""
    text = next(one for one in LOGS if one.name == "llama_cli_two_gpus.log").read_text()
    lines = [json.dumps({"log": f"{line}\n", "stream": "stderr"}, separators=(",", ":")) for line in text.splitlines()]
    path = tmp_path / "abc-json.log"
    path.write_text("\n".join([*lines, '{"log":"llama_', '{"log":"' + "[" * 60_000]))
    assert read_log(path).figures == read_text(text).figures
    assert read_log(path).settings == read_text(text).settings


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_a_log_cut_anywhere_is_read_or_refused(path):
    """A log that ends after any byte gives a part of its figures, or the clear line, and never another error."""
    text = path.read_text()
    whole = len(read_text(text).figures)
    for end in range(0, len(text), max(1, len(text) // 60)):
        log = read_or_none(text[:end])
        assert log is None or len(log.figures) <= whole + 2


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_disturbed_logs(data):
    """Changed, doubled and missing characters never lead to anything but a log or the clear line."""
    text = data.draw(st.sampled_from(LOGS)).read_text()
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(text) - 1))
        text = text[:at] + data.draw(st.text(max_size=12)) + text[at + data.draw(st.integers(0, 5)) :]
    log = read_or_none(text)
    assert log is None or log.figures or log.facts


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**12), st.integers(0, 6), st.sampled_from(["B", "KiB", "MiB", "GiB", "MB", "GB"]))
def test_a_printed_figure_is_the_range_of_what_prints_to_it(value, digits, unit):
    """The bytes lie between the least and the most, and the width is one unit of the last digit."""
    number = f"{value // 10**digits}.{value % 10**digits:0{digits}d}" if digits else str(value)
    for cut_off in (False, True):
        n_bytes, low, high = printed(number, unit, cut_off=cut_off)
        assert low <= n_bytes <= high or (unit == "B" and digits)


@pytest.mark.parametrize(
    "line",
    [
        "load_tensors: " + "CUDA0 " * 200_000 + "model buffer size =  4168.09 MiB",
        "msg=offload " + 'a="b" ' * 200_000,
        "| " + "- " * 300_000,
        "(VllmWorkerProcess " * 50_000,
        "K (" * 100_000 + "size = 1.00 MiB",
        "print_info: arch = " + " " * 500_000 + "x",
        "model=" + "'" * 300_000 + " Initializing an LLM engine (v0.8.2)",
        "1, " * 200_000,
    ],
)
def test_long_lines_take_no_time(tmp_path, line):
    """A line of a megabyte is cut and passed over within a second."""
    path = tmp_path / "long.log"
    path.write_text(line + "\nload_tensors:        CUDA0 model buffer size =  4168.09 MiB\n")
    started = time.process_time()
    assert f"{read_log(path).figures[-1].n_bytes / MIB:.2f}" == "4168.09"
    assert time.process_time() - started < 1


def test_a_huge_log_is_read_from_both_ends(tmp_path):
    """Of a log of gigabytes only the ends are read, the load in front and the table at the back, in little memory."""
    path = tmp_path / "huge.log"
    with path.open("wb") as file:
        file.write(b"load_tensors:        CUDA0 model buffer size =  4168.09 MiB\n")
        file.truncate(20 * (HEAD_BYTES + TAIL_BYTES))
        file.seek(0, os.SEEK_END)
        file.write(b"\nllama_memory_breakdown_print: |   - CUDA0 (X) | 24077 = 945 + (4200 = 4168 + 0 + 32) + 300 |\n")
    tracemalloc.start()
    started = time.process_time()
    log = read_log(path)
    took, peak = time.process_time() - started, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [figure.term for figure in log.figures] == ["model buffer", "unaccounted"]
    assert peak < 20 * MIB
    assert took < 10  # under tracing; the line limit keeps it proportional to what is read
    assert MAX_LINE == 65536


def test_many_lines_stay_few_figures():
    """A log that repeats buffers without end is bounded."""
    line = "load_tensors:        CUDA{0} model buffer size =  4168.09 MiB\n"
    log = read_text("".join(line.format(n % 300) for n in range(20_000)))
    assert len(log.figures) <= 10_002
