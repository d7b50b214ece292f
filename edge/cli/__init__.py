"""The command `edge-pose`: one file a subcommand, imported when that subcommand runs and not before.

So who only listens needs none of the packages that a device has, and waits for none of them.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import io
import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from edge import __version__
from edge.errors import ExitCode

COMMANDS = {
    "run": "The daemon.",
    "demo": "The main job on a bundled clip; needs nothing else.",
    "check": "Validate the configuration and print it.",
    "doctor": "Try each part and say what to do.",
    "bench": "Measure how fast this machine is.",
    "models": "List, fetch and verify the pose models.",
    "watch": "A live table of all devices and cameras at a broker.",
    "send": "Send a device one command and print its answer.",
    "view": "Rerun's viewer on what a hub has and gets.",
    "recordings": "List, fetch and delete recordings, here or on a device.",
    "schema": "Print schemas, for editors, clients and documentation.",
}
"""Each is a module here, with a function of that name or, where it has subcommands, an `app`."""

_EXTRAS = {
    "amqtt": ("amqtt", "demo"),
    "av": ("av", "device"),
    "cv2": ("opencv-python-headless", "device"),
    "flatbuffers": ("flatbuffers", "device"),
    "h2": ("h2", "viewer"),
    "mediapipe": ("mediapipe", "device"),
    "numpy": ("numpy", "device"),
    "rerun": ("rerun-sdk", "device"),
    "rerun_cli": ("rerun-sdk", "viewer"),
}
"""What is imported from outside the base set: its package, and the extra of pyproject.toml that brings it."""


_OF_DEVICES = frozenset({"run", "demo", "doctor", "bench", "models"})
"""Those that need the extra `device`, which is said at once: much of it is imported late."""


class _Commands(TyperGroup):
    """Lists commands by their names alone, and puts the real one in place when it is about to run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, listed if name is None else _load(name), rest


def _load(name: str) -> Any:
    """The command as click has it."""
    if name in _OF_DEVICES and importlib.util.find_spec("numpy") is None:
        raise ModuleNotFoundError("no extra `device`", name="numpy")
    module = importlib.import_module(f"edge.cli.{name}")
    around = typer.Typer(rich_markup_mode=None)
    if hasattr(module, "app"):
        around.add_typer(module.app, name=name)
    else:
        around.command(name)(getattr(module, name))
    return typer.main.get_group(around).commands[name]


def _print_version(asked: bool) -> None:  # noqa: FBT001 - typer calls it so
    if asked:
        typer.echo(f"edge-pose {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    name="edge-pose",
    help="Cameras at the edge: MediaPipe pose in, MQTT summaries and a Rerun stream out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _all_commands(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def _not_loaded() -> None:
    """What is listed until `_Commands` puts the real command in its place."""


for _name, _short_help in COMMANDS.items():
    app.command(_name, short_help=_short_help)(_not_loaded)


def main() -> None:
    """The entry point of the console script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no tick mark shows a question mark
    try:
        app()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRAS:
            raise
        package, extra = _EXTRAS[missing]
        remedy = f"install requirements/{extra}.txt as requirements/README.md says"
        _fail(ExitCode.UNAVAILABLE, f"this command needs the package {package}, which is not installed: {remedy}")
    except OSError as error:
        # Of files with a name all is said where they are used; what is left is what print writes into.
        if error.filename is not None or error.errno not in {errno.ENOSPC, errno.EIO, errno.EPIPE}:
            raise
        _fail(ExitCode.FAILED, f"standard output can't be written: {error.strerror}")


def _fail(code: ExitCode, text: str) -> NoReturn:
    from edge.cli.options import fail  # with it comes pydantic, which --help and --version need not wait for

    fail(code, text)
