from __future__ import annotations

import itertools

import numpy as np
import pytest

from edge.config import PeopleConfig
from edge.vision.events import PersonEntered
from edge.vision.people import People, Rules
from edge.vision.posture import Posture
from tests import bodies
from tests.bodies import Camera, Key, walk
from tests.conftest import frame, pose
from tests.crowd import CAMERA, frames, understood


def test_a_picture_has_its_people_at_once() -> None:
    people = People(Rules(), itertools.count(1))

    observation, noticed = people.see(frame(seq=3), [pose(x=0.2), pose(x=0.8)], arrived_ns=5, inference_ns=7)

    assert [person.person_id for person in observation.people] == [1, 2]
    assert (observation.seq, observation.arrived_ns, observation.inference_ns, observation.away) == (3, 5, 7, ())
    assert [type(each.what) for each in noticed] == [PersonEntered, PersonEntered]


def test_what_is_known_of_somebody_goes_with_them() -> None:
    crowd = [
        walk((-1.6, 4.2), (1.6, 4.2), begin_s=0, end_s=4),
        [Key(0, bodies.SITTING, z_m=6.5), Key(4, bodies.SITTING, z_m=6.5)],
    ]
    last, _ = understood(crowd)[-1]

    walker, sitter = sorted(last.people, key=lambda person: person.posture.posture)[::-1]
    assert (walker.posture.posture, sitter.posture.posture) == (Posture.STANDING, Posture.SITTING)
    assert walker.motion.speed_bl_s == pytest.approx(0.8 / 1.75, rel=0.2)
    assert sitter.motion.speed_bl_s == pytest.approx(0, abs=0.05)
    assert walker.kinematics.facing_deg == pytest.approx(90, abs=5)
    assert sitter.kinematics.facing_deg == pytest.approx(0, abs=5)
    assert walker.kinematics.tilt_deg == pytest.approx(4, abs=3)
    assert last.monotonic_ns - walker.since_ns == pytest.approx(4e9, abs=5e7)


def test_who_is_hidden_is_away_and_not_among_the_people() -> None:
    people = People(Rules(), itertools.count(1))
    shown = list(frames([[Key(0, bodies.STANDING), Key(1, bodies.STANDING)]]))
    for seen, poses in shown[:20]:
        people.see(seen, poses)

    observation, _ = people.see(shown[20][0], [])

    assert (observation.people, observation.away) == ((), (1,))


def test_against_gravity_a_camera_that_looks_down_sees_people_upright_and_against_the_picture_it_does_not() -> None:
    keys = [Key(0, bodies.STANDING), Key(1, bodies.STANDING)]
    camera = Camera(height_m=2.6, tilt_deg=30)

    def tilt_deg(rules: Rules) -> float:
        person = understood([keys], rules, camera=camera)[-1][0].people[0]
        assert person.kinematics.tilt_deg is not None
        return person.kinematics.tilt_deg

    assert tilt_deg(Rules(mount=camera.mount)) < 6
    assert tilt_deg(Rules()) == pytest.approx(30, abs=6)


def test_smoothing_is_by_person_and_can_be_changed_while_they_are_there() -> None:
    people = People(Rules(PeopleConfig(smoothing="off")), itertools.count(1))
    shown = list(frames([[Key(0, bodies.STANDING), Key(2, bodies.STANDING)]], noise=0.02))

    def jitter(part: slice) -> float:
        found = [people.see(seen, poses)[0].people[0].pose.image_xyz[:, :2] for seen, poses in shown[part]]
        return float(np.abs(np.diff(np.array(found), 2, axis=0)).mean())

    raw = jitter(slice(0, 20))
    people.adopt(Rules(PeopleConfig(smoothing="strong")))
    assert jitter(slice(20, 60)) < raw / 2


def test_whoever_is_forgotten_is_somebody_new() -> None:
    people = People(Rules(mount=CAMERA.mount), itertools.count(1))
    shown = list(frames([[Key(0, bodies.STANDING), Key(1, bodies.STANDING)]]))
    first, _ = people.see(*shown[0])
    people.clear()
    second, noticed = people.see(*shown[1])

    assert [first.people[0].person_id, second.people[0].person_id] == [1, 2]
    assert [type(each.what) for each in noticed] == [PersonEntered]
