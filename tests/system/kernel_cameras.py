"""Jobs for a machine that has cameras of the kernel's own: vivid, which draws bars, and v4l2loopback.

Each prints what it has found as JSON.

usage: python kernel_cameras.py JOB [ARGUMENTS]
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import clock_picture
import cv2
import numpy as np

from edge.cameras.children import v4l2_kernel as kernel
from edge.cameras.driver import DRIVERS, DriverSource, listed
from edge.errors import CameraError
from edge.inference import Estimators
from edge.lanes import Outlets
from edge.pacing import Deadline
from edge.pipeline import STEADY_AFTER_S, CameraPipeline
from edge.reports import Happening
from edge.stats import CameraStatus, Stats
from edge.vision.frame import Frame
from edge.vision.people import Rules
from edge.vision.pose import Pose

VIVID = Path("/sys/bus/platform/drivers/vivid")
ELSEWHERE = 7


def source(place: str, **wanted: Any) -> DriverSource:
    request = {
        "source": place,
        "width_px": 640,
        "height_px": 480,
        "fps": 30.0,
        "pixel_format": "auto",
        "controls": {},
        "encoder": False,
        **wanted,
    }
    return DriverSource("front", DRIVERS["v4l2"], f"v4l2:{place}", request)


def some(camera: DriverSource, count: int) -> list[Frame]:
    frames: list[Frame] = []
    deadline = Deadline(60)
    while len(frames) < count and deadline.left_s():
        if (frame := camera.read(0.5)) is not None:
            frames.append(frame)
    return frames


def pictures(place: str, *wanted: str) -> list[dict[str, Any]]:
    """Of each wanted request (JSON): what was chosen, the colours of eight columns, and how old frames are."""
    found = []
    for text in wanted:
        with source(place, **json.loads(text)) as camera:
            frames = some(camera, 5)
            age_ms = (time.monotonic_ns() - frames[-1].monotonic_ns) / 1e6
        pixels = frames[-1].rgb.pixels
        height, width = pixels.shape[:2]
        row = pixels[height * 2 // 3]
        columns = [row[width * (2 * number + 1) // 16].tolist() for number in range(8)]
        steps_ms = [(b.monotonic_ns - a.monotonic_ns) / 1e6 for a, b in itertools.pairwise(frames)]
        found.append(
            {"told": camera.told, "size": [width, height], "columns": columns, "age_ms": age_ms, "steps_ms": steps_ms}
        )
    return found


def errors(*wanted: str) -> list[str]:
    """Of each wanted request (JSON, with its place): why it can't be had, or nothing."""
    found = []
    for text in wanted:
        request = json.loads(text)
        try:
            with source(request.pop("place"), **request) as camera:
                some(camera, 1)
            found.append("")
        except CameraError as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def inventory() -> list[dict[str, Any]]:
    return listed(DRIVERS["v4l2"])


class Writer:
    """Plays what `draw` gives, 15 times a second, through v4l2loopback: /dev/video9, whoever looks at it."""

    DEVICE = Path("/dev/video9")

    def __init__(self, pixel_format: str, draw: Callable[[], bytes]) -> None:
        subprocess.run(["modprobe", "-r", "v4l2loopback"], check=False)
        subprocess.run(["modprobe", "v4l2loopback", "video_nr=9", "card_label=Loop", "exclusive_caps=1"], check=True)
        until(self.DEVICE.exists)
        self._draw = draw
        self._ending = threading.Event()
        self._device = os.open(self.DEVICE, os.O_RDWR)
        wanted = kernel.Format(type=2)  # V4L2_BUF_TYPE_VIDEO_OUTPUT
        wanted.pix.width, wanted.pix.height, wanted.pix.pixelformat = 640, 480, kernel.code_of(pixel_format)
        wanted.pix.sizeimage = 640 * 480 * 2
        kernel.call(self._device, kernel.S_FMT, wanted)
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        os.write(self._device, self._draw())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()
        os.close(self._device)

    def _run(self) -> None:
        while not self._ending.wait(1 / 15):
            os.write(self._device, self._draw())


def loopback() -> list[dict[str, Any]]:
    """What comes of vivid's columns as MJPEG."""
    bars = np.zeros((480, 640, 3), np.uint8)
    for number, bar in enumerate(("111", "110", "011", "010", "101", "100", "001", "000")):
        bars[:, number * 80 : number * 80 + 80] = [200 * int(part) for part in bar]
    _, content = cv2.imencode(".jpg", bars[..., ::-1])
    with Writer("MJPG", content.tobytes):
        return pictures("9", "{}")


def stamps(count: str) -> dict[str, Any]:
    """How much later than it was drawn a picture is stamped, which v4l2loopback does as it is written."""
    with Writer("YUYV", lambda: clock_picture.yuyv(time.monotonic_ns())), source("9") as camera:
        errors_ms = [
            (frame.monotonic_ns - drawn_ns) / 1e6
            for frame in some(camera, int(count))
            if (drawn_ns := clock_picture.drawn_ns(frame.rgb.pixels)) is not None
        ]
    ordered = sorted(errors_ms)
    share = {f"p{share}_ms": round(ordered[len(ordered) * share // 100], 2) for share in (50, 95, 99)}
    return {"frames": len(ordered), "least_ms": round(ordered[0], 2), **share}


def occupied() -> list[str]:
    """Why a device can't be had that another program uses, that is closed to this user, and that is an output."""
    subprocess.run(["modprobe", "-r", "vivid"], check=False)
    subprocess.run(["modprobe", "vivid", "n_devs=1", "node_types=0x101", "vid_cap_nr=0", "vid_out_nr=1"], check=True)
    until(lambda: Path("/dev/video0").exists() and Path("/dev/video1").exists())
    with source("0") as first:
        some(first, 1)
        busy = errors('{"place": "0"}')
    output = errors('{"place": "1"}')
    code = 'import kernel_cameras; print(kernel_cameras.errors(\'{"place": "0"}\')[0])'
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}:{Path(__file__).parent}"}
    told = subprocess.run(as_nobody, check=True, capture_output=True, text=True, env=environment).stdout
    return [*busy, told.strip(), *output]


class Nobody:
    """An estimator for whom nothing is to be seen: MediaPipe takes seconds a frame on an emulated processor."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        return ()


class Daemon:
    """A camera's pipeline, as the daemon has it."""

    def __init__(self, camera: DriverSource) -> None:
        self.stats = Stats(["front"])
        self.happened: list[str] = []
        self.pipeline = CameraPipeline(
            "front",
            camera,
            Estimators(Nobody),
            outlets=Outlets({}),
            stats=self.stats.cameras["front"],
            drops=self.stats,
            on_end=lambda _: None,
            on_event=self._happened,
            rules=Rules(),
            ids=itertools.count(1),
        )
        self.pipeline.load()
        self.pipeline.start()

    def _happened(self, camera: str, what: Happening) -> str:
        self.happened.append(type(what).__name__)
        return f"{camera}-{len(self.happened)}"

    @property
    def captured(self) -> int:
        return self.stats.cameras["front"].captured

    @property
    def online(self) -> bool:
        return self.stats.cameras["front"].status is CameraStatus.ONLINE


def rounds(count: str) -> dict[str, Any]:
    """Take the camera away while it streams, remove its module, load it again with another number; as often."""
    load(0)
    camera = source("0")
    daemon = Daemon(camera)
    until(lambda: daemon.captured > 10)
    before, back_s, places = kept(), [], []
    for number in range(int(count)):
        (VIVID / "unbind").write_text("vivid.0")
        until(lambda: not daemon.online)
        until(lambda: not subprocess.run(["rmmod", "vivid"], check=False, capture_output=True).returncode)
        load(ELSEWHERE * ((number + 1) % 2))
        there_s, captured = time.monotonic(), daemon.captured
        until(lambda captured=captured: daemon.online and daemon.captured > captured)
        back_s.append(round(time.monotonic() - there_s, 2))
        places.append(opened())
        until(lambda there_s=there_s: time.monotonic() > there_s + back_s[-1] + STEADY_AFTER_S + 0.5)  # it works again
    until(lambda: daemon.captured > 10)
    after = kept()
    happened = daemon.happened
    daemon.pipeline.interrupt()
    ended = daemon.pipeline.join(Deadline(10))
    return {
        "back_s": back_s,
        "before": before,
        "after": after,
        "places": sorted(set(places)),
        "lost": happened.count("CameraLost"),
        "back": happened.count("CameraBack"),
        "frames": daemon.captured,
        "ended": ended,
    }


def load(number: int | str) -> None:
    subprocess.run(["modprobe", "-r", "vivid"], check=False)
    subprocess.run(["modprobe", "vivid", "n_devs=1", "node_types=0x1", f"vid_cap_nr={number}"], check=True)
    until(lambda: Path(f"/dev/video{number}").exists())


def opened() -> str:
    """The device that our child has open."""
    for process in children():
        for descriptor in Path(f"/proc/{process}/fd").iterdir():
            if (place := str(os.path.realpath(descriptor))).startswith("/dev/video"):
                return place
    return ""


def children() -> list[str]:
    tasks = Path("/proc/self/task").iterdir()
    return [pid for task in tasks for pid in (task / "children").read_text().split()]


def kept() -> dict[str, int]:
    """What a leak would show in."""
    memory = Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    return {
        "kib": int(memory),
        "descriptors": descriptors,
        "threads": threading.active_count(),
        "children": len(children()),
    }


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    deadline = Deadline(timeout_s)
    while not condition():
        assert deadline.left_s(), "not so in time"
        time.sleep(0.02)


JOBS: dict[str, Callable[..., Any]] = {
    "load": load,
    "loopback": loopback,
    "occupied": occupied,
    "stamps": stamps,
    "pictures": pictures,
    "errors": errors,
    "inventory": inventory,
    "rounds": rounds,
}


def main(arguments: Sequence[str]) -> None:
    print(json.dumps(JOBS[arguments[0]](*arguments[1:])))


if __name__ == "__main__":
    main(sys.argv[1:])
