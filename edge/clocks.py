"""The kernel's clocks, turned into a frame's two times: captured_ns since the Unix epoch, and monotonic_ns.

CLOCK_MONOTONIC never steps and stands still in a suspended machine; CLOCK_BOOTTIME is the same but for going on there;
CLOCK_REALTIME is what people call the time and steps whenever somebody sets it. See clock_gettime(2). Whatever converts
one of them into another does so here.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

_STEP_NS = 1_000_000
"""The distance of two clocks that has changed by more was changed by a step or by a suspension; less is how exactly two
clocks can be read one after the other."""

_FUTURE_NS = 100_000_000
_OLDEST_NS = 5_000_000_000
"""A stamp outside of these is none of this frame's: a driver that stamps by a clock of its own, or gives nothing. A
little ahead, as one that is reckoned from the camera's own clock can be, is now."""

_READINGS = 3


class Clock(StrEnum):
    """Those that drivers stamp frames with."""

    MONOTONIC = "monotonic"
    BOOTTIME = "boottime"
    REALTIME = "realtime"


@dataclass(frozen=True, slots=True)
class Instant:
    """One instant on both of a frame's clocks, in nanoseconds."""

    captured_ns: int
    monotonic_ns: int


class Clocks(Protocol):
    """What reads the clocks, in nanoseconds."""

    def __call__(self, clock: Clock, /) -> int: ...


_IDS = {
    Clock.MONOTONIC: time.CLOCK_MONOTONIC,
    Clock.BOOTTIME: time.CLOCK_BOOTTIME,
    Clock.REALTIME: time.CLOCK_REALTIME,
}


def kernel(clock: Clock) -> int:
    """The kernel's clock."""
    return time.clock_gettime_ns(_IDS[clock])


def offset_ns(clock: Clock, read: Clocks = kernel) -> int:
    """How far `clock` is ahead of CLOCK_MONOTONIC: of a few readings the one that took least time, halfway through."""
    best_ns, found_ns = None, 0
    for _ in range(_READINGS):
        before_ns, there_ns, after_ns = read(Clock.MONOTONIC), read(clock), read(Clock.MONOTONIC)
        if best_ns is None or after_ns - before_ns < best_ns:
            best_ns, found_ns = after_ns - before_ns, there_ns - (before_ns + after_ns) // 2
    return found_ns


class Offset:
    """How far a clock is ahead of CLOCK_MONOTONIC, without the noise of reading them one after the other."""

    def __init__(self, clock: Clock, read: Clocks = kernel) -> None:
        self._clock = clock
        self._read = read
        self._kept_ns = offset_ns(clock, read)
        self.stepped_ns = 0
        """How far the last `now` found it moved; 0 where it stayed."""

    def now(self) -> int:
        """In nanoseconds. The same as before, unless the clock was set or the machine was suspended."""
        found_ns = offset_ns(self._clock, self._read)
        moved_ns = found_ns - self._kept_ns
        self.stepped_ns = moved_ns if abs(moved_ns) >= _STEP_NS else 0
        if self.stepped_ns:
            self._kept_ns = found_ns
        return self._kept_ns


class CaptureClock:
    """The times of one camera's frames, for as long as the camera is configured, however often it is opened.

    monotonic_ns strictly increases. captured_ns is what the wall clock, as it is set when the frame arrives, showed at
    that instant: it follows a step at once, also one back, so frames are in order by monotonic_ns and seq only.
    """

    def __init__(self, read: Clocks = kernel) -> None:
        self._read = read
        self._wall = Offset(Clock.REALTIME, read)
        self._boot = Offset(Clock.BOOTTIME, read)
        self._last_ns = -1
        self._opened = Instant(0, 0)
        self.doubted = False
        """The last stamp could not be its frame's, and the time of its arrival was taken instead."""

    def now(self) -> Instant:
        """This moment, for frames without a stamp."""
        return self._both(self._read(Clock.MONOTONIC))

    def at(self, stamp_ns: int, clock: Clock) -> Instant:
        """When a frame that has just come was captured, by its stamp on a clock of the kernel's."""
        now_ns = self._read(Clock.MONOTONIC)
        offset = {Clock.BOOTTIME: self._boot, Clock.REALTIME: self._wall}.get(clock)
        monotonic_ns = stamp_ns - (0 if offset is None else offset.now())
        self.doubted = not -_FUTURE_NS <= now_ns - monotonic_ns <= _OLDEST_NS
        return self._both(now_ns if self.doubted else min(monotonic_ns, now_ns))

    def open(self) -> int:
        """Media time, of a film, begins now: the monotonic_ns of that."""
        monotonic_ns = self._read(Clock.MONOTONIC)
        self._opened = Instant(monotonic_ns + self._wall.now(), monotonic_ns)
        return monotonic_ns

    def media(self, since_begin_ns: int) -> Instant:
        """So long after `open`, at whatever pace that is shown: steps of the wall clock are none of a film's."""
        monotonic_ns = self._increased(self._opened.monotonic_ns + since_begin_ns)
        return Instant(self._opened.captured_ns + since_begin_ns, monotonic_ns)

    def _both(self, monotonic_ns: int) -> Instant:
        monotonic_ns = self._increased(monotonic_ns)
        return Instant(monotonic_ns + self._wall.now(), monotonic_ns)

    def _increased(self, monotonic_ns: int) -> int:
        self._last_ns = max(monotonic_ns, self._last_ns + 1)
        return self._last_ns
