"""Queues between threads: each is bounded, says what goes when it is full, and counts what goes by cause."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from edge.errors import SinkError
from edge.interfaces import Sink
from edge.logs import FaultLog
from edge.pacing import Deadline, Thinning
from edge.stats import DropCause, Stats
from edge.vision.frame import EncodedFrame, Filmed, Frame
from edge.vision.observation import Observation

log = logging.getLogger(__name__)

T = TypeVar("T")

IDLE_S = 0.2
"""How often a sink without work is woken to look after its connection."""


class SlotOverflow(StrEnum):
    NEWEST_WINS = "newest_wins"  # a live camera: stale frames are worthless
    WAIT = "wait"  # a file: every frame counts


class Taken(NamedTuple, Generic[T]):
    """at_ns: the time.monotonic_ns at which the item went in. number: how many were taken before it."""

    item: T
    at_ns: int
    number: int


class Slot(Generic[T]):
    """A queue of one item between a thread that puts and threads that take."""

    def __init__(self, overflow: SlotOverflow) -> None:
        self.overflow = overflow
        self.puts = 0
        """How many items came."""
        self.pressed = 0
        """How many of them found the one before still there."""
        self.taken = 0
        self._condition = threading.Condition()
        self._items: deque[tuple[T, int]] = deque()
        self._closed = False

    def put(self, item: T) -> bool:
        """True when the item went in and nothing was lost; False when an older item or, after `close`, this one was."""
        with self._condition:
            self.puts += 1
            self.pressed += bool(self._items)
            if self.overflow is SlotOverflow.WAIT:
                self._condition.wait_for(lambda: not self._items or self._closed)
            if self._closed:
                return False
            replaced = bool(self._items)
            self._items.clear()
            self._items.append((item, time.monotonic_ns()))
            self._condition.notify_all()
            return not replaced

    def take(self, relieved: threading.Event | None = None) -> Taken[T] | None:
        """The item, waiting for it; None once closed and empty.

        relieved: once it is set and `wake` was called, None: what comes is for another thread to take.
        """

        def is_relieved() -> bool:
            return relieved is not None and relieved.is_set()

        with self._condition:
            self._condition.wait_for(lambda: self._items or self._closed or is_relieved())
            if is_relieved():
                return None
            if not self._items:
                return None
            taken = Taken(*self._items.popleft(), self.taken)
            self.taken += 1
            self._condition.notify_all()
            return taken

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def over(self) -> bool:
        """Closed and empty: nothing will ever be taken."""
        with self._condition:
            return self._closed and not self._items

    def wake(self) -> None:
        """Let those who wait look again whether they still have to."""
        with self._condition:
            self._condition.notify_all()

    def close(self, *, discard: bool = False) -> int:
        """Let no more in. What is inside can still be taken, unless `discard`; how many items were discarded."""
        with self._condition:
            self._closed = True
            discarded = len(self._items) if discard else 0
            if discard:
                self._items.clear()
            self._condition.notify_all()
            return discarded


class Lane(Generic[T]):
    """A bounded queue in front of one sink, and the thread that empties it. When it is full the oldest item goes.

    capacity is in the unit of `weigh`, items by default; drops are counted in the unit of `count`, items by default. A
    batch holds up to `batch` items; after the first one the lane lingers up to `linger_s` for more, or until it is half
    full, for sinks to which many at once are cheaper than one at a time.
    """

    def __init__(
        self,
        name: str,
        sink: Sink[T],
        stats: Stats,
        *,
        capacity: int,
        weigh: Callable[[T], int] = lambda item: 1,
        count: Callable[[T], int] = lambda item: 1,
        batch: int = 16,
        linger_s: float = 0.0,
    ) -> None:
        self.name = name
        self._sink = sink
        self._stats = stats
        self._capacity = capacity
        self._weigh = weigh
        self._count = count
        self._batch = batch
        self._linger_s = linger_s
        self._condition = threading.Condition()
        self._items: deque[tuple[T, int]] = deque()
        self._weight = 0
        self._in_hand: Sequence[T] = ()
        self._deadline: Deadline | None = None
        self._faults = FaultLog(log)
        self._thread = threading.Thread(target=self._run, name=f"lane-{name}", daemon=True)

    def offer(self, item: T) -> None:
        """Hand over an item without ever waiting."""
        weight = self._weigh(item)
        with self._condition:
            if self._deadline is not None:
                self._stats.dropped(self.name, DropCause.STOPPED, self._count(item))
                return
            self._items.append((item, weight))
            self._weight += weight
            lost = 0
            while self._weight > self._capacity and len(self._items) > 1:
                oldest, its_weight = self._items.popleft()
                self._weight -= its_weight
                lost += self._count(oldest)
            # Waking the thread for the first item and for enough of them is enough; in between it lingers.
            if len(self._items) == 1 or self._has_enough():
                self._condition.notify()
        self._stats.dropped(self.name, DropCause.LANE_FULL, lost)

    def start(self) -> None:
        self._thread.start()

    def close(self, deadline: Deadline) -> None:
        """Let nothing more in; what is queued is still written as far as `deadline` allows."""
        with self._condition:
            self._deadline = deadline
            self._condition.notify()

    def join(self) -> bool:
        """Wait for the lane's end, after `close`; False when its sink is stuck beyond the deadline."""
        assert self._deadline is not None, "join comes after close"
        self._thread.join(self._deadline.left_s() + 0.1)
        if self._thread.is_alive():
            with self._condition:
                self._discard(*self._in_hand)
        return not self._thread.is_alive()

    def _has_enough(self) -> bool:
        return len(self._items) >= self._batch or self._weight * 2 >= self._capacity

    def _discard(self, *more: T) -> None:
        lost = sum(map(self._count, more)) + sum(self._count(item) for item, _ in self._items)
        self._stats.dropped(self.name, DropCause.STOPPED, lost)
        self._items.clear()
        self._weight = 0

    def _take(self) -> list[T] | None:
        """The next batch, empty after a while without items; None when the lane is closed and empty or out of time."""
        with self._condition:
            if not self._items and self._deadline is None:
                self._condition.wait(IDLE_S)
            if self._linger_s and self._items and self._deadline is None:
                self._condition.wait_for(lambda: self._has_enough() or self._deadline is not None, self._linger_s)
            if self._deadline is not None and (not self._items or not self._deadline.left_s()):
                self._discard()
                return None
            batch: list[T] = []
            while self._items and len(batch) < self._batch:
                item, weight = self._items.popleft()
                self._weight -= weight
                batch.append(item)
            self._in_hand = batch
            return batch

    def _run(self) -> None:
        while (batch := self._take()) is not None:
            self._guarded(self._sink.write, batch, lost=sum(map(self._count, batch)))
            self._in_hand = ()
        assert self._deadline is not None, "a lane ends only after close"
        self._guarded(self._sink.close, self._deadline.left_s(), lost=0)

    def _guarded(self, call: Callable[[Any], None], argument: object, *, lost: int) -> None:
        """A sink may fail in any way it likes: that is counted and said, and the lane goes on."""
        try:
            call(argument)
        except SinkError as error:
            self._faults.failed("sink %s: %s", self.name, error)
            self._stats.dropped(self.name, DropCause.SINK_FAILED, lost)
        except BaseException:  # noqa: BLE001 - Rust's panics are no Exceptions; the first is logged with its traceback
            self._faults.failed("sink %s failed in a way nobody foresaw", self.name, exc_info=True)
            self._stats.dropped(self.name, DropCause.SINK_FAILED, lost)
        else:
            if lost:
                self._faults.worked("sink %s works again", self.name)


class Shown:
    """Chooses which frames people see: `hz` a second of each camera, or all of a slower one.

    That is decided once, where a frame goes its two ways, and written on it. Two lanes that decided on their own would
    disagree as soon as one of them missed a frame: of 60 frames/s one then logs the even ones and the other the odd.
    """

    def __init__(self, hz: float) -> None:
        self._hz = hz
        self._cameras: dict[str, tuple[Thinning, int]] = {}

    def marked(self, frame: Frame) -> Frame:
        """The frame with its `shown_seq`. One camera's frames come from one thread, in order."""
        thinning, shown_seq = self._cameras.get(frame.camera) or (Thinning(self._hz), frame.seq)
        if thinning.takes(frame.monotonic_ns):
            shown_seq = frame.seq
        self._cameras[frame.camera] = thinning, shown_seq
        return frame if shown_seq == frame.seq else replace(frame, shown_seq=shown_seq)


class Stage(Protocol):
    """What works in a thread of its own from `start` until it is told to `close`: a lane, or what stands for one."""

    @property
    def name(self) -> str: ...
    def start(self) -> None: ...

    def close(self, deadline: Deadline) -> None:
        """End: what it holds is still delivered as far as `deadline` allows."""

    def join(self) -> bool:
        """Wait for its end, after `close`; False when it is stuck beyond the deadline."""


@dataclass(frozen=True, slots=True)
class LaneGroup:
    """Lanes that begin and end together, such as all that lead to Rerun.

    observers and video are fed by the cameras, others by what else happens, and outputs by all of those, so that they
    begin before them and end after them.
    shown: which frames video gets, None for all; one group at most has it. begin: called before any of them starts.
    """

    observers: tuple[Lane[Observation], ...] = ()
    video: tuple[Lane[Filmed], ...] = ()
    others: tuple[Stage, ...] = ()
    outputs: tuple[Stage, ...] = ()
    shown: Shown | None = None
    begin: Callable[[], None] = lambda: None

    def stages(self) -> tuple[Sequence[Stage], Sequence[Stage]]:
        return (*self.observers, *self.video, *self.others), self.outputs


class Outlets:
    """Where the cameras hand over. The groups behind can be exchanged while cameras run."""

    def __init__(self, groups: Mapping[str, LaneGroup]) -> None:
        self._groups = dict(groups)

    @property
    def groups(self) -> Mapping[str, LaneGroup]:
        return self._groups

    def connect(self, name: str, group: LaneGroup | None) -> None:
        """Put `group` in the place of that name, or leave it empty."""
        others = {known: lanes for known, lanes in self._groups.items() if known != name}
        # Cameras see the old groups or the new ones, never a dictionary that changes under them.
        self._groups = others if group is None else {**others, name: group}

    def film(self, frame: Frame) -> Frame:
        """Hand over a frame for people to see, if they are to see this one; the frame, which knows that now.

        What a camera has encoded itself always goes, and with each frame: a packet of H.264 needs those before it, and
        by the frames' numbers one sees that none is missing.
        """
        packets = frame.packets
        for group in self._groups.values():
            if group.shown is not None:
                frame = group.shown.marked(frame)
            for lane in group.video:
                if packets is not None:
                    lane.offer(EncodedFrame(frame.camera, frame.seq, packets))
                elif frame.is_shown:
                    lane.offer(frame)
        return frame

    def observe(self, observation: Observation) -> None:
        for group in self._groups.values():
            for lane in group.observers:
                lane.offer(observation)
