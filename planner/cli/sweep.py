"""`vlplan sweep`: capacity tables."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.options import parse_pairs, source_options, this_machine
from planner.errors import SourceError, UsageError

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
        _write(path, text)
    return 0


def _machines(gpus: tuple[str, ...], ram: str | None) -> tuple[tuple[str, Machine], ...]:
    from planner.machine_file import describe_machine  # noqa: PLC0415 - help needs none of this

    if not gpus:
        return (("this machine", this_machine()),)
    return tuple((word, describe_machine([word], ram or "64GiB")) for word in gpus)


def _cells(grid: Grid) -> list[Cell]:
    """Return all cells, with a progress bar on a terminal's stderr."""
    from planner.questions.sweep import sweep  # noqa: PLC0415 - help needs none of this

    if not sys.stderr.isatty():
        return list(sweep(grid))
    with click.progressbar(sweep(grid), length=grid.n_cells, file=sys.stderr) as cells:
        return list(cells)


def _write(path: str, text: str) -> None:
    """Write all or nothing: an interruption leaves the old file as it was."""
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent or ".", prefix=f".{target.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")
        Path(name).replace(target)
    except OSError as error:
        raise SourceError(f"cannot write {path!r}: {error.strerror}") from None
    if not target.is_file():
        raise UsageError(f"{path!r} is no file")
