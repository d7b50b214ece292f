"""The wall clock: whether somebody keeps it right, how far off it may be, and whether it was set meanwhile."""

from __future__ import annotations

import ctypes
import logging
import struct

from edge.clocks import Clock, Clocks, Offset, kernel
from edge.reports import ClockReport

log = logging.getLogger(__name__)

# adjtimex(2): struct timex fits, and all zeros ask for nothing to be changed.
_TIMEX_BYTES = 512
_UP_TO_MAXERROR = struct.Struct("@Iqqq")
"""Its first fields: modes, offset, freq and maxerror, how far off the clock may be at most, in microseconds."""
_TIME_ERROR = 5


def synchronised() -> bool | None:
    """Whether the kernel's clock is held by NTP or the like; None where it doesn't tell."""
    state, _ = _adjtimex()
    return None if state < 0 else state != _TIME_ERROR


def error_ms() -> float | None:
    """How far off it may be at most, by the kernel's own bookkeeping; None where nobody keeps it."""
    state, timex = _adjtimex()
    return None if state in (-1, _TIME_ERROR) else _UP_TO_MAXERROR.unpack_from(timex)[3] / 1000


def _adjtimex() -> tuple[int, bytes]:
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    return ctypes.CDLL(None).adjtimex(timex), timex.raw


class ClockWatch:
    """Counts how often somebody has set the clock since this was made, and says so in the log."""

    def __init__(self, read: Clocks = kernel) -> None:
        self._offset = Offset(Clock.REALTIME, read)
        self._steps = 0

    def report(self) -> ClockReport:
        """How it is now; looks whether it was set since the last report."""
        self._offset.now()
        if self._offset.stepped_ns:
            self._steps += 1
            log.info("the clock was set by %+.3f s", self._offset.stepped_ns / 1e9)
        return ClockReport(synchronised(), error_ms(), self._steps)
