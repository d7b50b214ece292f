"""What a V4L2 camera is asked for. With real devices: tests/system/test_cameras_v4l2.py."""

from __future__ import annotations

import ast
import ctypes
import errno
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cameras import children
from edge.cameras.children import v4l2
from edge.cameras.children import v4l2_kernel as kernel
from edge.cameras.children.outlet import Failed
from edge.cameras.children.v4l2 import FORMATS, Found, Mode, choose, control_key, control_value, fastest, same_camera

WEBCAM = [
    *(Mode("YUYV", *size, fps) for size, fps in [((640, 480), 30.0), ((1280, 720), 10.0), ((1920, 1080), 5.0)]),
    *(Mode("MJPG", *size, fps) for size, fps in [((640, 480), 60.0), ((1280, 720), 30.0), ((1920, 1080), 30.0)]),
    Mode("YUYV", 640, 480, 15.0),
    Mode("H264", 1920, 1080, 60.0),
]

modes = st.builds(
    Mode,
    st.sampled_from([*FORMATS, "H264", "PJPG"]),
    st.integers(1, 2000).map(lambda half: 2 * half),
    st.integers(1, 2000).map(lambda half: 2 * half),
    st.one_of(st.none(), st.floats(0.5, 240)),
)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        ((640, 480, 30.0), Mode("YUYV", 640, 480, 30.0)),  # no decoding where the rate is reached without
        ((640, 480, 12.0), Mode("YUYV", 640, 480, 15.0)),  # no faster than need be
        ((640, 480, 60.0), Mode("MJPG", 640, 480, 60.0)),
        ((1280, 720, 30.0), Mode("MJPG", 1280, 720, 30.0)),
        ((1280, 720, 10.0), Mode("YUYV", 1280, 720, 10.0)),
        ((1920, 1080, 60.0), Mode("MJPG", 1920, 1080, 30.0)),  # the size comes first
        ((1300, 720, 30.0), Mode("MJPG", 1280, 720, 30.0)),
    ],
)
def test_a_webcams_modes(wanted: tuple[int, int, float], chosen: Mode) -> None:
    assert choose(WEBCAM, *wanted) == chosen


def test_2997_frames_a_second_are_30() -> None:
    modes = [Mode("YUYV", 640, 480, 29.97), Mode("MJPG", 640, 480, 30.0)]
    assert choose(modes, 640, 480, 30.0).format == "YUYV"


def test_a_format_that_is_asked_for_is_taken_or_refused() -> None:
    assert choose(WEBCAM, 640, 480, 30.0, "MJPG") == Mode("MJPG", 640, 480, 60.0)
    with pytest.raises(Failed, match="it has no pixel format NV12: YUYV, MJPG; see pixel_format") as raised:
        choose(WEBCAM, 640, 480, 30.0, "NV12")
    assert not raised.value.lost
    with pytest.raises(Failed, match="it has no pixel format that is known here: H264"):
        choose([Mode("H264", 640, 480, 30.0)], 640, 480, 30.0)


@given(st.lists(modes, min_size=1), st.integers(1, 2000), st.integers(1, 2000), st.floats(0.5, 240))
def test_whatever_a_camera_offers_one_is_chosen_that_can_be_read(
    offered: list[Mode], half_width: int, half_height: int, fps: float
) -> None:
    known = [mode for mode in offered if mode.format in FORMATS]
    if not known:
        with pytest.raises(Failed):
            choose(offered, 2 * half_width, 2 * half_height, fps)
        return
    chosen = choose(offered, 2 * half_width, 2 * half_height, fps)
    assert chosen in known
    exact = [mode for mode in known if mode[1:3] == (2 * half_width, 2 * half_height)]
    assert not exact or chosen in exact
    reach = [mode for mode in exact if mode.fps is None or mode.fps >= fps]
    assert not reach or chosen.fps is None or chosen.fps >= 0.95 * fps


@given(st.integers(-10, 5000), st.integers(1, 2000), st.integers(0, 3000), st.integers(0, 64))
def test_the_nearest_of_a_range_is_in_it(wanted: int, least: int, more: int, step: int) -> None:
    found = v4l2.within(wanted, least, least + more, step)
    assert least <= found <= least + more
    if least <= wanted <= least + more and step > 0:
        assert abs(found - wanted) <= step


def test_of_each_format_and_size_the_fastest_is_listed() -> None:
    assert fastest(WEBCAM)[:2] == [Mode("YUYV", 640, 480, 30.0), Mode("YUYV", 1280, 720, 10.0)]
    assert {mode.format for mode in fastest(WEBCAM)} == {"YUYV", "MJPG"}


class TestIdentity:
    FRONT = Found("/dev/video0", "C920", "usb-C920_1;uvcvideo;C920;usb-1.1")
    BACK = Found("/dev/video2", "C920", "usb-C920_2;uvcvideo;C920;usb-1.2")
    CHEAP = Found("/dev/video4", "Cheap", ";uvcvideo;Cheap;usb-1.3")

    def test_a_camera_is_found_by_its_serial_number_in_another_socket(self) -> None:
        moved = self.FRONT._replace(path="/dev/video6", identity="usb-C920_1;uvcvideo;C920;usb-2.4")
        assert same_camera([self.BACK, moved], self.FRONT.identity) is moved

    def test_one_without_a_serial_number_by_its_socket(self) -> None:
        other = self.CHEAP._replace(path="/dev/video0", identity=";uvcvideo;Cheap;usb-2.1")
        again = self.CHEAP._replace(path="/dev/video7")
        assert same_camera([other, again], self.CHEAP.identity) is again

    def test_the_only_one_of_its_kind_in_whatever_socket(self) -> None:
        moved = self.CHEAP._replace(identity=";uvcvideo;Cheap;usb-2.1")
        assert same_camera([self.FRONT, moved], self.CHEAP.identity) is moved

    def test_of_two_without_a_serial_number_each_stays_itself_whichever_udev_has_named(self) -> None:
        one = Found("/dev/video0", "Cheap", "usb-Cheap;uvcvideo;Cheap;usb-1.1")
        two = Found("/dev/video2", "Cheap", ";uvcvideo;Cheap;usb-1.2")
        then = [one._replace(identity=f";{one.identity[10:]}"), two._replace(identity=f"usb-Cheap{two.identity}")]
        for there in ([one, two], then):
            assert same_camera(there, one.identity) is there[0]
            assert same_camera(there, two.identity) is there[1]

    def test_but_not_one_with_another_serial_number(self) -> None:
        other = self.FRONT._replace(path="/dev/video6", identity="usb-C920_7;uvcvideo;C920;usb-2.4")
        assert same_camera([other], self.FRONT.identity) is None

    def test_but_not_one_of_two(self) -> None:
        two = [self.CHEAP._replace(identity=f";uvcvideo;Cheap;usb-2.{number}") for number in (1, 2)]
        assert same_camera(two, self.CHEAP.identity) is None

    def test_another_kind_is_another_camera(self) -> None:
        assert same_camera([self.CHEAP], self.FRONT.identity) is None


class TestControls:
    BRIGHTNESS = kernel.QueryCtrl(type=kernel.CTRL_TYPE_INTEGER, minimum=-64, maximum=64)
    EXPOSURE: ClassVar = {1: "Manual Mode", 3: "Aperture Priority Mode"}

    @pytest.mark.parametrize(("value", "number"), [(5, 5), (-64, -64), (12.0, 12), (True, 1)])
    def test_numbers_in_range_are_taken(self, value: object, number: int) -> None:
        assert control_value(self.BRIGHTNESS, "brightness", value, {}) == number

    @pytest.mark.parametrize("value", [65, -65, 1.5, "bright", [1], float("inf"), float("nan")])
    def test_others_are_one_line_with_the_range(self, value: object) -> None:
        with pytest.raises(Failed, match=r"control brightness = .*: expected a whole number from -64 to 64") as raised:
            control_value(self.BRIGHTNESS, "brightness", value, {})
        assert not raised.value.lost

    def test_a_button_is_pressed_by_true(self) -> None:
        button = kernel.QueryCtrl(type=kernel.CTRL_TYPE_BUTTON)
        assert control_value(button, "focus_once", True, {}) == 0
        with pytest.raises(Failed):
            control_value(button, "focus_once", 5, {})

    def test_choices_go_by_number_and_by_name(self) -> None:
        query = kernel.QueryCtrl(type=kernel.CTRL_TYPE_MENU, minimum=0, maximum=3)
        assert control_value(query, "auto_exposure", 1, self.EXPOSURE) == 1
        assert control_value(query, "auto_exposure", "aperture priority mode", self.EXPOSURE) == 3
        expected = r"control auto_exposure = 2: expected one of 1 \(Manual Mode\), 3 \(Aperture Priority Mode\)"
        with pytest.raises(Failed, match=expected):
            control_value(query, "auto_exposure", 2, self.EXPOSURE)

    @pytest.mark.parametrize(
        ("said", "key"),
        [
            ("Brightness", "brightness"),
            ("White Balance, Automatic", "white_balance_automatic"),
            ("Exposure Time, Absolute", "exposure_time_absolute"),
            ("Pan (Absolute)", "pan_absolute"),
        ],
    )
    def test_names_are_those_of_the_kernels_own_tool(self, said: str, key: str) -> None:
        assert control_key(said) == key


@pytest.mark.parametrize(
    ("pix", "full_range", "matrix"),
    [
        ({}, False, "bt601"),
        ({"colorspace": kernel.COLORSPACE_REC709}, False, "bt709"),
        ({"colorspace": kernel.COLORSPACE_JPEG}, True, "bt601"),
        ({"ycbcr_enc": kernel.YCBCR_ENC_709, "quantization": kernel.QUANTIZATION_FULL_RANGE}, True, "bt709"),
        ({"colorspace": kernel.COLORSPACE_JPEG, "quantization": 2}, False, "bt601"),
    ],
)
def test_colours_are_what_the_driver_says_of_them(pix: dict[str, int], *, full_range: bool, matrix: str) -> None:
    size = {"width": 640, "height": 480, "bytesperline": 1408, "sizeimage": 675_840}
    plane = v4l2._plane(kernel.PixFormat(pixelformat=kernel.code_of("YUYV"), **size, **pix))
    assert (plane.full_range, plane.matrix) == (full_range, matrix)
    assert (plane.format, plane.stride_bytes, plane.nbytes) == ("YUYV", 1408, 675_840)


@pytest.mark.parametrize(
    ("number", "told", "lost"),
    [
        (errno.ENOENT, "no such device; is it plugged in?", True),
        (errno.ENODEV, "no such device; is it plugged in?", True),
        (errno.EACCES, "no permission to open /dev/video0; add the user to the group ", True),
        (errno.EBUSY, "another program uses it; ", True),
        (errno.EIO, "/dev/video0: Input/output error", True),
    ],
)
def test_why_a_device_can_not_be_opened(number: int, told: str, *, lost: bool) -> None:
    failed = v4l2._unopened("/dev/video0", OSError(number, "no"))
    assert str(failed).startswith(told)
    assert failed.lost is lost


SIZES = {
    "Capability": 104,
    "FmtDesc": 64,
    "FrmSizeEnum": 44,
    "FrmIvalEnum": 52,
    "Format": 208,
    "StreamParm": 204,
    "RequestBuffers": 20,
    "Buffer": 88,
    "QueryCtrl": 68,
    "QueryMenu": 44,
    "Control": 8,
}
"""Of linux/videodev2.h's structures on 64-bit systems."""
CALLS = (
    *("QUERYCAP", "ENUM_FMT", "S_FMT", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON", "STREAMOFF", "S_PARM"),
    *("S_CTRL", "QUERYCTRL", "QUERYMENU", "ENUM_FRAMESIZES", "ENUM_FRAMEINTERVALS"),
)


def test_structures_are_as_large_as_the_kernels() -> None:
    assert {name: ctypes.sizeof(getattr(kernel, name)) for name in SIZES} == SIZES


def test_calls_are_those_of_the_kernels_header_where_a_compiler_is_here(tmp_path: Path) -> None:
    header = Path("/usr/include/linux/videodev2.h")
    if not header.exists() or shutil.which("gcc") is None:
        assert kernel.QUERYCAP == 0x80685600  # the rest follows from the sizes
        return
    lines = "".join(f'printf("%lu ", (unsigned long)VIDIOC_{name});' for name in CALLS)
    (source := tmp_path / "calls.c").write_text(
        f"#include <stdio.h>\n#include <linux/videodev2.h>\nint main(){{{lines}return 0;}}\n"
    )
    subprocess.run(["gcc", str(source), "-o", str(tmp_path / "calls")], check=True, capture_output=True)
    told = subprocess.run([tmp_path / "calls"], check=True, capture_output=True, text=True).stdout.split()
    assert [int(code) for code in told] == [getattr(kernel, name) for name in CALLS]


@pytest.mark.parametrize("program", sorted(Path(children.__file__).parent.glob("*.py")), ids=lambda path: path.name)
def test_children_are_programs_for_python_3_8(program: Path) -> None:
    tree = ast.parse(program.read_text(), feature_version=(3, 8))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
    }
    assert "edge" not in imported, "the system's Python has none of ours"
