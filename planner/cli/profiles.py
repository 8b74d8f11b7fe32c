"""`vlplan profiles`: the catalogue of models and GPUs."""

from __future__ import annotations

import json

import click

from planner.cli.options import json_option


@click.command(name="profiles")
@click.argument("what", type=click.Choice(["models", "gpus", "engines"]), default="models")
@json_option
def command(what: str, *, as_json: bool) -> int:
    """List the models, GPUs or engines that are known by name."""
    from planner.report.catalog import catalog_rows, catalog_table  # noqa: PLC0415 - help needs none of this

    rows = catalog_rows(what)
    click.echo(json.dumps({"schema": 1, what: rows}, indent=2) if as_json else catalog_table(rows))
    return 0
