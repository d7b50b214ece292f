"""What the composition root decides by itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge.rerun_lanes import video_lane
from edge.stats import Stats
from edge.vision.frame import EncodedFrame, Frame, Picture, PixelLayout, VideoCodec, VideoPacket
from tests.conftest import frame
from tests.rigs import Shelf


def filmed(width_px: int, height_px: int) -> Frame:
    """As a decoder gives it: for the estimator and for people."""
    planes = Picture(np.zeros((height_px * 3 // 2, width_px), np.uint8), PixelLayout.I420)
    return replace(frame(width_px=width_px, height_px=height_px), video=planes)


@pytest.mark.parametrize(("width_px", "height_px", "held"), [(640, 480, 16), (1920, 1080, 2), (3840, 2160, 2)])
def test_a_stuck_encoder_holds_as_many_frames_as_memory_bears_and_two_of_the_largest(
    width_px: int, height_px: int, held: int
) -> None:
    stats, each = Stats([]), filmed(width_px, height_px)
    lane = video_lane(Shelf(), stats)
    for _ in range(40):
        lane.offer(each)

    assert sum(stats.drops().values()) == 40 - held


def test_what_a_camera_has_encoded_waits_for_a_minute_at_200_kb_a_second() -> None:
    stats = Stats([])
    lane = video_lane(Shelf(), stats)
    for seq in range(60 * 30):
        lane.offer(EncodedFrame("front", seq, (VideoPacket(seq, 0, VideoCodec.H264, True, bytes(6700)),)))

    assert not stats.drops()
