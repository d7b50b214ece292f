"""The command `edge-pose`: one file a subcommand."""

from __future__ import annotations

import errno
import io
import sys
from typing import Annotated

import typer

from edge import __version__
from edge.cli import check, demo, doctor, models, run, schema
from edge.cli.options import leave
from edge.errors import ExitCode

app = typer.Typer(
    name="edge-pose",
    help="Cameras at the edge: MediaPipe pose in, MQTT summaries and a Rerun stream out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        typer.echo(f"edge-pose {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


app.command("run", short_help="The daemon.")(run.run)
app.command("demo", short_help="The main job on a bundled clip; needs nothing else.")(demo.demo)
app.command("check", short_help="Validate the configuration and print it.")(check.check)
app.command("doctor", short_help="Try each part and say what to do.")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(schema.app, name="schema")


def main() -> None:
    """The entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no tick mark shows a question mark
    try:
        app()
    except OSError as error:
        # Of files with a name all is said where they are used; what is left is what print writes into.
        if error.filename is not None or error.errno not in {errno.ENOSPC, errno.EIO, errno.EPIPE}:
            raise
        print(f"edge-pose: standard output can't be written: {error.strerror}", file=sys.stderr)
        leave(ExitCode.FAILED)
