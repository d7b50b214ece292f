from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.vision.similarity import FloatArray, constants, in_pixels, scale_px, similarity
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests import bodies
from tests.bodies import Camera, photograph

SIZE = 1280, 720


def compared(a: FloatArray, b: FloatArray, *, slack_px: float = 0.0, seen: FloatArray | None = None) -> float:
    seen = np.ones((1, 33)) if seen is None else seen
    scales: Any = np.full((1, 1), scale_px(a))
    return float(
        similarity(
            a[None],
            b[None],
            a_seen=seen,
            b_seen=seen,
            scales_px=scales,
            slack_px=np.full((1, 1), slack_px),
            skeleton=MEDIAPIPE_POSE,
        )[0, 0]
    )


def standing_px(x_m: float = 0.0) -> FloatArray:
    return in_pixels(photograph(bodies.STANDING, Camera(), x_m=x_m), *SIZE)


def test_a_pose_is_most_like_itself_and_less_like_it_the_further_it_is_moved() -> None:
    here = standing_px()
    further = [compared(here, here + np.array([shift, 0])) for shift in (0, 5, 15, 40, 120)]

    assert further[0] == pytest.approx(1)
    assert further == sorted(further, reverse=True)
    assert further[-1] < 0.05


def test_one_keypoint_off_by_its_own_tolerance_counts_as_coco_says() -> None:
    """exp(-1/2) of that keypoint, the other 32 are exact."""
    here = standing_px()
    there = here.copy()
    at = MEDIAPIPE_POSE.index("left_knee")
    there[at, 0] += 0.174 * scale_px(here)

    assert compared(here, there) == pytest.approx((32 + np.exp(-0.5)) / 33)


def test_what_is_not_seen_hardly_counts() -> None:
    here, there = standing_px(), standing_px()
    there[MEDIAPIPE_POSE.index("left_knee")] += 500
    hidden = np.ones((1, 33))
    hidden[0, MEDIAPIPE_POSE.index("left_knee")] = 0.0

    assert compared(here, there, seen=hidden) > 0.995 > compared(here, there)


def test_slack_forgives() -> None:
    here = standing_px()
    assert compared(here, here + 40, slack_px=60) > 2 * compared(here, here + 40)


@given(st.floats(0.1, 10), st.floats(-500, 500))
@settings(deadline=None, max_examples=30)
def test_it_depends_on_neither_scale_nor_place(scale: float, shift: float) -> None:
    a, b = standing_px(), standing_px(0.1)

    assert compared(a * scale + shift, b * scale + shift) == pytest.approx(compared(a, b), abs=1e-6)


def test_every_keypoint_has_a_constant_that_is_one_of_its_kind() -> None:
    of = dict(zip(MEDIAPIPE_POSE.keypoints, constants(MEDIAPIPE_POSE).tolist(), strict=True))

    assert of["nose"] == 0.052
    assert of["left_eye_outer"] == of["right_eye"] == 0.050
    assert of["left_hip"] == 0.214
    assert of["right_heel"] == of["right_ankle"] == of["left_foot_index"] == 0.178
    assert of["left_index"] == of["left_wrist"] == 0.124
