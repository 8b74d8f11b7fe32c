"""`vlplan inspect`: what a model file, folder, tag or hub id is."""

from __future__ import annotations

from dataclasses import replace

import click

from planner.cli.options import json_option, source_options, write_file
from planner.errors import UsageError


@click.command(name="inspect")
@click.argument("source")
@click.option("--profile", is_flag=True, help="Write a profile (YAML) that loads back to the same model.")
@click.option("--output", metavar="FILE", help="Write the profile there instead of on the screen.")
@click.option(
    "--engine", metavar="ENGINE", default="llama.cpp", help="The engine that would load it.  [default: llama.cpp]"
)
@click.option("--quantization", metavar="TYPE", help="File type that a folder or profile is to be planned in.")
@click.option("--projector", metavar="FILE", help="A projector (mmproj) file, or 'none' for text only.")
@click.option("--running", is_flag=True, help="Ask the running Ollama server about an ollama: tag, too.")
@source_options
@json_option
def command(  # noqa: PLR0913 - the ways to narrow down a source
    source: str,
    *,
    profile: bool,
    output: str | None,
    engine: str,
    quantization: str | None,
    projector: str | None,
    running: bool,
    as_json: bool,
) -> int:
    """Show what SOURCE is: a .gguf file, a model folder, ollama:name:tag, hf:org/name, an address or a profile."""
    from planner.sources.opening import open_model  # noqa: PLC0415 - help needs none of this

    model = open_model(source, engine=engine, quantization=quantization, projector=projector)
    if running:
        model = replace(model, notes=(*model.notes, *_said_by_server(source)))
    if profile or output is not None:
        from datetime import UTC, datetime  # noqa: PLC0415

        from planner.catalog.writing import profile_yaml  # noqa: PLC0415

        _write(profile_yaml(model, checked=datetime.now(UTC).date()), output)
        return 0
    from planner.report.inspection import inspection_mapping, inspection_screen  # noqa: PLC0415
    from planner.sources.inspection import inspect  # noqa: PLC0415

    found = inspect(model)
    if as_json:
        import json  # noqa: PLC0415

        click.echo(json.dumps(inspection_mapping(found), indent=2))
    else:
        click.echo(inspection_screen(found))
    return 0


def _said_by_server(source: str) -> tuple[str, ...]:
    from planner.sources.access import ACCESS  # noqa: PLC0415 - only where it is asked for
    from planner.sources.ollama import said_by_server  # noqa: PLC0415 - same

    if not source.startswith("ollama:"):
        raise UsageError("--running asks an Ollama server: name the model as ollama:name:tag")
    return said_by_server(source, ACCESS.get())


def _write(text: str, output: str | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    write_file(output, text)
    click.echo(f"vlplan: saved to {output}", err=True)
