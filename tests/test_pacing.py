from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.pacing import Allowance, Backoff, Deadline, RateGate, Thinning

SECOND_NS = 1_000_000_000


def test_steps_that_share_a_deadline_together_have_no_longer_than_planned() -> None:
    deadline = Deadline(60)

    left_s = [deadline.left_s() for _ in range(100)]

    assert left_s[0] <= 60
    assert left_s == sorted(left_s, reverse=True)


@pytest.mark.parametrize("seconds", [0, -5])
def test_a_deadline_that_has_passed_leaves_nothing_never_less(seconds: float) -> None:
    assert Deadline(seconds).left_s() == 0.0


def test_waiting_times_double_up_to_the_most_and_start_over_after_a_success() -> None:
    backoff = Backoff(first_s=1.0, most_s=8.0)
    planned_s = [1, 2, 4, 8, 8, 8]

    for most_s in planned_s:
        assert most_s / 2 <= backoff.next_s() <= most_s
    backoff.reset()
    assert 0.5 <= backoff.next_s() <= 1.0


def test_a_fleet_does_not_knock_all_at_once() -> None:
    random.seed(1)
    waits_s = {round(Backoff(first_s=1.0, most_s=8.0).next_s(), 2) for _ in range(100)}

    assert len(waits_s) > 25


@pytest.mark.parametrize(
    ("fps", "hz", "through"), [(30, 20, 20), (30, 30, 30), (30, 5, 5), (25, 30, 25), (60, 7, 7), (30, 0.5, 0.5)]
)
def test_a_stream_comes_through_at_the_rate_of_the_gate_or_at_its_own(fps: int, hz: float, through: float) -> None:
    gate = RateGate(hz)

    admitted = sum(gate.admits(seq * SECOND_NS // fps) for seq in range(20 * fps))

    assert admitted == pytest.approx(20 * through, abs=1)


@given(hz=st.floats(0.1, 200), steps_ns=st.lists(st.integers(0, 300_000_000), min_size=1, max_size=300))
@settings(deadline=None, max_examples=100)
def test_never_more_come_through_than_the_gate_allows(hz: float, steps_ns: list[int]) -> None:
    gate = RateGate(hz)
    now_ns, admitted = 0, 0
    for step_ns in steps_ns:
        now_ns += step_ns
        admitted += gate.admits(now_ns)

    lasted_s = (now_ns - steps_ns[0]) / 1e9
    assert 1 <= admitted <= lasted_s * hz * 1.000_001 + 1.1


@given(st.lists(st.floats(-0.045, 0.045), min_size=2, max_size=200), st.sampled_from([5, 25, 30, 60]))
@settings(deadline=None, max_examples=50)
def test_a_camera_that_jitters_around_the_gates_own_rate_loses_nothing(jitter: list[float], fps: int) -> None:
    gate = RateGate(fps)

    assert all(gate.admits(int((seq + off) * SECOND_NS / fps)) for seq, off in enumerate(jitter))


def test_after_a_pause_the_gate_does_not_make_up_for_what_did_not_come() -> None:
    gate = RateGate(10)
    gate.admits(0)

    burst = [gate.admits(60 * SECOND_NS + ms * 1_000_000) for ms in range(0, 100, 10)]

    assert burst == [True, *[False] * 8, True]


def test_a_gate_without_a_rate_lets_everything_through() -> None:
    gate = RateGate(None)

    assert all(gate.admits(now_ns) for now_ns in (0, 0, 1, 2))


class TestThinning:
    @pytest.mark.parametrize(
        ("fps", "hz", "taken"),
        [
            (60, 30, [0, 2, 4, 6, 8, 10]),
            (50, 30, [0, 2, 3, 5, 7, 8, 10]),
            (30, 30, [*range(11)]),
            (25, 30, [*range(11)]),
            (30, 10, [0, 3, 6, 9]),
        ],
    )
    def test_of_a_steady_stream_those_nearest_to_the_grid_are_taken(
        self, fps: int, hz: float, taken: list[int]
    ) -> None:
        thinning = Thinning(hz)

        assert [seq for seq in range(11) if thinning.takes(7 * SECOND_NS + seq * SECOND_NS // fps)] == taken

    @pytest.mark.parametrize(("fps", "sigma_ms"), [(29.97, 2), (30, 2), (25, 5), (24, 5)])
    def test_a_camera_that_is_no_faster_loses_nothing_to_its_jitter(self, fps: float, sigma_ms: float) -> None:
        chance, thinning = random.Random(1), Thinning(30)
        times_ns = sorted(int(seq * 1e9 / fps + chance.gauss(0, sigma_ms * 1e6)) for seq in range(3000))

        assert all(map(thinning.takes, times_ns))

    @given(st.lists(st.floats(-0.16, 0.16), min_size=2, max_size=200), st.floats(0.5, 1.0))
    @settings(deadline=None, max_examples=50)
    def test_so_it_is_for_jitter_of_a_sixth_of_a_period_whatever_it_looks_like(
        self, jitter: list[float], share: float
    ) -> None:
        thinning = Thinning(20)

        assert all(thinning.takes(int((seq / share + off) * SECOND_NS / 20)) for seq, off in enumerate(jitter))

    def test_of_a_camera_that_is_twice_as_fast_little_jitter_changes_nothing_and_more_not_the_rate(self) -> None:
        def taken(jitter_ns: int) -> list[int]:
            chance, thinning = random.Random(1), Thinning(30)
            times_ns = [int(seq * 1e9 / 60) + chance.randint(-jitter_ns, jitter_ns) for seq in range(600)]
            return [seq for seq, at_ns in enumerate(times_ns) if thinning.takes(at_ns)]

        assert taken(2_700_000) == list(range(0, 600, 2))
        assert len(taken(8_000_000)) == pytest.approx(300, abs=2)

    @given(hz=st.floats(0.1, 200), steps_ns=st.lists(st.integers(0, 300_000_000), min_size=1, max_size=300))
    @settings(deadline=None, max_examples=100)
    def test_no_more_are_taken_than_wanted_but_for_a_burst_of_two(self, hz: float, steps_ns: list[int]) -> None:
        thinning = Thinning(hz)
        now_ns, taken = 0, 0
        for step_ns in steps_ns:
            now_ns += step_ns
            taken += thinning.takes(now_ns)

        lasted_s = (now_ns - steps_ns[0]) / 1e9
        assert 1 <= taken <= lasted_s * hz * 1.000_001 + 2.6

    def test_a_time_that_goes_back_begins_a_new_grid(self) -> None:
        thinning = Thinning(30)
        thinning.takes(60 * SECOND_NS)

        assert [thinning.takes(seq * SECOND_NS // 60) for seq in range(4)] == [True, False, True, False]


@given(st.lists(st.floats(0, 10), max_size=200), st.floats(0.1, 50), st.floats(1, 20))
def test_an_allowance_lets_no_more_through_than_at_once_and_with_time(
    gaps_s: list[float], hz: float, most: float
) -> None:
    allowance, now_s, admitted = Allowance(hz, most), 1000.0, 0
    for gap_s in gaps_s:
        now_s += gap_s
        admitted += allowance.admits(now_s)
        assert admitted <= most + hz * (now_s - 1000.0) + 1e-6
    if gaps_s:
        assert admitted >= 1
