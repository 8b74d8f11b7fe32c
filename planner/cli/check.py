"""`vlplan check`: a gate before a deployment."""

from __future__ import annotations

import os

import click

from planner.cli.options import EXIT_CODES, chosen_machine, machine_options, screen_width, source_options, this_machine
from planner.errors import UsageError


@click.command(name="check", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": True})
@click.argument("what", nargs=-1, type=click.UNPROCESSED, metavar="FILE | -- COMMAND...")
@machine_options
@source_options
@click.option(
    "--format",
    "output",
    type=click.Choice(["text", "json", "junit", "github", "sarif"]),
    default="text",
    show_default=True,
    help="How to print the verdicts.",
)
@click.option("--strict", is_flag=True, help="Treat 'unknown' as failure of its own and warnings as failures.")
def command(  # noqa: PLR0913 - options
    what: tuple[str, ...],
    *,
    machine_file: str | None,
    gpus: tuple[str, ...],
    ram: str | None,
    output: str,
    strict: bool,
) -> int:
    """Judge a deployment: a request file, a Modelfile, a compose file, a Kubernetes manifest, or a command line.

    A command line stands after '--': vlplan check --gpu 24GiB -- llama-server -m model.gguf -c 8192. The exit code
    is 0 when everything fits, 3 when something does not fit or will not load, 4 when it fits only with changes.
    """
    from planner.deployment.containers import read_started  # noqa: PLC0415
    from planner.deployment.documents import Named, read_deployments  # noqa: PLC0415
    from planner.questions.check import check_line  # noqa: PLC0415 - help needs none of this
    from planner.report.check import render  # noqa: PLC0415

    if not what:
        raise UsageError("nothing to check; name a file, or an engine's command line after '--'")
    machine = chosen_machine(machine_file, gpus, ram)
    if len(what) == 1 and os.path.exists(what[0]):  # noqa: PTH110 - a word that may be anything
        named = read_deployments(what[0])
    elif len(what) == 1 and (what[0].endswith((".yaml", ".yml", ".json")) or "odelfile" in what[0]):
        raise UsageError(f"there is no file {what[0]!r}")
    else:
        named = [Named(name=" ".join(what), line=read_started(what, _engine_variables()))]
    checks = [check_line(one.name, one.line, machine=machine, detect=this_machine) for one in named]
    click.echo(render(checks, output, screen_width()))
    codes = [EXIT_CODES[check.plan.verdict] for check in checks]
    failed = strict and any(check.warnings for check in checks)
    return next((code for code in (3, 4) if code in codes), 3 if failed else 0)


def _engine_variables() -> dict[str, str]:
    """Return the variables of this shell that an engine started from it would read."""
    return {name: value for name, value in os.environ.items() if name.startswith(("OLLAMA_", "LLAMA_ARG_"))}
