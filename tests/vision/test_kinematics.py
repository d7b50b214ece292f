from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.vision.kinematics import JOINTS, Box, bounding_box, joint_angles_deg
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import pose

JOINT_TRIPLES = {
    "shoulder": ("elbow", "shoulder", "hip"),
    "elbow": ("shoulder", "elbow", "wrist"),
    "wrist": ("elbow", "wrist", "index"),
    "hip": ("shoulder", "hip", "knee"),
    "knee": ("hip", "knee", "ankle"),
    "ankle": ("knee", "ankle", "foot_index"),
}
UNIT = st.floats(-1, 1, width=32)


def angles(of: Pose) -> dict[str, float]:
    measured = joint_angles_deg(of)
    assert measured is not None
    return dict(zip(JOINTS, measured.tolist(), strict=True))


def with_world(points: dict[str, Sequence[float]]) -> Pose:
    """The usual pose with some of its keypoints elsewhere in the world."""
    world_m = np.array(pose().world_m)
    for name, point in points.items():
        world_m[MEDIAPIPE_POSE.index(name)] = point
    return replace(pose(), world_m=world_m)


def with_hidden(*names: str) -> Pose:
    visibility = np.array(pose().visibility)
    visibility[[MEDIAPIPE_POSE.index(name) for name in names]] = 0.49
    return replace(pose(), visibility=visibility)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("joint", JOINT_TRIPLES)
@given(
    bent_deg=st.floats(0, 180),
    bones_m=st.tuples(st.floats(0.05, 0.6), st.floats(0.05, 0.6)),
    at_m=st.tuples(UNIT, UNIT, UNIT),
    turned=st.tuples(st.floats(0, 6.3), st.floats(0, 6.3)),
)
@settings(deadline=None, max_examples=20)
def test_a_bent_joint_has_its_angle_wherever_the_person_stands_and_looks(
    *,
    joint: str,
    side: str,
    bent_deg: float,
    bones_m: tuple[float, float],
    at_m: tuple[float, float, float],
    turned: tuple[float, float],
) -> None:
    bent, (yaw, pitch) = math.radians(bent_deg), turned
    turn = np.array([[math.cos(yaw), -math.sin(yaw), 0], [math.sin(yaw), math.cos(yaw), 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, math.cos(pitch), -math.sin(pitch)], [0, math.sin(pitch), math.cos(pitch)]]
    )
    first = turn @ [bones_m[0], 0, 0]
    second = turn @ [bones_m[1] * math.cos(bent), bones_m[1] * math.sin(bent), 0]
    before, middle, after = (f"{side}_{name}" for name in JOINT_TRIPLES[joint])

    person = with_world({before: at_m + first, middle: at_m, after: at_m + second})

    assert angles(person)[f"{side}_{joint}"] == pytest.approx(bent_deg, abs=0.01)


@pytest.mark.parametrize(
    ("hidden", "without"),
    [
        ("left_wrist", {"left_elbow", "left_wrist"}),
        ("right_hip", {"right_shoulder", "right_hip", "right_knee"}),
        ("left_foot_index", {"left_ankle"}),
        ("nose", set()),
    ],
)
def test_a_hidden_keypoint_takes_exactly_its_own_joints_away(hidden: str, without: set[str]) -> None:
    assert {joint for joint, angle in angles(with_hidden(hidden)).items() if math.isnan(angle)} == without


def test_a_bone_without_length_has_no_angle() -> None:
    folded = with_world({"left_elbow": (0.1, 0.2, 0.3), "left_wrist": (0.1, 0.2, 0.3)})

    assert {joint for joint, angle in angles(folded).items() if math.isnan(angle)} == {"left_elbow", "left_wrist"}


def test_without_world_landmarks_there_are_no_angles() -> None:
    assert joint_angles_deg(replace(pose(), world_m=None)) is None


@given(
    points=arrays(np.float32, (33, 3), elements=st.floats(-2, 3, width=32)),
    visibility=arrays(np.float32, 33, elements=st.floats(0, 1, width=32)),
)
@settings(deadline=None, max_examples=60)
def test_the_box_holds_what_is_seen_and_stays_in_the_picture(points: np.ndarray, visibility: np.ndarray) -> None:
    box = bounding_box(replace(pose(), image_xyz=points, visibility=visibility))

    seen = visibility >= 0.5
    inside = points[seen if seen.any() else slice(None), :2].clip(0, 1)
    assert 0 <= box.left <= box.right <= 1
    assert 0 <= box.top <= box.bottom <= 1
    assert ((inside >= [box.left, box.top]) & (inside <= [box.right, box.bottom])).all()
    assert box.left in inside[:, 0]
    assert box.bottom in inside[:, 1]


def test_a_hidden_keypoint_does_not_stretch_the_box() -> None:
    points = np.full((33, 3), 0.5, np.float32)
    points[0] = 0.0
    visibility = np.ones(33, np.float32)
    visibility[0] = 0.2

    assert bounding_box(replace(pose(), image_xyz=points, visibility=visibility)) == Box(0.5, 0.5, 0.5, 0.5)


def test_somebody_of_whom_nothing_is_seen_still_has_a_box() -> None:
    unseen = replace(pose(), visibility=np.zeros(33, np.float32))

    assert bounding_box(unseen) == bounding_box(replace(pose(), visibility=np.ones(33, np.float32)))


def test_the_centre_of_a_box_is_its_middle() -> None:
    assert Box(0.2, 0.4, 0.6, 1.0).centre == pytest.approx((0.4, 0.7))
