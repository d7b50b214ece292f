"""`edge-pose check`: validate the configuration and print what is in force."""

from __future__ import annotations

import json
import os
import sys

import typer

from edge import preflight
from edge.cli.options import ConfigFile, Quiet, Sets, reported_errors
from edge.config import masked
from edge.config_layers import find_file
from edge.settings import load_with_kept


def check(
    config: ConfigFile = None,
    sets: Sets = None,
    *,
    quiet: Quiet = False,
) -> None:
    """Validate the configuration and print every key with its value and where that came from.

    Exit codes: 0 valid, 78 not valid, each problem in a line of its own.
    """
    with reported_errors():
        file = find_file(config)
        written = load_with_kept(file, environment=os.environ, sets=sets or [])
        loaded = written.loaded
        preflight.require(loaded)
        for line in written.ignored:
            print(f"edge-pose: {line}", file=sys.stderr)
        if quiet:
            return
        rows = [(key, _shown(value), origin) for key, value, origin in loaded.effective()]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        for key, value, origin in rows:
            typer.echo(f"{key:<{widths[0]}} = {value:<{widths[1]}}  # {origin}")


def _shown(value: object) -> str:
    """A value as TOML would have it; what is not set is a dash."""
    match value:
        case None:
            return "-"
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case tuple():
            return f"[{', '.join(map(_shown, value))}]"
        case _:
            return json.dumps(masked(str(value)), ensure_ascii=False)
