"""What libcamera calls its formats, and bytes of each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cameras.children.libcamera_formats import FORMATS, YUV, cheapest, copied, depth_bits, meaning
from edge.cameras.children.outlet import Failed, Plane
from edge.cameras.pixels import ToRgb
from edge.vision.frame import UInt8Array

RED, GREEN, BLUE, WHITE = (235, 18, 12), (20, 240, 25), (15, 10, 230), (250, 250, 250)
QUARTERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8).repeat(8, axis=0).repeat(8, axis=1)
"""16 by 16 pixels: a colour in each quarter."""


def _packed_of(name: str) -> list[int]:
    """The order of a format's components in memory, by DRM's rule: the name begins with the highest bits, and the
    lowest byte comes first. 3 is the one that means nothing."""
    letters = "".join(itertools.takewhile(str.isalpha, name))
    return ["RGBXA".index(letter) if letter != "A" else 3 for letter in reversed(letters)]


def _yuv(rgb: UInt8Array, *, full_range: bool) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
    """Y, U, V of each pixel, by BT.601 (ITU-R BT.601-7, 2.5)."""
    red, green, blue = np.moveaxis(rgb.astype(float) / 255, -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    u, v = (blue - luma) / 1.772, (red - luma) / 1.402
    scaled = (
        (255 * luma, 255 * u + 128, 255 * v + 128) if full_range else (219 * luma + 16, 224 * u + 128, 224 * v + 128)
    )
    luma8, u8, v8 = (np.round(plane).clip(0, 255).astype(np.uint8) for plane in scaled)
    return luma8, u8, v8


def _rows(rows: UInt8Array, stride: int) -> bytes:
    """Rows of bytes, each padded with noise to its stride."""
    padded = np.full((len(rows), stride), 0xA5, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return padded.tobytes()


def drawn(name: str, rgb: UInt8Array, padding: int, *, full_range: bool = False) -> tuple[bytes, int]:
    """The picture as a camera would give it: its bytes, and their stride."""
    height, width = rgb.shape[:2]
    if name == "R8":
        return _rows(rgb[..., 1], width + padding), width + padding
    if name.endswith("161616"):
        components = rgb[..., _packed_of(name)].reshape(height, -1).astype("<u2") * 257
        return _rows(components.view(np.uint8), width * 6 + padding), width * 6 + padding
    if name not in YUV:
        components = np.dstack([rgb, np.full((height, width), 0x77, np.uint8)])[..., _packed_of(name)]
        rows = components.reshape(height, -1)
        return _rows(rows, rows.shape[1] + padding), rows.shape[1] + padding
    luma, u, v = _yuv(rgb, full_range=full_range)
    if len(name) == 4 and name[:2] != "NV":  # packed, two pixels in four bytes
        chroma = {"U": u[:, ::2], "V": v[:, ::2]}
        lumas = iter((luma[:, ::2], luma[:, 1::2]))
        rows = np.stack([next(lumas) if letter == "Y" else chroma[letter] for letter in name], axis=-1)
        return _rows(rows.reshape(height, -1), width * 2 + padding), width * 2 + padding
    stride = width + padding
    first, second = (u, v) if name in ("YUV420", "NV12") else (v, u)
    first, second = first[::2, ::2], second[::2, ::2]
    if name[:2] == "NV":
        return _rows(luma, stride) + _rows(np.dstack([first, second]).reshape(height // 2, -1), stride), stride
    return _rows(luma, stride) + _rows(first, stride // 2) + _rows(second, stride // 2), stride


@pytest.mark.parametrize("padding", [0, 32])
@pytest.mark.parametrize("name", [name for name in FORMATS if name not in ("MJPEG", "R8")])
def test_each_format_has_its_colours(name: str, padding: int) -> None:
    for full_range in (False, True):
        content, stride = drawn(name, QUARTERS, padding, full_range=full_range)
        memory = memoryview(bytearray(len(content)))
        nbytes, kept_stride = copied(memoryview(content), memory, name, stride, len(QUARTERS))
        plane = Plane(0, nbytes, FORMATS[name].format, 16, 16, kept_stride, full_range=full_range, matrix="bt601")
        rgb = ToRgb()(memory, plane).pixels.astype(int)
        inner = np.s_[1:-1, 2:6]  # where no chroma is shared with another colour
        assert np.abs(rgb - QUARTERS)[inner].max() <= 6


def test_grey_is_grey() -> None:
    content, stride = drawn("R8", QUARTERS, 16)
    memory = memoryview(bytearray(len(content)))
    nbytes, kept_stride = copied(memoryview(content), memory, "R8", stride, 16)
    rgb = ToRgb()(memory, Plane(0, nbytes, FORMATS["R8"].format, 16, 16, kept_stride)).pixels
    assert (rgb == QUARTERS[..., 1:2]).all()


def test_a_jpeg_is_as_long_as_it_is() -> None:
    memory = memoryview(bytearray(100))
    assert copied(memoryview(b"\xff\xd8 a picture \xff\xd9"), memory, "MJPEG", 0, 16) == (15, 0)
    assert bytes(memory[:15]) == b"\xff\xd8 a picture \xff\xd9"


@given(
    name=st.sampled_from([name for name in FORMATS if name != "MJPEG"]),
    pairs=st.tuples(st.integers(1, 12), st.integers(1, 8)),
    padding=st.integers(0, 5),
)
def test_no_copy_writes_behind_its_own_bytes(name: str, pairs: tuple[int, int], padding: int) -> None:
    content, stride = drawn(name, np.zeros((pairs[1] * 2, pairs[0] * 2, 3), np.uint8), padding * 4)
    memory = memoryview(bytearray(b"\xee" * (len(content) + 8)))
    nbytes, kept_stride = copied(memoryview(content), memory, name, stride, pairs[1] * 2)
    assert nbytes == len(content) * kept_stride // stride
    assert set(memory[nbytes:]) == {0xEE}


def test_the_cheapest_is_what_needs_no_arithmetic() -> None:
    assert cheapest(["NV12", "XRGB8888", "BGR888", "YUV420"]) == "BGR888"
    assert cheapest(["MJPEG", "YUYV"]) == "YUYV"
    with pytest.raises(Failed, match=r"^it gives pictures as SRGGB10_CSI2P only; known are BGR888, .*R8$") as failed:
        cheapest(["SRGGB10_CSI2P"])
    assert not failed.value.lost


def test_what_y_u_and_v_mean() -> None:
    assert meaning("Rec601", "Full") == (True, "bt601")
    assert meaning("Rec709", "Limited") == (False, "bt709")
    assert meaning("", "") == (False, "bt601")


@pytest.mark.parametrize(
    ("name", "bits"),
    [("SRGGB10_CSI2P", 10), ("SBGGR12", 12), ("BGGR_PISP_COMP1", 16), ("R8_CSI2P", 8), ("MONO_PISP_COMP1", 16)],
)
def test_bits_of_a_sensor_s_format(name: str, bits: int) -> None:
    assert depth_bits(name) == bits
