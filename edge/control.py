"""What the running daemon can be asked for, and the one place where it is asked."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from edge.pacing import Deadline

if TYPE_CHECKING:
    from edge.config import SettingValue  # with pydantic, for which --help need not wait

# The kernel may deliver a signal to any thread, and only when the main thread comes back to Python does its handler
# run. So it waits in short pieces.
_LONGEST_WAIT_S = 0.2

MOST_COMMANDS = 8
"""How many commands may wait. Each is a matter of milliseconds, or somebody asks for more than can be done."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End everything in order. reason: a few words for the log. again: to be started again by the service manager."""

    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class CameraEnded:
    """A camera's threads have ended; whether that is the end of the daemon is for the main thread to say."""

    name: str


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the configuration again and change over to it, or leave everything as it is when it can't be used."""


@dataclass(frozen=True, slots=True)
class Ping:
    """Say that orders are carried out."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest picture of a camera; camera may be None where there is only one."""

    camera: str | None


@dataclass(frozen=True, slots=True)
class Pause:
    """Let go of a camera, or of all with None; `paused` False: take it up again."""

    camera: str | None
    paused: bool
    keep: bool


@dataclass(frozen=True, slots=True)
class Set:
    """Change keys of the configuration, all or none; None: back to what stands in it. keep: also after a restart."""

    values: Mapping[str, SettingValue | None]
    keep: bool


@dataclass(frozen=True, slots=True)
class Restart:
    """End in order, for the service manager to start it again."""


Order = Reload | Ping | Snapshot | Pause | Set | Restart


class Refusal(StrEnum):
    """Why an order was not carried out."""

    INVALID = "invalid"  # it asks for what can't be
    FAILED = "failed"  # it was tried, and everything is as before


@dataclass(frozen=True, slots=True)
class Still:
    """One frame as a JPEG."""

    camera: str
    seq: int
    captured_ns: int
    width_px: int
    height_px: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of an order.

    refusal, why: None and "" when it was carried out; else a reason, and a line for each thing that is wrong. result:
    what there is to tell of it, values as JSON has them. still: a picture.
    """

    refusal: Refusal | None = None
    why: str = ""
    result: Mapping[str, object] = field(default_factory=dict)
    still: Still | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """An order, and who is told by the main thread what became of it, unless the daemon ends first."""

    order: Order
    answer: Callable[[Answer], None]


Request = Stop | Reload | Command | CameraEnded


class Inbox:
    """Requests from signal handlers, threads and timers, served one after the other by the main thread.

    A Stop overtakes all others, and several Reloads that wait are one.
    """

    def __init__(self) -> None:
        # A signal handler may interrupt the very wait that it wants to end. SimpleQueue.put is documented to be safe
        # there.
        self._requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
        self._stop: Stop | None = None
        self._stopped_s = 0.0
        self._reload_waits = False
        self._waiting = 0
        self._overtaken: Command | None = None
        self._left = False
        self._count = threading.Lock()

    @property
    def stop_requested(self) -> bool:
        """Whether whatever is being done should be left undone."""
        return self._stop is not None

    @property
    def stopping_s(self) -> float:
        """How long ago the end was asked for, in seconds; 0.0 when nobody has."""
        return 0.0 if self._stop is None else time.monotonic() - self._stopped_s

    def post(self, request: Stop | Reload | CameraEnded) -> None:
        """Ask for something. Safe in signal handlers and in every thread."""
        match request:
            case Stop():
                self._stopped_s = self._stopped_s or time.monotonic()
                self._stop = self._stop or request
            case Reload() if self._reload_waits:
                return
            case Reload():
                self._reload_waits = True
        self._requests.put(request)

    def ask(self, command: Command) -> bool:
        """Have an order carried out. False, and nothing happens, when too many wait or the end is near. Not for signal
        handlers."""
        with self._count:
            if self._waiting >= MOST_COMMANDS or self._left:
                return False
            self._waiting += 1
            self._requests.put(command)
        return True

    def leave(self) -> list[Command]:
        """Take no commands any more; those that still wait."""
        with self._count:
            self._left = True
        waiting = [self._overtaken] if self._overtaken is not None else []
        while not self._requests.empty():
            request = self._requests.get()
            waiting += [request] if isinstance(request, Command) else []
        return waiting

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
                if isinstance(request, Command):
                    with self._count:
                        self._waiting -= 1
                    if self.stop_requested:
                        self._overtaken = request
                return self._stop or request
        return self._stop
