"""Fetching the model with a bar to watch."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge.config import Config
from edge.estimators.models.store import Model, ModelStore

if TYPE_CHECKING:
    from edge.estimators.models.sources import Progress


def ensure_model(config: Config) -> Model:
    """The configured model, fetched with a progress bar on standard error if it has to be. Raises ModelError."""
    pose = config.pose
    store = ModelStore(pose.model_dir)
    if model := store.find(pose.model):
        return model
    with progress_bar(pose.model) as progress:
        return store.fetch(pose.model, source=pose.model_source, progress=progress)


@contextlib.contextmanager
def progress_bar(model: str) -> Iterator[Progress]:
    """A bar on standard error from the first byte that arrives, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"model {model}", total=None, visible=False)

        def show(arrived: int, expected: int) -> None:
            bar.update(task, completed=arrived, total=expected, visible=True)

        yield show
