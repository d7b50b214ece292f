from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cameras.synthetic import SyntheticSource
from edge.vision.frame import Frame


def unpaced(*, width_px: int = 96, height_px: int = 64, fps: float = 30.0) -> SyntheticSource:
    return SyntheticSource("front", width_px=width_px, height_px=height_px, fps=fps, pace="unlimited")


def next_frame(source: SyntheticSource) -> Frame:
    frame = source.read(10.0)
    assert frame is not None
    return frame


def test_what_is_drawn_depends_on_the_frames_number_only() -> None:
    with unpaced() as first, unpaced() as second:
        frames = [(next_frame(first), next_frame(second)) for _ in range(20)]

    assert all((one.rgb.pixels == other.rgb.pixels).all() for one, other in frames)
    assert all((one.rgb.pixels != after.rgb.pixels).any() for (one, _), (after, _) in itertools.pairwise(frames)), (
        "the figure moves"
    )


@given(
    width_px=st.integers(32, 200).map(lambda half: 2 * half),
    height_px=st.integers(32, 150).map(lambda half: 2 * half),
    fps=st.floats(0.5, 240),
)
@settings(deadline=None, max_examples=20)
def test_every_size_and_rate_gives_whole_frames_with_times_fps_apart(width_px: int, height_px: int, fps: float) -> None:
    with unpaced(width_px=width_px, height_px=height_px, fps=fps) as source:
        frames = [next_frame(source) for _ in range(5)]

    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]
    assert {(frame.rgb.width_px, frame.rgb.height_px) for frame in frames} == {(width_px, height_px)}
    for clock in ("captured_ns", "monotonic_ns"):
        times_ns = np.array([getattr(frame, clock) for frame in frames])
        assert np.abs(np.diff(times_ns) - 1e9 / fps).max() <= 1


def test_without_pace_nobody_waits_for_a_frames_time() -> None:
    with unpaced(fps=0.01) as source:
        frames = [next_frame(source) for _ in range(3)]

        assert frames[-1].monotonic_ns > time.monotonic_ns(), "its time is 200 s after the first one's"
    assert not source.live


def test_at_its_own_pace_no_frame_comes_before_its_time() -> None:
    with SyntheticSource("front", width_px=96, height_px=64, fps=50) as source:
        for _ in range(5):
            assert next_frame(source).monotonic_ns <= time.monotonic_ns()
    assert source.live


def test_a_read_that_ends_before_the_next_frame_gives_none_and_loses_nothing() -> None:
    with SyntheticSource("front", width_px=96, height_px=64, fps=4) as source:
        first = next_frame(source)
        early = source.read(0.0)
        second = next_frame(source)

    assert early is None
    assert (first.seq, second.seq) == (0, 1)


def test_frames_go_on_where_they_were_when_the_camera_is_opened_again() -> None:
    source = unpaced(fps=10)
    with source:
        before = next_frame(source)
    with source:
        after = next_frame(source)

    assert after.seq == before.seq + 1
    assert after.monotonic_ns - before.monotonic_ns == pytest.approx(100_000_000)
