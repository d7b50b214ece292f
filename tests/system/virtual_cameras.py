"""What the tests of picamera2 do inside the machine: virtual_cameras.py JOB [ARGUMENT...] prints its findings as JSON.

Runs in a device's environment, without the tests' own libraries.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import paho.mqtt.client as mqtt

from edge.cameras.children.outlet import Plane
from edge.cameras.driver import DRIVERS, DriverSource, listed
from edge.cameras.pixels import ToRgb
from edge.errors import CameraError
from edge.vision.frame import Frame, UInt8Array

WIDTH_PX, HEIGHT_PX = 640, 480
STILLS = Path("/srv/stills")
VIRTUAL = Path("/usr/share/libcamera/pipeline/virtual/virtual.yaml")
REQUEST: dict[str, Any] = {
    "source": "bars",
    "width_px": WIDTH_PX,
    "height_px": HEIGHT_PX,
    "fps": 30.0,
    "video_width_px": 0,
    "video_height_px": 0,
    "pixel_format": "auto",
    "sensor_mode": "",
    "encoder": True,
    "controls": {},
    "flip_horizontal": False,
    "flip_vertical": False,
}


def source(**changes: Any) -> DriverSource:
    return DriverSource("front", DRIVERS["picamera2"], "picamera2", {**REQUEST, **changes})


def frames(camera: DriverSource, count: int, timeout_s: float = 40) -> list[Frame]:
    """So many of them. Raises CameraError, and TimeoutError."""
    until_s, got = time.monotonic() + timeout_s, []
    while len(got) < count:
        if (frame := camera.read(0.5)) is not None:
            got.append(frame)
        elif time.monotonic() > until_s:
            raise TimeoutError(f"{len(got)} of {count} frames within {timeout_s:g} s")
    return got


def of_libcamera(name: str) -> UInt8Array:
    """A still as libcamera's own program captures it, in RGB by the means that the daemon has."""
    file = Path(f"/tmp/{name}.nv12")
    wanted = f"width={WIDTH_PX},height={HEIGHT_PX},pixelformat=NV12"
    subprocess.run(["cam", f"--camera={name}", "--capture=1", f"--file={file}", f"--stream={wanted}"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=60)  # fmt: skip
    content = file.read_bytes()
    plane = Plane(0, len(content), "NV12", WIDTH_PX, HEIGHT_PX, WIDTH_PX, full_range=False, matrix="bt709")
    return ToRgb()(memoryview(content), plane).pixels


def of_ffmpeg(name: str) -> UInt8Array:
    """The same still, its JPEG decoded by FFmpeg."""
    with av.open(str(STILLS / name / "0.jpg")) as file:
        planes = np.ascontiguousarray(next(file.decode(video=0)).to_ndarray())
    plane = Plane(0, planes.size, "I420", WIDTH_PX, HEIGHT_PX, WIDTH_PX, full_range=False, matrix="bt709")
    return ToRgb()(memoryview(planes.reshape(-1)), plane).pixels


def film(pixels: UInt8Array, path: Path) -> None:
    """A film of one frame, which loses nothing."""
    with av.open(str(path), "w") as file:
        track = file.add_stream("rawvideo", rate=30)
        track.width, track.height, track.pix_fmt = WIDTH_PX, HEIGHT_PX, "rgb24"
        for packet in [*track.encode(av.VideoFrame.from_ndarray(np.array(pixels))), *track.encode(None)]:
            file.mux(packet)


def landmarks(name: str) -> dict[str, Any]:
    """What the daemon publishes first of a still that libcamera plays, of the same picture from a file, and of its JPEG
    from a file."""
    cameras = {"live": f"picamera2:{name}"}
    for camera, pixels in (("same", of_libcamera(name)), ("jpeg", of_ffmpeg(name))):
        cameras[camera] = f"/tmp/{name}-{camera}.nut"
        film(pixels, Path(cameras[camera]))
    Path("/tmp/config.toml").write_text(config(cameras))
    with first_landmarks() as first:
        daemon = subprocess.Popen([sys.executable, "-m", "edge", "run", "--config", "/tmp/config.toml"])
        try:
            within(120, lambda: set(first) == set(cameras))
        finally:
            daemon.terminate()
            daemon.wait(30)
    return first


UNIT = Path("/etc/systemd/system/edge-pose.service")
# What is only here: where the program is, and the device of which the virtual pipeline makes its buffers.
HERE = """[Service]
ExecStart=
ExecStart=/opt/edge-pose/bin/python -m edge run
Environment=PYTHONPATH=/srv/edge-pose
DeviceAllow=/dev/udmabuf rw
SupplementaryGroups=kvm
"""


def service(name: str) -> dict[str, Any]:
    """The same by the unit, in its sandbox."""
    subprocess.run(["useradd", "--system", "edge-pose"], check=True)
    UNIT.write_bytes(Path("/srv/edge-pose.service").read_bytes())
    for path, text in {
        f"{UNIT}.d/here.conf": HERE,
        "/etc/edge-pose/config.toml": config({"live": f"picamera2:{name}"}),
    }.items():
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(text)
    Path("/etc/edge-pose/credentials").mkdir()
    with first_landmarks() as first:
        subprocess.run(["systemctl", "start", "edge-pose"], check=True, timeout=90)
        try:
            within(60, lambda: bool(first))
        finally:
            journal = subprocess.run(
                ["journalctl", "--unit=edge-pose", "--output=cat"], check=True, stdout=subprocess.PIPE, text=True
            )
            print(journal.stdout, file=sys.stderr)
            subprocess.run(["systemctl", "stop", "edge-pose"], check=True, timeout=30)
    return {"people": len(first["live"]["people"]), "journal": journal.stdout.splitlines()}


def config(cameras: dict[str, str]) -> str:
    text = 'device = "vm"\n[mqtt]\nurl = "mqtt://127.0.0.1"\n[pose]\nmodel_dir = "/srv/models"\nsegmentation = false\n'
    return text + "".join(f'[camera.{camera}]\nsource = "{where}"\nfps = 5\n' for camera, where in cameras.items())


@contextlib.contextmanager
def first_landmarks() -> Iterator[dict[str, Any]]:
    """A broker; what comes first of each camera."""
    first: dict[str, Any] = {}

    def heard(_client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        first.setdefault(message.topic.split("/")[-2], json.loads(message.payload))

    listener = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
    listener.on_message = heard
    listener.on_connect = lambda client, *_: client.subscribe("pose/v1/vm/camera/+/landmarks")
    broker = subprocess.Popen(["mosquitto", "-p", "1883"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        within(10, lambda: connects(listener))
        listener.loop_start()
        yield first
        listener.loop_stop()
    finally:
        broker.terminate()
        broker.wait(10)


def connects(client: mqtt.Client) -> bool:
    try:
        client.connect("127.0.0.1", 1883)
    except OSError:
        return False
    return True


def within(seconds: float, condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until_s:
            raise TimeoutError(f"not so within {seconds:g} s")
        time.sleep(0.1)


def pictures(name: str) -> dict[str, Any]:
    """Both streams of a still beside what libcamera's own program captures; ages of frames."""
    expected = of_libcamera(name).astype(int)
    with source(source=name, video_width_px=WIDTH_PX, video_height_px=HEIGHT_PX) as camera:
        got, ages_ms = [], []
        for _ in range(20):
            got += frames(camera, 1)
            ages_ms.append((time.monotonic_ns() - got[-1].monotonic_ns) / 1e6)
    one = got[-1]
    assert one.video is not None
    return {
        "estimator": int(np.abs(one.rgb.pixels - expected).max()),
        "people": int(np.abs(one.video.pixels - expected).max()),
        "ages_ms": [round(age, 1) for age in ages_ms],
        "wall_s": round(abs(time.time() - one.captured_ns / 1e9), 3),
        "in_order": all(one.captured_ns < other.captured_ns for one, other in itertools.pairwise(got)),
    }


def cameras() -> list[dict[str, Any]]:
    return listed(DRIVERS["picamera2"])


def refused() -> dict[str, str]:
    """What is said of what can't be."""
    wishes: dict[str, dict[str, Any]] = {
        "number": {"source": "7"},
        "id": {"source": "imx708"},
        "several": {"source": "still"},
        "control": {"controls": {"Brightness": 0.5}},
        "choice": {"controls": {"FaceDetectMode": "On"}},
        "range": {"controls": {"FrameDurationLimits": [1, 33333]}},
        "mode": {"sensor_mode": "1536x864"},
        "format": {"pixel_format": "RGB888"},
        "sizes": {"video_width_px": 1280, "video_height_px": 240},
    }
    said = {}
    for wish, changes in wishes.items():
        try:
            with source(**changes) as camera:
                frames(camera, 1)
        except CameraError as error:
            said[wish] = f"{type(error).__name__}: {error}"
    return said


def found_again() -> dict[str, Any]:
    """A camera that was opened by its number, and has another one when it is opened anew."""
    numbers = [each["identity"] for each in cameras()]
    told = VIRTUAL.read_text()
    first, second = numbers[0], numbers[1]
    with source(source="1") as camera:
        before = frames(camera, 1)[0].rgb.pixels
        camera.__exit__(None, None, None)
        begin = told.index(f'"{first}":')  # take away the one before it
        end = told.find('\n"', begin)
        VIRTUAL.write_text(told[:begin] + (told[end + 1 :] if end > 0 else ""))
        now = [each["identity"] for each in cameras()]
        camera.__enter__()
        after = frames(camera, 1)[0].rgb.pixels
    VIRTUAL.write_text(told)
    difference = int(np.abs(before.astype(int) - after).max())
    return {"number": numbers.index(second), "now": now.index(second), "difference": difference}


def rounds(count: int) -> dict[str, Any]:
    """Opened, looked at and closed so many times."""

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    def children() -> int:
        return len(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())

    held, to_first_s, to_close_s = [], [], []
    camera = source(fps=60.0)
    for _ in range(count):
        began_s = time.monotonic()
        with camera:
            frames(camera, 1)
            to_first_s.append(round(time.monotonic() - began_s, 2))
            frames(camera, 5)
            began_s = time.monotonic()
        to_close_s.append(round(time.monotonic() - began_s, 2))
        held.append([descriptors(), children()])
    return {"held": held, "to_first_s": to_first_s, "to_close_s": to_close_s, "lost": camera.lost}


if __name__ == "__main__":
    job, *arguments = sys.argv[1:]
    jobs: dict[str, Callable[..., Any]] = {
        job.__name__: job for job in (landmarks, service, pictures, cameras, refused, found_again, rounds)
    }
    print(json.dumps(jobs[job](*(int(each) if each.isdigit() else each for each in arguments))))
