from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cameras.children.gstreamer import EVEN, PACKED, Layout, layout, packages, reason_of, unfit, wanted_caps
from edge.cameras.pixels import i420

ALL = [*PACKED, *EVEN, "JPEG"]


def applied(how: Layout, content: bytes) -> memoryview:
    slot = bytearray(how.plane.nbytes)
    for source, target, nbytes in how.copies:
        slot[target : target + nbytes] = content[source : source + nbytes]
    return memoryview(slot)


@given(
    name=st.sampled_from(["I420", "NV12", "NV21"]),
    half_width=st.integers(1, 40),
    half_height=st.integers(1, 20),
    padding=st.lists(st.integers(0, 9), min_size=3, max_size=3),
    gaps=st.lists(st.integers(0, 50), min_size=3, max_size=3),
)
def test_planes_are_found_wherever_they_lie(
    name: str, half_width: int, half_height: int, padding: list[int], gaps: list[int]
) -> None:
    width, height = half_width * 2, half_height * 2
    widths = [width, half_width, half_width] if name == "I420" else [width, width]
    rows = [height, half_height, half_height] if name == "I420" else [height, half_height]
    random = np.random.default_rng(width * height)
    content, strides, offsets, planes = b"", [], [], []
    for wide, high, pad, gap in zip(widths, rows, padding, gaps, strict=False):
        content += bytes([0xEE]) * gap
        offsets.append(len(content))
        strides.append(wide + pad)
        planes.append(random.integers(0, 255, (high, wide), np.uint8))
        padded = np.full((high, wide + pad), 0xEE, np.uint8)
        padded[:, :wide] = planes[-1]
        content += padded.tobytes()

    how = layout(name, width, height, strides, offsets)
    got = i420(np.frombuffer(applied(how, content), np.uint8), how.plane)

    assert (got[:height] == planes[0]).all()
    chroma = planes[1:] if name == "I420" else [planes[1][:, ::2], planes[1][:, 1::2]]
    u, v = got[height:].reshape(2, half_height, half_width)
    assert (u == chroma[0 if name != "NV21" else 1]).all()
    assert (v == chroma[1 if name != "NV21" else 0]).all()


def test_what_lies_as_it_should_is_copied_a_plane_at_once() -> None:
    assert len(layout("NV12", 1280, 720, [1280, 1280], [0, 1280 * 720]).copies) == 2
    assert len(layout("I420", 640, 480, [640, 320, 320], [0, 640 * 480, 640 * 600]).copies) == 3


@pytest.mark.parametrize(("name", "planes"), [("BGRX", 1), ("RGB", 1), ("GREY", 1), ("NV12", 2), ("I420", 3)])
def test_however_long_its_rows_are_a_picture_fits_into_a_slot(name: str, planes: int) -> None:
    strides = [512, 512, 512] if name != "I420" else [512, 256, 256]
    how = layout(name, 100, 100, strides[:planes], [0, 51_200, 76_800][:planes])

    assert max(copy.target + copy.nbytes for copy in how.copies) <= how.plane.nbytes <= 100 * 100 * 4


@pytest.mark.parametrize(("name", "depth"), [("RGB", 3), ("UYVY", 2), ("GREY", 1)])
def test_a_packed_picture_keeps_its_stride(name: str, depth: int) -> None:
    stride = 50 * depth + 2
    how = layout(name, 50, 4, [stride], [7])
    content = bytes(7) + bytes(range(256)) * 4

    assert how.plane.stride_bytes == stride
    assert bytes(applied(how, content))[: stride * 3 + 50 * depth] == content[7 : 7 + stride * 3 + 50 * depth]


def test_size_and_rate_are_wished_for_and_nothing_is_refused() -> None:
    wishes = wanted_caps(ALL, 640, 480, 30.0, ()).split(";")
    assert wishes[0].startswith("video/x-raw,format={RGB,")
    assert all(wish.endswith(",width=640,height=480,framerate=30/1") for wish in wishes[:3])
    assert [wish.split(",format")[0] for wish in wishes[-3:]] == ["video/x-raw", "video/x-raw", "image/jpeg"]
    assert wishes[-1] == "image/jpeg"


def test_what_the_pipeline_fixes_is_not_wished_for() -> None:
    assert "width=640" not in wanted_caps(ALL, 640, 480, 30.0, {"width"})
    assert "framerate" not in wanted_caps(ALL, 640, 480, 30.0, {"framerate"})
    assert wanted_caps(["BGRx"], 640, 480, 30.0, {"width", "framerate"}) == "video/x-raw,format={BGRx}"


def test_halved_chroma_is_taken_with_even_sides_only() -> None:
    caps = wanted_caps(["NV12"], 640, 480, 30.0, {"width", "framerate"})
    assert caps == "video/x-raw,format={NV12},width=[2,32768,2],height=[2,32768,2]"


@pytest.mark.parametrize(
    ("fps", "fraction"), [(30.0, "30/1"), (29.97, "2997/100"), (0.5, "1/2"), (7.5, "15/2"), (0.1, "1/10")]
)
def test_a_rate_is_a_fraction(fps: float, fraction: str) -> None:
    assert f"framerate={fraction};" in wanted_caps(ALL, 640, 480, fps, ())


@pytest.mark.parametrize(
    ("element", "package"),
    [
        ("nvarguscamerasrc", "NVIDIA's JetPack (nvidia-l4t-gstreamer)"),
        ("nvvidconv", "NVIDIA's JetPack (nvidia-l4t-gstreamer)"),
        ("avdec_h264", "gstreamer1.0-libav"),
        ("x264enc", "gstreamer1.0-plugins-ugly"),
        ("videoconvert", "gstreamer1.0-plugins-base"),
        ("v4l2src", "gstreamer1.0-plugins-good"),
        ("rtspsrc", "gstreamer1.0-plugins-good"),
        ("h264parse", "gstreamer1.0-plugins-bad"),
        ("shmsrc", "gstreamer1.0-plugins-bad"),
        ("libcamerasrc", "gstreamer1.0-libcamera"),
        ("mycamsrc", "one of gstreamer1.0-plugins-base, -good, -bad, -ugly and gstreamer1.0-libav"),
    ],
)
def test_what_is_missing_has_a_package(element: str, package: str) -> None:
    assert packages(element) == package


@pytest.mark.parametrize(
    ("text", "debug", "line"),
    [
        (
            "Unauthorized",
            "../gst/rtsp/gstrtspsrc.c(6795): f (): /GstPipeline:p/GstRTSPSrc:s:\nUnauthorized (401)",
            "Unauthorized (401)",
        ),
        (
            "Internal data stream error.",
            "../gstbasesrc.c(3132): gst_base_src_loop (): /GstPipeline:p/x:\nstreaming stopped, reason not-linked (-1)",
            "Internal data stream error (not-linked)",
        ),
        (
            "Cannot identify device '/dev/video9'.",
            "../v4l2.c(608): open (): /x:\nsystem error: No such file",
            "Cannot identify device '/dev/video9' (system error: No such file)",
        ),
        ("Nothing\nmore", "", "Nothing more"),
        ("Nothing", "../file.c(3): function (): /x:", "Nothing"),
    ],
)
def test_a_fault_is_one_line(text: str, debug: str, line: str) -> None:
    assert reason_of(text, debug) == line


@given(text=st.text(), debug=st.text())
def test_whatever_an_element_says_is_one_line(text: str, debug: str) -> None:
    assert "\n" not in reason_of(text, debug)


@pytest.mark.parametrize(
    ("ending", "line"),
    [
        (
            "video/x-raw(memory:NVMM)",
            (
                "the pipeline ends in video/x-raw(memory:NVMM); append nvvidconv ! video/x-raw,format=BGRx, or what "
                "else brings it into main memory"
            ),
        ),
        ("video/x-h264", "the pipeline ends in video/x-h264; append its decoder, or decodebin"),
        ("", "the pipeline ends in no picture; leave out the sink at its end"),
    ],
)
def test_an_end_that_does_not_fit_is_told_with_a_way_out(ending: str, line: str) -> None:
    assert str(unfit(ending)) == line
    assert not unfit(ending).lost
