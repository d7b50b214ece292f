"""What the running daemon can be asked for, and the one place where it is asked."""

from __future__ import annotations

import queue
from dataclasses import dataclass

from edge.pacing import Deadline

# The kernel may deliver a signal to any thread, and only when the main thread comes back to Python does its handler
# run. So it waits in short pieces.
_LONGEST_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Stop:
    """End everything in order. reason: a few words for the log."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the configuration again and change over to it, or leave everything as it is when it can't be used."""


@dataclass(frozen=True, slots=True)
class CameraEnded:
    """A camera's threads have ended; whether that is the end of the daemon is for the main thread to say."""

    name: str


Request = Stop | Reload | CameraEnded


class Inbox:
    """Requests from signal handlers, threads and timers, served one after the other by the main thread.

    A Stop overtakes all others, and several Reloads that wait are one.
    """

    def __init__(self) -> None:
        # A signal handler may interrupt the very wait that it wants to end. SimpleQueue.put is documented to be safe
        # there.
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._stop: Stop | None = None
        self._reload_waits = False

    @property
    def stop_requested(self) -> bool:
        """Whether whatever is being done should be left undone."""
        return self._stop is not None

    def post(self, request: Request) -> None:
        """Ask for something. Safe in signal handlers and in every thread."""
        match request:
            case Stop():
                self._stop = self._stop or request
            case Reload() if self._reload_waits:
                return
            case Reload():
                self._reload_waits = True
        self._requests.put(request)

    def next(self, timeout_s: float | None) -> Request | None:
        """Wait in the main thread for the oldest request; None when `timeout_s` is over without one.

        Once a Stop was posted it is all that comes.
        """
        deadline = None if timeout_s is None else Deadline(timeout_s)
        while self._stop is None:
            wait_s = _LONGEST_WAIT_S if deadline is None else min(_LONGEST_WAIT_S, deadline.left_s())
            try:
                request = self._requests.get(timeout=wait_s)
            except queue.Empty:
                if deadline is not None and not deadline.left_s():
                    return None
            else:
                if isinstance(request, Reload):
                    self._reload_waits = False
                return self._stop or request
        return self._stop
