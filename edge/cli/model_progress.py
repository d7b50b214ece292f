"""Fetching the model with a bar to watch."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from edge.config import Config
from edge.estimators import models


def ensure_model(config: Config) -> models.Model:
    """The configured model, fetched with a progress bar on standard error if it has to be. Raises ModelError."""
    directory = config.pose.model_dir or models.default_dir()
    console = Console(file=sys.stderr)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"model {config.pose.model}", total=None, visible=False)

        def show(arrived: int, expected: int) -> None:
            bar.update(task, completed=arrived, total=expected, visible=True)

        return models.ensure(config.pose.model, directory, progress=show)
