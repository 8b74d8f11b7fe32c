"""`vlplan sweep`: capacity tables."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from planner.cli.options import parse_pairs, source_options, this_machine, write_file

if TYPE_CHECKING:
    from planner.machine import Machine
    from planner.questions.sweep import Cell, Grid


@click.command(name="sweep")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--quantization", "quantizations", multiple=True, metavar="TYPE", help="Repeat for several.")
@click.option("--image", "images", multiple=True, metavar="WxH", help="Image size, or 'none'. Repeat for several.")
@click.option(
    "--batch", "batches", multiple=True, type=click.IntRange(1, 65536), metavar="N", help="Repeat for several."
)
@click.option("--context", "contexts", multiple=True, type=click.IntRange(1), metavar="N", help="Repeat for several.")
@click.option("--gpu", "gpus", multiple=True, metavar="GPU", help='One box each: "RTX 3090", "RTX 3090:2". Repeat.')
@click.option("--ram", metavar="SIZE", help="Host memory of each box.  [default: 64GiB]")
@click.option("--engine", metavar="ENGINE", help="The engine of all cells.  [default: llama.cpp]")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting of the engine, for all cells.")
@click.option(
    "--format", "output", type=click.Choice(["markdown", "csv", "json", "html"]), default="markdown", show_default=True
)
@click.option("--output", "path", metavar="FILE", help="Write to FILE instead of standard output.")
@source_options
def command(models: tuple[str, ...], *, output: str, path: str | None, **given: Any) -> int:  # noqa: ANN401 - click's own values
    """Judge every combination of models, file types, image sizes, batches, contexts and boxes.

    The output is deterministic, so that it can be committed and compared. Without --gpu, this machine.
    """
    from planner.questions.sweep import Grid  # noqa: PLC0415
    from planner.report.sweep import render  # noqa: PLC0415 - help needs none of this

    grid = Grid(
        models=models,
        quantizations=given["quantizations"] or (None,),
        images=given["images"] or ("none",),
        batches=given["batches"] or (1,),
        contexts=given["contexts"] or (4096,),
        machines=_machines(given["gpus"], given["ram"]),
        engine=given["engine"],
        settings=parse_pairs(given["settings"]),
    )
    text = render(_cells(grid), output)
    if path is None:
        click.echo(text)
    else:
        write_file(path, text if text.endswith("\n") else text + "\n")
    return 0


def _machines(gpus: tuple[str, ...], ram: str | None) -> tuple[tuple[str, Machine], ...]:
    from planner.machine_file import describe_machine  # noqa: PLC0415 - help needs none of this

    if not gpus:
        return (("this machine", this_machine()),)
    return tuple((word, describe_machine([word], ram or _usual_ram(word))) for word in gpus)


def _usual_ram(gpu: str) -> str:
    """Return the host memory of a box where none is given: 64 GiB, or what a GPU that shares it is named with."""
    from planner.gpu_catalog import shared_host_bytes  # noqa: PLC0415 - help needs none of this
    from planner.units import GIB  # noqa: PLC0415 - same

    return f"{(shared_host_bytes([gpu]) or 64 * GIB) // GIB}GiB"


def _cells(grid: Grid) -> list[Cell]:
    """Return all cells, with a progress bar on a terminal's stderr."""
    from planner.questions.sweep import sweep  # noqa: PLC0415 - help needs none of this

    if not sys.stderr.isatty():
        return list(sweep(grid))
    with click.progressbar(sweep(grid), length=grid.n_cells, file=sys.stderr) as cells:
        return list(cells)
