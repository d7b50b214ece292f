"""The composition root: a configuration becomes a wired daemon.

It names the concrete classes of adapters; so do, of all others, only rerun_lanes.py, which it has for a part of them,
and diagnosis.py, which tries them one by one.
"""

from __future__ import annotations

import itertools
import logging
import platform
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import edge
from edge import rerun_lanes, tls
from edge.addresses import without_credentials
from edge.config import DRIVERS, CameraConfig, Config, MqttConfig, PeopleConfig, Rate
from edge.control import Inbox
from edge.daemon import Daemon, EndRequested
from edge.device import board, clock
from edge.device.core_dumps import CoreDumps
from edge.device.health import MachineWatch, memory_available_mb
from edge.errors import OrderRefused, UnforeseenError
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.store import Model
from edge.estimators.region import RegionEstimator
from edge.event_log import EventLog
from edge.inference import Estimators, Inference, SpareCores
from edge.interfaces import FrameSource, PoseEstimator
from edge.lanes import Lane, LaneGroup
from edge.pipeline import CameraPipeline
from edge.privacy import most_shown
from edge.reports import BrokerReach, DeviceInfo, HealthReport
from edge.rerun_lanes import OBSERVATIONS, RerunLanes
from edge.settings import Settings
from edge.stats import DropCause, FrameRates, Stats
from edge.vision.geometry import UPRIGHT, WHOLE, Part, Turn, View
from edge.vision.mount import Mount
from edge.vision.observation import Observation
from edge.vision.people import Rules

if TYPE_CHECKING:
    from edge.cameras.driver import DriverSource
    from edge.mqtt.outbox import Outbox
    from edge.mqtt.sink import MqttSink, Standing, Streams

log = logging.getLogger(__name__)

# What a worker takes (full, with masks) and as much again: a board with 1 GB stays with one.
_ROOM_FOR_A_WORKER_MB = 400
# On top of the daemon's deadline: what the last acknowledgements remove, and a disk that is slow.
_OUTBOX_CLOSE_S = 2.0


@dataclass(frozen=True, slots=True)
class _CameraParts:
    """What a camera is made from. Another source makes it anew; the rest changes in its place."""

    source: CameraConfig
    pose: object
    rules: Rules
    paused: bool


class App:
    """A daemon ready to start, which can change over to another configuration while it runs.

    Methods are for the main thread only, which thereby carries requests out one after the other.
    """

    def __init__(
        self,
        config: Config,
        model: Model,
        inbox: Inbox,
        *,
        settings: Settings | None = None,
        state_dir: Path | None = None,
        sources: Callable[[str, CameraConfig], FrameSource] | None = None,
    ) -> None:
        """Wire everything. settings: what of `config` was set at run time. state_dir: where is kept what has to survive
        a restart, None for nowhere. sources: what gives a camera's frames, by default what its configuration says.

        Raises ConfigError for what only shows now, such as a directory that can't be written.
        """
        _use_few_threads()
        self._core_dumps = CoreDumps()
        self._core_dumps.require(config.privacy.mode)  # before the first picture is here
        self.config = config
        self.settings = settings or Settings()
        self.session = new_session_id()
        self.stats = Stats(list(config.camera))
        self._clock_synchronised = clock.synchronised()
        self._started_ns, self._started_s = time.time_ns(), time.monotonic()
        self._model = model
        self._inbox = inbox
        self._state_dir = state_dir
        self._source_of = sources or (lambda name, camera: frame_source(name, camera, self.stats))
        self._versions = versions()
        self.events = EventLog(self.session)
        self._person_ids: dict[str, Iterator[int]] = {}
        self.outbox: Outbox | None = None
        self._standing: Standing | None = None
        self._rerun = RerunLanes(self.session, self.stats, self.events)
        self._mqtt: MqttSink | None = None
        self._groups = _group_parts(config, model)
        self._spare_cores = SpareCores(has_memory=_has_room_for_a_worker)
        self.daemon = Daemon(inbox, {name: group for name in _GROUPS if (group := self._build(name)) is not None})
        self._share_cores()
        self.daemon.cameras.update({name: self._camera(name) for name in config.camera})
        self._cameras = _camera_parts(config, model)

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self._started_s

    @property
    def recording(self) -> Path | None:
        """The first file of what is being recorded."""
        return self._rerun.recording

    @property
    def broker(self) -> BrokerReach:
        return BrokerReach("off") if self._mqtt is None else self._mqtt.reach

    def stop(self) -> None:
        """End everything. Raises a camera's failure, if there is one; others' are logged."""
        try:
            self.daemon.stop()
        finally:
            self._rerun.close()
            if self.outbox is not None:
                self.outbox.close(_OUTBOX_CLOSE_S)

    def reload(
        self, config: Config, model: Model, settings: Settings | None = None, step: Callable[[], None] = lambda: None
    ) -> list[str]:
        """Change over to another configuration: only what differs is exchanged, the rest goes on undisturbed.

        settings: what of it was set at run time, by default as before. Returns the names of what was exchanged, "mqtt",
        "rerun", "camera front", and of what changed in its place, "mqtt streams", "privacy", "pose of front", "people
        of front", "pause of front".
        Raises OrderRefused when a part does not work as it should; everything is as before then, but for a gap where
        parts were exchanged and back again. Raises UnforeseenError when not even that works. step: called a few times a
        second while this waits.
        """
        before = self.config, self._model, self.settings
        try:
            return self._become(config, model, self.settings if settings is None else settings, step)
        except EndRequested:
            raise OrderRefused("the daemon is asked to end") from None
        except Exception as error:  # noqa: BLE001 - whatever a part raises, the daemon must have all its parts again
            why = str(error) or type(error).__name__
        try:
            self._become(*before, step)
        except EndRequested:
            pass  # nothing is missed that would not end now
        except Exception as error:
            raise UnforeseenError(f"reload: {why}; and the way back: {type(error).__name__}: {error}") from error
        raise OrderRefused(why)

    def _become(self, config: Config, model: Model, settings: Settings, step: Callable[[], None]) -> list[str]:
        streams, privacy = _streams(self.config), self.config.privacy
        # A stricter mode counts from here on, before anything is fetched, loaded or waited for, and a more open one at
        # the very end: until then something may still refuse it.
        opens = most_shown(config.privacy.mode) > most_shown(privacy.mode)
        self._core_dumps.require(config.privacy.mode)
        if self._rerun.restrict(config.privacy.mode):
            self._groups.pop("rerun", None)  # it is none of those before any more: the way back, too, makes it anew
        self.config, self._model, self.settings = config, model, settings
        groups = _group_parts(config, model)
        exchanged = [name for name in _GROUPS if self._groups.get(name) != groups.get(name)]
        last = [name for name in exchanged if name == "rerun" and opens]
        cameras = self._change_cameras(model, exchanged, groups, step, last=last)
        self._tell()
        self._core_dumps.allow(config.privacy.mode)
        in_place = ["mqtt streams"] if "mqtt" not in exchanged and streams != _streams(config) else []
        in_place += ["privacy"] if privacy != config.privacy else []
        return [*exchanged, *in_place, *cameras]

    def _change_cameras(
        self,
        model: Model,
        groups: Sequence[str],
        group_parts: Mapping[str, object],
        step: Callable[[], None],
        *,
        last: Sequence[str],
    ) -> list[str]:
        """Exchange the `groups` of lanes and whatever differs of cameras; the names of the latter. last: those groups
        that have to wait until nothing else can go wrong."""
        wanted, running = _camera_parts(self.config, model), self._cameras
        self._share_cores()
        self.stats.count([*dict.fromkeys((*self.stats.cameras, *wanted))])
        # What of a camera changes in its place needs no change where the camera is made anew.
        anew = {name: self._camera(name) for name in wanted if not self._stays(name, wanted)}
        stay = [name for name in wanted if name not in anew]
        swaps = {
            name: self.daemon.cameras[name].beside(self._estimators(name))
            for name in stay
            if running[name].pose != wanted[name].pose and not self.daemon.cameras[name].ended
        }
        rules = [name for name in stay if running[name].rules != wanted[name].rules]
        pauses = [name for name in stay if running[name].paused != wanted[name].paused]
        gone = [name for name in running if name not in wanted]
        built: dict[str, LaneGroup | None] = {}
        standing = self._rerun.standing()
        try:
            # What may be wrong shows before anything that works is touched. One model at a time is loaded beside those
            # in use: memory is short on small boards.
            beside: list[CameraPipeline | Inference] = [*anew.values(), *swaps.values()]
            for first in beside[:1]:
                self.daemon.load(first, step)
            built = self._build_beside(groups)
            for name in gone:  # before those that come, since both may want the same device
                running.pop(name)
                self.daemon.exchange_camera(name, None, step)
            self._exchange_groups({name: built[name] for name in groups if name not in last}, group_parts, step)
            for name, camera in anew.items():
                self._load(camera, step)
                running.pop(name, None)
                self.daemon.exchange_camera(name, camera, step)
                running[name] = wanted[name]
            for name, inference in swaps.items():
                self._load(inference, step)
                self.daemon.exchange_estimator(name, inference, step)
                running[name] = replace(running[name], pose=wanted[name].pose)
            for name in rules:
                self.daemon.cameras[name].adopt(wanted[name].rules)
                running[name] = replace(running[name], rules=wanted[name].rules)
            for name in pauses:
                self.daemon.cameras[name].pause(wanted[name].paused)
                running[name] = wanted[name]
            self._exchange_groups({name: built.pop(name) for name in last}, group_parts, step=lambda: None)
        finally:
            if any(name in built for name in last):
                self._rerun.restore(standing)  # what was built beside it was never begun
            for camera in [camera for name, camera in anew.items() if self.daemon.cameras.get(name) is not camera]:
                camera.interrupt()
            for inference in [new for name, new in swaps.items() if running[name].pose != wanted[name].pose]:
                inference.relieve()
        self.stats.count(list(wanted))
        changed = {"camera": [*gone, *anew], "pose of": swaps, "people of": rules, "pause of": pauses}
        return [f"{what} {name}" for what, names in changed.items() for name in names]

    def _build_beside(self, groups: Sequence[str]) -> dict[str, LaneGroup | None]:
        """Those groups of lanes, beside the ones in use, which go on if one of them can't be."""
        before = self._mqtt, self._rerun.standing()
        try:
            return {name: self._build(name) for name in groups}
        except BaseException:
            self._mqtt = before[0]
            self._rerun.restore(before[1])
            raise

    def _exchange_groups(
        self, built: Mapping[str, LaneGroup | None], parts: Mapping[str, object], step: Callable[[], None]
    ) -> None:
        for name, group in built.items():
            self._groups.pop(name, None)  # halfway it is neither the old part nor the new one
            self.daemon.exchange_lanes(name, group)
            if name in parts:
                self._groups[name] = parts[name]
            step()

    def _stays(self, name: str, wanted: Mapping[str, _CameraParts]) -> bool:
        """Whether the camera that runs under this name can go on."""
        return name in self._cameras and self._cameras[name].source == wanted[name].source

    def _load(self, new: CameraPipeline | Inference, step: Callable[[], None]) -> None:
        if not new.loaded.is_set():
            self.daemon.load(new, step)

    def _build(self, group: str) -> LaneGroup | None:
        return self._mqtt_lanes() if group == "mqtt" else self._rerun.build(self.config, self._info(self._model))

    def _mqtt_lanes(self) -> LaneGroup | None:
        self._mqtt = None
        return LaneGroup(observers=(self._mqtt_lane(),)) if self.config.mqtt.url else None

    def _camera(self, name: str) -> CameraPipeline:
        camera = self.config.camera[name]
        return CameraPipeline(
            name,
            self._source_of(name, camera),
            self._estimators(name),
            outlets=self.daemon.outlets,
            stats=self.stats.cameras[name],
            drops=self.stats,
            on_end=self.daemon.camera_ended,
            on_event=self.events.happened,
            rules=people_rules(camera, self.config.people),
            ids=self._person_ids.setdefault(name, itertools.count(1)),
            interval_s=1 / camera.fps if camera.kind in (*DRIVERS, "synthetic") else 0.0,
            paused=camera.paused,
        )

    def _estimators(self, name: str) -> Estimators:
        """Those of the camera `name`."""
        pose, region = self.config.pose, Part(*self.config.camera[name].roi)
        workers = self._spare_cores if pose.workers == "auto" else pose.workers
        return Estimators(lambda: self._estimator_of(region), max_people=pose.max_people, workers=workers)

    def _share_cores(self) -> None:
        """One for each camera; what is left is for those that can't keep up."""
        workers, cameras, cores = self.config.pose.workers, len(self.config.camera), board.usable_cores()
        self._spare_cores.allow(cores - cameras)
        if workers != "auto" and workers > 1 and workers * cameras > cores:
            told = (
                "pose.workers = %d: with %d cameras that is more estimators than there are cores (%d): all get slower"
            )
            log.warning(told, workers, cameras, cores)

    def _estimator_of(self, region: Part) -> PoseEstimator:
        return self._estimator() if region == WHOLE else RegionEstimator(self._estimator(), region)

    def _estimator(self) -> MediaPipeEstimator:
        masks = rerun_lanes.mask_form(self.config) != "off"
        return MediaPipeEstimator(self._model.path, max_people=self.config.pose.max_people, segmentation=masks)

    def _mqtt_lane(self) -> Lane[Observation]:
        from edge.mqtt.commands import Answers, CommandDesk
        from edge.mqtt.message import Message, Received
        from edge.mqtt.outbox import Outbox
        from edge.mqtt.retained import RetainedTopics
        from edge.mqtt.session import Session
        from edge.mqtt.sink import Knowledge, MqttSink, Standing
        from edge.mqtt.tls import Credentials
        from edge.mqtt.topics import Topics

        mqtt, device = self.config.mqtt, self.config.device
        if self._standing is None:
            knowledge = Knowledge(self._info(self._model), _streams(self.config))
            self.outbox = outbox = Outbox(self._state_dir, self.events.happened)
            self._standing = Standing(knowledge, outbox, Answers(), RetainedTopics(self._state_dir))
            self.events.listen(outbox.put)
            outbox.start()
        self._tell()
        standing = self._standing
        topics = Topics(mqtt.prefix, device)
        credentials = Credentials.of(mqtt)

        def session(will: Message, on_online: Callable[[], None], on_message: Callable[[Received], None]) -> Session:
            return Session(
                mqtt.url,
                client_id=f"edge-pose.{device}",
                version=mqtt.version,
                credentials=credentials,
                will=will,
                on_online=on_online,
                on_message=on_message,
            )

        self._mqtt = MqttSink(
            session,
            topics=topics,
            standing=standing,
            health=self._health_reporter(),
            stats=self.stats,
            desk=CommandDesk(topics, verbs=mqtt.commands, ask=self._inbox.ask, answers=standing.answers),
            verbs=mqtt.commands,
            home_assistant=mqtt.home_assistant,
        )
        return Lane("mqtt", self._mqtt, self.stats, capacity=OBSERVATIONS)

    def _tell(self) -> None:
        """What is published of the device, as it is now."""
        if self._standing is not None:
            self._standing.knowledge.now = (self._info(self._model), _streams(self.config))

    def _health_reporter(self) -> Callable[[], HealthReport]:
        machine = MachineWatch(self.config.rerun.record_dir or self._state_dir or Path("/"))
        rates = FrameRates(self.stats)

        def report() -> HealthReport:
            return HealthReport(
                session=self.session,
                at_ns=time.time_ns(),
                uptime_s=self.uptime_s,
                cameras={name: camera.counts() for name, camera in self.stats.cameras.items()},
                fps=rates.since_last(),
                drops=self.stats.drops(),
                sent=self.stats.sends(),
                rerun=self._rerun.state,
                machine=machine.report(),
            )

        return report

    def _info(self, model: Model) -> DeviceInfo:
        config = self.config
        return DeviceInfo(
            device=config.device,
            session=self.session,
            started_ns=self._started_ns,
            versions=self._versions,
            board=board.name(),
            model=model.name,
            model_sha256=model.sha256,
            max_people=config.pose.max_people,
            segmentation=rerun_lanes.mask_form(config) != "off",
            privacy=config.privacy.mode,
            skeleton=MediaPipeEstimator.skeleton,
            cameras={name: camera.kind for name, camera in config.camera.items()},
            landmarks_hz=_hz(config.mqtt.landmarks_hz),
            summary_hz=_hz(config.mqtt.summary_hz),
            settings=self.settings.of(config.camera).in_force,
            keeps=self._state_dir is not None,
            clock_synchronised=self._clock_synchronised,
        )


_GROUPS = ("mqtt", "rerun")


def _camera_parts(config: Config, model: Model) -> dict[str, _CameraParts]:
    masks = rerun_lanes.mask_form(config) != "off"
    pose = (config.pose.max_people, masks, config.pose.workers, model)
    others: dict[str, Any] = {"paused": False, "mount": None, "zone": {}, "line": {}, "roi": astuple(WHOLE)}
    return {
        name: _CameraParts(
            camera.model_copy(update=others),
            (camera.roi, *pose),
            people_rules(camera, config.people),
            camera.paused,
        )
        for name, camera in config.camera.items()
    }


def _group_parts(config: Config, model: Model) -> dict[str, object]:
    """What each group of lanes is made from: one that is made from the same need not be made anew."""
    parts: dict[str, object] = {}
    if config.mqtt.url:
        connection = config.mqtt.model_dump(exclude={"landmarks_hz", "summary_hz", "landmarks_format"})
        parts["mqtt"] = (config.device, connection, _contents(config.mqtt))
    if rerun_lanes.is_wanted(config.rerun):
        pose = (config.pose.max_people, config.pose.segmentation, model)
        certificates = tls.contents(rerun_lanes.identity(config))
        drawn = [(rerun_lanes.zones(camera), rerun_lanes.lines(camera)) for camera in config.camera.values()]
        parts["rerun"] = (config.device, config.rerun, config.privacy, certificates, _mounts(config), drawn, *pose)
    return parts


def people_rules(camera: CameraConfig, people: PeopleConfig) -> Rules:
    """By what the people before this camera are understood."""
    return Rules(
        people=people,
        mount=rerun_lanes.mount(camera),
        zones=rerun_lanes.zones(camera),
        lines=rerun_lanes.lines(camera),
    )


def _mounts(config: Config) -> list[tuple[str, Mount]]:
    return [(name, rerun_lanes.mount(camera)) for name, camera in config.camera.items()]


def _streams(config: Config) -> Streams:
    from edge.mqtt.sink import Streams

    mqtt, hang = config.mqtt, frozenset(name for name, camera in config.camera.items() if camera.mount is not None)
    return Streams(_hz(mqtt.landmarks_hz), _hz(mqtt.summary_hz), mqtt.landmarks_format, hang)


def _contents(mqtt: MqttConfig) -> list[bytes | None]:
    """A password or certificate that is another one under the same name is a change as well."""
    identity = tls.Identity("mqtt", mqtt.ca_file, mqtt.cert_file, mqtt.key_file)
    return [tls.content(mqtt.password_file), *tls.contents(identity)]


def new_session_id() -> str:
    """A name for this run that no other has: the UTC time for people to read, and chance for boards without a clock."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(4)}"


def versions() -> dict[str, str]:
    """The versions of what shapes the results."""
    packages = {name: metadata.version(name) for name in ("mediapipe", "rerun-sdk", "paho-mqtt")}
    return {"edge-pose": edge.__version__, "python": platform.python_version(), **packages}


def _use_few_threads() -> None:
    # Inference hands over between threads on every call; at the default interval of 5 ms a busy thread beside it
    # adds up to 19 ms a frame, at this one 2 to 4 ms.
    sys.setswitchinterval(0.0005)
    import cv2

    # OpenCV's own threads gain nothing on pictures this small and cost thousands of context switches a second.
    cv2.setNumThreads(1)


def frame_source(name: str, camera: CameraConfig, drops: Stats | None = None) -> FrameSource:
    """The camera `name` as configured, not opened yet. Nobody gets to see more of it than its configuration leaves.

    drops: where the frames are counted that never come here.
    """
    view = view_of(camera)
    if camera.kind in DRIVERS:
        behind = _behind_a_driver(name, camera, view, drops)
        return behind if view.is_whole else _oriented(behind, view, lambda: behind.turned)
    source = _decoded(name, camera)
    return source if view.is_whole else _oriented(source, view, lambda: UPRIGHT)


def _oriented(source: FrameSource, view: View, turned: Callable[[], Turn]) -> FrameSource:
    from edge.cameras.oriented import Oriented

    return Oriented(source, view, turned=turned)


def view_of(camera: CameraConfig) -> View:
    """What is shown of the pictures that the camera's driver gives."""
    return View(Turn.of(camera.rotate_deg, camera.flip), Part(*camera.crop))


def _decoded(name: str, camera: CameraConfig) -> FrameSource:
    if camera.kind == "synthetic":
        from edge.cameras.synthetic import SyntheticSource

        return SyntheticSource(
            name, width_px=camera.width_px, height_px=camera.height_px, fps=camera.fps, pace=camera.pace
        )
    from edge.cameras.stream import StreamSource

    return StreamSource(name, camera.source, loop=camera.loop, pace=camera.pace)


def _behind_a_driver(name: str, camera: CameraConfig, view: View, drops: Stats | None) -> DriverSource:
    from edge.cameras.driver import DRIVERS as PROGRAMS
    from edge.cameras.driver import DriverSource

    return DriverSource(
        name,
        PROGRAMS[camera.kind],
        without_credentials(camera.source),
        driver_request(camera, view),
        waits=camera.kind == "gstreamer" and camera.pace == "unlimited",
        on_lost=lambda frames: None if drops is None else drops.dropped(f"camera {name}", DropCause.OVERRUN, frames),
    )


def driver_request(camera: CameraConfig, view: View) -> dict[str, Any]:
    """What its driver is asked for."""
    wanted = camera.model_dump(
        mode="json",
        include={
            "width_px",
            "height_px",
            "fps",
            "video_width_px",
            "video_height_px",
            "pixel_format",
            "sensor_mode",
            "controls",
        },
    )
    horizontal, vertical = view.turn.flips
    # Where flips are not all of it, nobody may see what the camera's own encoder makes.
    encoder = camera.encoder and view.without(Turn.of_flips(horizontal=horizontal, vertical=vertical)).is_whole
    flips = {"flip_horizontal": horizontal, "flip_vertical": vertical}
    return {"source": camera.source.partition(":")[2], **wanted, **flips, "encoder": encoder}


def _has_room_for_a_worker() -> bool:
    available_mb = memory_available_mb()
    return available_mb is None or available_mb >= _ROOM_FOR_A_WORKER_MB


def _hz(rate: Rate) -> float | None:
    return None if rate == "unlimited" else rate
