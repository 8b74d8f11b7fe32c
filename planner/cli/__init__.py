"""The command `vlplan`: the only code that prints and exits. Each command is loaded when it is asked for."""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import click

from planner.errors import VlplanError

_COMMANDS = {
    "recommend": "the best plan for a model on this machine, with the command to paste",
    "estimate": "bytes per device for settings you give",
    "limits": "the largest image, context, batch and number of sequences that fit",
    "tokens": "what an image becomes: tokens, tiles, wasted pixels",
    "check": "a gate: does this request or engine command line fit?",
    "sweep": "capacity tables over quantisation, image size, batch, context and GPU",
    "detect": "what this machine has, and what is free",
    "inspect": "what a model file, folder, tag or hub id is",
    "verify": "predicted beside measured, from an engine's log",
    "batch": "one request per line in, one answer per line out",
    "profiles": "the catalogue of models and GPUs",
}


OBJECTS_BETWEEN_COLLECTIONS = 100_000  # little of what a command makes ever forms a cycle; by default 700


class _Commands(click.Group):
    """A group that knows its commands by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help text."""
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command, imported from the module of its name."""
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"planner.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table, without importing any command."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit codes: 0 fits, 1 error, 2 usage, 3 does not fit or will not load, 4 fits with the changes printed.",
)
@click.version_option(package_name="vlplan", prog_name="vlplan")
def app() -> None:
    """Plan the memory of a vision-language model before you download it."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code; an error is one line on stderr."""
    if arguments is None:
        gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS, 50, 50)
    try:
        code = app.main(arguments, prog_name="vlplan", standalone_mode=False)
    except click.exceptions.Abort:
        code = _complain("interrupted", 130)
    except click.ClickException as error:
        code = _usage(error)
    except VlplanError as error:
        code = _complain(str(error), error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    except OSError as error:
        code = _complain(f"{error.filename or 'the answer'}: cannot be read or written: {error.strerror or error}", 1)
    if arguments is None:
        gc.freeze()  # the process ends: looking for cycles among all that is left would only take time
    sys.exit(code if isinstance(code, int) else 0)


def _complain(message: str, code: int) -> int:
    click.echo(f"vlplan: {' '.join(message.split())}", err=True)
    return code


def _usage(error: click.ClickException) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return 2
    context = getattr(error, "ctx", None)
    hint = f" (see '{context.command_path} --help')" if context else ""
    return _complain(error.format_message() + hint, 2)
