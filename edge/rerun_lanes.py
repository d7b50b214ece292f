"""What the configuration's [rerun] table comes to: lanes that end in one log, and what keeps and ships that."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge import tls
from edge.config import CameraConfig, Config, MountConfig, RerunConfig
from edge.device.health import MachineWatch
from edge.errors import ConfigError
from edge.event_log import EventLog
from edge.interfaces import Sink
from edge.lanes import Lane, LaneGroup, Shown, Stage
from edge.pacing import Deadline
from edge.privacy import Mode, Shows, most_shown
from edge.reports import DeviceInfo, Event, LinkState
from edge.stats import CameraCounts, DropCause, Stats
from edge.vision.frame import Filmed
from edge.vision.geometry import Part
from edge.vision.mount import Mount
from edge.vision.observation import Observation
from edge.vision.zones import Line, Zone

if TYPE_CHECKING:
    from edge.rerun_log.forwarder import Forwarder
    from edge.rerun_log.log import Entry, SceneLog
    from edge.rerun_log.notes import Note
    from edge.rerun_log.observations import MaskForm
    from edge.rerun_log.parcel import Parcel
    from edge.rerun_log.scene import Scene
    from edge.rerun_log.segments import Segments
    from edge.rerun_log.video import VideoSink

log = logging.getLogger(__name__)

# Two seconds of 30 frames/s: longer pauses of a receiver are no hiccups.
OBSERVATIONS = 64
# 16 frames of 640x480 with both their pictures, 22 MB; eight are encoded at a time, when this is half full. A frame of
# 1080p is 9.3 MB: as many of those would be too much for a board with 1 GB.
_FRAME_BYTES = 16 * 640 * 480 * 9 // 2
_ENTRY_BYTES = 16_000_000
# What Rerun takes for a row, its server included, goes with the number of parcels: at 60 frames/s 0.64 ms with four
# rows in each, 0.46 ms with eight, 0.30 ms with 16. A live view is later by as much as is waited for them.
RERUN_BATCH = 16
_RERUN_LINGER_S = 0.2
# Lines of text that come at once, of a fault for instance; of more the newest are worth most.
_NOTES = 256
_LINES_FROM = {"info": logging.INFO, "warning": logging.WARNING, "off": None}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is in use. recording: the first file of what is being recorded. segments: where recordings are, though
    nothing may be recorded just now; in directory."""

    recording: Path | None = None
    link: Forwarder | None = None
    segments: Segments | None = None
    directory: Path | None = None


class RerunLanes:
    """Makes the lanes, anew after each change of the configuration. The log behind them is one from start to end, so
    that a hub which is away during a change misses nothing, and a recording is one."""

    def __init__(self, session: str, stats: Stats, events: EventLog) -> None:
        self._session = session
        self._stats = stats
        self._events = events
        self._log: SceneLog | None = None
        self._standing = Standing()

    @property
    def state(self) -> LinkState:
        link = self._standing.link
        return LinkState.OFF if link is None else link.state

    @property
    def recording(self) -> Path | None:
        """The first file of what is being recorded."""
        return self._standing.recording

    def build(self, config: Config, info: DeviceInfo) -> LaneGroup | None:
        """The lanes as configured, not started. Raises ConfigError for what only shows now, such as a directory that
        can't be written; then everything is as before."""
        rerun = config.rerun
        if not is_wanted(rerun):
            self._standing = Standing()
            # What was kept for receivers goes as at the end, once the lanes before have ended.
            return None if self._log is None else LaneGroup(begin=self._log.release)
        from edge.rerun_log.log import SceneLog
        from edge.rerun_log.segments import HOW_TO_DELETE

        scene_log = self._log = self._log or SceneLog(self._stats)
        scene = self._scene(config, info)
        forwarders, outputs = self._forwarders(config, scene, scene_log)
        segments = self._store(rerun, scene, scene_log)
        before = self._standing.directory
        follow: Callable[[Entry], None] | None = None
        if segments is not None and recording_into(rerun):
            recording = recording_lane(segments, self._stats)
            outputs.append(recording)
            follow = recording.offer

        film = None if video(config) == "off" else _video_sink(rerun, scene_log.put, self._stats)

        notes = self._notes(scene_log.put, rerun.log_lines)

        def begin() -> None:
            scene_log.want_keyframes = _nobody_encodes if film is None else film.want_keyframes
            scene_log.memory_bytes = rerun.backlog_mb * 1_000_000
            stricter = scene_log.describe(scene)
            notes.listen()  # from here on nothing fails any more
            notes.say(f"video: {scene.video}, masks: {scene.mask}, privacy.mode: {scene.privacy}")
            if stricter and before is not None:
                told = "privacy.mode is %s now: what was recorded before stays in %s, and is not shipped any more; %s"
                log.warning(told, scene.privacy, before, HOW_TO_DELETE)
            if segments is not None:
                segments.withhold()
                segments.keep(rerun.keep_mb * 1_000_000, rerun.keep_free_mb * 1_000_000)
                if follow is not None:
                    segments.begin(scene_log.next)
            left = scene_log.keep_longer(segments, follow, queue_bytes=_ENTRY_BYTES, forgetful=(rerun.serve,))
            if left:
                told = "%d parcels that were not shipped stay in %s, until rerun.record_dir leads there again"
                log.warning(told, left, before)
            scene_log.retain(forwarders)

        self._standing = Standing(
            recording=segments.path if segments is not None and follow is not None else None,
            link=next(iter(forwarders.values()), None),
            segments=segments,
            directory=None if segments is None else rerun.record_dir,
        )
        return LaneGroup(
            observers=(_scene_lane(config, scene_log.put, self._stats),),
            video=() if film is None else (video_lane(film, self._stats),),
            others=(notes,),
            outputs=tuple(outputs),
            shown=None if rerun.frames_hz == "unlimited" else Shown(rerun.frames_hz),
            begin=begin,
        )

    def _notes(self, put: Callable[[Parcel], None], lines: str) -> _Notes:
        from edge.rerun_log.notes import NotesSink

        def cameras() -> dict[str, CameraCounts]:
            return {name: camera.counts() for name, camera in self._stats.cameras.items()}

        sink = NotesSink(put, cameras, MachineWatch(None).report)
        lane = Lane("rerun notes", sink, self._stats, capacity=_NOTES, linger_s=_RERUN_LINGER_S)
        return _Notes(lane, self._events, self._stats, _LINES_FROM[lines])

    def standing(self) -> Standing:
        """What is in use, for `restore`."""
        return self._standing

    def restore(self, standing: Standing) -> None:
        """What was built since `standing` is not used."""
        self._standing = standing

    def restrict(self, mode: Mode) -> bool:
        """This mode of privacy is to come, if it is a stricter one: what shows more goes nowhere from now on, until the
        next lanes begin. Whether it is."""
        return self._log is not None and self._log.restrict(most_shown(mode))

    def close(self) -> None:
        """After the lanes."""
        if self._log is not None:
            self._log.close()

    def _scene(self, config: Config, info: DeviceInfo) -> Scene:
        from edge.rerun_log.scene import Scene

        return Scene(
            device=config.device,
            session=self._session,
            started_ns=info.started_ns,
            cameras=tuple(config.camera),
            skeleton=info.skeleton,
            max_people=config.pose.max_people,
            video=video(config),
            mask=mask_form(config),
            privacy=config.privacy.mode,
            properties={
                "board": info.board,
                "model": info.model,
                "model_sha256": info.model_sha256,
                **{f"version_{name.replace('-', '_')}": version for name, version in info.versions.items()},
            },
        )

    def _forwarders(
        self, config: Config, scene: Scene, scene_log: SceneLog
    ) -> tuple[dict[str, Forwarder], list[Stage]]:
        """By what they lead to, and all that works for them, in the order in which it starts."""
        from edge.rerun_log.channel import Address
        from edge.rerun_log.forwarder import Forwarder

        rerun = config.rerun
        found: dict[str, Forwarder] = {}
        outputs: list[Stage] = []
        gap_bytes_s = rerun.backfill_kb_s * 1000
        if rerun.url:
            address = Address.of(rerun.url, identity(config))
            found[rerun.url] = Forwarder("rerun link", address, scene_log, key=rerun.url, gap_bytes_s=gap_bytes_s)
            outputs.append(found[rerun.url])
        if rerun.serve:
            from edge.rerun_log.server import Served, ViewerServer

            host, _, port = rerun.serve.rpartition(":")
            host = host.removeprefix("[").removesuffix("]")
            server = ViewerServer(host, int(port), memory_mb=rerun.serve_memory_mb, scene=scene)
            here = Address({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port), None)  # noqa: S104
            found[rerun.serve] = forwarder = Forwarder(
                "rerun serve", here, scene_log, key=rerun.serve, gap_bytes_s=gap_bytes_s, is_up=lambda: server.is_up
            )
            outputs.append(Served(server, forwarder))
        return found, outputs

    def _store(self, rerun: RerunConfig, scene: Scene, scene_log: SceneLog) -> Segments | None:
        """Where recordings are. While nothing is recorded any more, what was can still be shipped."""
        if rerun.record_dir is None:
            return None
        if rerun.record_dir == self._standing.directory:
            return self._standing.segments
        from edge.rerun_log.arrears import path_of_notes
        from edge.rerun_log.segments import Segments

        if not rerun.record and not path_of_notes(rerun.record_dir, scene.device).exists():
            return None
        try:
            return Segments(
                rerun.record_dir,
                scene.recording_id,
                device=scene.device,
                keep_bytes=rerun.keep_mb * 1_000_000,
                keep_free_bytes=rerun.keep_free_mb * 1_000_000,
                description=lambda: scene_log.description,
                gone=scene_log.gone,
                stats=self._stats,
            )
        except ConfigError as error:
            if rerun.record:
                raise
            log.warning("what earlier runs did not ship stays where it is: %s", error)
            return None


def is_wanted(rerun: RerunConfig) -> bool:
    """Whether anything is logged at all."""
    return bool(rerun.url or rerun.serve or recording_into(rerun))


def video(config: Config) -> Literal["h264", "jpeg", "off"]:
    """How pictures are logged: as configured, or not at all where the mode of privacy forbids them."""
    return config.rerun.video if most_shown(config.privacy.mode) >= Shows.PICTURES else "off"


def mask_form(config: Config) -> MaskForm:
    """How masks are logged: as configured, or not at all where the mode of privacy forbids them. Where they aren't,
    nobody wants any: the estimator need not make them."""
    rerun = config.rerun
    logs = rerun.url or rerun.serve or rerun.record_dir  # also while nothing is recorded: that may begin any time
    allowed = most_shown(config.privacy.mode) >= Shows.SILHOUETTES
    return rerun.mask if config.pose.segmentation and logs and allowed else "off"


def recording_into(rerun: RerunConfig) -> Path | None:
    return rerun.record_dir if rerun.record else None


def identity(config: Config) -> tls.Identity:
    """What is shown to a hub: by default what is shown to brokers, since a device has one certificate."""
    mqtt, rerun = config.mqtt, config.rerun
    own = mqtt if rerun.cert_file is None else rerun
    return tls.Identity("rerun", rerun.ca_file or mqtt.ca_file, own.cert_file, own.key_file)


def video_lane(sink: Sink[Filmed], stats: Stats) -> Lane[Filmed]:
    """The lane in front of an encoder: full at 22 MB of frames, but of the largest there is room for two. Of a camera
    that encodes by itself that is a minute; when one of its groups has lost its beginning the sink lets go of the rest.
    """

    def weight(filmed: Filmed) -> int:
        return min(filmed.nbytes, _FRAME_BYTES // 2)

    return Lane("rerun video", sink, stats, capacity=_FRAME_BYTES, weigh=weight, linger_s=_RERUN_LINGER_S)


def _video_sink(rerun: RerunConfig, put: Callable[[Parcel], None], stats: Stats) -> VideoSink:
    from edge.rerun_log.video import VideoSink

    return VideoSink(rerun, put, stats)


def _scene_lane(config: Config, put: Callable[[Parcel], None], stats: Stats) -> Lane[Observation]:
    from edge.rerun_log.observations import SceneSink

    mounts = {name: mount(camera) for name, camera in config.camera.items()}
    sink = SceneSink(
        mask=mask_form(config),
        people=config.pose.max_people,
        put=put,
        mounts=mounts,
        zones={name: zones(camera) for name, camera in config.camera.items()},
        lines={name: lines(camera) for name, camera in config.camera.items()},
        outline=video(config) == "off",
    )
    return Lane("rerun scene", sink, stats, capacity=OBSERVATIONS, batch=RERUN_BATCH, linger_s=_RERUN_LINGER_S)


def zones(camera: CameraConfig) -> tuple[Zone, ...]:
    return tuple(Zone(name, zone.polygon, zone.point) for name, zone in camera.zone.items())


def lines(camera: CameraConfig) -> tuple[Line, ...]:
    return tuple(Line(name, line.begin, line.end, line.point) for name, line in camera.line.items())


def mount(camera: CameraConfig) -> Mount:
    """How it hangs and what of its picture is seen: where bodies are put depends on both."""
    hangs = camera.mount or MountConfig()
    return Mount(hangs.tilt_deg, hangs.roll_deg, Part(*camera.crop), known=camera.mount is not None)


class _Notes:
    """A lane of notes, told of each event and each line of the log from `listen` until it is closed."""

    def __init__(self, lane: Lane[Note], events: EventLog, stats: Stats, level: int | None) -> None:
        """level: of the lines of the log from which up it is told, None for of none."""
        from edge.rerun_log.notes import LineHandler

        self.name = lane.name
        self._lane = lane
        self._events = events
        self._stats = stats
        self._lines = None if level is None else LineHandler(level, lane.offer, self._newest, self._refused)

    def listen(self) -> None:
        """Also to what is said of the beginning: that waits in the lane until it starts."""
        self._events.listen(self._happened)
        if self._lines is not None:
            logging.getLogger().addHandler(self._lines)

    def say(self, text: str) -> None:
        """A line of its own, however little the log says."""
        from edge.rerun_log.notes import of_this_log

        self._lane.offer(of_this_log(time.time_ns(), text, self._newest(None)))

    def start(self) -> None:
        self._lane.start()

    def close(self, deadline: Deadline) -> None:
        if self._lines is not None:
            logging.getLogger().removeHandler(self._lines)
        self._events.forget(self._happened)
        self._lane.close(deadline)

    def join(self) -> bool:
        return self._lane.join()

    def _happened(self, event: Event) -> None:
        from edge.rerun_log.notes import of_event

        self._lane.offer(of_event(event, self._newest(event.camera)))

    def _refused(self) -> None:
        self._stats.dropped(self.name, DropCause.TOO_MANY)

    def _newest(self, camera: str | None) -> int:
        cameras = self._stats.cameras
        counted = [cameras[camera]] if camera in cameras else cameras.values()
        return max(0, max((each.captured for each in counted), default=0) - 1)


def _nobody_encodes() -> None:
    """There is no video, and so nobody who could be asked for a keyframe."""


def recording_lane(segments: Sink[Entry], stats: Stats) -> Lane[Entry]:
    def weight(entry: Entry) -> int:
        return len(entry.framed)

    def rows(entry: Entry) -> int:
        return entry.rows

    return Lane("recording", segments, stats, capacity=_ENTRY_BYTES, weigh=weight, count=rows)
