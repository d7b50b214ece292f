from __future__ import annotations

import time
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from edge.clocks import CaptureClock, Clock, Offset, kernel, offset_ns

MS = 1_000_000
S = 1_000_000_000


@dataclass
class Machine:
    """A machine's clocks, set by hand. Each reading takes a microsecond."""

    monotonic_ns: int = 1000 * S
    wall_ns: int = 1_700_000_000 * S
    suspended_ns: int = 0

    def __call__(self, clock: Clock) -> int:
        self.monotonic_ns += 1000
        match clock:
            case Clock.MONOTONIC:
                return self.monotonic_ns
            case Clock.BOOTTIME:
                return self.monotonic_ns + self.suspended_ns
            case Clock.REALTIME:
                return self.monotonic_ns + self.wall_ns
        raise AssertionError(clock)


def test_the_kernels_clocks_are_what_pythons_are() -> None:
    for clock, read in ((Clock.MONOTONIC, time.monotonic_ns), (Clock.REALTIME, time.time_ns)):
        before, there, after = read(), kernel(clock), read()
        assert before <= there <= after
    monotonic_ns = kernel(Clock.MONOTONIC)
    assert kernel(Clock.BOOTTIME) >= monotonic_ns


def test_a_stamp_of_any_clock_is_the_same_instant() -> None:
    machine = Machine(suspended_ns=3600 * S)
    clock = CaptureClock(machine)
    captured = []
    for name, ahead_ns in ((Clock.MONOTONIC, 0), (Clock.BOOTTIME, 3600 * S), (Clock.REALTIME, machine.wall_ns)):
        machine.monotonic_ns += 33 * MS
        exposed_ns = machine.monotonic_ns - 20 * MS
        instant = clock.at(exposed_ns + ahead_ns, name)
        assert abs(instant.monotonic_ns - exposed_ns) <= 2000
        assert abs(instant.captured_ns - exposed_ns - machine.wall_ns) <= 4000
        captured.append(instant.captured_ns)
    assert captured == sorted(captured)


def test_the_kernel_stamps_of_now_are_of_now() -> None:
    clock = CaptureClock()
    for name in Clock:
        monotonic_ns = clock.at(kernel(name), name).monotonic_ns
        assert 0 <= time.monotonic_ns() - monotonic_ns < S
        assert not clock.doubted


def test_what_can_not_be_a_frames_stamp_is_its_arrival() -> None:
    machine = Machine()
    clock = CaptureClock(machine)
    for wrong_ns in (0, machine.monotonic_ns + S, machine.monotonic_ns - 10 * S, -5, machine.wall_ns):
        machine.monotonic_ns += 33 * MS
        instant = clock.at(wrong_ns, Clock.MONOTONIC)
        assert abs(instant.monotonic_ns - machine.monotonic_ns) < MS
        assert clock.doubted
    clock.at(machine.monotonic_ns, Clock.MONOTONIC)
    assert not clock.doubted


def test_the_wall_clocks_steps_are_followed_at_once_and_nothing_else_of_it_is() -> None:
    machine = Machine()
    clock = CaptureClock(machine)
    first = clock.now()
    for step_ns in (40 * 365 * 86400 * S, -3600 * S, -S // 2, 2 * MS):
        machine.wall_ns += step_ns
        before, machine.monotonic_ns = machine.monotonic_ns, machine.monotonic_ns + 33 * MS
        instant = clock.now()
        assert instant.monotonic_ns > before
        assert abs(instant.captured_ns - instant.monotonic_ns - machine.wall_ns) <= 2000
    assert first.monotonic_ns < instant.monotonic_ns
    machine.wall_ns += 900_000  # less than how exactly it may be read
    assert clock.now().captured_ns - machine.monotonic_ns < machine.wall_ns - 800_000


def test_an_offset_says_how_far_its_clock_was_set() -> None:
    machine = Machine()
    offset = Offset(Clock.REALTIME, machine)
    assert (offset.now() != 0, offset.stepped_ns) == (True, 0)
    machine.wall_ns += 3200 * MS
    offset.now()
    assert abs(offset.stepped_ns - 3200 * MS) < 10_000
    offset.now()
    assert offset.stepped_ns == 0


def test_of_several_readings_the_narrowest_counts() -> None:
    delays = iter([0, 5 * MS, 5 * MS, 0, 0, 0, 0, 9 * MS, 0])
    machine = Machine()

    def read(clock: Clock) -> int:
        machine.monotonic_ns += next(delays)
        return machine(clock)

    assert abs(offset_ns(Clock.REALTIME, read) - machine.wall_ns) <= 1000


def test_media_time_counts_from_the_opening_and_knows_no_steps() -> None:
    machine = Machine()
    clock = CaptureClock(machine)
    clock.open()
    opened = clock.media(0)
    machine.wall_ns -= 3600 * S
    later = clock.media(5 * S)
    assert (later.captured_ns - opened.captured_ns, later.monotonic_ns - opened.monotonic_ns) == (5 * S, 5 * S)
    clock.open()
    assert clock.media(0).monotonic_ns > later.monotonic_ns, "opened again before the film was over"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([*Clock, None]),
            st.integers(-10 * S, 10 * S),  # the stamp's age
            st.integers(0, S),  # passes before it
            st.sampled_from([0, 0, 0, 3600 * S, -3600 * S, -S // 2]),  # the wall clock is set
            st.sampled_from([0, 0, 0, 60 * S]),  # the machine is suspended
        )
    )
)
def test_order_is_kept_whatever_drivers_and_clocks_do(
    steps: list[tuple[Clock | None, int, int, int, int]],
) -> None:
    machine = Machine()
    clock = CaptureClock(machine)
    last_ns = -1
    for name, age_ns, passes_ns, set_ns, suspended_ns in steps:
        machine.monotonic_ns += passes_ns
        machine.wall_ns += set_ns + suspended_ns
        machine.suspended_ns += suspended_ns
        ahead_ns = {Clock.BOOTTIME: machine.suspended_ns, Clock.REALTIME: machine.wall_ns}.get(
            name or Clock.MONOTONIC, 0
        )
        stamp_ns = machine.monotonic_ns - age_ns + ahead_ns
        instant = clock.now() if name is None else clock.at(stamp_ns, name)
        assert instant.monotonic_ns > last_ns
        assert instant.monotonic_ns <= max(machine.monotonic_ns, last_ns + 1)
        assert abs(instant.captured_ns - instant.monotonic_ns - machine.wall_ns) <= 2000
        last_ns = instant.monotonic_ns
