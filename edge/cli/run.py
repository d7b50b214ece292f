"""`edge-pose run`: the daemon."""

from __future__ import annotations

import logging
import os
import time
from typing import Annotated

import typer

from edge import logs, preflight
from edge.cli.model_progress import ensure_model
from edge.cli.options import ConfigFile, Sets, leave, reported_errors, stop_on_signals
from edge.config_layers import find_file, load
from edge.errors import ExitCode
from edge.pacing import Deadline
from edge.pipeline import Daemon, StopSignal
from edge.stats import Stats

log = logging.getLogger("edge.run")

SUMMARY_EVERY_S = 60.0


def run(
    config: ConfigFile = None,
    sets: Sets = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End by itself after so many seconds.")] = None,
) -> None:
    """Capture, estimate, publish and log, until SIGTERM, SIGINT or the end of every file.

    Exit codes: 0 clean end, 66 a camera can't be used, 69 the model can't be had, 70 the estimator failed, 78 the
    configuration is wrong, 130 a second SIGINT or SIGTERM cut the end short.
    """
    with reported_errors():
        loaded = load(find_file(config), environment=os.environ, sets=sets or [])
        preflight.require(loaded)
        logs.divert_native_output()
        logs.setup(loaded.config.log_level)
        model = ensure_model(loaded.config)
        stop = StopSignal()
        stop_on_signals(stop)  # not before the model is there: until then there is nothing to end in order
        from edge.app import App  # imports OpenCV, which a wrong configuration need not wait for

        app = App(loaded.config, model, stop)
        log.info("session %s of device %s begins", app.session, app.config.device)
        if not (loaded.config.mqtt.url or loaded.config.rerun.url or loaded.config.rerun.record_dir):
            log.warning("mqtt.url, rerun.url and rerun.record_dir are empty: whatever is found stays in this process")
        if app.recording:
            log.info("recording into %s", app.recording)
        app.daemon.start()
        log.info("stopping: %s", _wait(app.daemon, app.stats, seconds))
        try:
            app.daemon.stop()
        finally:
            for line in summary(app.stats, seconds=None):
                log.info("%s", line)
    leave(ExitCode.OK)


def _wait(daemon: Daemon, stats: Stats, seconds: float | None) -> str:
    """Until somebody asks for the end or `seconds` are over, with a line of figures a minute."""
    end = None if seconds is None else Deadline(seconds)
    while True:
        began_s = time.monotonic()
        before = {name: camera.counts().estimated for name, camera in stats.cameras.items()}
        reason = daemon.wait(SUMMARY_EVERY_S if end is None else min(SUMMARY_EVERY_S, end.left_s()))
        if reason is not None:
            return reason
        if end is not None and not end.left_s():
            return f"{seconds:g} s are over"
        for line in summary(stats, before=before, seconds=time.monotonic() - began_s):
            log.info("%s", line)


def summary(stats: Stats, *, seconds: float | None, before: dict[str, int] | None = None) -> list[str]:
    """A line a camera and one for all that was dropped. seconds, before: give frames a second since then."""
    lines = []
    for name, camera in stats.cameras.items():
        counts = camera.counts()
        line = (
            f"camera {name}: {counts.estimated} frames of {counts.captured} estimated, {counts.with_people} with people"
        )
        if seconds and before is not None:
            line += f", {(counts.estimated - before[name]) / seconds:.1f} frames/s"
        if counts.inference and counts.latency:
            line += (
                f", inference p50 {counts.inference.p50_ms:.1f} ms,"
                f" latency p50 {counts.latency.p50_ms:.1f} p99 {counts.latency.p99_ms:.1f} ms"
            )
        lines.append(line)
    if sends := stats.sends():
        lines.append("sent: " + ", ".join(f"{what} {items}" for what, items in sorted(sends.items())))
    if drops := stats.drops():
        lines.append(
            "dropped: " + ", ".join(f"{place} {items} ({cause})" for (place, cause), items in sorted(drops.items()))
        )
    return lines
