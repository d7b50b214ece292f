"""Pixels of turned and cropped pictures, against numpy; and that nobody gets others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.app import frame_source
from edge.cameras.oriented import Oriented, shown
from edge.config import CameraConfig
from edge.errors import CameraLost
from edge.interfaces import EndOfStream
from edge.vision.frame import Frame, Picture, PixelLayout, VideoCodec, VideoPacket
from edge.vision.geometry import WHOLE, Part, Turn, View
from tests.conftest import CLIP, frame
from tests.vision.test_geometry import TURNS, cut, numbered, parts, turned

EVEN = st.integers(1, 30).map(lambda half: 2 * half)
VIEWS = st.builds(View, st.sampled_from(TURNS), parts())


def coloured(width_px: int, height_px: int) -> np.ndarray:
    """No two pixels of it are alike, nor two neighbours' channels."""
    numbers = numbered(width_px, height_px)
    return np.stack([numbers % 251, numbers // 251 % 251, (7 * numbers + 3) % 256], axis=-1).astype(np.uint8)


def planes(pixels: np.ndarray, height_px: int) -> list[np.ndarray]:
    """Y, U and V, cut out of the bytes of I420 as its definition has them."""
    data, width_px = pixels.tobytes(), pixels.shape[1]
    luma, chroma = width_px * height_px, width_px * height_px // 4
    halves = (height_px // 2, width_px // 2)
    parts = data[:luma], data[luma : luma + chroma], data[luma + chroma :]
    return [
        np.frombuffer(part, np.uint8).reshape(shape)
        for part, shape in zip(parts, ((height_px, width_px), halves, halves), strict=True)
    ]


@given(VIEWS, st.integers(1, 50), st.integers(1, 50))
@settings(deadline=None)
def test_rgb_is_what_numpy_makes_of_it(view: View, width_px: int, height_px: int) -> None:
    pixels = coloured(width_px, height_px)
    found = shown(Picture(pixels, PixelLayout.RGB), view)
    expected = cut(turned(pixels, view.turn), view.crop.window(*view.turn.size(width_px, height_px)))

    assert found.layout is PixelLayout.RGB
    assert np.array_equal(found.pixels, expected)


@given(VIEWS, EVEN, EVEN)
@settings(deadline=None)
def test_each_plane_of_i420_is_what_numpy_makes_of_it(view: View, width_px: int, height_px: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height_px * 3 // 2, width_px), np.uint8)
    found = shown(Picture(pixels, PixelLayout.I420), view)
    window = view.crop.window(*view.turn.size(width_px, height_px))

    assert (found.width_px, found.height_px) == (window.width_px, window.height_px)
    assert not found.width_px % 2
    assert not found.height_px % 2
    for number, (before, after) in enumerate(
        zip(planes(pixels, height_px), planes(found.pixels, found.height_px), strict=True)
    ):
        whole = turned(before, view.turn)
        step = 2 if number else 1
        left, top, right, bottom = (side // step for side in (window.left, window.top, window.right, window.bottom))
        assert np.array_equal(after, whole[top:bottom, left:right])


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("crop", [WHOLE, Part(0.1, 0.2, 0.5, 0.7)])
def test_both_layouts_show_the_same(turn: Turn, crop: Part) -> None:
    """A picture of the clip, in I420 and converted to RGB: it is the same before the turn and after it, but for what
    the conversion makes of colours between pixels."""
    with av.open(str(CLIP)) as clip:
        decoded = next(clip.decode(video=0))
    i420 = Picture(np.ascontiguousarray(decoded.to_ndarray(format="yuv420p")), PixelLayout.I420)
    rgb = Picture(np.ascontiguousarray(decoded.to_ndarray(format="rgb24")), PixelLayout.RGB)
    view = View(turn, crop)
    seen_rgb, seen_i420 = shown(rgb, view), shown(i420, view)
    converted = av.VideoFrame.from_ndarray(seen_i420.pixels, format="yuv420p").to_ndarray(format="rgb24")

    difference = np.abs(converted.astype(int) - seen_rgb.pixels.astype(int))
    assert converted.shape == seen_rgb.pixels.shape
    assert difference.mean() < 2.0
    assert np.percentile(difference, 99) <= 12


def test_a_picture_that_stays_as_it_is_costs_nothing() -> None:
    rgb = Picture(coloured(6, 4), PixelLayout.RGB)

    assert shown(rgb, View()) is rgb
    assert shown(rgb, View(crop=Part(0.0, 0.0, 0.999, 1.0))) is not rgb


class Listed:
    """A FrameSource of frames that are there already."""

    live = False
    opening = False

    def __init__(self, frames: Sequence[Frame]) -> None:
        self._frames = frames
        self._left: list[Frame] = []
        self.entered = 0

    def __enter__(self) -> Self:
        self.entered += 1
        self._left = list(self._frames)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entered -= 1

    def read(self, timeout_s: float) -> Frame | None:
        if not self._left:
            raise EndOfStream
        return self._left.pop(0)


def encoded(width_px: int = 64, height_px: int = 48) -> Frame:
    """With everything that a frame can have to look at."""
    plain = frame(seq=3, width_px=width_px, height_px=height_px)
    return replace(
        plain,
        rgb=Picture(coloured(width_px, height_px), PixelLayout.RGB),
        video=Picture(np.zeros((height_px * 3, 2 * width_px), np.uint8), PixelLayout.I420),
        packets=(VideoPacket(3, plain.captured_ns, VideoCodec.H264, True, b"\0\0\0\1"),),
    )


CROPPED = View(Turn.of(90), Part(0.0, 0.0, 0.5, 1.0))


def test_everything_of_a_frame_that_can_be_looked_at_is_cropped() -> None:
    given_frame = encoded()
    with Oriented(Listed([given_frame]), CROPPED) as source:
        found = source.read(1.0)

    assert found is not None
    assert found.video is not None
    assert (found.rgb.width_px, found.rgb.height_px) == (24, 64)
    assert (found.video.width_px, found.video.height_px) == (48, 128)
    assert found.packets is None
    assert np.array_equal(found.rgb.pixels, np.rot90(given_frame.rgb.pixels, -1)[:, :24])
    assert (found.camera, found.seq) == (given_frame.camera, given_frame.seq)
    assert (found.captured_ns, found.monotonic_ns) == (given_frame.captured_ns, given_frame.monotonic_ns)


def seen(frame: Frame, view: View, done: Turn) -> Frame:
    """What is left of a frame that was turned by `done` already."""
    with Oriented(Listed([frame]), view, turned=lambda: done) as source:
        found = source.read(1.0)
    assert found is not None
    return found


def test_what_the_source_has_done_is_not_done_again() -> None:
    given_frame, view = encoded(), View(Turn.of(180))
    assert seen(given_frame, view, Turn.of(180)) is given_frame, "packets too: they are turned as well"
    found = seen(given_frame, view, Turn.of(0, "vertical"))
    assert np.array_equal(found.rgb.pixels, np.fliplr(given_frame.rgb.pixels))
    assert found.packets is None


def test_a_source_that_flips_what_nobody_asked_for_is_put_right() -> None:
    given_frame = encoded()
    found = seen(given_frame, View(), Turn.of(0, "horizontal"))
    assert np.array_equal(found.rgb.pixels, np.fliplr(given_frame.rgb.pixels))


def test_a_crop_has_no_packets_whatever_the_source_turns() -> None:
    assert seen(encoded(), CROPPED, CROPPED.turn).packets is None


def test_what_a_source_does_by_itself_may_change_from_frame_to_frame() -> None:
    """It shows when the camera is open, and it may be another one after it was lost."""
    given_frame, view = encoded(), View(Turn.of(180))
    done = [Turn.of(180), Turn()]
    with Oriented(Listed([given_frame] * 2), view, turned=lambda: done.pop(0)) as source:
        assert source.read(1.0) is given_frame
        second = source.read(1.0)
    assert second is not None
    assert np.array_equal(second.rgb.pixels, np.rot90(given_frame.rgb.pixels, 2))


def test_it_is_the_source_around_which_it_is() -> None:
    inner = Listed([frame()])
    source = Oriented(inner, CROPPED)
    assert source.live is False
    assert source.opening is False
    inner.live = inner.opening = True
    assert source.live is True
    assert source.opening is True
    for _ in range(2):  # it may be entered again
        with source:
            assert inner.entered == 1
            assert source.read(1.0) is not None
            with pytest.raises(EndOfStream):
                source.read(1.0)
        assert inner.entered == 0


def test_a_source_that_does_not_open_is_not_left_either() -> None:
    class Lost(Listed):
        def __enter__(self) -> Self:
            raise CameraLost("gone")

    inner = Lost([])
    with pytest.raises(CameraLost), Oriented(inner, CROPPED):
        pass
    assert inner.entered == 0


@pytest.mark.parametrize("source", ["synthetic", str(CLIP)])
def test_a_configured_camera_shows_what_is_configured(source: str) -> None:
    def first(**keys: object) -> Frame:
        camera = CameraConfig.model_validate({"source": source, "pace": "unlimited", **keys})
        with frame_source("front", camera) as opened:
            read = opened.read(1.0)
        assert read is not None
        return read

    whole = first().rgb.pixels
    found = first(rotate_deg=270, flip="vertical", crop=[0.25, 0.5, 0.5, 0.25]).rgb.pixels
    assert np.array_equal(found, np.flipud(np.rot90(whole))[320:480, 120:360])
    alone = first(crop=(0, 0, 1, 0.5)).for_people
    assert (alone.width_px, alone.height_px) == (640, 240)


def test_a_camera_of_which_nothing_is_to_be_changed_is_no_other_source() -> None:
    assert not isinstance(frame_source("front", CameraConfig(source="synthetic")), Oriented)
