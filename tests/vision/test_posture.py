from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.vision.kinematics import level_m
from edge.vision.posture import Posture, PostureReading, PostureWatch, scores
from tests import bodies
from tests.bodies import Camera, Held, Key, both, film, photograph

POSTURES = {
    Posture.STANDING: (bodies.STANDING, bodies.HANDS_UP, bodies.BENT, bodies.stride(0.1), bodies.stride(0.25)),
    Posture.SITTING: (bodies.SITTING, bodies.SITTING_ON_THE_FLOOR, replace(bodies.SITTING, lean_deg=35)),
    Posture.CROUCHING: (bodies.CROUCHING, bodies.KNEELING),
    Posture.LYING: (
        bodies.LYING_ON_THE_BACK,
        bodies.LYING_FACE_DOWN,
        bodies.LYING_ON_THE_SIDE,
        bodies.CURLED_UP,
    ),
}
HELD = [(posture, held) for posture, all_of_it in POSTURES.items() for held in all_of_it]
S = 1_000_000_000


def scored(held: Held, camera: Camera, **options: object) -> dict[Posture, float]:
    seen = photograph(held, camera, **options)  # type: ignore[arg-type]
    return scores(seen, level_m(seen, camera.mount))


@given(
    st.sampled_from(HELD),
    st.floats(-180, 180),
    st.builds(Camera, height_m=st.floats(1, 2.5), tilt_deg=st.floats(0, 35), roll_deg=st.floats(-20, 20)),
    st.integers(0, 1000),
)
@settings(deadline=None, max_examples=150)
def test_each_posture_is_known_from_all_sides_by_a_noisy_estimate(
    held: tuple[Posture, Held], facing_deg: float, camera: Camera, seed: int
) -> None:
    posture, body = held
    noise = 0.01 * np.random.default_rng(seed).standard_normal((33, 3))
    found = scored(body.turned(facing_deg), camera, z_m=6.0, noise=noise)
    if found:  # else it is out of the picture
        assert max(found, key=found.__getitem__) is posture, found
        assert found[posture] >= 0.5
        assert sum(found.values()) <= 1 + 1e-9


@pytest.mark.parametrize(
    "hidden",
    [
        {"left_hip"},
        {"left_shoulder"},
        {"left_knee", "right_ankle"},
        {"left_knee", "right_knee", "left_ankle", "right_ankle"},
    ],
)
def test_without_trunk_or_legs_nothing_is_said(hidden: set[str]) -> None:
    assert scored(bodies.STANDING, Camera(), hidden=hidden) == {}
    assert scores(photograph(bodies.STANDING, Camera()), None) == {}


def test_one_leg_is_enough() -> None:
    found = scored(bodies.SITTING, Camera(), hidden={"left_knee", "left_ankle"}, z_m=6.0)
    assert max(found, key=found.__getitem__) is Posture.SITTING


def readings(keys: list[Key], *, after_s: float = 0.5, noise: float = 0.01, lost: float = 0.05) -> list[PostureReading]:
    watch, camera, read = PostureWatch(), Camera(height_m=1.8, tilt_deg=10), []
    for now_ns, pose in film(keys, camera=camera, noise=noise, lost=lost):
        if pose is not None:
            read.append(watch.update(now_ns, pose, level_m(pose, camera.mount), after_s))
    return read


def changes(read: list[PostureReading]) -> list[Posture]:
    return [
        each.posture
        for before, each in zip([None, *read], read, strict=False)
        if before is None or each.posture is not before.posture
    ]


def test_somebody_who_sits_down_and_gets_up_does_each_once() -> None:
    up, sat = bodies.STANDING, bodies.SITTING
    keys = [Key(0, up), Key(2, up), Key(3, sat), Key(6, sat), Key(7, up), Key(9, up)]

    read = readings(keys)

    assert changes(read) == [Posture.UNKNOWN, Posture.STANDING, Posture.SITTING, Posture.STANDING]
    assert read[-1].confidence > 0.9


def test_it_is_so_since_it_began_and_told_only_after_a_while() -> None:
    read = readings([Key(0, bodies.STANDING), Key(2, bodies.STANDING)], after_s=1.0, lost=0.0)

    first = next(at for at, each in enumerate(read) if each.posture is Posture.STANDING)
    assert first == 30
    assert read[first].since_ns == 10 * S


def test_a_posture_between_two_does_not_flicker() -> None:
    half = Held(**both(thigh=50, knee=68))  # about as much as of either
    read = readings([Key(0, bodies.STANDING), Key(1, bodies.STANDING), Key(1.5, half), Key(9, half)], noise=0.02)

    assert len(changes(read)) <= 4


def test_when_the_legs_go_out_of_sight_it_is_unknown_after_a_while() -> None:
    legs = {f"{side}_{part}" for side in ("left", "right") for part in ("knee", "ankle")}
    keys = [Key(0, bodies.STANDING), Key(2, bodies.STANDING), Key(2.01, bodies.STANDING, hidden=legs)]
    read = readings([*keys, Key(4, bodies.STANDING, hidden=legs)], lost=0.0)

    assert changes(read) == [Posture.UNKNOWN, Posture.STANDING, Posture.UNKNOWN]
    assert read[-1].confidence == 0
    assert changes(read[:75])[-1] is Posture.STANDING
