"""What `doctor` finds: every part that the main job needs, tried for real."""

from __future__ import annotations

import errno
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from edge import app, camera_check, preflight, rerun_lanes
from edge.addresses import without_credentials
from edge.config import CameraConfig, Config
from edge.config_layers import LoadedConfig
from edge.device import board, clock, health
from edge.device.core_dumps import CoreDumps
from edge.errors import ConfigError, ConfigProblem, EdgePoseError, ExitCode, ModelError
from edge.estimators import board_set
from edge.estimators.mediapipe import MediaPipeEstimator, missing_features
from edge.estimators.models.catalog import BUNDLES
from edge.estimators.models.store import Model, ModelStore
from edge.findings import Finding, Verdict, failed
from edge.pacing import Deadline
from edge.privacy import Shows, most_shown

BROKER_TIMEOUT_S = 12.0
HUB_TIMEOUT_S = 3.0

# One landmarker with its buffers, measured: 320 MB, and as much again for the interpreter and the sinks' queues.
_MEMORY_BASE_MB = 300
_MEMORY_A_CAMERA_MB = 350
_DISK_MB = 200
_HOT_CELSIUS = 80.0


def diagnose(loaded: LoadedConfig | ConfigError | None, save: Path | None = None) -> Iterator[Finding]:
    """Each finding as soon as it is there. loaded: the configuration, why it can't be used, or None: there is none yet.
    save: the directory that gets a picture of each camera, where the mode of privacy lets somebody see one.

    Without a usable configuration what needs none is tried all the same. Nothing is published, logged or fetched.
    """
    problems: list[ConfigProblem] = []
    if loaded is None:
        yield Finding("config", Verdict.OFF, "none yet: demo needs none, and README shows one for run")
    else:
        problems = list(loaded.problems if isinstance(loaded, ConfigError) else preflight.problems(loaded))
    remedy = "correct it where it says so; docs/configuration.md lists every key"
    for problem in problems:
        yield failed("config", str(problem), remedy, ExitCode.CONFIG)
    config = loaded.config if isinstance(loaded, LoadedConfig) else None
    if config is not None and not problems:
        yield Finding("config", Verdict.OK, f"device {config.device}, cameras {', '.join(config.camera)}")

    yield (cpu := _cpu())
    model, found = _model(config)
    yield found
    if cpu.verdict is Verdict.OK and model is not None:
        yield _estimator(model)
    else:
        yield Finding("estimator", Verdict.OFF, "not tried: it needs a fit processor and the model")
    if config is not None:
        yield (kept := _privacy(config))  # before the first picture is here
        for name, camera in config.camera.items() if kept.verdict is not Verdict.FAILED else ():
            yield from camera_check.check(name, camera, save)
    yield from camera_check.others(config)
    if config is not None:
        yield from _brokers(config)
        yield _hub(config)
        yield _serve(config)
    yield _disk(config)
    yield _memory(len(config.camera) if config else 1)
    yield _clock()
    yield _temperature()


def _cpu() -> Finding:
    if missing := missing_features():
        detail = f"{board.name()} has no {', '.join(sorted(missing))}"
        remedy = (
            f"install requirements/{board_set.ARMV8_0}.txt, whose MediaPipe can do without: see docs/troubleshooting.md"
        )
        return failed("cpu", detail, remedy, ExitCode.CONFIG)
    return Finding("cpu", Verdict.OK, f"{board.name()} has all that MediaPipe needs")


def _model(config: Config | None) -> tuple[Model | None, Finding]:
    name = config.pose.model if config else "full"
    store = ModelStore(config.pose.model_dir if config else None)
    is_own = name not in BUNDLES
    try:
        model = store.find(name)
    except ModelError as error:
        if is_own:  # the configuration's finding has told it
            return None, Finding("model", Verdict.OFF, "not tried: see config")
        return None, failed("model", str(error), f"edge-pose models fetch {name}", ExitCode.UNAVAILABLE)
    if model is not None:
        return model, Finding("model", Verdict.OK, f"{model.name}, {model.make}, {model.path}")
    detail = f"{name} is not in {store.directory}"
    remedy = f"edge-pose models fetch {name}; without a network: --from a directory or mirror that has it"
    if config and config.pose.model_source == "off":
        return None, failed("model", f"{detail} and pose.model_source is off", remedy, ExitCode.UNAVAILABLE)
    if why := preflight.unwritable(store.directory):
        return None, failed("model", f"{detail}, which {why}", "see pose.model_dir", ExitCode.UNAVAILABLE)
    return None, Finding("model", Verdict.WARNING, f"{detail}; run fetches it when it starts", remedy)


def _estimator(model: Model) -> Finding:
    """The figure that the synthetic camera draws is one that MediaPipe finds."""
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
        return failed("estimator", str(error), "see docs/troubleshooting.md, estimator", error.exit_code)
    if not people:
        detail = f"model {model.name} does not find the drawn figure"
        return Finding("estimator", Verdict.WARNING, detail, "see docs/troubleshooting.md, estimator")
    return Finding("estimator", Verdict.OK, f"finds a drawn figure in {1000 * min(times_s):.0f} ms")


def _brokers(config: Config) -> Iterator[Finding]:
    """Each address by itself: that one of several answers hides that another one doesn't."""
    if not config.mqtt.url:
        yield Finding("broker", Verdict.OFF, "mqtt.url is empty: nothing is published")
    for url in config.mqtt.url:
        yield _broker(config, url)


def _broker(config: Config, url: str) -> Finding:
    from edge.mqtt.session import Session
    from edge.mqtt.tls import Credentials

    try:
        session = Session(
            [url],
            # Chance, so that a session which is there already can only be the device's own, under another name.
            client_id=f"edge-pose.{config.device}.doctor-{secrets.token_hex(4)}",
            version=config.mqtt.version,
            credentials=Credentials.of(config.mqtt),
            receive_maximum=1,
            guest=True,  # with the daemon's session expiry, which its session gets anew by this
        )
    except (ConfigError, OSError):  # the configuration's findings have told it
        return Finding("broker", Verdict.OFF, "not tried: see config")
    deadline = Deadline(BROKER_TIMEOUT_S)
    while not session.online and session.failures < 2 and deadline.left_s():  # twice: for both versions of MQTT
        session.service()
        time.sleep(0.02)
    if session.online:
        detail = f"{without_credentials(url)} speaks MQTT {session.protocol}"
        if session.is_guest:
            detail += "; it has one session for this certificate or user: a daemon that runs was interrupted by this"
        session.close(None, 1.0)
        return Finding("broker", Verdict.OK, detail)
    why = session.trouble or "no answer"
    return failed("broker", f"{without_credentials(url)}: {why}", "see mqtt.* and whether the broker runs")


def _hub(config: Config) -> Finding:
    if not config.rerun.url:
        return Finding("hub", Verdict.OFF, "rerun.url is empty: nothing is streamed")
    from edge.rerun_log.probe import why_out_of_reach

    address = without_credentials(config.rerun.url)
    try:
        why = why_out_of_reach(config.rerun.url, rerun_lanes.identity(config), HUB_TIMEOUT_S)
    except ConfigError:  # the configuration's findings have told it
        return Finding("hub", Verdict.OFF, "not tried: see config")
    if why:
        return failed("hub", f"{address}: {why}", "see docs/troubleshooting.md, hub")
    return Finding("hub", Verdict.OK, f"{address} takes what this device sends")


def _serve(config: Config) -> Finding:
    address = config.rerun.serve
    if not address:
        return Finding("serve", Verdict.OFF, "rerun.serve is empty: viewers are not served here")
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), int(port)), family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            detail = f"{address} is taken, by this device's daemon if that runs"
            return Finding("serve", Verdict.WARNING, detail, "if it does not run, choose another port")
        return failed("serve", f"{address}: {error.strerror}", "see rerun.serve: an address of this device, or 0.0.0.0")
    return Finding("serve", Verdict.OK, f"{address} is free; whoever reaches it can watch and write")


def _privacy(config: Config) -> Finding:
    """What leaves this device, to where; and whether what a more open mode has left is still here. From here on a crash
    of this process leaves no more than that either."""
    try:
        CoreDumps().require(config.privacy.mode)
    except ConfigError as error:
        return failed("privacy", str(error), "see docs/privacy.md", error.exit_code)
    detail = f"{config.privacy.mode}: {'; '.join(_leaving(config)) or 'nothing leaves this process'}"
    directory, most = config.rerun.record_dir, most_shown(config.privacy.mode)
    more, unknown = (0, 0) if directory is None or most >= Shows.PICTURES else _files_showing_more(directory, most)
    remedies = []
    if more:
        detail += f"; {more} file(s) in {directory} show more, from a more open mode, and stay there"
        remedies.append(
            "delete with edge-pose recordings prune what must not stay, this run's after a restart of the service"
        )
    if unknown:
        detail += f"; {unknown} file(s) in {directory} can't be looked at by this user"
        remedies.append("run doctor as the service's user, or as root")
    return Finding("privacy", Verdict.WARNING if remedies else Verdict.OK, detail, "; ".join(remedies))


def _leaving(config: Config) -> Iterator[str]:
    """What goes where, a few words each."""
    if config.mqtt.url:
        pictures = most_shown(config.privacy.mode) >= Shows.PICTURES and "snapshot" in config.mqtt.commands
        sent = "landmarks, and pictures that the command snapshot asks for," if pictures else "landmarks"
        yield f"{sent} to {' or '.join(map(without_credentials, config.mqtt.url))}"
    rerun = config.rerun
    places = [without_credentials(rerun.url)] if rerun.url else []
    places += [f"whoever comes to {rerun.serve}"] if rerun.serve else []
    places += [str(directory)] if (directory := rerun_lanes.recording_into(rerun)) is not None else []
    if places:
        logged = ["video"] if rerun_lanes.video(config) != "off" else []
        logged += ["masks"] if rerun_lanes.mask_form(config) != "off" else []
        yield f"{' and '.join([*logged, 'landmarks'])} to {' and '.join(places)}"


def _files_showing_more(directory: Path, most: Shows) -> tuple[int, int]:
    """How many files of recordings there may show more, and of how many that can't be told."""
    from edge.rerun_log import disclosure, recordings

    more = unknown = 0
    try:
        found = [segment.path for each in recordings.recordings(directory) for segment in each.segments]
    except FileNotFoundError:  # nothing was recorded yet
        return 0, 0
    except OSError:
        return 0, 1
    for path in found:
        try:
            more += disclosure.most_shown(path) > most
        except FileNotFoundError:  # the daemon has made room
            continue
        except OSError:
            unknown += 1
    return more, unknown


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
            error_ms = clock.error_ms() or 0.0
            return Finding("clock", Verdict.OK, f"held by the network's time, off by {error_ms:.0f} ms at most")
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
