from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.vision.kinematics import (
    JOINTS,
    VISIBLE,
    Box,
    Kinematics,
    bounding_box,
    joint_angles_deg,
    kinematics,
    level_m,
)
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.bodies import LYING_ON_THE_BACK, ONE_HAND_UP, STANDING, Camera, Held, photograph
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
        ("right_hip", {"right_shoulder", "right_hip", "right_knee", "neck"}),
        ("left_ear", {"neck"}),
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


def body(held: Held, camera: Camera | None = None, **options: Any) -> Pose:
    return photograph(held, camera or Camera(), **options)


def measured(held: Held, camera: Camera | None = None, **options: Any) -> Kinematics:
    camera = camera or Camera()
    seen = body(held, camera, **options)
    return kinematics(seen, level_m(seen, camera.mount), camera.width_px, camera.height_px)


BENDS = st.builds(
    Held,
    lean_deg=st.floats(-20, 60),
    neck_deg=st.floats(-30, 40),
    left_arm_deg=st.floats(0, 175),
    right_arm_deg=st.floats(0, 175),
    left_elbow_deg=st.floats(1, 140),
    right_elbow_deg=st.floats(1, 140),
    left_thigh_deg=st.floats(-10, 100),
    right_thigh_deg=st.floats(-10, 100),
    left_knee_deg=st.floats(1, 140),
    right_knee_deg=st.floats(1, 140),
    left_ankle_deg=st.floats(70, 150),
    right_ankle_deg=st.floats(70, 150),
    facing_deg=st.floats(-180, 180),
)
CAMERAS = st.builds(Camera, height_m=st.floats(0.8, 2.5), tilt_deg=st.floats(-10, 30), roll_deg=st.floats(-30, 30))


@given(BENDS, CAMERAS)
@settings(deadline=None, max_examples=60)
def test_angles_are_those_that_the_body_was_bent_by_to_a_degree(held: Held, camera: Camera) -> None:
    """With hips and shoulders of one width, the angle at either is just what bends it."""
    found = angles(body(held, camera, z_m=6.0, shoulder=0.1, hip=0.1))

    for side in ("left", "right"):
        bent = {name: getattr(held, f"{side}_{name}_deg") for name in ("arm", "elbow", "thigh", "knee", "ankle")}
        known = {
            "shoulder": bent["arm"],
            "elbow": 180 - bent["elbow"],
            "wrist": 180.0,
            "hip": 180 - bent["thigh"] - held.lean_deg,
            "knee": 180 - bent["knee"],
            "ankle": bent["ankle"],
        }
        for joint, degrees in known.items():
            folded = abs(degrees) if degrees <= 180 else 360 - degrees
            at = found[f"{side}_{joint}"]
            assert math.isnan(at) or at == pytest.approx(folded, abs=1.0), f"{side}_{joint}"
    assert math.isnan(found["neck"]) or found["neck"] == pytest.approx(180 - abs(held.neck_deg), abs=1.0)


@given(BENDS, CAMERAS)
@settings(deadline=None, max_examples=60)
def test_tilt_and_facing_are_the_bodys_own_whatever_the_camera_hangs_like(held: Held, camera: Camera) -> None:
    found = measured(held, camera, z_m=6.0)

    assert found.tilt_deg is None or found.tilt_deg == pytest.approx(abs(held.lean_deg), abs=0.5)
    if found.facing_deg is not None:
        apart = (found.facing_deg - held.facing_deg + 180) % 360 - 180
        assert abs(apart) < 0.5


def test_facing_is_told_from_above_and_not_of_who_lies() -> None:
    towards, right, away, left = (measured(STANDING.turned(deg)).facing_deg for deg in (0, 90, 180, -90))

    assert (towards, right, left) == (
        pytest.approx(0, abs=0.1),
        pytest.approx(90, abs=0.1),
        pytest.approx(-90, abs=0.1),
    )
    assert away is not None
    assert abs(away) == pytest.approx(180, abs=0.1)
    assert measured(LYING_ON_THE_BACK).facing_deg is None


@given(BENDS, st.floats(-60, 60), st.floats(0, 25))
@settings(deadline=None, max_examples=40)
def test_angles_and_hands_do_not_depend_on_how_the_camera_is_turned_but_tilt_against_the_picture_does(
    held: Held, roll_deg: float, tilt_deg: float
) -> None:
    straight, turned = body(held, z_m=8.0), body(held, Camera(roll_deg=roll_deg, tilt_deg=tilt_deg), z_m=8.0)
    one, other = (kinematics(each, each.world_m, 1280, 720) for each in (straight, turned))
    if (turned.visibility < VISIBLE).any() or (straight.visibility < VISIBLE).any():
        return  # out of one of the pictures

    assert one.angles_deg is not None
    assert other.angles_deg is not None
    assert np.abs(one.angles_deg - other.angles_deg).max() < 0.1
    for a, b in ((one.left_hand_m, other.left_hand_m), (one.right_hand_m, other.right_hand_m)):
        assert a == pytest.approx(b, abs=1e-3)
    if abs(roll_deg) > 20 and abs(held.lean_deg) < 5 and tilt_deg < 5:
        assert other.tilt_deg is not None
        assert other.tilt_deg > 10, "it leans in the picture"


@given(BENDS, st.floats(-100, 100), st.floats(0.2, 3))
@settings(deadline=None, max_examples=40)
def test_where_and_how_large_a_body_is_changes_no_angle(held: Held, shift_m: float, scale: float) -> None:
    seen = body(held)
    assert seen.world_m is not None
    moved = replace(seen, world_m=(seen.world_m * scale + shift_m).astype(np.float32))

    one, other = joint_angles_deg(seen), joint_angles_deg(moved)

    assert one is not None
    assert other is not None
    assert np.array_equal(np.isnan(one), np.isnan(other))
    assert np.nanmax(np.abs(one - other), initial=0) < 0.5


@given(BENDS)
@settings(deadline=None, max_examples=40)
def test_in_a_mirror_left_and_right_change_places(held: Held) -> None:
    one, other = measured(held, z_m=5.0), measured(held.mirrored(), z_m=5.0)
    assert one.angles_deg is not None
    assert other.angles_deg is not None

    by_joint = dict(zip(JOINTS, one.angles_deg.tolist(), strict=True))
    for joint, angle in zip(JOINTS, other.angles_deg.tolist(), strict=True):
        swapped = joint.replace("left", "LEFT").replace("right", "left").replace("LEFT", "right")
        assert angle == pytest.approx(by_joint[swapped], abs=0.05, nan_ok=True)
    assert other.tilt_deg == pytest.approx(one.tilt_deg, abs=0.05)
    if one.facing_deg is not None and other.facing_deg is not None and abs(one.facing_deg) < 179:
        assert other.facing_deg == pytest.approx(-one.facing_deg, abs=0.1)
    if one.left_hand_m is not None and other.right_hand_m is not None:
        left, up, forward = one.left_hand_m
        assert other.right_hand_m == pytest.approx((-left, up, forward), abs=1e-3)


def test_a_raised_hand_is_above_the_head_and_on_its_own_side() -> None:
    hands = measured(ONE_HAND_UP)

    assert hands.left_hand_m is not None
    assert hands.right_hand_m is not None
    assert hands.left_hand_m[1] > 0.3
    assert hands.right_hand_m[1] < -0.5
    assert hands.left_hand_m[0] > 0 > hands.right_hand_m[0]
    forward = measured(replace(STANDING, left_arm_deg=90)).left_hand_m
    assert forward is not None
    assert forward[2] > 0.4


def test_a_wrist_that_is_not_seen_is_no_hand_and_unseen_hips_take_the_tilt_but_not_the_hands() -> None:
    half = measured(ONE_HAND_UP, hidden={"left_hip", "right_hip", "right_wrist"})

    assert (half.tilt_deg, half.facing_deg, half.right_hand_m) == (None, None, None)
    assert half.left_hand_m is not None
    assert half.left_hand_m[1] > 0.3


@given(BENDS, CAMERAS, st.floats(1.2, 2.1))
@settings(deadline=None, max_examples=40)
def test_the_bodys_length_is_its_stature_however_it_is_held(held: Held, camera: Camera, stature_m: float) -> None:
    """But for perspective: an arm that is nearer to the camera is larger."""
    found = measured(held, camera, z_m=7.0, stature_m=stature_m)
    focal_px = 1280 / 2 / math.tan(math.radians(65 / 2))

    if found.length_px is not None:
        assert found.length_px == pytest.approx(focal_px * stature_m / 7.0, rel=0.35)


def test_of_what_is_all_in_one_place_nothing_is_told() -> None:
    nothing = replace(pose(), world_m=np.zeros((33, 3), np.float32), image_xyz=np.full((33, 3), 0.5, np.float32))
    found = kinematics(nothing, nothing.world_m, 64, 48)

    assert (found.tilt_deg, found.facing_deg, found.left_hand_m, found.length_px) == (None, None, None, None)
    assert kinematics(replace(pose(), world_m=None), None, 64, 48).angles_deg is None
