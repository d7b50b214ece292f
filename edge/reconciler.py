"""Carries requests out, one after the other: what the running daemon is told over MQTT, by SIGHUP or by itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from edge import jpeg, logs, preflight
from edge.app import App
from edge.config import PoseConfig, SettingValue, can_be_set_at_run_time
from edge.config_layers import AT_RUN_TIME, Sources
from edge.control import (
    Answer,
    Inbox,
    Order,
    Pause,
    Ping,
    Refusal,
    Reload,
    Restart,
    Set,
    Snapshot,
    Still,
    Stop,
)
from edge.daemon import EndRequested
from edge.errors import ConfigError, ConfigProblem, ModelError, OrderRefused, StateError
from edge.estimators.models.catalog import BUNDLES
from edge.estimators.models.store import Model, ModelStore
from edge.logs import printable
from edge.pipeline import CameraPipeline
from edge.privacy import Shows, most_shown
from edge.settings import Settings, Written, state_directory

log = logging.getLogger(__name__)

FETCH_TIMEOUT_S = 120.0
"""For a model that has to be fetched for a command: others wait meanwhile."""


class Reconciler:
    """For the main thread. It compares what is wanted with what runs, fetches and builds what is new beside it, swaps,
    tells what became of it, and takes everything back when something does not work.

    written: what the configuration in force was made from; whatever else is written there by now counts from the next
    reload on. read: the same as it is now; raises ConfigError. step: called a few times a second while something takes
    its time.
    """

    def __init__(
        self, app: App, written: Written, *, read: Callable[[], Sources], inbox: Inbox, step: Callable[[], None]
    ) -> None:
        self._app = app
        self._sources = written.sources
        self._file = written.file
        self._read = read
        self._inbox = inbox
        self._step = step

    def carry_out(self, order: Order) -> Answer:
        """Do it, or leave everything as it was. Raises UnforeseenError when not even that works."""
        try:
            return self._carry_out(order)
        except ConfigError as error:
            return Answer(Refusal.INVALID, str(error))
        except (ModelError, OrderRefused, StateError) as error:
            return Answer(Refusal.FAILED, str(error))

    def _carry_out(self, order: Order) -> Answer:
        answer = Answer()
        match order:
            case Ping():
                answer = Answer(result={"session": self._app.session, "uptime_s": round(self._app.uptime_s, 1)})
            case Snapshot(camera):
                answer = Answer(still=self._still(camera))
            case Pause(camera, paused, keep):
                answer = self._set({f"camera.{name}.paused": paused for name in self._meant(camera)}, keep=keep)
            case Set(values, keep):
                answer = self._set(values, keep=keep)
            case Reload():
                answer = Answer(result={"exchanged": self._change(self._read_again(), self._app.settings)})
            case Restart():
                self._inbox.post(Stop("a restart was asked for", again=True))
        return answer

    def _read_again(self) -> Sources:
        sources = self._read()
        loaded = sources.load(self._app.settings.in_force)
        preflight.require(loaded)
        if state_directory(loaded.config, sources.environment) != self._file.directory:
            raise OrderRefused("state_dir is another one: that takes a restart")
        return sources

    def _change(self, sources: Sources, settings: Settings) -> list[str]:
        """Change over to what is written there, with `settings` on top; the names of what was exchanged."""
        config = sources.load(settings.in_force).config
        try:
            model = self._model(config.pose)
        except EndRequested:
            raise OrderRefused("the daemon is asked to end") from None
        exchanged = self._app.reload(config, model, settings, self._step)
        self._sources = sources
        logs.set_level(config.log_level)
        return exchanged

    def _model(self, pose: PoseConfig) -> Model:
        """The model of that name, fetched first where it is not here yet."""
        store = ModelStore(pose.model_dir)
        found = store.find(pose.model)
        if found is None:
            log.info("fetching model %s", pose.model)
            found = self._app.daemon.aside(
                lambda: store.ensure(pose.model, source=pose.model_source), self._step, timeout_s=FETCH_TIMEOUT_S
            )
        return found

    def _set(self, values: Mapping[str, SettingValue | None], *, keep: bool) -> Answer:
        for key, value in values.items():
            self._require_settable(key, value)
        before = self._app.settings
        settings = before.changed(values, keep=keep)
        loaded = self._sources.load(settings.in_force)
        for key in settings.in_force.keys() & values.keys():
            if (origin := loaded.origins[tuple(key.split("."))]) != AT_RUN_TIME:
                raise _refused(key, "", f"stands in {origin}, which counts for more")
        if values.get("rerun.record") is True and loaded.config.rerun.record_dir is None:
            raise _refused("rerun.record", "", "there is nowhere to record into: rerun.record_dir is not set")
        if keep:
            self._file.write(before.kept)  # what can't be kept is not even begun
        exchanged = self._change(self._sources, settings)
        if keep:
            try:
                self._file.write(self._app.settings.kept)
            except StateError:
                self._change(self._sources, before)
                raise
        settings = self._app.settings.of(self._app.config.camera)
        return Answer(result={"exchanged": exchanged, "settings": settings.in_force})

    def _require_settable(self, key: str, value: SettingValue | None) -> None:
        if not can_be_set_at_run_time(key):
            raise _refused(key, "", "can't be set at run time; docs/configuration.md marks the keys that can")
        if key.startswith("camera."):
            self._known(key.split(".")[1])
        # A path from afar would have any file of this machine read.
        if key == "pose.model" and value is not None and value not in BUNDLES:
            raise _refused(key, repr(value), f"expected one of {', '.join(BUNDLES)}")

    def _known(self, camera: str) -> CameraPipeline:
        cameras = self._app.daemon.cameras
        if camera not in cameras:
            raise _refused("camera", repr(camera), f"there is none of that name; cameras: {', '.join(cameras)}")
        return cameras[camera]

    def _meant(self, camera: str | None) -> list[str]:
        """That camera, or all."""
        return list(self._app.daemon.cameras) if camera is None else [self._known(camera).name]

    def _still(self, camera: str | None) -> Still:
        if most_shown(mode := self._app.config.privacy.mode) < Shows.PICTURES:
            raise _refused("privacy.mode", mode, "no picture leaves this device; change it in the configuration")
        names = self._meant(camera)
        if len(names) > 1:
            raise _refused("camera", "", f"is required where there are several: {', '.join(names)}")
        frame = self._known(names[0]).latest
        # Its thread may take a moment to notice a pause, but who was told that it is paused must be able to rely on it.
        if frame is None or self._app.config.camera[names[0]].paused:
            status = self._app.stats.cameras[names[0]].status
            raise OrderRefused(f"camera {names[0]} gives no picture now, it is {status}")
        picture = frame.for_people
        return Still(
            frame.camera, frame.seq, frame.captured_ns, picture.width_px, picture.height_px, jpeg.encode(picture)
        )


def _refused(key: str, found: str, expected: str) -> ConfigError:
    return ConfigError([ConfigProblem("command", printable(key[:120]), found[:120], expected)])
