"""Fetching the model with a bar to watch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from edge.config import Config
from edge.estimators.models.sources import Progress
from edge.estimators.models.store import Model, ModelStore


def ensure_model(config: Config) -> Model:
    """The configured model, fetched with a progress bar on standard error if it has to be. Raises ModelError."""
    pose = config.pose
    with progress_bar(pose.model) as progress:
        return ModelStore(pose.model_dir).ensure(pose.model, source=pose.model_source, progress=progress)


@contextlib.contextmanager
def progress_bar(model: str) -> Iterator[Progress]:
    """A bar on standard error from the first byte that arrives, where that is a terminal."""
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"model {model}", total=None, visible=False)

        def show(arrived: int, expected: int) -> None:
            bar.update(task, completed=arrived, total=expected, visible=True)

        yield show
