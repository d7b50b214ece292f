from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.cameras.arrival import WINDOW_NS, Arrivals, Backlog

PERIOD_NS = 33_333_333
MS = 1_000_000

delays_ms = st.lists(st.integers(0, 2000), min_size=1, max_size=120)


@given(delays_ms=delays_ms, begin_ns=st.integers(-(10**15), 10**15))
def test_no_picture_was_taken_after_it_came(delays_ms: list[int], begin_ns: int) -> None:
    arrivals = Arrivals()
    arrived_ns = 0
    for number, delay_ms in enumerate(delays_ms):
        arrived_ns = max(arrived_ns + 1, number * PERIOD_NS + delay_ms * MS)
        assert arrivals.captured_ns(begin_ns + number * PERIOD_NS, arrived_ns) <= arrived_ns


@given(delays_ms=delays_ms, least_ms=st.integers(0, 50))
def test_after_one_that_came_in_time_all_are_as_even_as_they_were_sent(delays_ms: list[int], least_ms: int) -> None:
    arrivals = Arrivals()
    arrivals.captured_ns(0, least_ms * MS)
    for number, delay_ms in enumerate(delays_ms, 1):
        sent_ns = number * PERIOD_NS
        assert arrivals.captured_ns(sent_ns, sent_ns + (least_ms + delay_ms) * MS) == sent_ns + least_ms * MS


def test_a_delay_that_stays_is_the_new_measure_after_the_window() -> None:
    arrivals = Arrivals()
    arrivals.captured_ns(0, 0)
    for number in range(1, 400):
        sent_ns = number * PERIOD_NS
        captured_ns = arrivals.captured_ns(sent_ns, sent_ns + 80 * MS)
        assert captured_ns == sent_ns + (80 * MS if sent_ns >= WINDOW_NS else 0)


def test_a_clock_that_is_off_is_followed() -> None:
    arrivals = Arrivals()
    for number in range(30 * 600):
        arrived_ns = number * PERIOD_NS
        captured_ns = arrivals.captured_ns(int(arrived_ns * 1.0001), arrived_ns)
        assert arrived_ns - captured_ns <= 0.6 * MS


@pytest.mark.parametrize("stamps", [[None, None, None], [0, 0, 0], [100, 50, 20], [0, 10**13, 2 * 10**13]])
def test_stamps_that_make_no_sense_leave_the_arrival(stamps: list[int | None]) -> None:
    arrivals = Arrivals()
    assert [arrivals.captured_ns(stamp, at) for at, stamp in enumerate(stamps, 10**9)] == list(
        range(10**9, 10**9 + len(stamps))
    )


def test_a_stream_that_begins_anew_is_measured_anew() -> None:
    arrivals = Arrivals()
    arrivals.captured_ns(10**9, 10**9)
    assert arrivals.captured_ns(0, 2 * 10**9) == 2 * 10**9
    assert arrivals.captured_ns(PERIOD_NS, 3 * 10**9) == 2 * 10**9 + PERIOD_NS


def kept(arrivals_ms: list[float], *, period_ms: float = 100) -> list[int]:
    backlog = Backlog(2_000_000_000)
    return [
        number
        for number, arrived_ms in enumerate(arrivals_ms)
        if not backlog.holds(int(number * period_ms * MS), int(arrived_ms * MS))
    ]


def test_what_had_waited_while_the_stream_was_opened_is_left_out() -> None:
    assert kept([0, 3, 6, 9, 100, 200, 203]) == [4, 5, 6]


def test_of_what_comes_in_time_only_the_first_is_left_out() -> None:
    assert kept([0, 100, 200]) == [1, 2]


def test_a_film_that_is_sent_as_fast_as_it_can_be_is_shown_all_the_same() -> None:
    numbers = kept([10 * number for number in range(300)])
    assert numbers == list(range(201, 300))


def test_without_stamps_nothing_is_left_out_for_long() -> None:
    backlog = Backlog(2_000_000_000)
    held = [backlog.holds(None, 100 * number * MS) for number in range(30)]
    assert held == [True] * 21 + [False] * 9


@given(st.lists(st.tuples(st.none() | st.integers(-(10**12), 10**12), st.integers(0, 10**9)), min_size=2))
def test_once_nothing_is_left_out_that_stays(pictures: list[tuple[int | None, int]]) -> None:
    backlog = Backlog(2_000_000_000)
    arrived_ns, held = 0, []
    for stamp_ns, later_ns in pictures:
        arrived_ns += later_ns
        held.append(backlog.holds(stamp_ns, arrived_ns))
    assert all(before or not after for before, after in pairwise(held))
