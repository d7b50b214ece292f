"""The container on emulated ARM cores: what is in the image, and the daemon's poses in it against those of this PC."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.rerun_log.entities import points_2d_entity, points_3d_entity
from tests.cli.command import run_settings
from tests.conftest import CLIP, eventually
from tests.mqtt.test_sink import Subscriber, subscriber
from tests.rerun_log.reading import chunks, column
from tests.servers import mosquitto
from tests.system.container import MODELS, REPOSITORY, STATE, USER, Engine, emulation
from tests.system.nspawn import CACHE

pytestmark = [pytest.mark.machine, pytest.mark.timeout(7200)]

FRAMES = 5
"""Two seconds each, emulated."""

CPUS = {"device": "cortex-a76", "device-armv8.0": "cortex-a72"}
"""Set of requirements/ -> a core that it is for: Raspberry Pi 5 and 4."""


@dataclass(frozen=True)
class Image:
    board_set: str
    name: str
    cpu: str


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with emulation():
        yield Engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module", params=CPUS)
def image(request: pytest.FixtureRequest, engine: Engine) -> Image:
    return Image(request.param, engine.build(request.param, VERSION=edge.__version__), CPUS[request.param])


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints figures, whether pytest shows output or not."""

    def show(text: str) -> None:
        with capsys.disabled():
            print(f"\n{text}", end="")

    return show


def test_the_image_holds_what_runs_and_no_more(image: Image, engine: Engine, say: Callable[[str], None]) -> None:
    about = engine.inspect(image.name)
    assert about["Architecture"] == "arm64"
    assert about["Config"]["User"] == str(USER)
    assert about["Config"]["Labels"]["org.opencontainers.image.version"] == edge.__version__
    with engine.mounted(image.name) as root:
        packages = root / "opt/edge-pose/lib/python3.11/site-packages"
        programs = _names(root / "usr/bin", root / "usr/sbin", root / "opt/edge-pose/bin", packages / "rerun_cli")
        assert programs.isdisjoint({"cc", "gcc", "ld", "strip", "make", "pip", "pip3", "rerun"})
        assert _names(packages).isdisjoint({"pip", "setuptools", "flit_core"})
        for folder in ("var/lib/apt/lists", "var/cache/apt/archives", "root", "build", "tmp", "var/tmp"):
            assert not [path for path in (root / folder).glob("**/*") if path.stat().st_size > 10_000]
        assert list((packages / "edge/__pycache__").glob("*.pyc"))
        command = ["du", "--one-file-system", "--block-size=1M", "--max-depth=6", str(root)]
        used = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    largest = sorted(((int(mib), name) for mib, name in (line.split("\t") for line in used.splitlines())), reverse=True)
    say(f"{image.name}: {about['Size'] / 1e6:.0f} MB")
    for mib, name in largest[:30]:
        say(f"{mib:6} MiB  {name.removeprefix(str(root)) or '/'}")


def test_its_poses_are_those_of_this_machine(
    image: Image, engine: Engine, model: Path, tmp_path: Path, say: Callable[[str], None]
) -> None:
    clip = tmp_path / "clip.mov"
    _lossless(CLIP, clip, FRAMES)
    with mosquitto() as broker, subscriber(broker.port) as outside:
        keys = {"device": "hall", "mqtt__url": broker.url, "mqtt__landmarks_hz": "unlimited"}
        keys["camera__front__pace"] = "unlimited"
        here = run_settings(source=clip, pose__model=model, rerun__record_dir=tmp_path, **keys)
        subprocess.run(
            [_python_with(image.board_set), "-m", "edge", "run", *here],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            timeout=120,
        )
        ours = _points(outside, tmp_path)
        outside.messages.clear()

        there = run_settings(source="/clip.mov", rerun__record_dir=STATE, **keys)
        mounts = [f"--volume={clip}:/clip.mov:ro", *_mounts(model, tmp_path / "state")]
        with (
            _service_manager(tmp_path / "notify") as told,
            engine.start(
                image.name, image.cpu, "run", *there, options=mounts, network="host", notify=tmp_path / "notify"
            ) as container,
        ):
            eventually(lambda: container.healthy() or not container.running(), 240)
            was_healthy = container.running()
            code = container.exit_code(240)
            log = container.output()
        assert code == 0, log
        assert was_healthy, log
        assert {b"READY=1", b"WATCHDOG=1"} <= told
        assert "dropped" not in log
        eventually(lambda: outside.payloads("pose/v1/hall/state") == [b"online", b"stopped"], 5)
        theirs = _points(outside, tmp_path / "state")
    furthest = {name: np.abs(ours[name] - theirs[name]).max(axis=(1, 2)) for name in ours}
    say(f"{image.name} on {image.cpu} against this machine, largest difference frame by frame:")
    for name, frames in furthest.items():
        say(f"  {name}: {' '.join(f'{each:.1e}' for each in frames)}")
    # The first frame is found; the others are tracked, from where the one before was found.
    for name, first, any_frame in (("x, y", 2e-4, 5e-3), ("z", 1e-3, 1e-2), ("world (m)", 5e-4, 1e-2)):
        assert furthest[name][0] < first
        assert furthest[name].max() < any_frame


def test_an_image_that_is_not_for_this_board_says_so(engine: Engine, model: Path, tmp_path: Path) -> None:
    name = engine.build("device", VERSION=edge.__version__)
    settings = run_settings(source="synthetic")
    mounts = _mounts(model, tmp_path / "state")
    with engine.start(name, CPUS["device-armv8.0"], "run", *settings, options=mounts) as container:
        code = container.exit_code(240)
        log = container.output()
    assert code == 78, log
    (line,) = [line for line in log.splitlines() if line.startswith("edge-pose: ")]
    assert "atomics" in line
    assert "requirements/device-armv8.0.txt" in line


def test_the_health_check_tells_fresh_from_stale(engine: Engine, tmp_path: Path) -> None:
    image = engine.inspect(engine.build("device", VERSION=edge.__version__))
    kind, *command = image["Healthcheck"]["Test"]
    assert kind == "CMD"
    alive = tmp_path / "alive"
    here = [str(alive) if part == "/run/edge-pose/alive" else part for part in command]

    def healthy() -> bool:
        return subprocess.run(here, check=False, capture_output=True, timeout=10).returncode == 0

    assert not healthy()
    alive.touch()
    assert healthy()
    minute_ago = alive.stat().st_mtime - 60
    os.utime(alive, (minute_ago, minute_ago))
    assert not healthy()


@contextlib.contextmanager
def _service_manager(address: Path) -> Iterator[set[bytes]]:
    """Listen at NOTIFY_SOCKET as systemd does; what was told."""
    told: set[bytes] = set()

    def listen() -> None:
        while message := listener.recv(4096):
            told.add(message)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(address))
        thread = threading.Thread(target=listen)
        thread.start()
        yield told
        listener.shutdown(socket.SHUT_RD)
        thread.join()


def _names(*folders: Path) -> set[str]:
    return {path.name for folder in folders for path in folder.iterdir()}


def _mounts(model: Path, state: Path) -> list[str]:
    """Options for `podman run`: a model that came with the device, and a new directory for what it keeps."""
    state.mkdir()
    os.chown(state, USER, USER)
    return [f"--volume={model}:{MODELS}/pose_landmarker_full.task:ro", f"--volume={state}:{STATE}"]


def _lossless(clip: Path, into: Path, frames: int) -> None:
    """The first frames of a clip as RGB. Turning YUV into RGB gives other values on ARM than on x86, by up to 3 of 255,
    and with them poses that differ by a pixel."""
    import av

    with av.open(str(clip)) as source, av.open(str(into), "w") as target:
        video = source.streams.video[0]
        stream = target.add_stream("png", rate=video.average_rate)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "rgb24"
        for frame, _ in zip(source.decode(video), range(frames), strict=False):
            target.mux(stream.encode(frame.reformat(format="rgb24")))
        target.mux(stream.encode())


def _python_with(board_set: str) -> str:
    """A Python of this machine with what a set brings; the project itself comes by PYTHONPATH."""
    if board_set == "device":
        return sys.executable
    if sys.version_info >= (3, 13):
        pytest.skip("MediaPipe 0.10.18 for comparison needs Python 3.11 or 3.12 on this machine")
    lock = REPOSITORY / f"requirements/{board_set}.txt"
    place = (CACHE / f"{board_set}-{hashlib.sha256(lock.read_bytes()).hexdigest()[:8]}").resolve()
    if not (place / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True, timeout=120)
        install = [f"{place}/bin/pip", "install", "--quiet", "--require-hashes", "--no-deps", "-r", str(lock)]
        subprocess.run(install, check=True, timeout=1200)
        (place / "done").touch()
    return f"{place}/bin/python"


def _points(outside: Subscriber, recordings: Path) -> dict[str, np.ndarray]:
    """A run's landmarks: as recorded, unrounded, and z, which only the messages have."""
    (recording,) = recordings.glob("*.rrd")
    positions: dict[str, list[list[list[float]]]] = {points_2d_entity("front"): [], points_3d_entity("front"): []}
    for chunk in chunks(recording):
        if not chunk.is_static and (rows := positions.get(str(chunk.entity_path))) is not None:
            rows += column(chunk, "positions")
    messages = [json.loads(payload) for payload in outside.payloads("pose/v1/hall/camera/front/landmarks")]
    assert [message["seq"] for message in messages] == list(range(FRAMES))
    pixels, world_m = (np.array(rows) for rows in positions.values())
    assert pixels.shape == (FRAMES, 33, 2)
    assert world_m.shape == (FRAMES, 33, 3)
    z = np.array([[point[2:3] for point in message["people"][0]["image"]] for message in messages])
    return {"x, y": pixels / (640, 480), "z": z, "world (m)": world_m}
