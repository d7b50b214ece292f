"""Ids, against computed bodies of whom it is known who they are."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.vision.pose import Pose
from edge.vision.tracking import Tracker
from tests import bodies
from tests.bodies import Camera, Key, film, photograph, walk

SIZE = 1280, 720
S = 1_000_000_000

Scene = list[tuple[int, dict[str, Pose]]]
"""Of each frame its time and who is found."""


def scene(people: dict[str, Sequence[Key]], *, fps: float = 30.0, noise: float = 0.004, lost: float = 0.0) -> Scene:
    films = {
        name: dict(film(keys, fps=fps, noise=noise, lost=lost, seed=number))
        for number, (name, keys) in enumerate(people.items(), start=1)
    }
    times = sorted({now_ns for found in films.values() for now_ns in found})
    return [
        (now_ns, {name: pose for name, found in films.items() if (pose := found.get(now_ns)) is not None})
        for now_ns in times
    ]


def ids(played: Scene, *, seed: int = 0, tracker: Tracker | None = None) -> dict[str, list[int]]:
    """The ids that each person had, one after the other. The estimator's order changes from frame to frame."""
    tracker = tracker or Tracker(itertools.count(1))
    chance = np.random.default_rng(seed)
    had: dict[str, list[int]] = {}
    for now_ns, found in played:
        names = list(found)
        chance.shuffle(names)
        following = tracker.follow(now_ns, *SIZE, [found[name] for name in names])
        by_pose = {id(each.pose): each.person_id for each in following.present}
        assert len({each.person_id for each in following.present}) == len(following.present)
        for name in names:
            number = by_pose.get(id(found[name]))
            if number is not None and had.setdefault(name, [number])[-1] != number:
                had[name].append(number)
    return had


def hidden_between(played: Scene, name: str, begin_s: float, end_s: float) -> Scene:
    first = played[0][0]
    return [
        (
            now_ns,
            {who: pose for who, pose in found.items() if who != name or not begin_s <= (now_ns - first) / S < end_s},
        )
        for now_ns, found in played
    ]


@pytest.mark.parametrize("fps", [10.0, 30.0, 60.0])
def test_two_who_cross_keep_their_ids_while_the_one_behind_is_hidden(fps: float) -> None:
    played = scene(
        {
            "near": walk((-1.5, 3.5), (1.5, 3.5), begin_s=0, end_s=3),
            "far": walk((1.6, 4.6), (-1.6, 4.6), begin_s=0, end_s=3),
        },
        fps=fps,
    )

    had = ids(hidden_between(played, "far", 1.3, 1.8))

    assert [len(each) for each in had.values()] == [1, 1]
    assert had["near"] != had["far"]


def test_somebody_who_stops_behind_a_pillar_is_the_same_afterwards() -> None:
    keys = [*walk((-1.5, 4), (0, 4), begin_s=0, end_s=2), Key(3, bodies.STANDING, z_m=4)]
    keys += [Key(key.at_s + 3, key.held, key.x_m, key.z_m) for key in walk((0, 4), (1.5, 4), begin_s=0.1, end_s=2)]
    played = hidden_between(scene({"walker": keys}), "walker", 1.9, 3.2)

    assert ids(played) == {"walker": [1]}


def test_two_who_meet_and_turn_back_are_not_exchanged() -> None:
    def there_and_back(side: float) -> list[Key]:
        back = walk((side * 0.35, 4), (side * 1.5, 4), begin_s=2.1, end_s=4)
        return [*walk((side * 1.5, 4), (side * 0.35, 4), begin_s=0, end_s=2), *back]

    had = ids(scene({"left": there_and_back(-1), "right": there_and_back(1)}))

    assert sorted(had.values()) == [[1], [2]]


@given(st.integers(2, 6), st.sampled_from([10.0, 30.0]), st.floats(0, 0.3), st.integers(0, 1000))
@settings(deadline=None, max_examples=15)
def test_several_who_walk_side_by_side_and_are_missed_now_and_then_keep_their_ids(
    people: int, fps: float, lost: float, seed: int
) -> None:
    played = scene(
        {
            str(number): walk((-1.5 + number * 0.6, 5), (-1.3 + number * 0.6, 4), begin_s=0, end_s=1.5)
            for number in range(people)
        },
        fps=fps,
        lost=lost,
    )

    had = ids(played, seed=seed)

    assert all(len(each) == 1 for each in had.values())
    assert len({each[0] for each in had.values()}) == len(had)


def test_somebody_who_is_reported_twice_is_one_person() -> None:
    tracker = Tracker(itertools.count(1))
    chance = np.random.default_rng(3)
    for now_ns, found in scene({"one": walk((-1, 4), (1, 4), begin_s=0, end_s=2)}):
        pose = found["one"]
        again = replace(
            pose,
            image_xyz=(pose.image_xyz + 0.004 * chance.standard_normal((33, 3))).astype(np.float32),
            visibility=(pose.visibility * 0.9).astype(np.float32),
        )
        following = tracker.follow(now_ns, *SIZE, [again, pose])
        assert [each.person_id for each in following.present] == [1]
        assert following.away == ()


def test_two_who_stand_close_together_are_two() -> None:
    played = scene(
        {"one": [Key(0, bodies.STANDING, x_m=-0.25), Key(2, bodies.STANDING, x_m=-0.25)]}
        | {"other": [Key(0, bodies.STANDING, x_m=0.25), Key(2, bodies.STANDING, x_m=0.25)]}
    )

    assert sorted(ids(played).values()) == [[1], [2]]


def test_a_ghost_of_a_frame_or_two_is_nobody_and_uses_no_id_up() -> None:
    tracker = Tracker(itertools.count(1))
    ghost = photograph(bodies.STANDING, Camera(), x_m=2.0)
    seen = set()
    for frame, (now_ns, found) in enumerate(scene({"one": [Key(0, bodies.STANDING), Key(2, bodies.STANDING)]})):
        following = tracker.follow(now_ns, *SIZE, [found["one"], ghost] if frame in {20, 21, 40} else [found["one"]])
        seen |= {each.person_id for each in following.present} | set(following.away)

    assert seen == {1}
    late = [tracker.follow(13 * S + at * S // 30, *SIZE, [ghost]) for at in range(10)]
    assert late[-1].present[0].person_id == 2


def test_whoever_is_in_the_first_frame_is_there_at_once_and_whoever_comes_later_after_a_tenth_of_a_second() -> None:
    tracker = Tracker(itertools.count(1))
    one, other = (photograph(bodies.STANDING, Camera(), x_m=x_m) for x_m in (-1, 1))

    assert [each.person_id for each in tracker.follow(10 * S, *SIZE, [one]).present] == [1]
    born = next(
        frame
        for frame in range(1, 30)
        if len(tracker.follow(10 * S + frame * S // 30, *SIZE, [other, one]).present) == 2
    )
    assert born == 4
    following = tracker.follow(10 * S + 31 * S // 30, *SIZE, [one, other])
    assert [each.since_ns for each in following.present] == [10 * S, 10 * S + S // 30]


def test_of_a_camera_with_a_frame_a_second_two_frames_are_enough() -> None:
    tracker = Tracker(itertools.count(1))
    somebody = photograph(bodies.STANDING, Camera())
    tracker.follow(0, *SIZE, [])

    assert [len(tracker.follow(at * S, *SIZE, [somebody]).present) for at in (1, 2, 3)] == [0, 1, 1]


def test_who_is_not_seen_is_away_then_gone_and_then_somebody_new() -> None:
    tracker = Tracker(itertools.count(1), forget_after_s=2.0)
    somebody = photograph(bodies.STANDING, Camera())
    for frame in range(30):
        tracker.follow(frame * S // 30, *SIZE, [somebody])

    away = [tracker.follow(S + frame * S // 30, *SIZE, []) for frame in range(90)]

    assert all(each.present == () for each in away)
    assert [each.away for each in away[:60]] == [(1,)] * 60
    assert [each.gone for each in away if each.gone] == [(1,)]
    assert away[-1].away == ()
    back = [tracker.follow(5 * S + frame * S // 30, *SIZE, [somebody]) for frame in range(10)]
    assert [each.person_id for each in back[-1].present] == [2]


def test_after_a_long_silence_of_the_camera_everybody_is_somebody_new() -> None:
    tracker = Tracker(itertools.count(1))
    somebody = photograph(bodies.STANDING, Camera())
    for frame in range(10):
        tracker.follow(frame * S // 30, *SIZE, [somebody])

    late = tracker.follow(60 * S, *SIZE, [somebody])

    assert late.gone == (1,)
    assert late.present == ()


def test_of_a_camera_with_a_frame_in_ten_seconds_people_are_told_too() -> None:
    tracker = Tracker(itertools.count(1), forget_after_s=2.0)
    somebody = photograph(bodies.STANDING, Camera())
    tracker.follow(0, *SIZE, [])

    seen = [tracker.follow(10 * at * S, *SIZE, [somebody] if at < 5 else []) for at in range(1, 8)]

    assert [[each.person_id for each in one.present] for one in seen] == [[], [1], [1], [1], [], [], []]
    assert [one.gone for one in seen] == [(), (), (), (), (), (1,), ()]


def test_forgetting_everybody_says_whom_and_their_ids_are_not_given_again() -> None:
    tracker = Tracker(itertools.count(1))
    somebody = photograph(bodies.STANDING, Camera())
    tracker.follow(0, *SIZE, [somebody])

    assert tracker.clear() == (1,)
    assert [each.person_id for each in tracker.follow(S, *SIZE, [somebody]).present] == [2]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3 * S), st.lists(st.tuples(st.floats(-3, 3), st.floats(1, 8), st.booleans()), max_size=4)
        ),
        max_size=25,
    )
)
@settings(deadline=None, max_examples=40)
def test_whatever_is_found_ids_are_unique_ordered_and_never_come_back(
    steps: list[tuple[int, list[tuple[float, float, bool]]]],
) -> None:
    tracker = Tracker(itertools.count(1), forget_after_s=1.0)
    now_ns, given, gone = 0, set(), set()
    for passed_ns, places in steps:
        now_ns += passed_ns
        poses = [
            photograph(bodies.SITTING if sits else bodies.STANDING, Camera(), x_m=x_m, z_m=z_m)
            for x_m, z_m, sits in places
        ]
        following = tracker.follow(now_ns, *SIZE, poses)
        here = [each.person_id for each in following.present]
        assert here == sorted(set(here))
        assert not set(here) & set(following.away)
        assert not (set(here) | set(following.away)) & (gone | set(following.gone))
        assert all(any(each.pose is pose for pose in poses) for each in following.present)
        assert all(each.since_ns <= now_ns for each in following.present)
        new = (set(here) | set(following.away)) - given
        assert not given or not new or min(new) > max(given)
        given |= new
        gone |= set(following.gone)
