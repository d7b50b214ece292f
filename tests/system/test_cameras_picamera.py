"""picamera2 and libcamera for real, in a machine that has no camera: libcamera's virtual pipeline plays pictures of a
person, by way of picamera2, the child and the daemon.

What differs on a Raspberry Pi: docs/boards.md. Wants what tests/system/camera_machine.py wants.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge.vision.frame import UInt8Array
from tests.conftest import CLIP
from tests.system.camera_machine import DATA, PYTHON, camera_machine
from tests.system.site import REPOSITORY

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]

FRAMES = (0, 20, 40)
"""Of the clip, each of which is a camera that shows nothing else."""

Job = Callable[..., Any]


def bt709(rgb: UInt8Array) -> UInt8Array:
    """(height * 3 / 2, width): Y, U, V by BT.709 in limited range (ITU-R BT.709-6, 3), with halved chroma."""
    red, green, blue = np.moveaxis(rgb.astype(float) / 255, -1, 0)
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    height, width = luma.shape
    chroma = np.stack([(blue - luma) / 1.8556, (red - luma) / 1.5748])
    halved = chroma.reshape(2, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    flat = np.round(np.concatenate([(219 * luma + 16).ravel(), (224 * halved + 128).ravel()]))
    return flat.reshape(-1, width).clip(0, 255).astype(np.uint8)


def jpeg(planes: UInt8Array) -> bytes:
    """They as a JPEG's own Y, U and V."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = width, height, "yuvj420p", Fraction(1, 30)
    encoder.options = {"qmin": "1", "qmax": "1"}
    frame = av.VideoFrame.from_ndarray(planes, format="yuvj420p")
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def stills(folder: Path) -> str:
    """Frames of the clip as libcamera's virtual pipeline reads them, and what it is told. It takes a JPEG's Y, U and V
    as they are and says of them that they are BT.709 in limited range: so they are made to be."""
    told = ["%YAML 1.1", "---", _camera("bars", 'test_pattern: "bars"')]
    with av.open(str(CLIP)) as clip:
        pictures = [frame.to_ndarray(format="rgb24") for frame in clip.decode(video=0)]
    for number, at in enumerate(FRAMES):
        name = f"still{number}"
        (folder / name).mkdir(parents=True)
        (folder / name / "0.jpg").write_bytes(jpeg(bt709(np.asarray(pictures[at], np.uint8))))
        told.append(_camera(name, f'frames:\n    path: "{DATA}/stills/{name}/"'))
    return "\n".join([*told, ""])


def _camera(name: str, what: str) -> str:
    size = "- width: 640\n    height: 480\n    frame_rates:\n    - 5\n    - 60"
    return f'"{name}":\n  supported_formats:\n  {size}\n  {what}\n  model: "{name.capitalize()}"'


@pytest.fixture(scope="module")
def do(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Job]:
    """Runs a job of tests/system/virtual_cameras.py in the machine: what it has found."""
    scratch = tmp_path_factory.mktemp("cameras")
    told = stills(scratch / "stills")
    jobs = Path(__file__).with_name("virtual_cameras.py")
    unit = REPOSITORY / "deploy/systemd/edge-pose.service"
    data = {
        "stills": scratch / "stills",
        "models": model.parent,
        "virtual_cameras.py": jobs,
        "edge-pose.service": unit,
    }
    with camera_machine(scratch, data, told) as (machine, key):

        def run(*job: object) -> Any:
            command = f"PYTHONPATH={DATA}/edge-pose {PYTHON} {DATA}/virtual_cameras.py {' '.join(map(str, job))}"
            done = machine.ssh("root", key, command, timeout_s=300)
            assert done.returncode == 0, done.stderr[-4000:]
            return json.loads(done.stdout.splitlines()[-1])

        yield run


@pytest.mark.parametrize("number", range(len(FRAMES)))
def test_landmarks_are_those_of_the_same_picture_from_a_file(do: Job, number: int) -> None:
    said = do("landmarks", f"still{number}")
    (live,), (same,), (decoded,) = (said[camera]["people"] for camera in ("live", "same", "jpeg"))
    differences = {
        (other, field): np.abs(np.array(live[field]) - np.array(person[field])).max(axis=0)
        for other, person in (("same", same), ("jpeg", decoded))
        for field in ("image", "world")
    }
    for (other, field), difference in differences.items():
        print(f"still {number}, {field}, camera to {other}: at most {difference.tolist()}")
    assert max(difference.max() for (other, _), difference in differences.items() if other == "same") == 0
    # FFmpeg decodes JPEG more exactly than the virtual pipeline, whose Y differs by up to 7.
    assert differences["jpeg", "image"][:2].max() < 0.01


def test_the_service_s_sandbox_is_wide_enough_for_libcamera(do: Job) -> None:
    said = do("service", "still0")
    assert said["people"] == 1
    assert any("camera live: Still0, NV12 640x480 at 5/s" in line for line in said["journal"])
    assert not any("ERROR" in line for line in said["journal"])


def test_both_streams_are_what_libcamera_captures(do: Job) -> None:
    said = do("pictures", "still0")
    print(said)
    assert said["estimator"] == said["people"] == 0
    assert said["in_order"]
    assert said["wall_s"] < 2
    assert min(said["ages_ms"]) >= 0


def test_cameras_are_listed(do: Job) -> None:
    found = do("cameras")
    assert [(camera["source"], camera["name"], camera["identity"], camera["trouble"]) for camera in found] == [
        ("picamera2:0", "Still2", "still2", ""),
        ("picamera2:1", "Still1", "still1", ""),
        ("picamera2:2", "Still0", "still0", ""),
        ("picamera2:3", "Bars", "bars", ""),
    ]
    assert all("NV12 640x480" in camera["modes"] for camera in found)


def test_what_can_not_be_is_said_in_one_line(do: Job) -> None:
    there = "0 (Still2 still2), 1 (Still1 still1), 2 (Still0 still0), 3 (Bars bars)"
    assert do("refused") == {
        "number": f"CameraLost: picamera2: no camera 7; there is {there}",
        "id": f'CameraLost: picamera2: no camera "imx708"; there is {there}; give a number, an id or a part of one',
        "several": f'CameraUnusable: picamera2: "still" is part of several ids; give a number or more of one: {there}',
        "control": "CameraUnusable: picamera2: control Brightness: the camera has none of that name; "
        "it has FaceDetectMode, FrameDurationLimits",
        "choice": 'CameraUnusable: picamera2: control FaceDetectMode = "On"; expected one of Off',
        "range": "CameraUnusable: picamera2: control FrameDurationLimits = [1, 33333]; expected 16666 to 200000",
        "mode": 'CameraUnusable: picamera2: sensor_mode "1536x864": '
        "the camera has no modes to choose from; leave it out",
        "format": 'CameraUnusable: picamera2: pixel_format "RGB888"; expected auto or one of NV12',
        "sizes": "CameraUnusable: picamera2: pictures of 640x480 beside video of 1280x240; "
        "the camera makes the smaller out of the larger: no side of it may be longer",
    }


def test_a_camera_is_found_again_under_another_number(do: Job) -> None:
    assert do("found_again") == {"number": 1, "now": 0, "difference": 0}


def test_opened_and_closed_again_and_again_nothing_stays(do: Job) -> None:
    said = do("rounds", 10)
    print(said)
    first, *others = said["held"]
    assert all(held == first for held in others)
