"""The command `edge-pose`: one file a subcommand."""

from __future__ import annotations

from typing import Annotated

import typer

from edge import __version__
from edge.cli import check, demo, doctor, models, run, schema

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


app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("check")(check.check)
app.command("doctor")(doctor.doctor)
app.add_typer(models.app, name="models")
app.add_typer(schema.app, name="schema")


def main() -> None:
    """The entry point of the console script."""
    app()
