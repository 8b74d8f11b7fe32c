"""Options that several commands share, and how they become a deployment."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

import click

from planner.errors import SourceError, UsageError

if TYPE_CHECKING:
    from planner.advice import Plan
    from planner.machine import Host, Machine
    from planner.questions.manifest import Form

F = TypeVar("F", bound=Callable[..., Any])

EXIT_CODES = {"fits": 0, "fits_with_changes": 4, "does_not_fit": 3, "will_not_load": 3, "unknown": 3}


def machine_options(function: F) -> F:
    """Add the options that describe a machine instead of detecting one."""
    for option in (
        click.option("--machine", "machine_file", metavar="FILE", help="A machine saved by 'vlplan detect --save'."),
        click.option("--ram", metavar="SIZE", help="Host memory of the described machine, like 64GiB."),
        click.option(
            "--gpu",
            "gpus",
            multiple=True,
            metavar="GPU",
            help='A GPU by name or size: "RTX 3090", "RTX 3090:2", 24GiB. Repeat for several.',
        ),
    ):
        function = option(function)
    return function


def workload_options(function: F) -> F:
    """Add the options that say what is asked of the model."""
    for option in (
        click.option("--answer-tokens", type=int, metavar="N", help="Tokens of an answer.  [default: 512]"),
        click.option("--prompt-tokens", type=int, metavar="N", help="Text tokens of a prompt.  [default: 512]"),
        click.option("--batch", type=int, metavar="N", help="Requests processed together where the engine batches."),
        click.option(
            "--image", "images", multiple=True, metavar="WxH", help="An image of one request; 1920x1080:3 means three."
        ),
        click.option("--sequences", type=int, metavar="N", help="Sequences at once.  [default: 1]"),
        click.option("--context", type=int, metavar="N", help="Tokens one sequence needs: text, images and answer."),
    ):
        function = option(function)
    return function


def engine_options(function: F) -> F:
    """Add the options that choose model file, quantisation, engine and its settings."""
    for option in (
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="A setting in the engine's own words, like n_gpu_layers=20. Repeat for several.",
        ),
        click.option("--projector", metavar="FILE", help="A projector (mmproj) file, or 'none' for text only."),
        click.option("--quantization", metavar="TYPE", help="File type for profiles: F16, Q8_0, Q4_K_M ..."),
        click.option("--engine-version", metavar="VERSION", help="Engine version.  [default: the newest one known]"),
        click.option("--engine", metavar="ENGINE", help="llama.cpp, ollama, transformers, vllm, sglang, lmdeploy."),
    ):
        function = option(function)
    return source_options(function)


def source_options(function: F) -> F:
    """Add the options that say where models may come from; they hold for the whole command."""
    for option in (
        click.option(
            "--profiles",
            multiple=True,
            metavar="DIR",
            expose_value=False,
            callback=_use_profiles,
            help="A directory of profiles of your own, before VLPLAN_PROFILES. Repeat for several.",
        ),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(0.1, 3600),
            metavar="SECONDS",
            expose_value=False,
            callback=_use_access,
            help="The longest a request may take.  [default: 30]",
        ),
        click.option(
            "--offline", is_flag=True, expose_value=False, callback=_use_access, help="Forbid the network altogether."
        ),
        click.option(
            "--online",
            is_flag=True,
            expose_value=False,
            callback=_use_access,
            help="Allow the hub and Ollama's registry for models that are not here.",
        ),
    ):
        function = option(function)
    return function


def _use_access(context: click.Context, parameter: click.Parameter, value: Any) -> None:  # noqa: ANN401 - click's value
    """Let ``--online``, ``--offline`` and ``--timeout`` hold until the command ends."""
    if not value or parameter.name is None:
        return
    from dataclasses import replace  # noqa: PLC0415 - only where such an option is given

    from planner.sources.access import ACCESS  # noqa: PLC0415 - same

    before = ACCESS.set(replace(ACCESS.get(), **{parameter.name: value}))
    context.call_on_close(lambda: ACCESS.reset(before))


def _use_profiles(context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> None:
    """Let the directories of ``--profiles`` hold until the command ends."""
    if not value:
        return
    from planner.catalog.directories import NAMED  # noqa: PLC0415 - only where the option is given
    from planner.catalog.models import forget_profiles  # noqa: PLC0415 - same

    before = NAMED.set(value)
    forget_profiles()

    def restore() -> None:
        NAMED.reset(before)
        forget_profiles()

    context.call_on_close(restore)


json_option = click.option("--json", "as_json", is_flag=True, help="Answer as JSON.")


def request_data(model: str, **given: Any) -> dict[str, Any]:  # noqa: ANN401 - click's own values
    """Return the request mapping that the command line's options describe."""
    workload_keys = ("context", "sequences", "batch", "prompt_tokens", "answer_tokens")
    workload = {key: given[key] for key in workload_keys if given.get(key) is not None}
    if given.get("images"):
        workload["images"] = list(given["images"])
    data: dict[str, Any] = {"model": model, "workload": workload}
    for key in ("engine", "engine_version", "quantization", "projector"):
        if given.get(key) is not None:
            data[key] = given[key]
    data["settings"] = parse_pairs(given.get("settings") or ())
    return data


def parse_pairs(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return settings from ``key=value`` words: JSON, numbers with commas as engines write a list, else text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise UsageError(f"--set {pair!r}: write KEY=VALUE, like n_gpu_layers=20")
        found[key.replace("-", "_")] = _setting(value)
    return found


def _setting(value: str) -> Any:  # noqa: ANN401 - JSON
    for text in (value, f"[{value}]" if "," in value else value):
        try:
            return json.loads(text)
        except ValueError:
            continue
    return value


def chosen_machine(machine_file: str | None, gpus: tuple[str, ...], ram: str | None) -> Machine | None:
    """Return the machine the options describe, or None when this machine is meant.

    Raises:
        UsageError: options that contradict each other, or an unknown GPU.
    """
    if machine_file is not None and (gpus or ram):
        raise UsageError("--machine already describes the GPUs and memory; leave out --gpu and --ram")
    if machine_file is not None:
        from planner.machine_file import read_machine  # noqa: PLC0415 - only when a file is named

        return read_machine(machine_file)
    if gpus or ram:
        from planner.machine_file import describe_machine  # noqa: PLC0415 - only when described

        return describe_machine(gpus, ram or _this_host())
    return None


def _this_host() -> Host:
    from planner.detect import detect_host  # noqa: PLC0415 - psutil only without --ram

    return detect_host()


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """Return the machine this runs on; what could not be seen is said once on stderr."""
    from planner.detect import detect_machine  # noqa: PLC0415 - NVML and psutil only when needed

    machine = detect_machine()
    for note in machine.notes:
        click.echo(f"vlplan: {note}", err=True)
    return machine


def write_file(path: str, text: str) -> None:
    """Write ``text`` all or nothing: an interruption leaves the old file, its links and its permissions as they were.

    What is no plain file (a device, a pipe) is written to and never replaced.

    Raises:
        SourceError: it cannot be written.
    """
    import os  # noqa: PLC0415 - only where a file is written
    from pathlib import Path  # noqa: PLC0415 - same

    try:
        if Path(path).exists() and not Path(path).is_file():
            Path(path).write_text(text, encoding="utf-8")
            return
        target = Path(path).resolve()
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            beside.write_text(text, encoding="utf-8")
            if target.exists():
                beside.chmod(target.stat().st_mode & 0o777)
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
    except (OSError, ValueError) as error:
        raise SourceError(f"cannot write {path!r}: {getattr(error, 'strerror', None) or error}") from None


def screen_width() -> int:
    """Return the columns to write for: the terminal's, within 80 and 120."""
    import shutil  # noqa: PLC0415

    return max(80, min(120, shutil.get_terminal_size((80, 24)).columns))


emit_option = click.option(
    "--emit",
    type=click.Choice(["compose", "kubernetes"]),
    help="Also write a container's manifest, for the engines that serve from one.",
)


def show(plan: Plan, *, as_json: bool, explain: bool = False, emit: Form | None = None) -> int:
    """Print the plan, with a manifest where one is asked for, and return the exit code its verdict means."""
    if as_json:
        click.echo(json.dumps(json_of(plan, emit), indent=2))
        return EXIT_CODES[plan.verdict]
    from planner.report.screen import plan_screen  # noqa: PLC0415

    text = _manifest(plan, emit)
    click.echo(plan_screen(plan, screen_width(), explain=explain))
    if text:
        click.echo("\n" + text.rstrip())
    return EXIT_CODES[plan.verdict]


def json_of(plan: Plan, emit: Form | None = None) -> dict[str, Any]:
    """Return the plan's answer, with a manifest where one is asked for."""
    from planner.report.answer import answer  # noqa: PLC0415

    text = _manifest(plan, emit)
    return {**answer(plan), **({} if text is None else {"manifest": text})}


def _manifest(plan: Plan, emit: Form | None) -> str | None:
    if not emit:
        return None
    from planner.questions.manifest import manifest  # noqa: PLC0415 - only when asked

    return manifest(plan, emit)
