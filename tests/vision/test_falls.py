from __future__ import annotations

from dataclasses import replace

import pytest

from edge.vision.falls import FallEvidence, FallRules, FallWatch
from edge.vision.kinematics import kinematics
from tests import bodies
from tests.bodies import Camera, Key, film, photograph
from tests.measure.falls import FALLS, OTHERS, Setting, suspected

S = 1_000_000_000
CAMERA = Camera()
UP, DOWN = bodies.STANDING.turned(90), bodies.LYING_ON_THE_BACK.turned(90)

# Where all of the body stays in the picture, of a camera of which it is known how it hangs.
SETTINGS = [
    Setting("2.2 m, 15°", 90, 30.0, (0.01, 0.03)),
    Setting("2.2 m, 15°", 225, 10.0, (0.02, 0.06)),
    Setting("2.6 m, 30°", 0, 15.0, (0.01, 0.03)),
    Setting("2.6 m, 30°", 180, 30.0, (0.02, 0.06)),
    Setting("1.4 m level", 90, 15.0, (0.0, 0.0)),
]


@pytest.mark.parametrize("name", FALLS)
def test_a_fall_is_suspected(name: str) -> None:
    sideways = {"falls to the side", "collapses", "falls from a chair"}  # those fall at right angles to where they face
    for setting in SETTINGS:
        if setting.camera == "1.4 m level" and name in sideways:
            setting = replace(setting, direction_deg=0)  # noqa: PLW2901
        assert suspected(FALLS[name], setting), setting


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_fall_is_none(name: str) -> None:
    for setting in SETTINGS:
        assert not suspected(OTHERS[name], setting), setting


def watched(
    keys: list[Key], *, rules: FallRules | None = None, fps: float = 30.0
) -> list[tuple[float, FallEvidence | None]]:
    watch, found = FallWatch(), []
    for now_ns, pose in film(keys, fps=fps, camera=CAMERA):
        assert pose is not None
        now = kinematics(pose, pose.world_m, CAMERA.width_px, CAMERA.height_px)
        found.append(((now_ns - 10 * S) / S, watch.update(now_ns, pose, now, CAMERA.height_px, rules or FallRules())))
    return found


FALL = [Key(0, UP), Key(2, UP), Key(2.7, DOWN), Key(6, DOWN)]


def test_the_evidence_is_what_happened() -> None:
    at_s, evidence = next((at_s, each) for at_s, each in watched(FALL) if each is not None)

    assert evidence is not None
    assert 3.2 < at_s < 3.8, "down at about 2.5, and a second of lying still"
    assert 0.45 < evidence.drop_bl < 0.65, "the trunk's middle from 0.67 to about 0.1 of the stature"
    assert 0.8 < evidence.speed_bl_s < 1.5
    assert evidence.tilt_before_deg < 5
    assert evidence.tilt_deg > 75
    assert 0.05 < evidence.took_s < 0.5
    assert evidence.down_s == pytest.approx(1.0, abs=0.05)
    assert 0.5 <= evidence.confidence <= 1


def test_it_lasts_until_the_person_is_up_again_and_can_happen_again() -> None:
    rise = [Key(9, UP), Key(11, UP)]
    again = [Key(11.7, DOWN), Key(15, DOWN)]
    found = watched([*FALL, *rise, *again])

    spells = [each is not None for _, each in found]
    edges = [at_s for (at_s, _), before, now in zip(found[1:], spells, spells[1:], strict=False) if before != now]
    assert len(edges) == 3
    assert 8 < edges[1] < 9.7
    same = [each for at_s, each in found if edges[0] <= at_s < edges[1]]
    assert all(each is same[0] for each in same), "it is one fall"


@pytest.mark.parametrize(
    "rules",
    [FallRules(speed_bl_s=3.0), FallRules(still_s=5.0)],
)
def test_the_rules_decide(rules: FallRules) -> None:
    assert all(each is None for _, each in watched(FALL, rules=rules))


@pytest.mark.parametrize("tilt_deg", [20.0, 25.0, 30.0])
def test_who_is_down_by_rules_that_ask_for_little_tilt_is_not_up_at_once(tilt_deg: float) -> None:
    crouching = bodies.CROUCHING.turned(90)  # leans by 35 degrees
    keys = [Key(0, UP), Key(1.5, UP), Key(2.1, crouching), Key(8, crouching), Key(8.6, UP), Key(10, UP)]
    found = watched(keys, rules=FallRules(tilt_deg=tilt_deg))

    spells = [each is not None for _, each in found]
    edges = [at_s for (at_s, _), before, now in zip(found[1:], spells, spells[1:], strict=False) if before != now]
    evidence = next(each for _, each in found if each is not None)
    assert len(edges) == 2
    assert edges[1] > 8.6, "only once up"
    assert evidence.took_s > 0


def test_what_happened_while_nobody_was_seen_is_not_known() -> None:
    watch = FallWatch()
    for now_ns, pose in film(FALL, camera=CAMERA):
        assert pose is not None
        if 2.0 < (now_ns - 10 * S) / S < 2.8:
            continue
        now = kinematics(pose, pose.world_m, CAMERA.width_px, CAMERA.height_px)
        assert watch.update(now_ns, pose, now, CAMERA.height_px, FallRules()) is None


def test_a_tracker_that_jumps_to_another_body_is_no_fall() -> None:
    watch = FallWatch()
    for frame in range(120):
        here = photograph(UP, CAMERA, z_m=6) if frame < 40 else photograph(DOWN, CAMERA, z_m=3)
        now = kinematics(here, here.world_m, CAMERA.width_px, CAMERA.height_px)
        assert watch.update(frame * S // 30, here, now, CAMERA.height_px, FallRules()) is None


def test_hidden_hips_change_nothing() -> None:
    watch, hidden = FallWatch(), {"left_hip", "right_hip"}
    for now_ns, pose in film([replace(key, hidden=hidden) for key in FALL], camera=CAMERA):
        assert pose is not None
        now = kinematics(pose, pose.world_m, CAMERA.width_px, CAMERA.height_px)
        assert watch.update(now_ns, pose, now, CAMERA.height_px, FallRules()) is None
