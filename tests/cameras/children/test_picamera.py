"""What the child decides without a camera. With one: tests/system/test_cameras_picamera.py."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cameras.children import picamera
from edge.cameras.children.outlet import Failed
from edge.cameras.children.picamera import Stream, middle_ns, sensor_mode, stamp_clock, streams, wanted_format, which

SECOND_NS = 1_000_000_000


def test_the_middle_of_the_exposure_lies_before_the_stamp() -> None:
    assert middle_ns(5 * SECOND_NS, 20_000) == 5 * SECOND_NS - 10_000_000
    assert middle_ns(5 * SECOND_NS, 0) == 5 * SECOND_NS


@given(
    monotonic_ns=st.integers(10 * SECOND_NS, 10**16),
    suspended_ns=st.just(0) | st.integers(2 * SECOND_NS, 10**16),
    age_ns=st.integers(0, SECOND_NS),
)
def test_a_stamp_says_which_clock_it_is_on(monotonic_ns: int, suspended_ns: int, age_ns: int) -> None:
    boottime_ns = monotonic_ns + suspended_ns
    assert stamp_clock(boottime_ns - age_ns, monotonic_ns, boottime_ns) == "boottime"
    expected = "monotonic" if suspended_ns else "boottime"
    assert stamp_clock(monotonic_ns - age_ns, monotonic_ns, boottime_ns) == expected


CAMERAS = [
    {"Id": "/base/axi/pcie@120000/rp1/i2c@88000/imx708@1a", "Model": "imx708_wide", "Num": 1},
    {"Id": "/base/axi/pcie@120000/rp1/i2c@80000/imx477@1a", "Model": "imx477", "Num": 0},
    {"Id": r"\_SB_.PCI0.XHC_.RHUB.HS01-1:1.0-046d:0825", "Model": "UVC Camera (046d:0825)", "Num": 2},
]


@pytest.mark.parametrize(
    ("wanted", "identity", "place"),
    [
        ("", "", 0),
        ("1", "", 1),
        ("imx477", "", 1),
        ("IMX708", "", 0),
        ("046d:0825", "", 2),
        (CAMERAS[1]["Id"], "", 1),
        ("0", CAMERAS[1]["Id"], 1),  # it has another number now
        ("2", "one that is gone", 2),
    ],
)
def test_a_camera_is_found(wanted: Any, identity: Any, place: int) -> None:
    assert which(CAMERAS, wanted, identity) == place


@pytest.mark.parametrize(
    ("wanted", "line"),
    [
        ("3", r"^no camera 3; there is 0 \(imx708_wide /base/.*\), 1 \(imx477 .*\), 2 \(UVC Camera .*\)$"),
        ("imx219", r'^no camera "imx219"; there is 0 \(imx708_wide .*; give a number, an id or a part of one$'),
        ("rp1", r'^"rp1" is part of several ids; give a number or more of one: 0 \(imx708_wide '),
    ],
)
def test_a_camera_that_is_not_there_is_told_with_those_that_are(wanted: str, line: str) -> None:
    with pytest.raises(Failed, match=line) as failed:
        which(CAMERAS, wanted, "")
    assert failed.value.lost == ("several" not in str(failed.value))  # what is plugged in later may be it


MODES = [(1536, 864, 10), (2304, 1296, 10), (4608, 2592, 10), (4608, 2592, 12)]


def test_a_sensor_mode_is_one_of_the_sensor_s() -> None:
    assert sensor_mode("2304x1296", MODES) == (2304, 1296, 10)
    assert sensor_mode("4608x2592", MODES) == (4608, 2592, 12)
    assert sensor_mode(" 4608x2592-10", MODES) == (4608, 2592, 10)


@pytest.mark.parametrize("text", ["640x480", "2304x1296-12", "2304", "fast", "2304x1296-0x", "-1x2"])
def test_another_sensor_mode_is_told_with_those_there_are(text: str) -> None:
    expected = "expected one of 1536x864-10, 2304x1296-10, 4608x2592-10, 4608x2592-12"
    with pytest.raises(Failed) as failed:
        sensor_mode(text, MODES)
    assert str(failed.value) == f'sensor_mode "{text}"; {expected}'


def test_what_has_no_modes_says_so() -> None:
    with pytest.raises(Failed, match='sensor_mode "640x480": the camera has no modes to choose from; leave it out'):
        sensor_mode("640x480", [])


def _sizes(width: int, height: int, video_width: int = 0, video_height: int = 0) -> dict[str, int]:
    return {"width_px": width, "height_px": height, "video_width_px": video_width, "video_height_px": video_height}


@pytest.mark.parametrize(
    ("request_", "most", "expected"),
    [
        (_sizes(640, 480), 2, [Stream("main", 640, 480)]),
        (_sizes(640, 480, 1280, 960), 2, [Stream("lores", 640, 480), Stream("main", 1280, 960, for_people=True)]),
        (_sizes(640, 480, 320, 240), 2, [Stream("main", 640, 480), Stream("lores", 320, 240, for_people=True)]),
        (_sizes(640, 480, 640, 480), 2, [Stream("main", 640, 480), Stream("lores", 640, 480, for_people=True)]),
        (_sizes(640, 480, 1280, 960), 1, [Stream("main", 1280, 960)]),
    ],
)
def test_the_larger_stream_is_main_and_the_estimator_s_comes_first(
    request_: dict[str, int], most: int, expected: list[Stream]
) -> None:
    assert streams(request_, most) == expected


def test_two_sizes_of_which_neither_contains_the_other() -> None:
    with pytest.raises(Failed, match=r"pictures of 640x480 beside video of 1280x320; .*no side of it may be longer"):
        streams(_sizes(640, 480, 1280, 320), 2)


OFFERED = ["XRGB8888", "BGR888", "RGB888", "NV12", "YUV420"]


def test_the_formats_to_ask_for() -> None:
    main, lores = Stream("main", 640, 480), Stream("lores", 640, 480)
    assert wanted_format(main, OFFERED, "auto", only_yuv=False) == "BGR888"
    assert wanted_format(lores, OFFERED, "auto", only_yuv=True) == "YUV420"
    assert wanted_format(main._replace(for_people=True), OFFERED, "RGB888", only_yuv=False) == "YUV420"
    assert wanted_format(main, OFFERED, "RGB888", only_yuv=False) == "RGB888"
    assert wanted_format(main, ["NV12"], "auto", only_yuv=False) == "NV12"
    with pytest.raises(Failed, match=r'^pixel_format "RGB888"; expected auto or one of YUV420, NV12$'):
        wanted_format(lores, OFFERED, "RGB888", only_yuv=True)
    with pytest.raises(Failed, match=r'^pixel_format "jpg"; expected auto or one of BGR888, RGB888, XRGB8888, '):
        wanted_format(main, OFFERED, "jpg", only_yuv=False)


def test_the_stand_in_for_a_screen_has_whatever_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kms", picamera.headless("kms"))
    kms = importlib.import_module("kms")
    assert kms.PixelFormats.RGB888 == "RGB888"
    assert not hasattr(kms, "__path__")


def test_without_libcamera_there_is_a_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("kms", "pykms"):
        monkeypatch.setitem(sys.modules, name, None)  # put back afterwards
    monkeypatch.setitem(sys.modules, "picamera2", None)  # as if it were not installed
    with pytest.raises(Failed, match=r"^picamera2 can't be used by .*: the module picamera2 is missing; ") as failed:
        picamera.libraries()
    assert not failed.value.lost


def test_no_camera_and_no_permission_are_two_things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "check the cable" in str(picamera.no_camera(tmp_path))
    (tmp_path / "media0").touch()
    assert "check the cable" in str(picamera.no_camera(tmp_path))
    monkeypatch.setattr(picamera.os, "access", lambda path, how: False)  # root may open anything
    assert str(picamera.no_camera(tmp_path)) == (
        f"libcamera sees no camera, and {tmp_path}/media0 is closed to it; add its user to group video"
    )


@pytest.mark.parametrize(
    ("platform", "name", "size", "expected"),
    [
        ("VC4", "bcm2835-codec-encode\n", (1280, 720), True),
        ("VC4", "bcm2835-codec-encode\n", (2304, 1296), False),
        ("VC4", "Integrated Camera\n", (1280, 720), False),  # not a Raspberry Pi, and picamera2 says VC4
        ("VC4", None, (1280, 720), False),
        ("PISP", "bcm2835-codec-encode\n", (1280, 720), False),
    ],
)
def test_only_hardware_counts_as_an_encoder(
    tmp_path: Path, platform: str, name: str | None, size: tuple[int, int], *, expected: bool
) -> None:
    if name:
        (tmp_path / "name").write_text(name)
    picamera2 = SimpleNamespace(Platform=SimpleNamespace(VC4="VC4"), get_platform=lambda: platform)
    assert picamera.has_encoder(picamera2, *size, tmp_path / "name") == expected
