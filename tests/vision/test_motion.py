from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.vision.kinematics import kinematics
from edge.vision.motion import Motion, MotionWatch
from tests import bodies
from tests.bodies import Camera, Held, Key, film, photograph

S = 1_000_000_000
CAMERA = Camera()


def motions(keys: list[Key], *, fps: float = 30.0, stature_m: float = 1.75) -> list[Motion]:
    watch, found = MotionWatch(), []
    for now_ns, pose in film(keys, fps=fps, camera=CAMERA, stature_m=stature_m):
        assert pose is not None
        now = kinematics(pose, pose.world_m, CAMERA.width_px, CAMERA.height_px)
        found.append(watch.update(now_ns, pose, CAMERA.width_px, CAMERA.height_px, now.length_px))
    return found


@given(st.floats(0.1, 2.0), st.sampled_from([10.0, 30.0, 60.0]), st.floats(3.5, 6), st.floats(1.2, 2.0))
@settings(deadline=None, max_examples=25)
def test_speed_is_in_lengths_of_the_own_body_at_any_distance(
    metres_s: float, fps: float, away_m: float, stature_m: float
) -> None:
    keys = [Key(0, bodies.STANDING, x_m=-metres_s / 2, z_m=away_m), Key(1, bodies.STANDING, metres_s / 2, away_m)]

    speed = motions(keys, fps=fps, stature_m=stature_m)[-1].speed_bl_s

    assert speed == pytest.approx(metres_s / stature_m, rel=0.12)


def test_who_stands_still_does_neither_move_nor_act_and_who_waves_only_acts() -> None:
    still = motions([Key(0, bodies.STANDING), Key(1, bodies.STANDING)])[-1]
    waves = [Key(at / 4, Held(left_arm_deg=160 if at % 2 else 90, left_elbow_deg=20)) for at in range(9)]
    waving = motions(waves)

    assert still == Motion(pytest.approx(0, abs=1e-3), pytest.approx(0, abs=1e-3))
    assert max(each.activity_m_s or 0 for each in waving) > 0.3
    assert max(each.speed_bl_s or 0 for each in waving) < 0.05


def test_nothing_is_told_from_one_frame_or_across_a_gap() -> None:
    watch, pose = MotionWatch(), photograph(bodies.STANDING, CAMERA)

    assert watch.update(0, pose, 1280, 720, 300.0) == Motion()
    assert watch.update(S // 30, pose, 1280, 720, 300.0) == Motion()
    assert watch.update(5 * S, pose, 1280, 720, 300.0) == Motion()
    assert watch.update(5 * S + S // 5, pose, 1280, 720, 300.0).speed_bl_s == 0
    assert watch.update(4 * S, pose, 1280, 720, 300.0) == Motion(), "time that goes back is a gap"


def test_a_trunk_that_is_not_seen_takes_the_speed_and_limbs_the_activity() -> None:
    def hidden(*names: str) -> Motion:
        return motions([Key(0, bodies.STANDING, hidden=names), Key(1, bodies.STANDING, hidden=names)])[-1]

    limbs = [f"{side}_{part}" for side in ("left", "right") for part in ("elbow", "wrist", "knee", "ankle")]
    assert hidden("left_hip").speed_bl_s is None
    assert hidden("left_hip").activity_m_s is not None
    assert hidden(*limbs).activity_m_s is None
    assert hidden(*limbs).speed_bl_s is not None
    assert hidden(*limbs[1:]).activity_m_s is not None


def test_what_it_remembers_is_bounded() -> None:
    watch, pose = MotionWatch(), photograph(bodies.STANDING, CAMERA)
    for frame in range(5000):
        watch.update(frame * S // 10_000, pose, 1280, 720, 300.0)

    assert len(watch._past) <= 256
    assert math.isfinite(watch.update(S, pose, 1280, 720, 300.0).speed_bl_s or 0.0)
