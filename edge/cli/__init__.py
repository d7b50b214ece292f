"""The command `edge-pose`: one file a subcommand."""

from __future__ import annotations

import typer

from edge.cli import check, demo, run

app = typer.Typer(
    name="edge-pose",
    help="Cameras at the edge: MediaPipe pose in, MQTT summaries and a Rerun stream out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("demo")(demo.demo)
app.command("check")(check.check)


def main() -> None:
    """The entry point of the console script."""
    app()
