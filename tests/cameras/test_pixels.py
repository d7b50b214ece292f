from __future__ import annotations

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cameras.children.outlet import Plane
from edge.cameras.pixels import ToRgb, UnreadablePictureError, for_people, i420
from edge.vision.frame import PixelLayout, UInt8Array

WIDTH_PX, HEIGHT_PX = 64, 48
COLOURS = [(200, 30, 40), (30, 180, 60), (40, 60, 200), (128, 128, 128)]
"""Of quarters, each of which is one colour, so that halved chroma changes nothing."""


def picture() -> UInt8Array:
    rgb = np.empty((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    for number, colour in enumerate(COLOURS):
        rgb[:, number * 16 : number * 16 + 16] = colour
    return rgb


def packed(rgb: UInt8Array, name: str, *, matrix: str = "bt601", full_range: bool = False) -> UInt8Array:
    """Rows of a picture as FFmpeg makes them: (rows, bytes)."""
    frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    made = frame.reformat(
        format=name,
        src_colorspace=Colorspace.ITU601,
        dst_colorspace=Colorspace.ITU709 if matrix == "bt709" else Colorspace.ITU601,
        dst_color_range=ColorRange.JPEG if full_range else ColorRange.MPEG,
    ).to_ndarray()
    return made.reshape(made.shape[0], -1)


def strided(rows: UInt8Array, more_bytes: int) -> tuple[bytes, int]:
    """With so many bytes more in each row; and the stride."""
    wide = np.full((rows.shape[0], rows.shape[1] + more_bytes), 77, np.uint8)
    wide[:, : rows.shape[1]] = rows
    return wide.tobytes(), wide.shape[1]


def plane(content: bytes, name: str, stride_bytes: int, **more: object) -> Plane:
    return Plane(0, len(content), name, WIDTH_PX, HEIGHT_PX, stride_bytes, **more)  # type: ignore[arg-type]


def read(content: bytes, name: str, stride_bytes: int, **more: object) -> UInt8Array:
    return ToRgb()(memoryview(content), plane(content, name, stride_bytes, **more)).pixels


@pytest.mark.parametrize("more_bytes", [0, 12, 64])
@pytest.mark.parametrize("name", ["RGB", "BGR", "RGBX", "BGRX"])
def test_orders_of_red_green_and_blue(name: str, more_bytes: int) -> None:
    rgb = picture()
    order = {"RGB": [0, 1, 2], "BGR": [2, 1, 0], "RGBX": [0, 1, 2], "BGRX": [2, 1, 0]}[name]
    pixels = rgb[..., order]
    if name.endswith("X"):
        pixels = np.dstack([pixels, np.full((HEIGHT_PX, WIDTH_PX), 9, np.uint8)])
    content, stride_bytes = strided(pixels.reshape(HEIGHT_PX, -1), more_bytes)
    assert (read(content, name, stride_bytes) == rgb).all()


@pytest.mark.parametrize("more_bytes", [0, 12, 64])
@pytest.mark.parametrize(
    ("matrix", "full_range"), [("bt601", False), ("bt601", True), ("bt709", False), ("bt709", True)]
)
@pytest.mark.parametrize(
    ("name", "ffmpeg"),
    [("YUYV", "yuyv422"), ("UYVY", "yuyv422"), ("NV12", "nv12"), ("NV21", "nv12"), ("I420", "yuv420p")],
)
def test_colours_of_luma_and_chroma(name: str, ffmpeg: str, matrix: str, *, full_range: bool, more_bytes: int) -> None:
    rgb = picture()
    rows = packed(rgb, ffmpeg, matrix=matrix, full_range=full_range).copy()
    if name == "UYVY":  # PyAV gives no array of these two
        rows = rows.reshape(HEIGHT_PX, -1, 2)[..., ::-1].reshape(HEIGHT_PX, -1)
    if name == "NV21":
        rows[HEIGHT_PX:] = rows[HEIGHT_PX:].reshape(HEIGHT_PX // 2, -1, 2)[..., ::-1].reshape(HEIGHT_PX // 2, -1)
    if name == "I420":  # two rows of chroma share one here
        content, stride_bytes = planar(rows, more_bytes * 2)
    else:
        content, stride_bytes = strided(rows, more_bytes)
    found = read(content, name, stride_bytes, matrix=matrix, full_range=full_range)
    assert np.abs(found.astype(int) - rgb).max() <= 6  # FFmpeg rounds twice here, there and back
    if name in {"NV12", "NV21", "I420"}:
        laid = i420(np.frombuffer(content, np.uint8), plane(content, name, stride_bytes))
        expected = packed(rgb, "yuv420p", matrix=matrix, full_range=full_range)
        assert np.abs(laid.astype(int) - expected).max() <= 1


def planar(rows: UInt8Array, more_bytes: int) -> tuple[bytes, int]:
    """I420 with longer rows, its chroma's being half as long."""
    luma, stride_bytes = strided(rows[:HEIGHT_PX], more_bytes)
    chroma, _ = strided(rows[HEIGHT_PX:].reshape(HEIGHT_PX, WIDTH_PX // 2), more_bytes // 2)
    return luma + chroma, stride_bytes


def test_grey_is_grey() -> None:
    grey = np.arange(WIDTH_PX * HEIGHT_PX, dtype=np.uint16).astype(np.uint8).reshape(HEIGHT_PX, WIDTH_PX)
    content, stride_bytes = strided(grey, 6)
    assert (read(content, "GREY", stride_bytes) == grey[..., None]).all()


def test_a_jpegs_colours() -> None:
    rgb = picture()
    _, content = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])
    found = read(content.tobytes(), "JPEG", 0)
    assert np.abs(found[:, 4:12].astype(int) - rgb[:, 4:12]).max() <= 6


@pytest.mark.parametrize("name", ["RGB", "BGRX", "GREY", "YUYV", "NV12", "I420", "JPEG", "H264"])
@pytest.mark.parametrize("more", [{}, {"matrix": "bt709"}, {"full_range": True}])
def test_too_few_bytes_are_told_in_one_line(name: str, more: dict[str, object]) -> None:
    with pytest.raises(UnreadablePictureError) as raised:
        read(bytes(100), name, WIDTH_PX, **more)
    assert str(raised.value).startswith(f"no picture of {name} 64x48, 100 bytes, 64 a row: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("height_px", [46, 48, 50])
@pytest.mark.parametrize("name", ["nv12", "yuv420p"])
def test_of_whatever_even_height_all_rows_are_there_in_their_colours(name: str, height_px: int) -> None:
    rgb = np.vstack([picture(), picture()])[:height_px]
    content = packed(rgb, name, matrix="bt709").tobytes()
    kind = "NV12" if name == "nv12" else "I420"
    whole = Plane(0, len(content), kind, WIDTH_PX, height_px, WIDTH_PX, matrix="bt709")
    found = ToRgb()(memoryview(content), whole).pixels
    assert found.shape == rgb.shape
    assert np.abs(found.astype(int) - rgb).max() <= 6


@pytest.mark.parametrize("name", ["RGB", "BGRX", "GREY", "YUYV", "NV12", "I420"])
@pytest.mark.parametrize("full_range", [False, True])
def test_rows_that_lie_over_each_other_are_no_picture(name: str, *, full_range: bool) -> None:
    with pytest.raises(UnreadablePictureError, match="its rows overlap"):
        read(bytes(100_000), name, 0, full_range=full_range)


@settings(max_examples=50)
@given(
    content=st.binary(max_size=20_000),
    name=st.sampled_from(["RGB", "BGR", "RGBX", "BGRX", "GREY", "YUYV", "UYVY", "NV12", "NV21", "I420", "JPEG"]),
    stride_bytes=st.integers(0, 300),
    full_range=st.booleans(),
    matrix=st.sampled_from(["bt601", "bt709"]),
)
def test_whatever_a_driver_hands_over_is_a_picture_or_told(
    content: bytes, name: str, stride_bytes: int, *, full_range: bool, matrix: str
) -> None:
    try:
        found = read(content, name, stride_bytes, full_range=full_range, matrix=matrix)
    except UnreadablePictureError:
        return
    assert found.dtype == np.uint8
    assert found.ndim == 3


def test_what_people_see_is_the_cameras_own_planes_where_an_encoder_can_take_them() -> None:
    to_rgb = ToRgb()
    rows = packed(picture(), "nv12")
    content, stride_bytes = strided(rows, 32)
    shown = for_people(memoryview(content), plane(content, "NV12", stride_bytes), to_rgb)
    assert shown.layout is PixelLayout.I420
    assert (shown.pixels[:HEIGHT_PX] == rows[:HEIGHT_PX]).all()
    as_rgb = for_people(memoryview(content), plane(content, "NV12", stride_bytes, full_range=True), to_rgb)
    assert as_rgb.layout is PixelLayout.RGB


def test_a_picture_keeps_nothing_of_the_drivers_memory() -> None:
    content = bytearray(picture().tobytes())
    found = ToRgb()(memoryview(content), plane(content, "RGB", WIDTH_PX * 3))
    before = found.pixels.copy()
    content[:] = bytes(len(content))
    assert (found.pixels == before).all()
