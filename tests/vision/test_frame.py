from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.vision.frame import EncodedFrame, Picture, PixelLayout, VideoCodec, VideoPacket, from_keyframe
from tests.conftest import frame

SIDES = st.integers(1, 60).map(lambda half: 2 * half)


@given(SIDES, SIDES)
@settings(deadline=None, max_examples=30)
def test_a_picture_knows_its_size_in_every_layout(width_px: int, height_px: int) -> None:
    rgb = Picture(np.zeros((height_px, width_px, 3), np.uint8), PixelLayout.RGB)
    i420 = Picture(np.zeros((height_px * 3 // 2, width_px), np.uint8), PixelLayout.I420)

    assert (rgb.width_px, rgb.height_px) == (width_px, height_px)
    assert (i420.width_px, i420.height_px) == (width_px, height_px)


def test_nobody_can_change_the_pixels_of_a_picture_that_travels() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    Picture(pixels, PixelLayout.RGB)

    with pytest.raises(ValueError, match="read-only"):
        pixels[0, 0, 0] = 1


@pytest.mark.parametrize(
    ("pixels", "layout", "message"),
    [
        (np.zeros((4, 6, 3), np.float32), PixelLayout.RGB, r"expected C-contiguous uint8, got float32"),
        (
            np.zeros((4, 6, 3), np.uint8)[:, ::2],
            PixelLayout.RGB,
            r"expected C-contiguous uint8, got uint8 with strides",
        ),
        (np.zeros((4, 6, 4), np.uint8), PixelLayout.RGB, r"expected shape \(height, width, 3\), got \(4, 6, 4\)"),
        (np.zeros((4, 6), np.uint8), PixelLayout.RGB, r"expected shape \(height, width, 3\), got \(4, 6\)"),
        (np.zeros((6, 5), np.uint8), PixelLayout.I420, r"both sides even, got \(6, 5\)"),
        (np.zeros((5, 6), np.uint8), PixelLayout.I420, r"both sides even, got \(5, 6\)"),
        (np.zeros((4, 6, 3), np.uint8), PixelLayout.I420, r"both sides even, got \(4, 6, 3\)"),
    ],
)
def test_a_picture_says_what_it_expected_and_what_it_got(pixels: np.ndarray, layout: PixelLayout, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Picture(pixels, layout)


def test_people_are_shown_the_cameras_own_picture_where_it_gives_one() -> None:
    plain = frame()
    i420 = Picture(np.zeros((72, 64), np.uint8), PixelLayout.I420)

    assert plain.for_people is plain.rgb
    assert replace(plain, video=i420).for_people is i420


def test_the_estimator_is_never_given_anything_but_rgb() -> None:
    i420 = Picture(np.zeros((72, 64), np.uint8), PixelLayout.I420)

    with pytest.raises(ValueError, match="expected layout rgb, got i420"):
        replace(frame(), rgb=i420)


def test_a_frame_weighs_what_its_pictures_and_packets_take() -> None:
    alone = frame(width_px=64, height_px=48)
    planes = Picture(np.zeros((72, 64), np.uint8), PixelLayout.I420)
    packet = VideoPacket(0, 0, VideoCodec.H264, True, b"12345")

    assert alone.nbytes == 64 * 48 * 3
    assert replace(alone, video=planes, packets=(packet, packet)).nbytes == 64 * 48 * 3 + 64 * 72 + 10


def test_what_a_camera_has_encoded_weighs_what_it_takes_and_never_nothing() -> None:
    packet = VideoPacket(0, 0, VideoCodec.H264, True, bytes(5000))

    assert 10_000 < EncodedFrame("front", 0, (packet, packet)).nbytes < 11_000
    assert EncodedFrame("front", 0, ()).nbytes > 0


def test_what_is_decoded_begins_with_the_first_keyframe() -> None:
    packets = tuple(VideoPacket(seq, 0, VideoCodec.H264, seq in (2, 4), b"") for seq in range(6))

    assert [packet.seq for packet in from_keyframe(packets)] == [2, 3, 4, 5]
    assert from_keyframe(packets[:2]) == from_keyframe(()) == ()


def test_a_frame_is_shown_unless_an_earlier_one_is() -> None:
    seen = frame(seq=7)

    assert seen.is_shown
    assert replace(seen, shown_seq=7).is_shown
    assert not replace(seen, shown_seq=6).is_shown
