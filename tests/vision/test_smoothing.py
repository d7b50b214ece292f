from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import Smoothing
from edge.vision.pose import Pose
from edge.vision.smoothing import GONE_S, PoseSmoother
from tests import bodies
from tests.bodies import Camera, Key, film
from tests.conftest import pose

SIZE = 1280, 720
S = 1_000_000_000


def smoothed(poses: list[tuple[int, Pose]], strength: Smoothing) -> list[Pose]:
    smoother = PoseSmoother()
    return [smoother.smooth(now_ns, each, *SIZE, strength) for now_ns, each in poses]


def filmed(keys: list[Key], *, noise: float = 0.0, fps: float = 30.0) -> list[tuple[int, Pose]]:
    return [(now_ns, each) for now_ns, each in film(keys, noise=noise, fps=fps) if each is not None]


def places_px(poses: list[Pose]) -> np.ndarray:
    return np.array([each.image_xyz[:, :2] * SIZE for each in poses], float)


def jitter_px(poses: list[Pose]) -> float:
    return float(np.linalg.norm(np.diff(places_px(poses), 2, axis=0), axis=2).mean())


def test_off_returns_what_came() -> None:
    poses = filmed(bodies.walk((-1, 4), (1, 4), begin_s=0, end_s=1), noise=0.02)

    assert all(after is before for after, (_, before) in zip(smoothed(poses, "off"), poses, strict=True))


def test_the_tremble_of_somebody_who_stands_goes_and_more_of_it_with_strong() -> None:
    poses = filmed([Key(0, bodies.STANDING), Key(3, bodies.STANDING)], noise=0.01)

    off, light, strong = (jitter_px(smoothed(poses, strength)[10:]) for strength in ("off", "light", "strong"))

    assert light < 0.65 * off
    assert strong < 0.6 * light


def test_somebody_who_walks_is_hardly_late() -> None:
    poses = filmed([Key(0, bodies.STANDING, x_m=-1.4), Key(2, bodies.STANDING, x_m=1.4)])
    truth = places_px([each for _, each in poses])[30:]
    velocity = truth[1:] - truth[:-1]

    def lag_frames(strength: Smoothing) -> float:
        behind = (truth - places_px(smoothed(poses, strength))[30:])[1:]
        return float((behind * velocity).sum() / (velocity * velocity).sum())

    assert 0 < lag_frames("light") < 0.5
    assert lag_frames("light") < lag_frames("strong") < 2


def test_what_does_not_move_is_left_where_it_is() -> None:
    still = photographed = bodies.photograph(bodies.STANDING, Camera())
    result = smoothed([(at * S // 30, still) for at in range(20)], "strong")

    assert photographed.world_m is not None
    for each in result:
        assert np.abs(each.image_xyz - still.image_xyz).max() < 1e-6
        assert each.world_m is not None
        assert np.abs(each.world_m - photographed.world_m).max() < 1e-6


def test_visibility_mask_and_the_absence_of_world_landmarks_pass_through() -> None:
    first, second = pose(x=0.4, mask=(4, 6)), replace(pose(x=0.5, mask=(4, 6)), world_m=None)
    smoother = PoseSmoother()
    smoother.smooth(0, first, *SIZE, "strong")
    result = smoother.smooth(S // 30, second, *SIZE, "strong")

    assert result.world_m is None
    assert result.mask is second.mask
    assert (result.visibility == second.visibility).all()


@pytest.mark.parametrize("gap_s", [GONE_S + 0.01, 0.0, -1.0])
def test_after_a_gap_or_when_time_does_not_go_on_it_begins_anew(gap_s: float) -> None:
    smoother = PoseSmoother()
    smoother.smooth(10 * S, pose(x=0.2), *SIZE, "strong")
    later = pose(x=0.8)

    assert smoother.smooth(10 * S + int(gap_s * 1e9), later, *SIZE, "strong") is later


@given(st.floats(0.2, 4), st.sampled_from(["light", "strong"]))
@settings(deadline=None, max_examples=25)
def test_it_does_the_same_at_any_resolution(scale: float, strength: Smoothing) -> None:
    poses = filmed([Key(0, bodies.STANDING), Key(0.5, bodies.BENT)], noise=0.02)
    near, far = PoseSmoother(), PoseSmoother()
    for now_ns, each in poses:
        one = near.smooth(now_ns, each, 1280, 720, strength)
        other = far.smooth(now_ns, each, round(1280 * scale) * 9, round(720 * scale) * 9, strength)
        assert np.abs(one.image_xyz - other.image_xyz).max() < 2e-3


@given(st.floats(-0.3, 0.3), st.sampled_from(["light", "strong"]))
@settings(deadline=None, max_examples=25)
def test_where_in_the_picture_somebody_is_makes_no_difference(shift: float, strength: Smoothing) -> None:
    here, there = PoseSmoother(), PoseSmoother()
    moved = np.array([shift, shift / 2, 0], np.float32)
    for now_ns, each in filmed([Key(0, bodies.STANDING), Key(0.4, bodies.SITTING)], noise=0.02):
        one = here.smooth(now_ns, each, *SIZE, strength)
        other = there.smooth(now_ns, replace(each, image_xyz=each.image_xyz + moved), *SIZE, strength)
        assert np.abs(one.image_xyz + moved - other.image_xyz).max() < 1e-4
