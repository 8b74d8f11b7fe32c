"""`vlplan recommend`: the main job."""

from __future__ import annotations

from typing import Any

import click

from planner.cli.options import (
    chosen_machine,
    engine_options,
    json_option,
    machine_options,
    request_data,
    show,
    this_machine,
    workload_options,
)


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
@click.option("--compare", is_flag=True, help="Ask every engine, and show one row for each.")
@click.option("--explain", is_flag=True, help="Show every formula with its numbers and source.")
@json_option
def command(  # noqa: PLR0913 - options
    model: str | None,
    *,
    prefer: Any,  # noqa: ANN401 - click's own values
    compare: bool,
    explain: bool,
    as_json: bool,
    **given: Any,  # noqa: ANN401
) -> int:
    """Find the best plan for MODEL on this machine, and print what to paste.

    MODEL is a profile's name or alias, a GGUF file, a folder, a hub id or ollama:name:tag.
    """
    from planner.comparing import recommend_any  # noqa: PLC0415 - help needs none of this

    machine = chosen_machine(given["machine_file"], given["gpus"], given["ram"])
    data = request_data(model or "", **given)
    plan = recommend_any(data, prefer=prefer, machine=machine, detect=this_machine, compare=compare)
    return show(plan, as_json=as_json, explain=explain)
