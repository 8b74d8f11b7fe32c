"""`vlplan estimate`: bytes per device for settings you give."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.options import (
    chosen_machine,
    emit_option,
    engine_options,
    json_option,
    machine_options,
    request_data,
    show,
    this_machine,
    workload_options,
)


@click.command(name="estimate")
@click.argument("model")
@engine_options
@workload_options
@machine_options
@click.option("--explain", is_flag=True, help="Show every formula with its numbers and source.")
@emit_option
@json_option
def command(model: str, *, explain: bool, emit: Any, as_json: bool, **given: Any) -> int:  # noqa: ANN401 - click's own values
    """Show the bytes per device of MODEL for exactly these settings.

    MODEL is a profile's name or alias, a GGUF file, a folder, a hub id or ollama:name:tag.
    """
    from planner.advice import judge  # noqa: PLC0415 - help needs none of this
    from planner.deployment import parse_request  # noqa: PLC0415
    from planner.questions.speed import with_speed  # noqa: PLC0415

    machine = chosen_machine(given["machine_file"], given["gpus"], given["ram"])
    deployment = parse_request(request_data(model, **given), machine=machine, detect=this_machine)
    plan = judge(deployment.engine, deployment.model, deployment.workload, deployment.machine, deployment.settings)
    plan = with_speed(plan)
    code = show(plan, as_json=as_json, explain=explain, emit=emit)
    if explain and not as_json:
        from planner.questions.explain import explain as why  # noqa: PLC0415 - only when asked
        from planner.report.explanation import peaks_screen  # noqa: PLC0415

        click.echo("\n" + peaks_screen(why(deployment.engine, plan)))
    return code
