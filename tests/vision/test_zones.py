from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.vision.zones import Crossing, Line, LineWatch, Zone, body_point
from tests import bodies
from tests.bodies import Camera, photograph

SQUARE = Zone("square", ((0.2, 0.2), (0.6, 0.2), (0.6, 0.6), (0.2, 0.6)))
HORSESHOE = Zone(
    "horseshoe", ((0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.6, 0.9), (0.6, 0.4), (0.4, 0.4), (0.4, 0.9), (0.1, 0.9))
)
UNIT = st.floats(0, 1)


@given(UNIT, UNIT)
def test_a_square_holds_what_is_between_its_sides(x: float, y: float) -> None:
    if min(abs(x - 0.2), abs(x - 0.6), abs(y - 0.2), abs(y - 0.6)) > 1e-9:
        assert SQUARE.holds(x, y) == (0.2 < x < 0.6 and 0.2 < y < 0.6)


@pytest.mark.parametrize(("x", "inside"), [(0.05, False), (0.2, True), (0.5, False), (0.7, True), (0.95, False)])
def test_edges_may_go_in_and_out(*, x: float, inside: bool) -> None:
    assert HORSESHOE.holds(x, 0.7) is inside


@given(st.integers(3, 9), UNIT, UNIT, st.integers(0, 8))
def test_it_makes_no_difference_at_which_corner_a_zone_begins_or_which_way_it_goes(
    corners: int, x: float, y: float, first: int
) -> None:
    around = tuple(
        (0.5 + 0.4 * math.cos(2 * math.pi * at / corners), 0.5 + 0.3 * math.sin(2 * math.pi * at / corners))
        for at in range(corners)
    )
    turned = around[first % corners :] + around[: first % corners]

    assert Zone("a", around).holds(x, y) == Zone("b", turned).holds(x, y)
    if min(abs(y - corner[1]) for corner in around) > 1e-9:
        assert Zone("a", around).holds(x, y) == Zone("b", around[::-1]).holds(x, y)


def test_a_body_is_where_its_feet_hips_or_head_are_as_far_as_they_are_seen() -> None:
    seen = photograph(bodies.STANDING, Camera(), z_m=6.0)
    feet, hips, head = (body_point(seen, point) for point in ("feet", "hips", "head"))

    assert feet is not None
    assert hips is not None
    assert head is not None
    assert feet[1] > hips[1] > head[1]
    assert feet[0] == pytest.approx(0.5, abs=0.01)
    one_foot = body_point(
        photograph(bodies.STANDING, Camera(), z_m=6.0, hidden={"left_ankle", "left_heel", "left_foot_index"}), "feet"
    )
    assert one_foot is not None
    assert one_foot[0] < 0.5, "the person's right foot is on the picture's left"
    nobody = photograph(bodies.STANDING, Camera(), hidden=seen.skeleton.keypoints)
    assert [body_point(nobody, point) for point in ("feet", "hips", "head")] == [None] * 3


UPRIGHT = Line("door", (0.5, 1.0), (0.5, 0.0))  # who looks along it looks up the picture


def path(line: Line, *xs_and_ys: tuple[float, float], margin_px: float = 5.0) -> list[Crossing]:
    watch = LineWatch(line)
    found = [watch.follow(at, 640, 480, margin_px) for at in xs_and_ys]
    return [each for each in found if each is not None]


def test_who_goes_over_a_line_crosses_it_once_to_the_side_that_is_reached() -> None:
    steps = [(at / 20, 0.5) for at in range(21)]

    (there,) = path(UPRIGHT, *steps)
    (back,) = path(UPRIGHT, *steps[::-1])
    assert (there.to, back.to) == ("right", "left")
    assert there.at == pytest.approx((0.5, 0.5))


def test_who_stands_on_a_line_and_sways_does_not_cross_it() -> None:
    sway = [(0.4, 0.5)] + [(0.5 + 0.006 * (-1) ** at, 0.5) for at in range(50)]
    assert path(UPRIGHT, *sway) == []
    assert len(path(UPRIGHT, *sway, (0.6, 0.5))) == 1


def test_who_goes_around_a_lines_end_does_not_cross_it_but_has_changed_sides() -> None:
    short = Line("short", (0.5, 0.6), (0.5, 0.4))
    around = [(0.4, 0.5), (0.4, 0.8), (0.6, 0.8), (0.6, 0.5)]

    assert path(short, *around) == []
    assert [each.to for each in path(short, *around, (0.4, 0.5))] == ["left"]


def test_who_comes_into_being_beyond_a_line_has_not_crossed_it() -> None:
    assert path(UPRIGHT, (0.9, 0.5), (0.8, 0.5)) == []


@given(st.lists(st.tuples(UNIT, UNIT), min_size=2, max_size=30))
def test_sides_take_turns(places: list[tuple[float, float]]) -> None:
    endless = Line("endless", (0.5, 100.0), (0.5, -100.0))

    sides = [each.to for each in path(endless, *places)]

    assert all(one != other for one, other in itertools.pairwise(sides))
