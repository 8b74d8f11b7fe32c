"""`vlplan batch`: one request per line in, one answer per line out, in order."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import click

from planner.cli.options import chosen_machine, machine_options, source_options, this_machine
from planner.errors import UsageError, VlplanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from planner.machine import Machine

MAX_LINE_BYTES = 1 << 20
CHUNK_LINES = 50  # asked of one process at a time; requests that share much tend to stand together


@click.command(name="batch")
@click.argument("requests", type=click.Path(dir_okay=False), default="-")
@machine_options
@source_options
def command(requests: str, machine_file: str | None, gpus: tuple[str, ...], ram: str | None) -> int:
    """Answer REQUESTS (JSON, one per line; '-' is standard input) with one JSON answer per line, in order.

    A bad line is answered with {"schema": 1, "error": "..."} in its place, and the exit code is 1. Long inputs are
    answered by as many processes as there are processors.
    """
    machine = chosen_machine(machine_file, gpus, ram)
    code = 0
    for text, is_error in _answers(_lines(requests), machine):
        code = 1 if is_error else code
        click.echo(text)
    return code


def _lines(requests: str) -> Iterator[bytes]:
    try:
        with click.open_file(requests, "rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                if line.strip():
                    yield line
                while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {requests!r}: {error.strerror}") from None


def _answers(lines: Iterator[bytes], machine: Machine | None) -> Iterator[tuple[str, bool]]:
    """Yield each line's answer, and whether it is an error, in order."""
    read = [chunk for _ in range(2) if (chunk := list(islice(lines, CHUNK_LINES)))]
    if len(read) < 2:
        return chain.from_iterable(answer_lines((chunk, machine)) for chunk in read)
    from planner.cli.processes import in_processes  # noqa: PLC0415 - short inputs need no processes

    tasks = _tasks(chain(read, iter(lambda: list(islice(lines, CHUNK_LINES)), [])), machine)
    return chain.from_iterable(in_processes(answer_lines, tasks))


def _tasks(chunks: Iterable[list[bytes]], machine: Machine | None) -> Iterator[tuple[list[bytes], Machine | None]]:
    """Yield each chunk with the machine it is about; this one is looked at once, and only if a line needs it."""
    for chunk in chunks:
        if machine is None and any(map(_leaves_machine_open, chunk)):
            machine = this_machine()
        yield chunk, machine


def _leaves_machine_open(line: bytes) -> bool:
    return line.lstrip().startswith(b"{") and b'"machine"' not in line


def answer_lines(task: tuple[list[bytes], Machine | None]) -> list[tuple[str, bool]]:
    """Return the answers to some lines as text, and whether they are errors."""
    lines, machine = task
    found = [answer_line(line, machine) for line in lines]
    return [(json.dumps(one, separators=(",", ":")), "error" in one) for one in found]


def answer_line(line: bytes, machine: Machine | None) -> dict[str, Any]:
    """Return the answer to one request line, or the error that stands in its place."""
    from planner.advice import judge  # noqa: PLC0415 - help needs none of this
    from planner.deployment import parse_request  # noqa: PLC0415
    from planner.questions.speed import with_speed  # noqa: PLC0415
    from planner.report.answer import answer, error_answer  # noqa: PLC0415

    if len(line) > MAX_LINE_BYTES:
        return error_answer(f"a request line is at most {MAX_LINE_BYTES} bytes long")
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return error_answer("this line is not JSON")
    try:
        request = parse_request(data, machine=machine, detect=this_machine)
        plan = judge(request.engine, request.model, request.workload, request.machine, request.settings)
        return answer(with_speed(plan))
    except VlplanError as error:
        return error_answer(" ".join(str(error).split()))
