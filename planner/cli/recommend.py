"""`vlplan recommend`: the main job."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from planner.cli.options import (
    EXIT_CODES,
    chosen_machine,
    emit_option,
    engine_options,
    json_of,
    json_option,
    machine_options,
    request_data,
    show,
    this_machine,
    workload_options,
)
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.machine import Machine


@click.command(name="recommend")
@click.argument("model", required=False)
@engine_options
@workload_options
@machine_options
@click.option(
    "--prefer",
    type=click.Choice(["balanced", "quality", "speed", "context", "headroom"]),
    default="balanced",
    show_default=True,
    help="What to put first among plans that fit.",
)
@click.option("--also", multiple=True, metavar="MODEL", help="A further model on the same box. Repeat for several.")
@click.option("--compare", is_flag=True, help="Ask every engine, and show one row for each.")
@click.option("--explain", is_flag=True, help="Show every formula with its numbers and source.")
@emit_option
@json_option
def command(  # noqa: PLR0913 - options
    model: str | None,
    *,
    prefer: Any,  # noqa: ANN401 - click's own values
    also: tuple[str, ...],
    compare: bool,
    explain: bool,
    emit: Any,  # noqa: ANN401 - as prefer
    as_json: bool,
    **given: Any,  # noqa: ANN401
) -> int:
    """Find the best plan for MODEL on this machine, and print what to paste.

    MODEL is a profile's name or alias, a GGUF file, a folder, a hub id or ollama:name:tag. Without MODEL: which models
    of the catalogue fit here, best first.
    """
    from planner.questions.compare import recommend_any  # noqa: PLC0415 - help needs none of this
    from planner.questions.speed import with_speed  # noqa: PLC0415

    machine = chosen_machine(given["machine_file"], given["gpus"], given["ram"])
    if model is None:
        _refuse_in_vain(also=also, compare=compare, explain=explain, emit=emit, **given)
        return _survey(machine or this_machine(), as_json=as_json, **given)
    data = request_data(model, **given)
    if also:
        from planner.questions.share import share  # noqa: PLC0415 - only with several models

        requests = [data, *({**data, "model": other} for other in also)]
        plans = [with_speed(plan) for plan in share(requests, prefer=prefer, machine=machine or this_machine())]
        codes = [EXIT_CODES[plan.verdict] for plan in plans]
        if as_json:
            click.echo(json.dumps([json_of(plan, emit) for plan in plans], indent=2))
        else:
            codes = [show(plan, as_json=False, explain=explain, emit=emit) for plan in plans]
        return next((code for code in (3, 4) if code in codes), 0)
    plan = recommend_any(data, prefer=prefer, machine=machine, detect=this_machine, compare=compare)
    return show(with_speed(plan), as_json=as_json, explain=explain, emit=emit)


def _refuse_in_vain(**given: Any) -> None:  # noqa: ANN401
    """Refuse the options that say something about one model where none is named."""
    words = ("also", "compare", "explain", "emit", "quantization", "projector", "settings", "batch", "engine_version")
    vain = next((word for word in words if given.get(word)), None)
    if vain is not None:
        option = "--set" if vain == "settings" else f"--{vain.replace('_', '-')}"
        raise UsageError(f"{option} says something about one model; name the MODEL")


def _survey(machine: Machine, *, as_json: bool, **given: Any) -> int:  # noqa: ANN401
    from planner.deployment import parse_images  # noqa: PLC0415 - only without a model
    from planner.questions.survey import survey  # noqa: PLC0415
    from planner.report.survey import survey_mapping, survey_screen  # noqa: PLC0415
    from planner.workload import Workload  # noqa: PLC0415

    asked = given["engine"] or "llama.cpp"
    if asked != "llama.cpp":
        raise UsageError(f"without a model only llama.cpp is surveyed, not {asked!r}; name a model")
    workload = Workload(
        context_tokens=given["context"] or 4096,
        sequences=given["sequences"] or 1,
        images=parse_images(given["images"]),
        **{key: given[key] for key in ("prompt_tokens", "answer_tokens") if given[key] is not None},
    )
    found = survey(machine, workload, grow=given["context"] is None)
    if as_json:
        click.echo(json.dumps(survey_mapping(machine, found), indent=2))
    else:
        click.echo(survey_screen(machine, found))
    return 0 if found else 3
