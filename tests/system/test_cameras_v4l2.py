"""V4L2 for real, in a machine whose cameras are the kernel's own.

vivid draws bars, v4l2loopback plays what somebody writes.

Wants what tests/system/camera_machine.py wants.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import clock_picture
from tests.system.camera_machine import DATA, PYTHON, camera_machine

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]

Job = Callable[..., Any]

BARS = [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
"""vivid's columns: white, yellow, cyan, green, magenta, red, blue, black."""


@pytest.fixture(scope="module")
def do(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Job]:
    """Runs a job of tests/system/kernel_cameras.py in the machine: what it has found."""
    jobs, clock = Path(__file__).with_name("kernel_cameras.py"), Path(clock_picture.__file__)
    scratch = tmp_path_factory.mktemp("cameras")
    with camera_machine(scratch, {"kernel_cameras.py": jobs, "clock_picture.py": clock}, "") as (machine, key):

        def run(*job: object) -> Any:
            words = " ".join(f"'{each if isinstance(each, str | int) else json.dumps(each)}'" for each in job)
            command = f"PYTHONPATH={DATA}/edge-pose {PYTHON} {DATA}/kernel_cameras.py {words}"
            done = machine.ssh("root", key, command, timeout_s=900)
            assert done.returncode == 0, done.stderr[-4000:]
            return json.loads(done.stdout.splitlines()[-1])

        yield run


def test_colours_and_sizes_are_right_in_every_format(do: Job) -> None:
    formats = ("YUYV", "UYVY", "NV12", "NV21", "YU12", "RGB3", "BGR3", "XR24", "BGR4")
    do("load", 0)
    for name, found in zip(formats, do("pictures", 0, *({"pixel_format": name} for name in formats)), strict=True):
        assert found["told"] == f"vivid, {name} 640x480 30/s"
        assert found["size"] == [640, 480]
        for column, bar in zip(found["columns"], BARS, strict=True):
            assert [value > 100 for value in column] == [bool(value) for value in bar], (name, found["columns"])
        assert 0 <= found["age_ms"] < 1000


def test_jpegs_are_decoded(do: Job) -> None:
    (found,) = do("loopback")
    assert found["told"].startswith("Loop, MJPG 640x480")
    for column, bar in zip(found["columns"], BARS, strict=True):
        assert [value > 100 for value in column] == [bool(value) for value in bar], found["columns"]


def test_what_is_asked_for_is_what_comes_or_the_nearest_is_told(do: Job) -> None:
    do("load", 0)
    exact, near, slow = do(
        "pictures", 0, {"width_px": 1280, "height_px": 720, "fps": 10.0}, {"width_px": 600}, {"fps": 240.0}
    )
    assert (exact["told"], exact["size"]) == ("vivid, YUYV 1280x720 10/s", [1280, 720])
    assert (near["told"], near["size"]) == ("vivid, YUYV 640x480 30/s, the nearest", [640, 480])
    assert slow["told"] == "vivid, YUYV 640x480 120/s; it does not reach 240/s"


def test_what_is_wrong_is_one_line(do: Job) -> None:
    do("load", 0)
    said = do(
        "errors",
        {"place": "0", "controls": {"brightness": 999}},
        {"place": "0", "controls": {"brightness": 200, "horizontal_flip": True}},
        {"place": "0", "controls": {"smile": 1}},
        {"place": "0", "pixel_format": "H264"},
        {"place": "/dev/null"},
        {"place": "5"},
    )
    expected = (
        "CameraUnusable: v4l2:0: control brightness = 999: expected a whole number from 0 to 255",
        "",
        "CameraUnusable: v4l2:0: it has no control smile: ",
        "CameraUnusable: v4l2:0: it has no pixel format H264: YUYV, UYVY, ",
        "CameraUnusable: v4l2:/dev/null: /dev/null is no video device; edge-pose doctor lists what there is",
        "CameraLost: v4l2:5: no such device; is it plugged in? edge-pose doctor lists what there is",
    )
    assert len(said) == len(expected)
    for line, beginning in zip(said, expected, strict=True):
        assert line.startswith(beginning)
        assert bool(line) == bool(beginning)


def test_a_device_that_is_busy_closed_or_no_camera_is_told(do: Job) -> None:
    busy, closed, output = do("occupied")
    assert busy == "CameraLost: v4l2:0: another program uses it; end that one; edge-pose doctor tells which it is"
    assert closed == (
        "CameraLost: v4l2:0: no permission to open /dev/video0; add the user to the group video, and start anew"
    )
    assert output.startswith("CameraUnusable: v4l2:1: /dev/video1 (vivid) captures no video; ")


def test_cameras_are_listed(do: Job) -> None:
    do("load", 0)
    (found,) = do("inventory")
    assert (found["source"], found["name"]) == ("v4l2:/dev/video0", "vivid")
    assert found["identity"] == ";vivid;vivid;platform:vivid-000"
    assert "YUYV 640x480 120/s" in found["modes"]


def test_a_camera_that_is_removed_and_comes_back_elsewhere_goes_on(do: Job) -> None:
    """`python kernel_cameras.py rounds 50` for the figures of the documentation."""
    said = do("rounds", 3)
    print(said)
    assert (said["lost"], said["back"], said["ended"]) == (3, 3, True)
    assert said["places"] == ["/dev/video0", "/dev/video7"]
    assert statistics.median(said["back_s"]) > 0
    held = ("descriptors", "threads", "children")
    assert [said["after"][name] for name in held] == [said["before"][name] for name in held]
    assert said["after"]["kib"] < said["before"]["kib"] + 10_000


def test_stamps_are_when_somebody_wrote_the_picture(do: Job) -> None:
    said = do("stamps", 60)
    print(said)
    assert said["frames"] == 60
    assert 0 <= said["p50_ms"] < 500  # an emulated processor; a figure is docs/cameras.md's
