"""`edge-pose run`: the daemon."""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Annotated

import typer

from edge import logs, preflight
from edge.cli.model_progress import ensure_model
from edge.cli.options import ConfigFile, Sets, end_at_once_on_signals, leave, reported_errors, requests_from_signals
from edge.config_layers import Sources, find_file
from edge.control import MOST_COMMANDS, Answer, Command, Inbox, Pause, Refusal, Reload, Stop
from edge.device.status import Status, StatusFile
from edge.device.systemd import ServiceManager
from edge.errors import ExitCode, ModelError
from edge.estimators.models.store import Model
from edge.pacing import Deadline
from edge.settings import Written, load_with_kept, state_directory
from edge.stats import Stats

if TYPE_CHECKING:
    from edge.app import App  # imports OpenCV, which a wrong configuration need not wait for
    from edge.reconciler import Reconciler

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

    Exit codes: 0 clean end, 66 a camera can't be used, 69 the model can't be had, 70 the estimator failed, 75 a restart
    was asked for, 78 the configuration is wrong, 130 a second SIGINT or SIGTERM cut the end short.
    """
    end_at_once_on_signals()
    with reported_errors():
        written = load_with_kept(find_file(config), environment=os.environ, sets=sets or [])
        preflight.require(written.loaded)
        settled = written.loaded.config
        logs.divert_native_output()
        logs.setup(settled.log_level)
        for line in written.ignored:
            log.warning("%s", line)
        written, model = _with_a_model(written)
        settled = written.loaded.config
        inbox = Inbox()
        requests_from_signals(inbox)
        # numpy, which comes with the app: no matrix here is worth its linear algebra's threads, and to start them is
        # 0.05 s of CPU on two cores.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from edge.app import App
        from edge.reconciler import Reconciler

        def read() -> Sources:
            return Sources.read(find_file(config), environment=os.environ, sets=sets or [])

        state_dir = state_directory(settled, os.environ)
        app = App(settled, model, inbox, settings=written.settings, state_dir=state_dir)
        fields = {"EDGE_POSE_SESSION": app.session}
        log.info("session %s of device %s begins", app.session, app.config.device, extra=fields)
        _tell_where_it_goes(app)
        status = StatusFile(os.environ)
        service = _Service(app, ServiceManager(os.environ), status)
        reconciler = Reconciler(app, written, read=read, inbox=inbox, step=service.tell_progress)
        code = ExitCode.OK
        try:
            stop = service.run(reconciler, seconds)
            for command in [*service.unserved, *inbox.leave()]:
                command.answer(Answer(Refusal.FAILED, "the daemon ends"))
            log.info("stopping: %s", stop.reason)
            code = ExitCode.RESTART if stop.again else ExitCode.OK
        finally:
            status.remove()
            try:
                app.stop()
            finally:
                for line in summary(app.stats, seconds=None):
                    log.info("%s", line)
    leave(code)


def _with_a_model(written: Written) -> tuple[Written, Model]:
    """The configured model; where one that was kept can't be had, that of the configuration. Raises ModelError."""
    try:
        return written, ensure_model(written.loaded.config)
    except ModelError as error:
        if "pose.model" not in written.settings.in_force:
            raise
        log.warning("kept setting not in force: pose.model: %s", error)
        written = written.without("pose.model")
        return written, ensure_model(written.loaded.config)


def _tell_where_it_goes(app: App) -> None:
    rerun = app.config.rerun
    if not (app.config.mqtt.url or rerun.url or rerun.serve or rerun.record_dir):
        empty = "mqtt.url, rerun.url, rerun.serve and rerun.record_dir are empty"
        log.warning("%s: whatever is found stays in this process", empty)
    if app.recording:
        log.info("recording into %s", app.recording)


class _Service:
    """The main thread's work while the others capture and infer: requests, signs of life, a line a minute."""

    def __init__(self, app: App, manager: ServiceManager, status: StatusFile) -> None:
        self._app = app
        self._manager = manager
        self._status = status
        self._hung = logs.FaultLog(log, logging.ERROR)
        self._ready = False
        self._reloading = False
        self._not_reloaded = ""
        self._early: list[Command | Reload] = []

    @property
    def unserved(self) -> list[Command]:
        """Commands that came before it was ready."""
        return [asked for asked in self._early if isinstance(asked, Command)]

    def run(self, reconciler: Reconciler, seconds: float | None) -> Stop:
        """From start until somebody asks for the end or `seconds` are over; why it ends."""
        self._app.daemon.start()
        end = None if seconds is None else Deadline(seconds)
        figures = _Figures(self._app.stats)
        while True:
            turn_s = _TURN_S if self._ready else _TURN_BEFORE_READY_S
            match self._app.daemon.wait(turn_s if end is None else min(turn_s, end.left_s())):
                case Stop() as stop:
                    self._manager.stopping()
                    return stop
                case Command() | Reload() as asked:
                    self._put_off(asked)
            while self._early and self._ready:
                self._serve(self._early.pop(0), reconciler)
            if end is not None and not end.left_s():
                self._manager.stopping()
                return Stop(f"{seconds:g} s are over")
            self.tell_progress()
            for line in figures.due():
                log.info("%s", line)

    def _put_off(self, asked: Command | Reload) -> None:
        """Until it is ready, for what is not up yet can't be exchanged. Commands that are too many are refused."""
        if isinstance(asked, Command) and len(self.unserved) >= MOST_COMMANDS:
            asked.answer(Answer(Refusal.FAILED, "it is not up yet; try again"))
        else:
            self._early.append(asked)

    def tell_progress(self) -> None:
        """To the service manager, as long as everything gets on; and how it is, to whoever looks."""
        if not self._ready and self._app.daemon.ready:
            self._ready = True
            self._manager.ready(self._line())
        ready = self._ready and not self._reloading
        if ready:
            self._manager.show(self._line())
        self._status.tell(Status(self._app.session, ready, self._summary, self._app.broker))
        if hung := self._app.daemon.stalled():
            self._hung.failed("no progress any more, waiting for the watchdog's restart: %s", ", ".join(hung))
        elif self._ready:
            self._hung.worked("it gets on again")
            self._manager.alive()

    @property
    def _summary(self) -> str:
        as_configured = f"device {self._app.config.device}, cameras {', '.join(self._app.config.camera)}"
        return self._not_reloaded or as_configured

    def _line(self) -> str:
        return f"{self._summary}; broker {self._app.broker.state}"

    def _serve(self, asked: Command | Reload, reconciler: Reconciler) -> None:
        order = asked.order if isinstance(asked, Command) else asked
        what = "resume" if isinstance(order, Pause) and not order.paused else type(order).__name__.lower()
        recording = self._app.recording
        if isinstance(order, Reload):
            self._manager.reloading()
            self._reloading = True
            self.tell_progress()
        answer = reconciler.carry_out(order)
        if isinstance(asked, Command):
            asked.answer(answer)
        exchanged = answer.result.get("exchanged")
        for_all = isinstance(order, Reload)
        if answer.refusal is None and isinstance(exchanged, list):
            log.info(
                "%s: %s", "reloaded" if for_all else what, ", ".join(exchanged) or "nothing that was read has changed"
            )
        for problem in answer.why.splitlines():
            if for_all:
                log.error("not reloaded, the configuration in force stays: %s", problem)
            else:
                log.warning("%s refused: %s", what, problem)
        if self._app.recording != recording:
            _tell_where_it_goes(self._app)
        if isinstance(order, Reload):
            self._reloading = False
            self._not_reloaded = f"not reloaded: {answer.why.splitlines()[0]}" if answer.why else ""
            self._manager.ready(self._line())


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
        if counts.workers > 1:
            line += f", {counts.workers} workers"
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
