"""`vlplan detect`: what this machine has, and what is free."""

from __future__ import annotations

import click

from planner.cli.options import json_option, this_machine


@click.command(name="detect")
@click.option("--save", metavar="FILE", help="Write the machine as YAML, for --machine.")
@json_option
def command(*, save: str | None, as_json: bool) -> int:
    """Show the GPUs and the memory of this machine, and what is free on each."""
    from planner.machine_file import machine_yaml, save_machine  # noqa: PLC0415 - help needs none of this
    from planner.report.machine import machine_mapping, machine_screen  # noqa: PLC0415

    machine = this_machine()
    if save is not None:
        save_machine(machine, save)
        click.echo(f"vlplan: saved to {save}", err=True)
    if as_json:
        import json  # noqa: PLC0415

        click.echo(json.dumps(machine_mapping(machine), indent=2))
    else:
        click.echo(machine_screen(machine) if save is None else machine_yaml(machine).rstrip())
    return 0
