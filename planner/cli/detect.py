"""`vlplan detect`: what this machine has, and what is free."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from planner.cli.options import json_option, this_machine, write_file

if TYPE_CHECKING:
    from planner.machine import Machine


@click.command(name="detect")
@click.option("--save", metavar="FILE", help="Write the machine as YAML, for --machine.")
@click.option("--probe", is_flag=True, help="Measure the host memory's bandwidth (half a second).")
@json_option
def command(*, save: str | None, probe: bool, as_json: bool) -> int:
    """Show the GPUs and the memory of this machine, and what is free on each."""
    from planner.machine_file import machine_yaml  # noqa: PLC0415 - help needs none of this
    from planner.report.machine import machine_mapping, machine_screen  # noqa: PLC0415

    machine = this_machine()
    if probe:
        machine = _probed(machine)
    if save is not None:
        _save(machine_yaml(machine), save)
    if as_json:
        import json  # noqa: PLC0415

        click.echo(json.dumps(machine_mapping(machine), indent=2))
    else:
        click.echo(machine_screen(machine))
    return 0


def _probed(machine: Machine) -> Machine:
    from planner.detect.probe import probe_bandwidth  # noqa: PLC0415 - only when asked

    return replace(machine, host=replace(machine.host, bandwidth_bytes_per_s=probe_bandwidth(machine.host)))


def _save(text: str, path: str) -> None:
    write_file(path, text)
    click.echo(f"vlplan: saved to {path}", err=True)
