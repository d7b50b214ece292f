"""`edge-pose run`: the daemon."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from edge import logs, preflight
from edge.cli.model_progress import ensure_model
from edge.cli.options import ConfigFile, Sets, end_at_once_on_signals, leave, reported_errors, requests_from_signals
from edge.config import Config
from edge.config_layers import LoadedConfig, find_file, load
from edge.control import Inbox, Reload, Stop
from edge.device.systemd import ServiceManager
from edge.errors import ConfigError, ExitCode, ModelError, ReloadRefused
from edge.estimators.models.store import Model, ModelStore
from edge.pacing import Deadline
from edge.stats import Stats

if TYPE_CHECKING:
    from edge.app import App  # imports OpenCV, which a wrong configuration need not wait for

log = logging.getLogger("edge.run")

SUMMARY_EVERY_S = 60.0

_TURN_S = 1.0
_TURN_BEFORE_READY_S = 0.1


def run(
    config: ConfigFile = None,
    sets: Sets = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End by itself after so many seconds.")] = None,
) -> None:
    """Capture, estimate, publish and log, until SIGTERM, SIGINT or the end of every file. SIGHUP reads the
    configuration again.

    Exit codes: 0 clean end, 66 a camera can't be used, 69 the model can't be had, 70 the estimator failed, 78 the
    configuration is wrong, 130 a second SIGINT or SIGTERM cut the end short.
    """

    def read() -> LoadedConfig:
        loaded = load(find_file(config), environment=os.environ, sets=sets or [])
        preflight.require(loaded)
        return loaded

    end_at_once_on_signals()
    with reported_errors():
        loaded = read()
        logs.divert_native_output()
        logs.setup(loaded.config.log_level)
        model = ensure_model(loaded.config)
        inbox = Inbox()
        requests_from_signals(inbox)
        from edge.app import App

        app = App(loaded.config, model, inbox)
        fields = {"EDGE_POSE_SESSION": app.session}
        log.info("session %s of device %s begins", app.session, app.config.device, extra=fields)
        _tell_where_it_goes(app)
        service = _Service(app, read, ServiceManager(os.environ))
        try:
            log.info("stopping: %s", service.run(seconds))
        finally:
            try:
                app.daemon.stop()
            finally:
                for line in summary(app.stats, seconds=None):
                    log.info("%s", line)
    leave(ExitCode.OK)


def _tell_where_it_goes(app: App) -> None:
    if not (app.config.mqtt.url or app.config.rerun.url or app.config.rerun.record_dir):
        log.warning("mqtt.url, rerun.url and rerun.record_dir are empty: whatever is found stays in this process")
    if app.recording:
        log.info("recording into %s", app.recording)


class _Service:
    """The main thread's work while the others capture and infer: requests, signs of life, a line a minute."""

    def __init__(self, app: App, read: Callable[[], LoadedConfig], manager: ServiceManager) -> None:
        self._app = app
        self._read = read
        self._manager = manager
        self._hung = logs.FaultLog(log, logging.ERROR)
        self._ready = False
        self._reload_asked = False

    def run(self, seconds: float | None) -> str:
        """From start until somebody asks for the end or `seconds` are over; why it ends."""
        self._app.daemon.start()
        end = None if seconds is None else Deadline(seconds)
        figures = _Figures(self._app.stats)
        while True:
            turn_s = _TURN_S if self._ready else _TURN_BEFORE_READY_S
            match self._app.daemon.wait(turn_s if end is None else min(turn_s, end.left_s())):
                case Stop(reason):
                    self._manager.stopping()
                    return reason
                case Reload():
                    self._reload_asked = True
            if self._reload_asked and self._ready:  # what is not up yet can't be exchanged
                self._reload_asked = False
                self._reload()
            if end is not None and not end.left_s():
                self._manager.stopping()
                return f"{seconds:g} s are over"
            self._tell_progress()
            for line in figures.due():
                log.info("%s", line)

    def _tell_progress(self) -> None:
        if not self._ready and self._app.daemon.ready:
            self._ready = True
            self._manager.ready(self._status())
        if hung := self._app.daemon.stalled():
            self._hung.failed("no progress any more, waiting for the watchdog's restart: %s", ", ".join(hung))
        elif self._ready:
            self._hung.worked("it gets on again")
            self._manager.alive()

    def _status(self) -> str:
        return f"device {self._app.config.device}, cameras {', '.join(self._app.config.camera)}"

    def _reload(self) -> None:
        self._manager.reloading()
        recording = self._app.recording
        try:
            loaded = self._read()
            exchanged = self._app.reload(loaded.config, _model_at_hand(loaded.config), self._tell_progress)
        except (ConfigError, ModelError, ReloadRefused) as error:
            problems = str(error).splitlines()
        else:
            problems = []
            logs.set_level(loaded.config.log_level)
            log.info("reloaded: %s", ", ".join(exchanged) or "nothing that was read has changed")
            if self._app.recording != recording:
                _tell_where_it_goes(self._app)
        for problem in problems:
            log.error("not reloaded, the configuration in force stays: %s", problem)
        self._manager.ready(f"not reloaded: {problems[0]}" if problems else self._status())


def _model_at_hand(config: Config) -> Model:
    """To fetch one now would leave the daemon without a sign of life for too long. Raises ModelError."""
    name = config.pose.model
    model = ModelStore(config.pose.model_dir).find(name)
    if model is None:
        raise ModelError(f"model {name} is not here yet; first 'edge-pose models fetch {name}'")
    return model


class _Figures:
    """The summary, once a minute."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._begin()

    def _begin(self) -> None:
        self._began_s = time.monotonic()
        self._before = {name: camera.counts().estimated for name, camera in self._stats.cameras.items()}

    def due(self) -> list[str]:
        """Its lines when a minute is over, otherwise none."""
        past_s = time.monotonic() - self._began_s
        if past_s < SUMMARY_EVERY_S:
            return []
        lines = summary(self._stats, before=self._before, seconds=past_s)
        self._begin()
        return lines


def summary(stats: Stats, *, seconds: float | None, before: dict[str, int] | None = None) -> list[str]:
    """A line a camera and one for all that was dropped. seconds, before: give frames a second since then."""
    lines = []
    for name, camera in stats.cameras.items():
        counts = camera.counts()
        line = (
            f"camera {name}: {counts.estimated} frames of {counts.captured} estimated, {counts.with_people} with people"
        )
        if seconds and before is not None:
            line += f", {(counts.estimated - before.get(name, 0)) / seconds:.1f} frames/s"
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
