"""`vlplan batch`: one request per line in, one answer per line out, in order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from planner.cli.options import chosen_machine, machine_options, source_options, this_machine
from planner.errors import UsageError, VlplanError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from planner.machine import Machine

MAX_LINE_BYTES = 1 << 20


@click.command(name="batch")
@click.argument("requests", type=click.Path(dir_okay=False), default="-")
@machine_options
@source_options
def command(requests: str, machine_file: str | None, gpus: tuple[str, ...], ram: str | None) -> int:
    """Answer REQUESTS (JSON, one per line; '-' is standard input) with one JSON answer per line, in order.

    A bad line is answered with {"schema": 1, "error": "..."} in its place, and the exit code is 1.
    """
    machine = chosen_machine(machine_file, gpus, ram)
    code = 0
    for line in _lines(requests):
        if not line.strip():
            continue
        found = answer_line(line, machine)
        code = 1 if "error" in found else code
        click.echo(json.dumps(found, separators=(",", ":")))
    return code


def _lines(requests: str) -> Iterator[bytes]:
    try:
        with click.open_file(requests, "rb") as stream:
            while line := stream.readline(MAX_LINE_BYTES + 1):
                yield line
                while len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {requests!r}: {error.strerror}") from None


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
