"""The kernel's clocks: when the light fell, from what a driver says (stand-in, helper C's comes)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum


class Clock(StrEnum):
    MONOTONIC = "monotonic"
    BOOTTIME = "boottime"
    REALTIME = "realtime"


@dataclass(frozen=True, slots=True)
class Instant:
    captured_ns: int
    monotonic_ns: int


class CaptureClock:
    def __init__(self) -> None:
        self._last_ns = -1
        self._opened = Instant(0, 0)

    def open(self) -> None:
        self._opened = Instant(time.time_ns(), time.monotonic_ns())

    def at(self, stamp_ns: int, clock: Clock) -> Instant:
        ids = {
            Clock.MONOTONIC: time.CLOCK_MONOTONIC,
            Clock.BOOTTIME: time.CLOCK_BOOTTIME,
            Clock.REALTIME: time.CLOCK_REALTIME,
        }
        age_ns = time.clock_gettime_ns(ids[clock]) - stamp_ns
        if not -5_000_000 < age_ns < 5_000_000_000:
            age_ns = 0
        return self._increasing(time.monotonic_ns() - age_ns)

    def now(self) -> Instant:
        return self._increasing(time.monotonic_ns())

    def media(self, since_begin_ns: int) -> Instant:
        instant = self._increasing(self._opened.monotonic_ns + since_begin_ns)
        return Instant(self._opened.captured_ns + since_begin_ns, instant.monotonic_ns)

    def _increasing(self, monotonic_ns: int) -> Instant:
        self._last_ns = monotonic_ns = max(monotonic_ns, self._last_ns + 1)
        return Instant(monotonic_ns + time.time_ns() - time.monotonic_ns(), monotonic_ns)
