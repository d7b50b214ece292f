"""Where bodies stand: a computed body, projected by a pinhole camera, is found where it was put."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.vision.geometry import Part, Turn
from edge.vision.mount import Mount
from edge.vision.placement import FIELD_OF_VIEW_DEG, standing_m
from edge.vision.pose import Float32Array, Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.vision.test_geometry import parts

WIDTH_PX, HEIGHT_PX = 640, 480
KEYPOINTS = len(MEDIAPIPE_POSE.keypoints)


def body(seed: int = 0, depth_m: float = 0.1) -> Float32Array:
    """Keypoints of somebody 1.6 m tall and that deep, around the hips."""
    chance = np.random.default_rng(seed)
    points = chance.uniform([-0.3, -0.75, -depth_m], [0.3, 0.85, depth_m], (KEYPOINTS, 3))
    return (points - points[23:25].mean(axis=0)).astype(np.float32)


def seen_by_a_camera(world_m: Float32Array, at_m: tuple[float, float, float], visibility: float = 1.0) -> Pose:
    focal_px = WIDTH_PX / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG / 2))
    x, y, z = (world_m + np.array(at_m, np.float32)).T
    image = np.stack(
        [(x / z * focal_px + WIDTH_PX / 2) / WIDTH_PX, (y / z * focal_px + HEIGHT_PX / 2) / HEIGHT_PX, 0 * z], axis=1
    )
    seen = np.full(KEYPOINTS, visibility, np.float32)
    return Pose(MEDIAPIPE_POSE, image.astype(np.float32), seen, world_m)


def placed(pose: Pose) -> Float32Array:
    found = standing_m(pose, WIDTH_PX, HEIGHT_PX)
    assert found is not None
    return found


@given(
    seed=st.integers(0, 1000),
    across=st.floats(-0.5, 0.5),
    y_m=st.floats(-1, 1),
    z_m=st.floats(2.5, 12),
    visibility=st.sampled_from([0.1, 1.0]),
)
def test_a_body_is_where_it_was_put(seed: int, across: float, y_m: float, z_m: float, visibility: float) -> None:
    x_m, world_m = across * z_m, body(seed)
    found = placed(seen_by_a_camera(world_m, (x_m, y_m, z_m), visibility))
    hips = found[23:25].mean(axis=0)
    assert hips[[0, 2]] == pytest.approx([x_m, z_m], abs=2e-3 * z_m)
    assert np.allclose(found - hips, world_m, atol=1e-4), "its shape is its own"


@given(seed=st.integers(0, 1000), z_m=st.floats(1, 20))
def test_the_lowest_keypoint_is_on_the_floor(seed: int, z_m: float) -> None:
    assert placed(seen_by_a_camera(body(seed), (0.0, 0.3, z_m)))[:, 1].max() == pytest.approx(0, abs=1e-5)


@given(
    seed=st.integers(0, 1000),
    mount=st.builds(Mount, st.floats(-60, 60), st.floats(-180, 180)),
    across=st.floats(-0.4, 0.4),
    up=st.floats(-0.3, 0.3),
    z_m=st.floats(2.5, 12),
)
def test_a_camera_that_hangs_otherwise_sees_the_same_place(
    seed: int, mount: Mount, across: float, up: float, z_m: float
) -> None:
    tilt, roll = math.radians(mount.tilt_deg), math.radians(mount.roll_deg)
    # The camera's right, down and ahead, in level axes, y down.
    ahead = np.array([0, math.sin(tilt), math.cos(tilt)])
    below = np.array([0, math.cos(tilt), -math.sin(tilt)])
    right = np.array([math.cos(roll), 0, 0]) + math.sin(roll) * below
    level = np.array([right, np.cross(ahead, right), ahead])
    hips_m = (across * z_m, up * z_m, z_m)
    upright_m = body(seed)
    seen_m = (upright_m @ level.T).astype(np.float32)
    found = standing_m(seen_by_a_camera(seen_m, hips_m), WIDTH_PX, HEIGHT_PX, mount)
    assert found is not None
    found_hips = found[23:25].mean(axis=0)
    assert np.allclose(found - found_hips, upright_m, atol=1e-4), "upright again"
    assert found[:, 1].max() == pytest.approx(0, abs=1e-5)
    expected = np.array(hips_m) @ level
    assert found_hips[[0, 2]] == pytest.approx(expected[[0, 2]], abs=2e-3 * z_m)


def test_who_looks_straight_down_sees_how_far_people_are_by_where_in_the_picture_they_are() -> None:
    below = seen_by_a_camera(body(), (0.0, 0.0, 3.0))
    ahead = seen_by_a_camera(body(), (0.0, -1.0, 3.0))
    near, far = (standing_m(pose, WIDTH_PX, HEIGHT_PX, Mount(tilt_deg=90)) for pose in (below, ahead))
    assert near is not None
    assert far is not None
    assert (far - near).mean(axis=0)[2] == pytest.approx(1.0, abs=0.01)


def test_two_people_are_as_far_apart_as_they_are() -> None:
    near, far = (placed(seen_by_a_camera(body(), (x_m, 0.2, z_m))) for x_m, z_m in ((-0.5, 3.0), (0.7, 5.0)))
    assert (far - near).mean(axis=0) == pytest.approx([1.2, 0.0, 2.0], abs=0.01)


@given(seed=st.integers(0, 1000), x_m=st.floats(-2, 2), z_m=st.floats(2, 12))
def test_a_mirrored_picture_mirrors_the_place(seed: int, x_m: float, z_m: float) -> None:
    mirror = np.array([-1, 1, 1], np.float32)
    world_m = body(seed)
    here, there = (
        placed(seen_by_a_camera(shape, (x, 0.2, z_m))) for shape, x in ((world_m, x_m), (world_m * mirror, -x_m))
    )
    assert np.allclose(here * mirror, there, atol=1e-3)


@pytest.mark.parametrize("shape", ["a point", "upside down", "nothing"])
def test_what_can_be_no_body_is_somewhere_all_the_same(shape: str) -> None:
    pose = seen_by_a_camera(body(), (0.0, 0.2, 3.0))
    world_m = {"a point": body() * 0, "upside down": -body(), "nothing": body()}[shape]
    image = pose.image_xyz * (0 if shape == "nothing" else 1)
    found = placed(Pose(MEDIAPIPE_POSE, image.astype(np.float32), pose.visibility.copy(), world_m))
    assert np.isfinite(found).all()


def test_without_world_landmarks_there_is_no_place() -> None:
    pose = seen_by_a_camera(body(), (0.0, 0.2, 3.0))
    assert standing_m(Pose(MEDIAPIPE_POSE, pose.image_xyz, pose.visibility), WIDTH_PX, HEIGHT_PX) is None


MOUNTS = st.builds(Mount, st.floats(-60, 60), st.floats(-180, 180))
PLACES_M = st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.floats(2.5, 12))


def turned(pose: Pose, turn: Turn) -> Pose:
    """The same moment in the turned picture. A quarter turn takes what is above the middle to its right."""
    image, world_m = pose.image_xyz.copy(), pose.world_m.copy()
    for _ in range(turn.quarters):
        image[:, 0], image[:, 1] = 1 - image[:, 1], image[:, 0].copy()
        world_m[:, 0], world_m[:, 1] = -world_m[:, 1], world_m[:, 0].copy()
    if turn.mirrored:
        image[:, 0], world_m[:, 0] = 1 - image[:, 0], -world_m[:, 0]
    return Pose(MEDIAPIPE_POSE, image, pose.visibility, world_m)


@given(seed=st.integers(0, 1000), at_m=PLACES_M, mount=MOUNTS, part=parts())
def test_a_crop_moves_nobody(seed: int, at_m: tuple[float, float, float], mount: Mount, part: Part) -> None:
    whole = seen_by_a_camera(body(seed), at_m)
    window = part.window(WIDTH_PX, HEIGHT_PX)
    origin = [window.left / WIDTH_PX, window.top / HEIGHT_PX, 0]
    size = [window.width_px / WIDTH_PX, window.height_px / HEIGHT_PX, window.width_px / WIDTH_PX]
    image = ((whole.image_xyz - origin) / size).astype(np.float32)
    cropped = Pose(MEDIAPIPE_POSE, image, whole.visibility, whole.world_m)
    crop = Part(origin[0], origin[1], size[0], size[1])
    found = standing_m(cropped, window.width_px, window.height_px, replace(mount, crop=crop))

    assert np.allclose(found, standing_m(whole, WIDTH_PX, HEIGHT_PX, mount), atol=2e-3 * at_m[2])


@given(seed=st.integers(0, 1000), at_m=PLACES_M, mount=MOUNTS, quarters=st.integers(0, 3))
def test_a_picture_turned_back_has_so_much_less_roll(
    seed: int, at_m: tuple[float, float, float], mount: Mount, quarters: int
) -> None:
    seen, turn = seen_by_a_camera(body(seed), at_m), Turn(quarters)
    rest = Mount(mount.tilt_deg, mount.roll_deg - 90 * quarters)
    found = standing_m(turned(seen, turn), *turn.size(WIDTH_PX, HEIGHT_PX), rest)

    assert np.allclose(found, standing_m(seen, WIDTH_PX, HEIGHT_PX, mount), atol=2e-3 * at_m[2])


@given(seed=st.integers(0, 1000), at_m=PLACES_M, mount=MOUNTS)
def test_a_flipped_picture_is_that_of_a_mirrored_room(
    seed: int, at_m: tuple[float, float, float], mount: Mount
) -> None:
    seen = seen_by_a_camera(body(seed), at_m)
    flipped = turned(seen, Turn.of(0, "horizontal"))
    found = standing_m(flipped, WIDTH_PX, HEIGHT_PX, Mount(mount.tilt_deg, -mount.roll_deg))
    there = standing_m(seen, WIDTH_PX, HEIGHT_PX, mount)

    assert found is not None
    assert np.allclose(found * [-1, 1, 1], there, atol=2e-3 * at_m[2])


def test_the_lens_is_that_of_the_whole_picture() -> None:
    """Half of a picture shows half of what its camera sees: nobody is twice as near by it."""
    seen = seen_by_a_camera(body(), (0.0, 0.2, 4.0))
    image = ((seen.image_xyz - np.float32([0.25, 0, 0])) / np.float32([0.5, 1, 0.5])).astype(np.float32)
    half = Pose(MEDIAPIPE_POSE, image, seen.visibility, seen.world_m)
    there = standing_m(half, WIDTH_PX // 2, HEIGHT_PX, Mount(crop=Part(0.25, 0.0, 0.5, 1.0)))

    assert there is not None
    assert there[23:25].mean(axis=0)[2] == pytest.approx(4.0, abs=0.01)
