"""What `doctor` finds: every part that the main job needs, tried for real."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from edge import app, preflight
from edge.config import CameraConfig, Config
from edge.config_layers import LoadedConfig
from edge.device import board, clock, health
from edge.errors import CameraError, ConfigError, EdgePoseError, ExitCode, ModelError
from edge.estimators.cpu import missing_features
from edge.estimators.models.catalog import BUNDLES
from edge.estimators.models.store import Model, ModelStore
from edge.interfaces import EndOfStream
from edge.pacing import Deadline
from edge.vision.frame import Frame

CAMERA_TIMEOUT_S = 15.0
BROKER_TIMEOUT_S = 12.0
HUB_TIMEOUT_S = 3.0

# One landmarker with its buffers, measured: 320 MB, and as much again for the interpreter and the sinks' queues.
_MEMORY_BASE_MB = 300
_MEMORY_A_CAMERA_MB = 350
_DISK_MB = 200
_HOT_CELSIUS = 80.0


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, but not as well as it could
    FAILED = "failed"  # the main job can't run like this
    OFF = "off"  # not configured, or can't be tried because something else failed


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: how it is, the facts, and what to do about it (empty when there is nothing to do)."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def diagnose(loaded: LoadedConfig | ConfigError) -> Iterator[Finding]:
    """Each finding as soon as it is there. loaded: the configuration, or why there is none.

    Without a usable configuration what needs none is tried all the same. Nothing is published, logged or fetched.
    """
    problems = list(loaded.problems if isinstance(loaded, ConfigError) else preflight.problems(loaded))
    remedy = "correct it where it says so; docs/configuration.md lists every key"
    for problem in problems:
        yield Finding("config", Verdict.FAILED, str(problem), remedy)
    config = None if isinstance(loaded, ConfigError) else loaded.config
    if config is not None and not problems:
        yield Finding("config", Verdict.OK, f"device {config.device}, cameras {', '.join(config.camera)}")

    yield (cpu := _cpu())
    model, found = _model(config)
    yield found
    if cpu.verdict is Verdict.OK and model is not None:
        yield _estimator(model)
    else:
        yield Finding("estimator", Verdict.OFF, "not tried: it needs a fit processor and the model")
    for name, camera in (config.camera if config else {}).items():
        yield _camera(name, camera)
    if config is not None:
        yield _broker(config)
        yield _hub(config)
    yield _disk(config)
    yield _memory(len(config.camera) if config else 1)
    yield _clock()
    yield _temperature()


def exit_code(findings: list[Finding]) -> ExitCode:
    """0 when the main job can run, else what `run` would end with, and 1 for what it would endure, such as a broker
    that is away."""
    codes = {"config": ExitCode.CONFIG, "cpu": ExitCode.CONFIG, "model": ExitCode.UNAVAILABLE}
    codes |= {"estimator": ExitCode.SOFTWARE}
    for finding in findings:
        if finding.verdict is Verdict.FAILED:
            kind = finding.name.partition(".")[0]
            return ExitCode.NO_INPUT if kind == "camera" else codes.get(kind, ExitCode.FAILED)
    return ExitCode.OK


def _cpu() -> Finding:
    if missing := missing_features():
        detail = f"{board.name()} has no {', '.join(sorted(missing))}"
        return Finding("cpu", Verdict.FAILED, detail, "MediaPipe needs ARMv8.2 or x86-64: see docs/troubleshooting.md")
    return Finding("cpu", Verdict.OK, f"{board.name()} has all that MediaPipe needs")


def _model(config: Config | None) -> tuple[Model | None, Finding]:
    name = config.pose.model if config else "full"
    store = ModelStore(config.pose.model_dir if config else None)
    try:
        model = store.find(name)
    except ModelError as error:
        return None, Finding("model", Verdict.FAILED, str(error), f"edge-pose models fetch {name}")
    if model is not None:
        return model, Finding("model", Verdict.OK, f"{model.name}, {model.make}, {model.path}")
    detail = f"{name} is not in {store.directory}"
    if config and config.pose.model_source == "off":
        return None, Finding("model", Verdict.FAILED, f"{detail} and pose.model_source is off", _fetch_remedy(name))
    return None, Finding("model", Verdict.WARNING, f"{detail}; run fetches it when it starts", _fetch_remedy(name))


def _fetch_remedy(name: str) -> str:
    return f"edge-pose models fetch {name}; without a network: --from a directory or mirror that has it"


def _estimator(model: Model) -> Finding:
    """The figure that the synthetic camera draws is one that MediaPipe finds."""
    from edge.estimators.mediapipe import MediaPipeEstimator

    drawn = app.frame_source("doctor", CameraConfig(source="synthetic", pace="unlimited"))
    try:
        with drawn, MediaPipeEstimator(model.path, segmentation=False) as estimator:
            times_s, people = [], 0
            for _ in range(5):
                frame = drawn.read(1.0)
                assert frame is not None, "drawn without a pace"
                began_s = time.monotonic()
                people = len(estimator.estimate(frame))
                times_s.append(time.monotonic() - began_s)
    except EdgePoseError as error:
        return Finding("estimator", Verdict.FAILED, str(error), "see docs/troubleshooting.md")
    if not people:
        remedy = "use the model lite, full or heavy" if model.name not in BUNDLES else "report it with this output"
        return Finding("estimator", Verdict.FAILED, f"model {model.name} does not find the drawn figure", remedy)
    return Finding("estimator", Verdict.OK, f"finds a drawn figure in {1000 * min(times_s):.0f} ms")


def _camera(name: str, camera: CameraConfig) -> Finding:
    part = f"camera.{name}"
    deadline = Deadline(CAMERA_TIMEOUT_S)
    frame: Frame | None = None
    try:
        with app.frame_source(name, camera) as source:
            while frame is None and deadline.left_s():
                frame = source.read(0.5)
    except EndOfStream:
        pass
    except CameraError as error:
        return Finding(part, Verdict.FAILED, str(error), f"see camera.{name}.source")
    if frame is None:
        return Finding(part, Verdict.FAILED, f"no picture in {CAMERA_TIMEOUT_S:g} s", f"see camera.{name}.source")
    return Finding(part, Verdict.OK, f"{camera.kind}, {frame.rgb.width_px}x{frame.rgb.height_px}")


def _broker(config: Config) -> Finding:
    if not config.mqtt.url:
        return Finding("broker", Verdict.OFF, "mqtt.url is empty: nothing is published")
    from edge.mqtt.session import Session

    try:
        session = Session(
            config.mqtt.url,
            client_id=f"edge-pose-{config.device}-doctor",
            version=config.mqtt.version,
            credentials=app.mqtt_credentials(config.mqtt),
            will=None,
            on_online=lambda: None,
        )
    except (ConfigError, OSError) as error:  # of the files, which the configuration's findings have told already
        return Finding("broker", Verdict.FAILED, f"not tried: {error}", "correct the configuration first")
    deadline = Deadline(BROKER_TIMEOUT_S)
    while not session.online and session.failures < 2 and deadline.left_s():  # twice: for both versions of MQTT
        session.service()
        time.sleep(0.02)
    if session.online:
        session.close(None, 1.0)
        return Finding("broker", Verdict.OK, f"{config.mqtt.url} speaks MQTT {session.protocol}")
    why = session.trouble or "no answer"
    return Finding("broker", Verdict.FAILED, f"{config.mqtt.url}: {why}", "see mqtt.* and whether the broker runs")


def _hub(config: Config) -> Finding:
    if not config.rerun.url:
        return Finding("hub", Verdict.OFF, "rerun.url is empty: nothing is streamed")
    from edge.rerun_log.probe import why_out_of_reach

    if why := why_out_of_reach(config.rerun.url, HUB_TIMEOUT_S):
        remedy = "see rerun.url; on the hub: rerun --serve-grpc"
        return Finding("hub", Verdict.FAILED, f"{config.rerun.url}: {why}", remedy)
    return Finding("hub", Verdict.OK, f"{config.rerun.url} answers")


def _disk(config: Config | None) -> Finding:
    directory = (config.rerun.record_dir if config else None) or ModelStore(
        config.pose.model_dir if config else None
    ).directory
    free = health.free_mb(directory)
    wanted = config.rerun.keep_mb if config and config.rerun.record_dir else _DISK_MB
    detail = f"{free:.0f} MB free for {directory}"
    if free < wanted:
        return Finding("disk", Verdict.WARNING, f"{detail}, {wanted} MB wanted", "make room, or lower rerun.keep_mb")
    return Finding("disk", Verdict.OK, detail)


def _memory(cameras: int) -> Finding:
    available = health.memory_available_mb()
    wanted = _MEMORY_BASE_MB + _MEMORY_A_CAMERA_MB * cameras
    if available is None:
        return Finding("memory", Verdict.WARNING, "/proc/meminfo doesn't say how much is available")
    detail = f"{available:.0f} MB available, about {wanted} MB wanted"
    if available < wanted:
        return Finding("memory", Verdict.WARNING, detail, "stop other programs, use fewer cameras or the model lite")
    return Finding("memory", Verdict.OK, detail)


def _clock() -> Finding:
    match clock.synchronised():
        case True:
            return Finding("clock", Verdict.OK, "held by the network's time")
        case False:
            remedy = "systemctl enable --now systemd-timesyncd, or another NTP client"
            return Finding("clock", Verdict.WARNING, "nobody keeps it: times in messages may be wrong", remedy)
        case None:
            return Finding("clock", Verdict.OFF, "the kernel doesn't tell")


def _temperature() -> Finding:
    celsius, slowed = health.temperature_celsius(), health.throttled()
    if celsius is None and slowed is None:
        return Finding("temperature", Verdict.OFF, "no sensor")
    detail = "no sensor" if celsius is None else f"{celsius:.0f} °C"
    if slowed:
        remedy = "better cooling, or a supply that holds its voltage"
        return Finding("temperature", Verdict.WARNING, f"{detail}, and the board is throttled", remedy)
    if celsius is not None and celsius >= _HOT_CELSIUS:
        return Finding("temperature", Verdict.WARNING, f"{detail}: boards slow down from about 80 °C", "better cooling")
    return Finding("temperature", Verdict.OK, detail)
