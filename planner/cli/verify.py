"""`vlplan verify`: predicted beside measured, from logs or from what runs now."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from planner.cli.options import (
    chosen_machine,
    engine_options,
    json_option,
    machine_options,
    parse_pairs,
    request_data,
    screen_width,
    this_machine,
    workload_options,
)
from planner.errors import SourceError, UsageError

if TYPE_CHECKING:
    from planner.logs.found import Log
    from planner.questions.verify import Verification


@click.command(name="verify")
@click.argument("logs", nargs=-1, metavar="LOG...", type=click.Path())
@click.option("--model", metavar="MODEL", help="The model, where the log does not say it, or not by a name known here.")
@click.option("--request", "request_file", metavar="FILE", help="A request file; it comes before what the log says.")
@engine_options
@workload_options
@machine_options
@click.option("--live", is_flag=True, help="Ask NVML, and Ollama's /api/ps, what runs now.")
@click.option("--save", is_flag=True, help="Keep the measured overhead of this machine for later answers.")
@json_option
def command(  # noqa: PLR0913 - options
    logs: tuple[str, ...],
    *,
    model: str | None,
    request_file: str | None,
    live: bool,
    save: bool,
    as_json: bool,
    **given: Any,  # noqa: ANN401
) -> int:
    """Compare what engines measured with what is predicted for the same settings.

    LOG is the log of llama.cpp, Ollama or vLLM, CSV of nvidia-smi, or PyTorch's memory summary. The engine's log
    comes first; a driver's list of processes beside it shows what lies outside the engine's buffers. The exit code
    is 0 when all measured figures lie within the predicted range, 3 when one lies outside.
    """
    from planner.logs import read_log  # noqa: PLC0415 - help needs none of this
    from planner.report.verify import verification_mapping, verification_screen  # noqa: PLC0415

    if not logs and not live:
        raise UsageError("nothing to verify; name an engine's log, or use --live")
    read = [read_log(path) for path in logs]
    read += _running(model, with_engine=any(log.engine for log in read)) if live else []
    read.sort(key=lambda log: log.engine is None)
    found = _verified(read, model, request_file, given)
    if as_json:
        click.echo(json.dumps(verification_mapping(found), indent=2))
    else:
        click.echo(verification_screen(found, screen_width()))
    if save:
        _save(found)
    return 0 if found.all_within else 3


def _verified(logs: list[Log], model: str | None, request_file: str | None, given: dict[str, Any]) -> Verification:
    from planner.deployment import parse_request  # noqa: PLC0415 - see command
    from planner.questions.rebuild import machine_of_log, request_of  # noqa: PLC0415
    from planner.questions.verify import verify  # noqa: PLC0415

    own = _request_file(request_file)
    named = model or (str(own["model"]) if "model" in own else None)
    settings = {**own.get("settings", {}), **parse_pairs(given.pop("settings"))}
    machine_words = {key: given.pop(key) for key in ("machine_file", "gpus", "ram")}
    engine = given["engine"] or own.get("engine")
    rebuilt = request_of(logs[0], model=named, engine=engine, settings=settings)
    said = request_data(str(rebuilt["model"]), **given)
    request = _merged(_merged(rebuilt, own), {key: value for key, value in said.items() if key != "settings"})
    request["settings"] = rebuilt["settings"]
    machine = chosen_machine(**machine_words)
    remarks: tuple[str, ...] = ()
    if machine is None and "machine" not in request and logs[0].devices:
        machine, remarks = machine_of_log(_devices(logs), _host())
    deployment = parse_request(request, machine=machine, detect=this_machine)
    return verify(logs, deployment, request, remarks)


def _devices(logs: list[Log]) -> Log:
    """Return the engine's log with the names and sizes that a driver's log beside it knows."""
    seen = {device.device: device for log in logs[1:] for device in log.devices}
    devices = tuple(
        replace(
            one,
            name=one.name or (seen[one.device].name if one.device in seen else ""),
            total_bytes=one.total_bytes or (seen[one.device].total_bytes if one.device in seen else None),
        )
        for one in logs[0].devices
    )
    return replace(logs[0], devices=devices)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    workload = {**below.get("workload", {}), **above.get("workload", {})}
    return {**below, **above, "workload": workload}


def _request_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    from planner.catalog.foreign import MAX_CHARACTERS, parse_foreign_yaml  # noqa: PLC0415 - only when named

    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - a path of the user's
            data = parse_foreign_yaml(file.read(MAX_CHARACTERS + 1), path)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict) or not isinstance(data.get("settings", {}), dict):
        raise UsageError(f"{path}: a request is a mapping, its settings too")
    return data


def _host() -> Any:  # noqa: ANN401 - a Host
    from planner.detect import detect_host  # noqa: PLC0415 - see command

    return detect_host()


def _nvml() -> Any:  # noqa: ANN401 - a module without types
    try:
        import pynvml  # noqa: PLC0415 - only live
    except ImportError:
        raise SourceError("--live needs the Python package nvidia-ml-py") from None
    return pynvml


def _ollama_server(usual: str) -> str:
    """Return where Ollama answers: ``OLLAMA_HOST`` may lack the scheme, and name all interfaces."""
    host = os.environ.get("OLLAMA_HOST", "").strip().rstrip("/")
    if not host:
        return usual
    address = host if "://" in host else f"http://{host}"
    address = address.replace("://0.0.0.0", "://127.0.0.1")
    return address if address.count(":") > 1 else f"{address}:11434"


def _running(model: str | None, *, with_engine: bool) -> list[Log]:
    """Return what NVML and, where no engine's log was given, a running Ollama say."""
    from planner.detect.processes import gpu_processes  # noqa: PLC0415 - only live
    from planner.questions.live import log_of_processes, log_of_running  # noqa: PLC0415
    from planner.sources.network import Network  # noqa: PLC0415
    from planner.sources.ollama import DEFAULT_SERVER, running_models  # noqa: PLC0415

    found: list[Log] = []
    if not with_engine:
        try:
            running = running_models(Network(allowed=True, timeout_s=5.0), _ollama_server(DEFAULT_SERVER))
        except SourceError as error:
            if model is None:
                raise
            click.echo(f"vlplan: {error}", err=True)
            running = ()
        found += [log_of_running(one) for one in running[:1]]
    try:
        found.append(log_of_processes(gpu_processes(_nvml())))
    except SourceError as error:
        if not found and not with_engine:
            raise
        click.echo(f"vlplan: {error}", err=True)
    return found


def _save(found: Verification) -> None:
    from planner.catalog.calibration import save_calibrations  # noqa: PLC0415 - only when asked

    if not found.overheads:
        click.echo(
            "vlplan: nothing to save: it needs all buffers of a GPU, and the driver's figure for the process "
            "(nvidia-smi --query-compute-apps=pid,process_name,gpu_uuid,used_memory --format=csv, or --live)",
            err=True,
        )
        return
    click.echo(f"vlplan: kept in {save_calibrations(found.overheads)}", err=True)
