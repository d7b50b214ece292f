"""When a network camera's light fell, as far as somebody can know to whom its pictures come."""

from __future__ import annotations

from collections import deque

WINDOW_NS = 5_000_000_000
"""For so long of the sender's time, the picture that came with the least delay says how much the others were delayed.
Its clock may be off by 100 millionths: that is half a millisecond."""


class Arrivals:
    """Times of capture from times of arrival and the stamps that the sender gave, in RTP's terms: timestamps.

    The sender's stamps are even, but count from anywhere. Arrivals are on our clock, but late by what the network and
    a queue take, each time by something else. The least of these delays is taken for all pictures, so that their times
    are as even as the sender made them, and one that has waited in a queue is as old as it is.

    What cannot be seen from here is the delay that each picture has: the camera's encoder and the way.
    """

    def __init__(self) -> None:
        self._offsets: deque[tuple[int, int]] = deque()  # (stamp, arrival - stamp), offsets rising
        self._last_ns: int | None = None

    def captured_ns(self, stamp_ns: int | None, arrived_ns: int) -> int:
        """stamp_ns: the sender's, None for none. arrived_ns: on a clock that never steps; the result is on that one,
        and never later. Stamps that stand still, go back or leap begin anew."""
        if stamp_ns is None or self._last_ns is None or not 0 < stamp_ns - self._last_ns < WINDOW_NS:
            self._offsets.clear()
        self._last_ns = stamp_ns
        if stamp_ns is None:
            return arrived_ns
        offset_ns = arrived_ns - stamp_ns
        while self._offsets and self._offsets[-1][1] >= offset_ns:
            self._offsets.pop()
        self._offsets.append((stamp_ns, offset_ns))
        while self._offsets[0][0] <= stamp_ns - WINDOW_NS:
            self._offsets.popleft()
        return stamp_ns + self._offsets[0][1]


class Backlog:
    """Which pictures are left out after a stream was opened: those that had waited for that, and come at once."""

    def __init__(self, most_ns: int) -> None:
        """most_ns: after so long none is left out any more: some servers send a film as fast as they can."""
        self._most_ns = most_ns
        self._first_ns = 0
        self._last: tuple[int | None, int] | None = None
        self._over = False

    def holds(self, stamp_ns: int | None, arrived_ns: int) -> bool:
        """Whether this picture belongs to it: it came in less than half the time that the sender took for it. Of the
        first one that can't be known, so it always does."""
        if self._over:
            return False
        last, self._last = self._last, (stamp_ns, arrived_ns)
        if last is None:
            self._first_ns = arrived_ns
            return True
        before_ns, arrived_before_ns = last
        in_time = (
            stamp_ns is not None
            and before_ns is not None
            and 2 * (arrived_ns - arrived_before_ns) >= stamp_ns - before_ns
        )
        self._over = in_time or arrived_ns - self._first_ns > self._most_ns
        return not self._over
