"""What is told of computed bodies of whom it is known what they do."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import PeopleConfig
from edge.vision.events import (
    Begin,
    CountChanged,
    End,
    FallCleared,
    FallSuspected,
    HandsLowered,
    HandsRaised,
    LineCrossed,
    Noticed,
    PeopleEvent,
    PersonEntered,
    PersonLeft,
    PostureChanged,
    ZoneEntered,
    ZoneLeft,
)
from edge.vision.people import People, Rules
from edge.vision.posture import Posture
from edge.vision.zones import Line, Zone
from tests import bodies
from tests.bodies import Key, walk
from tests.crowd import CAMERA, EPOCH_NS, frames, noticed, understood

S = 1_000_000_000
UP = bodies.STANDING
STAYS = [Key(0, UP), Key(3, UP)]
LEFT_HALF = Zone("left", ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0)))
MIDDLE = Line("middle", (0.5, 1.0), (0.5, 0.0))


def rules(*events: str, zones: tuple[Zone, ...] = (), lines: tuple[Line, ...] = (), **settings: float) -> Rules:
    people = PeopleConfig(**({"events": events} if events else {}), **settings)  # type: ignore[arg-type]
    return Rules(people, CAMERA.mount, zones, lines)


def told(found: list[Noticed], *kinds: type[PeopleEvent]) -> list[PeopleEvent]:
    return [each.what for each in found if not kinds or isinstance(each.what, kinds)]


def after_s(what: PeopleEvent) -> float:
    return (what.captured_ns - EPOCH_NS) / 1e9


def test_who_comes_and_goes_is_told_with_when_and_for_how_long() -> None:
    visitor = [*walk((-2.0, 4.5), (2.0, 4.5), begin_s=1.0, end_s=5.0)]
    found = noticed([[Key(0, UP, z_m=6.5, x_m=1.5), Key(9, UP, z_m=6.5, x_m=1.5)], visitor])

    entered, left = told(found, PersonEntered), told(found, PersonLeft)
    assert [each.person_id for each in entered] == [1, 2]
    assert after_s(entered[0]) == 0, "who is in the first frame is there at once"
    assert 1.0 < after_s(entered[1]) < 1.3
    assert entered[1].since_ns == pytest.approx(EPOCH_NS + S, abs=S // 25)
    (gone,) = left
    assert gone.person_id == 2
    assert gone.until_ns == pytest.approx(EPOCH_NS + 5 * S, abs=S // 10)
    assert gone.stayed_s == pytest.approx(4.0, abs=0.15)
    assert after_s(gone) == pytest.approx(7.0, abs=0.15), "after people.forget_after_s"
    assert [(each.before, each.count) for each in told(found, CountChanged)] == [(0, 1), (1, 2), (2, 1)]


def test_sitting_down_is_one_change_and_so_is_getting_up() -> None:
    keys = [Key(0, UP), Key(2, UP), Key(3, bodies.SITTING), Key(6, bodies.SITTING), Key(7, UP), Key(9, UP)]
    changes = told(noticed([keys], lost=0.05), PostureChanged)

    assert [(each.before, each.posture) for each in changes] == [
        (Posture.UNKNOWN, Posture.STANDING),
        (Posture.STANDING, Posture.SITTING),
        (Posture.SITTING, Posture.STANDING),
    ]
    assert changes[1].before_s == pytest.approx(2.7, abs=0.4)
    assert changes[2].before_s == pytest.approx(4.0, abs=0.4)
    assert all(each.confidence > 0.5 for each in changes)
    assert all(each.since_ns < each.captured_ns for each in changes)


def test_that_legs_are_hidden_for_a_while_is_no_change_of_posture() -> None:
    legs = {f"{side}_{part}" for side in ("left", "right") for part in ("knee", "ankle")}
    hidden = [Key(2.01, UP, hidden=legs), Key(5, UP, hidden=legs)]
    changes = told(noticed([[Key(0, UP), Key(2, UP), *hidden, Key(5.01, UP), Key(8, UP)]]), PostureChanged)

    assert [each.posture for each in changes] == [Posture.STANDING]


def test_raised_hands_begin_and_end_and_say_which() -> None:
    up = bodies.ONE_HAND_UP
    keys = [Key(0, UP), Key(1, UP), Key(1.5, up), Key(3.5, up), Key(4, UP), Key(6, UP)]
    found = told(noticed([keys]), HandsRaised, HandsLowered)

    raised, lowered = found
    assert isinstance(raised, HandsRaised)
    assert isinstance(lowered, HandsLowered)
    assert raised.hands == "left"
    assert lowered.raised_s == pytest.approx(2.3, abs=0.4)
    assert told(noticed([[Key(0, bodies.HANDS_UP), Key(2, bodies.HANDS_UP)]]), HandsRaised)[0].hands == "both"


@pytest.mark.parametrize("held", [bodies.LYING_ON_THE_BACK, replace(bodies.BENT, left_arm_deg=150), bodies.SITTING])
def test_hands_beyond_the_head_of_who_is_not_upright_are_not_raised(held: bodies.Held) -> None:
    keys = [Key(0, held), Key(2, held)]
    assert told(noticed([keys]), HandsRaised) == []


def test_a_fall_is_told_with_its_evidence_and_ends_when_the_person_is_up() -> None:
    down = bodies.LYING_ON_THE_SIDE
    keys = [Key(0, UP), Key(2, UP), Key(2.7, down), Key(6, down), Key(8, UP), Key(11, UP)]
    found = noticed([keys])

    (suspected,), (cleared,) = told(found, FallSuspected), told(found, FallCleared)
    assert isinstance(suspected, FallSuspected)
    assert isinstance(cleared, FallCleared)
    assert suspected.evidence.tilt_deg > 60
    assert (cleared.why, cleared.person_id) == ("up", suspected.person_id)
    assert cleared.down_s == pytest.approx(after_s(cleared) - after_s(suspected), abs=1e-6)


def test_who_leaves_ends_all_that_was_theirs_in_order() -> None:
    held = bodies.ONE_HAND_UP
    stays = Key(0, UP, x_m=1.5), Key(6, UP, x_m=1.5)
    found = noticed([[Key(0, held, x_m=-1), Key(2, held, x_m=-1)], list(stays)], rules(zones=(LEFT_HALF,)))

    of_one = [
        each.what for each in found if getattr(each.what, "person_id", 0) == 1 or isinstance(each.what, CountChanged)
    ]
    assert [type(each) for each in of_one][-4:] == [ZoneLeft, HandsLowered, PersonLeft, CountChanged]
    zone_left = of_one[-4]
    assert isinstance(zone_left, ZoneLeft)
    assert zone_left.stayed_s == pytest.approx(2.0, abs=0.1), "while the person was seen"


def test_zones_are_entered_and_left_by_the_feet() -> None:
    found = noticed([walk((-1.5, 5), (1.5, 5), begin_s=0, end_s=4)], rules(zones=(LEFT_HALF,)))

    entered, left = told(found, ZoneEntered, ZoneLeft)
    assert isinstance(entered, ZoneEntered)
    assert isinstance(left, ZoneLeft)
    assert (entered.zone, left.zone) == ("left", "left")
    assert left.stayed_s == pytest.approx(2.0, abs=0.25)
    assert after_s(left) == pytest.approx(2.3, abs=0.25)


def test_who_sways_on_a_zones_edge_does_not_enter_it_again_and_again() -> None:
    sway = [Key(at / 10, UP, x_m=0.03 * (-1) ** at, z_m=5) for at in range(100)]
    assert len(told(noticed([sway], rules(zones=(LEFT_HALF,)), noise=0.01), ZoneEntered, ZoneLeft)) <= 1


def test_feet_that_are_not_seen_leave_zones_and_lines_as_they_were() -> None:
    feet = {f"{side}_{part}" for side in ("left", "right") for part in ("ankle", "heel", "foot_index")}
    keys = [replace(key, hidden=feet) for key in walk((-1.5, 5), (1.5, 5), begin_s=0, end_s=4)]

    assert told(noticed([keys], rules(zones=(LEFT_HALF,), lines=(MIDDLE,))), ZoneEntered, LineCrossed) == []
    hips = rules(zones=(replace(LEFT_HALF, point="hips"),), lines=(replace(MIDDLE, point="head"),))
    assert len(told(noticed([keys], hips), ZoneEntered, ZoneLeft, LineCrossed)) == 3


def test_a_line_is_crossed_once_each_way() -> None:
    there = walk((-1.2, 5), (1.2, 5), begin_s=0, end_s=3)
    back = walk((1.2, 5), (-1.2, 5), begin_s=3.1, end_s=6)
    crossed = told(noticed([[*there, *back]], rules(lines=(MIDDLE,))), LineCrossed)

    assert [each.to for each in crossed] == ["right", "left"]
    assert after_s(crossed[0]) == pytest.approx(1.6, abs=0.25)
    assert crossed[0].at[0] == pytest.approx(0.5, abs=0.01)


def test_what_is_not_wanted_is_not_told() -> None:
    keys = [Key(0, bodies.HANDS_UP), Key(3, bodies.HANDS_UP)]
    everything = rules(zones=(LEFT_HALF,), lines=(MIDDLE,))
    kinds = {type(each.what) for each in noticed([keys], everything)}

    assert {PersonEntered, PostureChanged, HandsRaised, CountChanged} <= kinds
    assert noticed([keys], Rules(PeopleConfig(events=()), CAMERA.mount)) == []
    assert {type(each.what) for each in noticed([keys], rules("hands"))} == {HandsRaised}


@pytest.mark.parametrize(
    ("changed", "ended"),
    [
        (rules(), {("zone", 1, "left")}),
        (rules("posture"), {("zone", 1, "left"), ("presence", 1), ("hands", 1)}),
        (rules(zones=(replace(LEFT_HALF, point="hips"),)), {("zone", 1, "left")}),
        (rules(zones=(LEFT_HALF,), hands_after_s=1.0), set()),
    ],
)
def test_other_rules_end_what_they_watch_no_longer_and_leave_people_who_they_are(
    changed: Rules, ended: set[object]
) -> None:
    people = People(rules(zones=(LEFT_HALF,)), itertools.count(1))
    held = bodies.ONE_HAND_UP
    shown = list(frames([[Key(0, held, x_m=-1), Key(4, held, x_m=-1)]]))
    for frame, poses in shown[:60]:
        people.see(frame, poses)

    assert set(people.adopt(changed)) == ended
    later = [people.see(frame, poses) for frame, poses in shown[60:]]
    assert all([person.person_id for person in observation.people] == [1] for observation, _ in later)


def test_each_beginning_has_one_end_of_the_same_spell_and_no_end_comes_without() -> None:
    down = bodies.LYING_FACE_DOWN
    crowd = [
        walk((-2.2, 4.5), (2.2, 4.5), begin_s=0, end_s=4),
        [
            Key(0, UP, x_m=-0.5, z_m=6),
            Key(2, UP, x_m=-0.5, z_m=6),
            Key(2.7, down, x_m=-0.5, z_m=6),
            Key(5, down, x_m=-0.5, z_m=6),
        ],
        [Key(1, bodies.HANDS_UP, x_m=1.6, z_m=5), Key(3, bodies.HANDS_UP, x_m=1.6, z_m=5)],
        [Key(11, UP), Key(11.1, UP)],
    ]
    open_spells: set[object] = set()
    for each in noticed(crowd, rules(zones=(LEFT_HALF,), lines=(MIDDLE,)), lost=0.05):
        if isinstance(each.what, Begin):
            assert each.spell not in open_spells
            open_spells.add(each.spell)
        elif isinstance(each.what, End):
            open_spells.remove(each.spell)
        else:
            assert each.spell is None

    assert open_spells <= {("presence", person_id) for person_id in range(10)}


@given(
    st.lists(
        st.lists(st.tuples(st.floats(-3, 3), st.floats(2, 7), st.integers(0, 3)), min_size=2, max_size=5),
        min_size=1,
        max_size=3,
    ),
    st.floats(0, 0.4),
)
@settings(deadline=None, max_examples=20)
def test_whatever_people_do_times_are_sound_and_beginnings_and_ends_alternate(
    paths: list[list[tuple[float, float, int]]], lost: float
) -> None:
    held = (UP, bodies.SITTING, bodies.LYING_ON_THE_BACK, bodies.HANDS_UP)
    crowd = [[Key(at * 1.5, held[how], x_m, z_m) for at, (x_m, z_m, how) in enumerate(steps)] for steps in paths]
    open_spells: set[object] = set()
    for observation, found in understood(crowd, rules(zones=(LEFT_HALF,), lines=(MIDDLE,)), fps=10.0, lost=lost):
        for each in found:
            what = each.what
            assert (what.captured_ns, what.seq) == (observation.captured_ns, observation.seq)
            for name in ("since_ns", "until_ns"):
                assert getattr(what, name, 0) <= what.captured_ns
            for name in ("stayed_s", "raised_s", "down_s", "before_s"):
                assert getattr(what, name, 0.0) >= 0
            if isinstance(what, Begin):
                assert each.spell not in open_spells
                open_spells.add(each.spell)
            elif isinstance(what, End):
                open_spells.remove(each.spell)


def test_numbers_in_events_are_pythons_own() -> None:
    """They are compared, printed and written as JSON by those who know no numpy."""
    crowd = [walk((-1.5, 5), (1.5, 5), begin_s=0, end_s=4)]
    for each in noticed(crowd, rules(zones=(LEFT_HALF,), lines=(MIDDLE,))):
        assert not any(isinstance(getattr(each.what, name), np.generic) for name in type(each.what).__slots__)
