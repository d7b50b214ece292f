from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from edge.bench.footage import MemorySource, pictures, shots
from edge.vision.frame import Frame, Picture, PixelLayout

pytestmark = pytest.mark.integration


def read(source: MemorySource, count: int) -> list[Frame]:
    with source:
        frames = [source.read(1.0) for _ in range(count)]
    return [frame for frame in frames if frame is not None]


def grey(*levels: int) -> list[Picture]:
    return [Picture(np.full((4, 6, 3), level, np.uint8), PixelLayout.RGB) for level in levels]


def test_the_clip_is_held_as_rgb_and_as_bgr() -> None:
    rgb, bgr = pictures(), pictures(layout="bgr24")
    assert len(rgb) == len(bgr) == 60
    assert {picture.shape for picture in rgb} == {(480, 640, 3)}
    assert all(picture.flags.c_contiguous and picture.dtype == np.uint8 for picture in rgb)
    assert np.array_equal(rgb[7], bgr[7][:, :, ::-1])
    assert not np.array_equal(rgb[0], rgb[30])
    assert len(shots()) == 60


def test_pictures_come_over_and_over_with_the_real_time_and_no_copies() -> None:
    shown = grey(10, 20, 30)
    before_ns, before_monotonic_ns = time.time_ns(), time.monotonic_ns()
    source = MemorySource("front", shown)
    assert not source.live
    frames = read(source, 500)
    assert [frame.seq for frame in frames] == list(range(500))
    assert all(frame.rgb is picture for frame, picture in zip(frames, itertools.cycle(shown), strict=False))
    assert {frame.camera for frame in frames} == {"front"}
    times = [frame.monotonic_ns for frame in frames]
    assert times == sorted(set(times)), "strictly increasing"
    assert before_monotonic_ns <= times[0] <= times[-1] <= time.monotonic_ns()
    assert before_ns <= frames[0].captured_ns <= time.time_ns()


def test_opened_again_it_goes_on() -> None:
    source = MemorySource("front", grey(1, 2))
    first, second = read(source, 3), read(source, 2)
    assert [frame.seq for frame in first + second] == [0, 1, 2, 3, 4]


def test_by_the_clock_frames_are_a_period_apart_and_none_is_made_up_for() -> None:
    source = MemorySource("front", grey(1), fps=100.0)
    assert source.live
    with source:
        frames = [source.read(1.0) for _ in range(4)]
        time.sleep(0.2)  # twenty periods in which nobody came
        late = [source.read(1.0) for _ in range(4)]
    found = [frame.monotonic_ns for frame in frames + late if frame is not None]
    assert len(found) == 8
    assert found[3] - found[0] >= 30e6 - 1e6
    # Of those twenty, one may come at once; the others are by the clock again.
    assert found[7] - found[5] >= 20e6 - 1e6


def test_whoever_waits_is_answered_in_time() -> None:
    with MemorySource("front", grey(1), fps=0.5) as source:
        assert source.read(0.01) is not None
        assert source.read(0.01) is None
