from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.conftest import frame, observe, pose


def test_an_observation_is_of_its_frame() -> None:
    seen = frame(seq=7, camera="door", width_px=80, height_px=60)

    sealed = observe(seen, [])

    assert (sealed.camera, sealed.seq, sealed.width_px, sealed.height_px) == ("door", 7, 80, 60)
    assert (sealed.captured_ns, sealed.monotonic_ns) == (seen.captured_ns, seen.monotonic_ns)
    assert sealed.people == ()
    assert sealed.shown_seq == 7
    assert observe(replace(seen, shown_seq=6), []).shown_seq == 6


def test_people_are_numbered_from_one_in_the_estimators_order() -> None:
    poses = [pose(x=0.7), pose(x=0.2)]

    people = observe(frame(), poses).people

    assert [person.person_id for person in people] == [1, 2]
    assert [person.pose for person in people] == poses
    assert people[0].box.centre[0] > people[1].box.centre[0]


def test_a_person_without_world_landmarks_has_a_box_but_no_angles() -> None:
    flat, solid = observe(frame(), [replace(pose(), world_m=None), pose()]).people

    assert flat.angles_deg is None
    assert flat.box == solid.box
    assert solid.angles_deg is not None
    assert np.isfinite(solid.angles_deg).all()
