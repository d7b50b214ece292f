"""`edge-pose models`: the pose models of this machine, before a daemon needs them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from edge import logs
from edge.addresses import without_credentials
from edge.cli.model_progress import progress_bar
from edge.cli.options import ConfigFile, Json, Sets, reported_errors
from edge.config import PoseConfig, source_of_models
from edge.config_layers import find_file, load
from edge.errors import ConfigError, ConfigProblem, ModelError
from edge.estimators.models.catalog import BUNDLES
from edge.estimators.models.store import Model, ModelStore

app = typer.Typer(help="List, fetch and verify the pose models.", no_args_is_help=True)

Directory = Annotated[
    Path | None, typer.Option("--dir", help="Where models are kept; default: pose.model_dir of the configuration.")
]
Names = Annotated[list[str] | None, typer.Argument(metavar="NAME", help="lite, full or heavy.")]


@app.command("list")
def list_models(
    directory: Directory = None, config: ConfigFile = None, sets: Sets = None, *, as_json: Json = False
) -> None:
    """Which models there are, and which of them are here and whole.

    Exit codes: 0, also when none is here.
    """
    with reported_errors():
        pose = _pose(config, sets)
        rows = [_row(_store(directory, pose), name) for name in BUNDLES]
        if as_json:
            typer.echo(json.dumps(rows, indent=1))
            return
        for row in rows:
            size = f"{BUNDLES[row['name']].size / 1e6:.1f} MB"
            where = row["path"] or row["detail"] or f"edge-pose models fetch {row['name']} brings it"
            typer.echo(f"{row['name']:<6} {size:>8}  {row['state']:<8}  {where}")


@app.command()
def fetch(
    names: Names = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SOURCE", help="auto, a mirror's address or a directory; default: pose.model_source."
        ),
    ] = None,
    directory: Directory = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Bring models here, by default the configured one; one that is here and whole is left as it is.

    Each is checked against its pinned hash before it gets its name. A fetch that broke off goes on where it stopped.
    Exit codes: 0 all are here, 69 one can't be had, 78 the configuration is wrong.
    """
    with reported_errors():
        logs.setup("info")
        pose = _pose(config, sets)
        wanted = pose.model_source if source is None else _source(source)
        store = _store(directory, pose)
        for name in names or [pose.model]:
            with progress_bar(name) as progress:
                model = store.fetch(name, source=wanted, progress=progress)
            typer.echo(_line(model))


@app.command()
def verify(names: Names = None, directory: Directory = None, config: ConfigFile = None, sets: Sets = None) -> None:
    """Hash models anew, by default every one that is here.

    Exit codes: 0 all are whole, 69 one is missing or damaged or none is here, 78 the configuration is wrong.
    """
    with reported_errors():
        store = _store(directory, _pose(config, sets))
        whole, flaws = [], []
        for name in names or BUNDLES:
            try:
                model = store.find(name)
            except ModelError as error:
                flaws.append(str(error))
                continue
            if model is not None:
                whole.append(name)
                typer.echo(_line(model))
            elif names:
                flaws.append(_missing(store, name))
        if not (whole or flaws):
            flaws.append(_missing(store, ", ".join(BUNDLES)))
        if flaws:
            raise ModelError("\n".join(flaws))


@app.command()
def path(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="lite, full or heavy; default: the configured one.")
    ] = None,
    directory: Directory = None,
    config: ConfigFile = None,
    sets: Sets = None,
) -> None:
    """Print where a verified model is, for scripts.

    Exit codes: 0, 69 it is missing or damaged, 78 the configuration is wrong.
    """
    with reported_errors():
        pose = _pose(config, sets)
        store = _store(directory, pose)
        name = name or pose.model
        model = store.find(name)
        if model is None:
            raise ModelError(_missing(store, name))
        typer.echo(model.path)


def _pose(file: Path | None, sets: list[str] | None) -> PoseConfig:
    """The `[pose]` table in force; models are wanted before there are cameras."""
    anything = {"camera": {"any": {"source": "synthetic"}}}
    return load(find_file(file), environment=os.environ, sets=sets or [], base=anything).config.pose


def _source(given: str) -> str:
    try:
        return source_of_models(given)
    except ValueError as error:
        shown = repr(without_credentials(given))
        raise ConfigError([ConfigProblem("models fetch", "--from", shown, f"expected {error}")]) from None


def _store(directory: Path | None, pose: PoseConfig) -> ModelStore:
    return ModelStore(directory or pose.model_dir)


def _row(store: ModelStore, name: str) -> dict[str, Any]:
    row = {"name": name, "state": "missing", "path": None, "sha256": None, "detail": ""}
    try:
        model = store.find(name)
    except ModelError as error:
        return {**row, "state": "damaged", "detail": str(error)}
    if model is None:
        return row
    return {**row, "state": str(model.make), "path": str(model.path), "sha256": model.sha256}


def _missing(store: ModelStore, name: str) -> str:
    return f"model {name}: not in {store.directory}; edge-pose models fetch brings it"


def _line(model: Model) -> str:
    return f"{model.name:<6} {model.make:<8}  sha256 {model.sha256[:12]}…  {model.path}"
