"""`vlplan limits`: the inverse questions."""

from __future__ import annotations

import json
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


@click.command(name="limits")
@click.argument("model")
@engine_options
@workload_options
@machine_options
@click.option(
    "--solve",
    "dimensions",
    type=click.Choice(["image", "square", "images", "context", "sequences", "batch", "quantization"]),
    multiple=True,
    help="Answer only this question. Repeat for several.",
)
@json_option
def command(model: str, *, dimensions: tuple[str, ...], as_json: bool, **given: Any) -> int:  # noqa: ANN401 - click's own values
    """Find how far MODEL can go on this machine: image size, images, context, sequences, batch.

    Everything not asked for stays as the other options say. Each answer is tight: the next step up is shown failing.
    """
    from planner.deployment import parse_request  # noqa: PLC0415 - help needs none of this
    from planner.questions.limits import find_limits  # noqa: PLC0415
    from planner.report.limits import limits_mapping, limits_screen  # noqa: PLC0415

    machine = chosen_machine(given["machine_file"], given["gpus"], given["ram"])
    deployment = parse_request(request_data(model, **given), machine=machine, detect=this_machine)
    if deployment.engine.loads(deployment.model).verdict in ("unsupported", "unknown"):
        from planner.advice import judge  # noqa: PLC0415 - only for a model that the engine is not known to load

        parts = (deployment.engine, deployment.model, deployment.workload, deployment.machine, deployment.settings)
        return show(judge(*parts), as_json=as_json)
    limits = find_limits(deployment, dimensions)
    if as_json:
        click.echo(json.dumps(limits_mapping(deployment, limits), indent=2))
    else:
        click.echo(limits_screen(deployment, limits))
    return 0 if any(limit.value is not None for limit in limits) else 3
