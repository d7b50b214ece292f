"""Turns against numpy's, and parts of pictures of every size."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge.vision.geometry import UPRIGHT, WHOLE, Part, Turn, View, Window

TURNS = [Turn(quarters, mirrored) for quarters in range(4) for mirrored in (False, True)]
SIDES = st.integers(1, 2000)


@st.composite
def parts(draw: st.DrawFn) -> Part:
    """Parts as the configuration can have them, whole sides among them."""
    (left, width), (top, height) = (
        draw(
            st.one_of(
                st.just((0.0, 1.0)),
                st.tuples(st.floats(0, 0.95), st.floats(0.05, 1)).map(lambda at: (at[0], min(at[1], 1 - at[0]))),
                st.tuples(st.integers(0, 9), st.integers(1, 10)).map(
                    lambda at: (at[0] / 10, min(at[1], 10 - at[0]) / 10)
                ),
            )
        )
        for _ in range(2)
    )
    return Part(left, top, width, height)


def turned(pixels: np.ndarray, turn: Turn) -> np.ndarray:
    """As numpy does it."""
    rotated = np.rot90(pixels, -turn.quarters)
    return np.fliplr(rotated) if turn.mirrored else rotated


def numbered(width_px: int, height_px: int) -> np.ndarray:
    return np.arange(width_px * height_px).reshape(height_px, width_px)


def cut(pixels: np.ndarray, window: Window) -> np.ndarray:
    return pixels[window.top : window.bottom, window.left : window.right]


@pytest.mark.parametrize(
    ("rotate_deg", "flip"), itertools.product((0, 90, 180, 270), ("none", "horizontal", "vertical"))
)
def test_a_picture_is_turned_clockwise_first_and_then_flipped(rotate_deg: int, flip: str) -> None:
    pixels = numbered(5, 3)
    flipped = {"none": lambda each: each, "horizontal": np.fliplr, "vertical": np.flipud}[flip]
    expected = flipped(np.rot90(pixels, -rotate_deg // 90))

    assert np.array_equal(turned(pixels, Turn.of(rotate_deg, flip)), expected)


@pytest.mark.parametrize(("one", "other"), itertools.product(TURNS, TURNS))
def test_one_turn_after_another_is_a_turn(one: Turn, other: Turn) -> None:
    pixels = numbered(5, 3)
    both = one.then(other)

    assert np.array_equal(turned(turned(pixels, one), other), turned(pixels, both))
    assert turned(pixels, both).shape[::-1] == both.size(5, 3)
    assert View(both).without(one) == View(other), "what is left of both when one has been done"


@pytest.mark.parametrize("turn", TURNS)
def test_a_turn_is_taken_back_by_its_inverse(turn: Turn) -> None:
    assert turn.then(turn.inverse) == turn.inverse.then(turn) == UPRIGHT


@pytest.mark.parametrize("turn", TURNS)
def test_a_sensor_that_only_flips_does_all_of_a_turn_or_nothing(turn: Turn) -> None:
    horizontal, vertical = turn.flips
    done = Turn.of_flips(horizontal=horizontal, vertical=vertical)

    assert done == (UPRIGHT if turn.on_its_side else turn)
    pixels = numbered(5, 3)
    flipped = np.fliplr(pixels) if horizontal else pixels
    assert np.array_equal(np.flipud(flipped) if vertical else flipped, turned(pixels, done))


@given(st.sampled_from(TURNS), parts(), st.integers(1, 40), st.integers(1, 40))
def test_a_view_is_the_part_of_the_turned_picture(turn: Turn, crop: Part, width_px: int, height_px: int) -> None:
    """Whichever is done first: the pixels that are left out need not be turned."""
    pixels, view = numbered(width_px, height_px), View(turn, crop)
    cropped_last = cut(turned(pixels, turn), crop.window(*turn.size(width_px, height_px)))

    assert np.array_equal(turned(cut(pixels, view.window(width_px, height_px)), turn), cropped_last)


@given(parts(), SIDES, SIDES)
def test_a_window_is_never_empty_and_lies_in_the_picture(part: Part, width_px: int, height_px: int) -> None:
    window = part.window(width_px, height_px)

    assert 0 <= window.left < window.right <= width_px
    assert 0 <= window.top < window.bottom <= height_px


@given(parts(), st.integers(1, 1000), st.integers(1, 1000))
def test_of_a_picture_with_even_sides_all_borders_are_even(part: Part, half_width: int, half_height: int) -> None:
    window = part.window(2 * half_width, 2 * half_height)

    assert not any(side % 2 for side in (window.left, window.top, window.right, window.bottom))


@given(parts(), SIDES, SIDES)
def test_nothing_is_seen_that_was_to_be_left_out(part: Part, width_px: int, height_px: int) -> None:
    window = part.window(width_px, height_px)
    assume(part.width * width_px >= 4)
    assume(part.height * height_px >= 4)  # of less there may be no two pixels between even borders

    assert window.left >= part.left * width_px - 1e-3
    assert window.right <= (part.left + part.width) * width_px + 1e-3
    assert window.top >= part.top * height_px - 1e-3
    assert window.bottom <= (part.top + part.height) * height_px + 1e-3
    assert window.width_px > part.width * width_px - 4, "nor is more left out than even borders need"


@given(st.integers(0, 9), st.integers(1, 10), st.integers(1, 100))
def test_borders_in_tenths_are_where_they_are_meant_to_be(first: int, tenths: int, twentieth_px: int) -> None:
    """0.7 of 640 is 447.99999999999994 as numbers of a computer go."""
    tenths = min(tenths, 10 - first)
    window = Part(first / 10, 0.0, tenths / 10, 1.0).window(20 * twentieth_px, 480)

    assert (window.left, window.right) == (2 * first * twentieth_px, 2 * (first + tenths) * twentieth_px)


def test_what_is_not_cropped_stays_odd() -> None:
    assert WHOLE.window(641, 481) == Window(0, 0, 641, 481)
    assert Part(0.0, 0.5, 1.0, 0.5).window(641, 481) == Window(0, 242, 641, 480)


def test_a_view_of_all_of_it_is_whole() -> None:
    assert View().is_whole
    assert View(Turn.of(180)).without(Turn.of_flips(horizontal=True, vertical=True)).is_whole
    assert not View(Turn.of(90)).is_whole
    assert not View(crop=Part(0.0, 0.0, 0.5, 1.0)).is_whole
