"""The composition root: a configuration becomes a wired daemon.

It names the concrete classes of adapters; so does, of all others, only diagnosis.py, which tries them one by one.
"""

from __future__ import annotations

import platform
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import edge
from edge import preflight
from edge.config import CameraConfig, Config, MqttConfig, Rate
from edge.control import Inbox
from edge.device import board
from edge.errors import ReloadRefused, UnforeseenError
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.store import Model
from edge.interfaces import FrameSource
from edge.pipeline import CameraPipeline, Daemon, EndRequested, Lane, LaneGroup
from edge.stats import Stats
from edge.vision.frame import Frame
from edge.vision.observation import Observation

if TYPE_CHECKING:
    from edge.mqtt.session import Credentials
    from edge.mqtt.wire.v1 import DeviceInfo
    from edge.rerun_log.parcel import Parcel

# Two seconds of 30 frames/s: longer pauses of a receiver are no hiccups.
_OBSERVATIONS = 64
# A frame is 1.4 MB with both its pictures.
_FRAMES = 8
_PARCEL_BYTES = 16_000_000
# Eight rows at a time cost Rerun 1.4 ms a row, one at a time 2.2 ms.
_RERUN_BATCH = 8
_RERUN_LINGER_S = 0.1


class App:
    """A daemon ready to start, which can change over to another configuration while it runs.

    Methods are for the main thread only, which thereby carries requests out one after the other.
    """

    def __init__(self, config: Config, model: Model, inbox: Inbox) -> None:
        """Wire everything. Raises ConfigError for what only shows now, such as a directory that can't be written."""
        _use_few_threads()
        self.config = config
        self.session = new_session_id()
        self.stats = Stats(list(config.camera))
        self.recording: Path | None = None
        self._model = model
        groups = {name: self._build(name) for name in _GROUPS}
        self.daemon = Daemon(inbox, {name: group for name, group in groups.items() if group is not None})
        self.daemon.cameras.update({name: self._camera(name) for name in config.camera})
        self._running = _parts(config, model)

    def reload(self, config: Config, model: Model, step: Callable[[], None] = lambda: None) -> list[str]:
        """Change over to another configuration: only what differs is exchanged, the rest goes on undisturbed.

        Returns the names of what was exchanged: "mqtt", "rerun", "camera front". Raises ReloadRefused when a part does
        not work as it should; everything is as before then, but for a gap where parts were exchanged and back again.
        Raises UnforeseenError when not even that works. step: called a few times a second while this waits.
        """
        before = self.config, self._model
        try:
            return self._become(config, model, step)
        except EndRequested:
            raise ReloadRefused("the daemon is asked to end") from None
        except Exception as error:  # noqa: BLE001 - whatever a part raises, the daemon must have all its parts again
            why = str(error) or type(error).__name__
        try:
            self._become(*before, step)
        except EndRequested:
            pass  # nothing is missed that would not end now
        except Exception as error:
            raise UnforeseenError(f"reload: {why}; and the way back: {type(error).__name__}: {error}") from error
        raise ReloadRefused(why)

    def _become(self, config: Config, model: Model, step: Callable[[], None]) -> list[str]:
        self.config, self._model = config, model
        wanted = _parts(config, model)
        names = [name for name in {**self._running, **wanted} if self._running.get(name) != wanted.get(name)]
        self.stats.count([*dict.fromkeys((*self.stats.cameras, *config.camera))])
        cameras = {
            name: self._camera(name.removeprefix(_CAMERA)) for name in names if name in wanted and _CAMERA in name
        }
        try:
            # What may be wrong shows before anything that works is touched. One model at a time is loaded beside those
            # in use: memory is short on small boards.
            for camera in [*cameras.values()][:1]:
                self.daemon.load(camera, step)
            groups = {name: self._build(name) for name in _GROUPS if name in names}
            # Cameras that go before those that come, since both may want the same device.
            gone = [name for name in names if name not in wanted and name not in _GROUPS]
            names = [*gone, *groups, *cameras]
            for name in names:
                new = cameras.get(name)
                if new is not None and not new.loaded.is_set():
                    self.daemon.load(new, step)
                self._running.pop(name, None)  # halfway it is neither the old part nor the new one
                if name in groups:
                    self.daemon.exchange_lanes(name, groups[name])
                else:
                    self.daemon.exchange_camera(name.removeprefix(_CAMERA), new, step)
                if name in wanted:
                    self._running[name] = wanted[name]
                step()
        finally:
            for camera in cameras.values():
                if self.daemon.cameras.get(camera.name) is not camera:
                    camera.interrupt()
        self.stats.count(list(config.camera))
        return names

    def _build(self, group: str) -> LaneGroup | None:
        return self._mqtt_lanes() if group == "mqtt" else self._rerun_lanes()

    def _mqtt_lanes(self) -> LaneGroup | None:
        return LaneGroup(observers=(self._mqtt_lane(self._model),)) if self.config.mqtt.url else None

    def _rerun_lanes(self) -> LaneGroup | None:
        rerun = self.config.rerun
        self.recording = None
        if not (rerun.url or rerun.record_dir):
            return None
        outputs = self._rerun_outputs(self._model)
        offers = [lane.offer for lane in outputs]
        video = (self._video_lane(offers),) if rerun.video != "off" else ()
        return LaneGroup(observers=(self._scene_lane(offers),), video=video, outputs=tuple(outputs))

    def _camera(self, name: str) -> CameraPipeline:
        pose = self.config.pose
        return CameraPipeline(
            name,
            frame_source(name, self.config.camera[name]),
            MediaPipeEstimator(self._model.path, max_people=pose.max_people, segmentation=pose.segmentation),
            outlets=self.daemon.outlets,
            stats=self.stats.cameras[name],
            drops=self.stats,
            on_end=self.daemon.camera_ended,
        )

    def _mqtt_lane(self, model: Model) -> Lane[Observation]:
        from edge.mqtt.sink import MqttSink
        from edge.mqtt.topics import Topics

        mqtt = self.config.mqtt
        sink = MqttSink(
            mqtt.url,
            topics=Topics(mqtt.prefix, self.config.device),
            credentials=mqtt_credentials(mqtt),
            info=self._info(model),
            version=mqtt.version,
            landmarks_hz=_hz(mqtt.landmarks_hz),
            summary_hz=_hz(mqtt.summary_hz),
            stats=self.stats,
        )
        return Lane("mqtt", sink, self.stats, capacity=_OBSERVATIONS)

    def _rerun_outputs(self, model: Model) -> list[Lane[Parcel]]:
        from edge.rerun_log.link import LinkSink
        from edge.rerun_log.recording import RecordingSink
        from edge.rerun_log.scene import Scene

        rerun = self.config.rerun
        info = self._info(model)
        scene = Scene(
            device=self.config.device,
            session=self.session,
            cameras=tuple(self.config.camera),
            skeleton=info.skeleton,
            max_people=self.config.pose.max_people,
            video=rerun.video,
            properties={
                "board": info.board,
                "model": info.model,
                "model_sha256": info.model_sha256,
                **{f"version_{name.replace('-', '_')}": version for name, version in info.versions.items()},
            },
        )

        def lane(name: str, sink: RecordingSink | LinkSink) -> Lane[Parcel]:
            def weight(parcel: Parcel) -> int:
                return parcel.nbytes

            def rows(parcel: Parcel) -> int:
                return parcel.rows

            return Lane(name, sink, self.stats, capacity=_PARCEL_BYTES, weigh=weight, count=rows)

        lanes = []
        if rerun.record_dir:
            recording = RecordingSink(rerun.record_dir, keep_mb=rerun.keep_mb, scene=scene, stats=self.stats)
            self.recording = recording.path
            lanes.append(lane("recording", recording))
        if rerun.url:
            lanes.append(lane("rerun link", LinkSink(rerun.url, scene=scene, stats=self.stats)))
        return lanes

    def _scene_lane(self, offers: Sequence[Callable[[Parcel], None]]) -> Lane[Observation]:
        from edge.rerun_log.scene import SceneSink

        mask = self.config.pose.segmentation and self.config.rerun.mask == "image"
        return Lane(
            "rerun scene",
            SceneSink(mask=mask, outputs=offers),
            self.stats,
            capacity=_OBSERVATIONS,
            batch=_RERUN_BATCH,
            linger_s=_RERUN_LINGER_S,
        )

    def _video_lane(self, offers: Sequence[Callable[[Parcel], None]]) -> Lane[Frame]:
        from edge.rerun_log.video import VideoSink

        codec = self.config.rerun.video
        assert codec != "off", "no lane for no video"
        return Lane("rerun video", VideoSink(codec, offers), self.stats, capacity=_FRAMES, linger_s=_RERUN_LINGER_S)

    def _info(self, model: Model) -> DeviceInfo:
        from edge.mqtt.wire.v1 import DeviceInfo

        return DeviceInfo(
            device=self.config.device,
            session=self.session,
            versions=versions(),
            board=board.name(),
            model=model.name,
            model_sha256=model.sha256,
            skeleton=MediaPipeEstimator.skeleton,
            cameras={name: {"source": camera.kind} for name, camera in self.config.camera.items()},
        )


_GROUPS = ("mqtt", "rerun")
_CAMERA = "camera "


def _parts(config: Config, model: Model) -> dict[str, object]:
    """What each part is made from: one that is made from the same need not be made anew."""
    pose = (config.pose.max_people, config.pose.segmentation, model)
    kinds = {name: camera.kind for name, camera in config.camera.items()}
    parts: dict[str, object] = {f"{_CAMERA}{name}": (it, *pose) for name, it in config.camera.items()}
    if config.mqtt.url:
        parts["mqtt"] = (config.device, config.mqtt, _contents(config.mqtt), kinds, model)
    if config.rerun.url or config.rerun.record_dir:
        parts["rerun"] = (config.device, config.rerun, list(kinds), *pose)
    return parts


def _contents(mqtt: MqttConfig) -> list[bytes | None]:
    """A password or certificate that is another one under the same name is a change as well."""
    found: list[bytes | None] = []
    for file in (mqtt.password_file, mqtt.ca_file):
        try:
            found.append(None if file is None else file.read_bytes())
        except OSError:
            found.append(None)
    return found


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


def frame_source(name: str, camera: CameraConfig) -> FrameSource:
    """The camera `name` as configured, not opened yet."""
    if camera.kind == "synthetic":
        from edge.cameras.synthetic import SyntheticSource

        return SyntheticSource(
            name, width_px=camera.width_px, height_px=camera.height_px, fps=camera.fps, pace=camera.pace
        )
    from edge.cameras.stream import StreamSource

    return StreamSource(name, camera.source, loop=camera.loop, pace=camera.pace)


def mqtt_credentials(mqtt: MqttConfig) -> Credentials:
    """What the broker is shown and what it has to show."""
    from edge.mqtt.session import Credentials

    password = "" if mqtt.password_file is None else preflight.password(mqtt.password_file)
    return Credentials(mqtt.username, password, mqtt.ca_file)


def _hz(rate: Rate) -> float | None:
    return None if rate == "unlimited" else rate
