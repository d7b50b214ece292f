from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation
from edge.vision.posture import Posture, PostureReading
from edge.vision.window import SummaryWindow
from tests import bodies
from tests.bodies import Held, Key
from tests.conftest import frame, observe, pose
from tests.crowd import understood


def window_of(observations: list[Observation]) -> SummaryWindow:
    window = SummaryWindow()
    for each in observations:
        window.add(each)
    return window


def test_means_and_ranges_are_those_of_the_frames() -> None:
    keys = [Key(0, Held(left_elbow_deg=10)), Key(2, Held(left_elbow_deg=100))]
    observations = [observation for observation, _ in understood([keys], noise=0.0)]

    taken = window_of(observations).take()

    assert taken is not None
    (person,) = taken.people
    elbow = JOINTS.index("left_elbow")
    angles = [float(each.people[0].angles_deg[elbow]) for each in observations if each.people[0].angles_deg is not None]
    found = person.angles_deg["left_elbow"]
    assert found.mean == pytest.approx(sum(angles) / len(angles))
    assert (found.least, found.most) == (min(angles), max(angles))
    assert found.most - found.least > 80
    assert (taken.frames, person.frames, taken.most) == (61, 61, 1)
    assert taken.span_s == pytest.approx(2.0, abs=0.01)
    assert person.age_s == pytest.approx(2.0, abs=0.01)
    assert taken.last is observations[-1]


def test_who_was_there_for_a_part_of_it_is_among_the_people_but_not_counted() -> None:
    crowd = [
        [Key(0, bodies.STANDING, x_m=-1), Key(2, bodies.STANDING, x_m=-1)],
        [Key(0, bodies.SITTING, x_m=1), Key(1, bodies.SITTING, x_m=1)],
    ]

    taken = window_of([observation for observation, _ in understood(crowd)]).take()

    assert taken is not None
    assert [person.last.person_id for person in taken.people] == [1, 2]
    assert len(taken.last.people) == 1
    assert (taken.most, taken.last.away) == (2, (2,))
    assert taken.people[1].frames == 31


def test_taking_begins_anew_and_nothing_is_no_window() -> None:
    window = window_of([observe(frame(seq=seq), [pose()]) for seq in range(4)])

    first = window.take()
    assert first is not None
    assert first.frames == 4
    assert window.take() is None
    window.add(observe(frame(seq=9), []))
    second = window.take()
    assert second is not None
    assert (second.frames, second.span_s, second.people) == (1, 0.0, ())


def test_what_is_never_known_is_absent() -> None:
    taken = window_of([observe(frame(), [replace(pose(), world_m=None)])]).take()

    assert taken is not None
    (person,) = taken.people
    assert person.angles_deg == {}
    assert (person.tilt_deg, person.facing_deg, person.left_hand_m, person.speed_bl_s) == (None, None, None, None)
    assert person.postures == {Posture.UNKNOWN: 1.0}


@given(st.lists(st.floats(-180, 180), min_size=1, max_size=20))
@settings(deadline=None, max_examples=30)
def test_the_mean_direction_is_that_of_the_vectors(directions_deg: list[float]) -> None:
    """Of 170 and -170 degrees it is 180 and not 0."""
    seen = observe(frame(), [pose()])
    (person,) = seen.people
    observations = [
        replace(seen, people=(replace(person, kinematics=replace(person.kinematics, facing_deg=each)),))
        for each in directions_deg
    ]
    x, y = (sum(of(math.radians(each)) for each in directions_deg) for of in (math.cos, math.sin))

    taken = window_of(observations).take()

    assert taken is not None
    if math.hypot(x, y) > 1e-3:
        apart = (taken.people[0].facing_deg or 0.0) - math.degrees(math.atan2(y, x))
        assert abs((apart + 180) % 360 - 180) < 1e-3


def test_postures_are_shares_of_the_frames() -> None:
    seen = observe(frame(), [pose()])
    (person,) = seen.people
    postures = [Posture.SITTING] * 3 + [Posture.STANDING]
    taken = window_of(
        [replace(seen, people=(replace(person, posture=PostureReading(each, 0.9, 0)),)) for each in postures]
    ).take()

    assert taken is not None
    assert taken.people[0].postures == {Posture.SITTING: 0.75, Posture.STANDING: 0.25}
    assert taken.people[0].last.posture.posture is Posture.STANDING
