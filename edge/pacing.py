"""When to do the next thing, and whether somebody still does: deadlines, jittered back-off, pulses and rate limits.

Time is always an argument or monotonic.
"""

from __future__ import annotations

import math
import random
import time


class Deadline:
    """A point in time that several steps share, so that together they never take longer than planned."""

    def __init__(self, seconds: float) -> None:
        self._end_s = time.monotonic() + seconds

    def left_s(self) -> float:
        """Seconds until the deadline, 0.0 once it has passed."""
        return max(0.0, self._end_s - time.monotonic())


class Backoff:
    """Waiting times that double from `first_s` to `most_s`, each multiplied by a random factor in [0.5, 1).

    The jitter keeps a fleet from knocking all at once after a broker's restart.
    """

    def __init__(self, *, first_s: float, most_s: float) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._next_s = first_s

    def next_s(self) -> float:
        wait_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(self._next_s * 2.0, self._most_s)
        return wait_s

    def reset(self) -> None:
        self._next_s = self._first_s


class Pulse:
    """Whether a thread gets on: it beats with every step, and rests while it waits for something on purpose."""

    def __init__(self) -> None:
        self._last_s = math.inf
        self._patience = 1.0

    def beat(self, patience: float = 1.0) -> None:
        """patience: how many times as long as others the next step may take."""
        self._last_s, self._patience = time.monotonic(), patience

    def rest(self) -> None:
        """From now on nothing is expected, until the next beat."""
        self._last_s = math.inf

    def is_silent(self, after_s: float) -> bool:
        """Whether the next beat is overdue, if a step takes no longer than `after_s`."""
        return time.monotonic() - self._last_s > after_s * self._patience


class RateGate:
    """Lets through at most `hz` items a second of a stream whose items carry their own time.

    It keeps to a grid rather than to the last item's time, so that 30 frames/s through a gate of 20 Hz give
    20 and not 15. `hz=None` lets everything through.
    """

    def __init__(self, hz: float | None) -> None:
        self._period_ns = None if hz is None else int(1e9 / hz)
        self._due_ns: int | None = None

    def admits(self, now_ns: int) -> bool:
        """Whether the item of time `now_ns` goes through. A time that goes back begins a new grid."""
        if self._period_ns is None:
            return True
        if self._due_ns is not None and now_ns < self._due_ns - 2 * self._period_ns:
            self._due_ns = None  # no item after the last one is so early: another camera's time has begun
        # A tenth of a period early is on time: cameras jitter around the grid.
        if self._due_ns is not None and now_ns < self._due_ns - self._period_ns // 10:
            return False
        late = self._due_ns is None or now_ns >= self._due_ns + self._period_ns
        self._due_ns = (now_ns if late else self._due_ns or 0) + self._period_ns
        return True


class Thinning:
    """Chooses from a stream those items that come nearest to a grid of `hz` a second; all of a stream no faster than
    that, also one that jitters.

    60 frames/s at 30 Hz give every second one, 50 give 30 evenly among them. A `RateGate` keeps the promise never to
    let more through; this one lets two through at once after an item that came late. Without that, cameras of just the
    wanted rate or somewhat less lose frames to their jitter: 4 % of 29.97 frames/s with 2 ms of it. A stream as fast as
    the grid may jitter by a sixth of a period either way from its first item on, and by half of one soon after.
    """

    def __init__(self, hz: float) -> None:
        self._period_ns = int(1e9 / hz)
        self._due_ns: int | None = None
        self._last_ns = 0

    def takes(self, now_ns: int) -> bool:
        """Whether the item of time `now_ns` is chosen. A time that goes back begins a new grid."""
        interval_ns, self._last_ns = min(now_ns - self._last_ns, self._period_ns), now_ns
        if self._due_ns is None or interval_ns < 0:
            self._due_ns = now_ns + self._period_ns
            return True
        if now_ns + interval_ns // 2 < self._due_ns:
            return False  # the next one will be nearer
        self._due_ns = max(self._due_ns + self._period_ns, now_ns)
        return True


class Allowance:
    """Lets through `most` items at once and `hz` a second in the long run: a token bucket."""

    def __init__(self, hz: float, most: float) -> None:
        self._hz = hz
        self._most = most
        self._left = most
        self._at_s = 0.0

    def admits(self, now_s: float) -> bool:
        """Whether one more goes through at this time, which never goes back."""
        self._left = min(self._most, self._left + (now_s - self._at_s) * self._hz)
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True
