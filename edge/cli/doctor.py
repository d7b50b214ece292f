"""`edge-pose doctor`: can the main job run here, and what to do if not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge import logs
from edge.cli.options import ConfigFile, Json, Sets, fail, leave
from edge.config_layers import ENVIRONMENT_PREFIX, LoadedConfig, find_file
from edge.diagnosis import diagnose
from edge.errors import ConfigError, ExitCode
from edge.findings import Finding, Verdict, exit_code
from edge.privacy import Shows, most_shown
from edge.settings import load_with_kept

_MARKS = {
    Verdict.OK: "[green]✓[/]",
    Verdict.WARNING: "[yellow]![/]",
    Verdict.FAILED: "[red]✗[/]",
    Verdict.OFF: "[dim]-[/]",
}


_Save = Annotated[
    Path | None,
    typer.Option("--save", metavar="DIRECTORY", help="Keep a picture of each camera there, as NAME.jpg."),
]


def doctor(config: ConfigFile = None, sets: Sets = None, save: _Save = None, *, as_json: Json = False) -> None:
    """Try each part that the main job needs: configuration, processor, model, cameras, broker, hub, machine.

    Nothing is published, streamed or fetched. Exit codes: 0 the main job can run; else that of `run` (66 a camera, 69
    the model, 70 the estimator, 78 the configuration or the processor), or 1 for a broker, hub or network camera out
    of reach, which `run` would wait for.
    """
    logs.divert_native_output()
    logs.setup("error")
    loaded: LoadedConfig | ConfigError | None
    file = find_file(config)
    try:
        if file or sets or any(name.startswith(ENVIRONMENT_PREFIX) for name in os.environ):
            loaded = load_with_kept(file, environment=os.environ, sets=sets or []).loaded
        else:
            loaded = None
    except ConfigError as error:
        loaded = error
    if save is not None and loaded is None:
        fail(ExitCode.USAGE, f"--save {save}: no camera is configured, give one with --set camera.front.source=...")
    if save is not None and isinstance(loaded, LoadedConfig):
        mode = loaded.config.privacy.mode
        if most_shown(mode) < Shows.PICTURES:
            fail(ExitCode.CONFIG, f"--save {save}: nobody may see pictures while privacy.mode is {mode}")
    console = Console(highlight=False, soft_wrap=True)
    findings = []
    for finding in diagnose(loaded, save):
        findings.append(finding)
        if not as_json:
            _print(console, finding)
    if as_json:
        print(json.dumps([_entry(finding) for finding in findings], indent=1, ensure_ascii=False))
    else:
        _conclude(console, findings)
    leave(exit_code(findings))


def _entry(finding: Finding) -> dict[str, str]:
    return {
        "name": finding.name,
        "verdict": finding.verdict,
        "detail": finding.detail,
        "remedy": finding.remedy,
    }


def _print(console: Console, finding: Finding) -> None:
    console.print(f"{_MARKS[finding.verdict]} {finding.name:<12} ", end="")
    console.print(finding.detail, markup=False)
    if finding.remedy:
        console.print(f"{'':<15}→ {finding.remedy}", markup=False)


def _conclude(console: Console, findings: list[Finding]) -> None:
    failed = [finding.name for finding in findings if finding.verdict is Verdict.FAILED]
    if failed:
        console.print(f"\n[bold red]doctor: FAILED[/]: {', '.join(dict.fromkeys(failed))}")
    else:
        console.print("\n[bold green]doctor: OK[/]: the main job can run")
