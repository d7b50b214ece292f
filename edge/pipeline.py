"""The threads that work, their queues and the one way to stop.

    source --capture thread--+--> lanes of Frame (video)
                             |
                             +--> Slot --inference thread--> lanes of Observation

Each lane is a bounded queue with a thread that owns one sink. Nothing flows back, so no sink can slow the estimator
or another sink; what does not fit is dropped and counted by cause. Lanes and cameras can be exchanged while the others
go on.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar

from edge.control import CameraEnded, Inbox, Request, Stop
from edge.errors import CameraLost, CameraUnusable, EdgePoseError, EstimatorError, SinkError, UnforeseenError
from edge.interfaces import EndOfStream, FrameSource, PoseEstimator, Sink
from edge.logs import FaultLog, of_camera
from edge.pacing import Backoff, Deadline
from edge.stats import CameraStats, DropCause, Stats
from edge.vision.frame import Frame
from edge.vision.observation import Observation, observe

log = logging.getLogger(__name__)

T = TypeVar("T")

STOP_DEADLINE_S = 4.0
"""From the request to stop to the last thread's end. The promise is 5 s; the rest is the interpreter's."""

IDLE_S = 0.2
"""How often a sink without work is woken to look after its connection, and a source asked whether to stop."""


STALLED_AFTER_S = 20.0
"""A thread that has not got on for so long hangs: to open a network camera may take 10 s, a frame on a slow board 5."""

LOAD_TIMEOUT_S = 15.0
"""For the model of a camera that is to take over from another one."""

FIRST_FRAME_S = 5.0
"""How long a camera that has taken over is watched for whether it works."""

_TO_OPEN = 9.0
"""Times as patient while a source is opened: a look-up of its name can take a minute, and nothing can cut it short."""


class EndRequested(Exception):
    """What was being done is left undone, since the daemon is to end."""


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


class SlotOverflow(StrEnum):
    NEWEST_WINS = "newest_wins"  # a live camera: stale frames are worthless
    WAIT = "wait"  # a file: every frame counts


class Slot(Generic[T]):
    """A queue of one item between a thread that puts and a thread that takes. With the item comes when it went in."""

    def __init__(self, overflow: SlotOverflow) -> None:
        self._overflow = overflow
        self._condition = threading.Condition()
        self._items: deque[tuple[T, int]] = deque()
        self._closed = False

    def put(self, item: T) -> bool:
        """True when the item went in and nothing was lost; False when an older item or, after `close`, this one was."""
        with self._condition:
            if self._overflow is SlotOverflow.WAIT:
                self._condition.wait_for(lambda: not self._items or self._closed)
            if self._closed:
                return False
            replaced = bool(self._items)
            self._items.clear()
            self._items.append((item, time.monotonic_ns()))
            self._condition.notify_all()
            return not replaced

    def take(self) -> tuple[T, int] | None:
        """The item and the time.monotonic_ns at which it went in, waiting for it; None once closed and empty."""
        with self._condition:
            self._condition.wait_for(lambda: self._items or self._closed)
            item = self._items.popleft() if self._items else None
            self._condition.notify_all()
            return item

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


@dataclass(frozen=True, slots=True)
class LaneGroup:
    """Lanes that begin and end together, such as all that lead to Rerun.

    observers and video are fed by the cameras, outputs by those two, so they end after them.
    """

    observers: tuple[Lane[Observation], ...] = ()
    video: tuple[Lane[Frame], ...] = ()
    outputs: tuple[Lane[Any], ...] = ()

    def stages(self) -> tuple[Sequence[Lane[Any]], Sequence[Lane[Any]]]:
        return (*self.observers, *self.video), self.outputs


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

    def film(self, frame: Frame) -> None:
        for group in self._groups.values():
            for lane in group.video:
                lane.offer(frame)

    def observe(self, observation: Observation) -> None:
        for group in self._groups.values():
            for lane in group.observers:
                lane.offer(observation)


class CameraPipeline:
    """One camera's way from the source to the lanes: a thread that captures and a thread that infers."""

    def __init__(
        self,
        name: str,
        source: FrameSource,
        estimator: PoseEstimator,
        *,
        outlets: Outlets,
        stats: CameraStats,
        drops: Stats,
        on_end: Callable[[CameraPipeline], None],
    ) -> None:
        self.name = name
        self.failure: EdgePoseError | None = None
        self.loaded = threading.Event()
        """The model is there, or won't be: then `failure` says why."""
        self.settled = threading.Event()
        """The source has given a frame, or it is clear that none will come for now."""
        self.ended = False
        self.next_seq = 0
        """Of the next frame. Set before `start` to go on where another camera of this name has ended."""
        self._source = source
        self._estimator = estimator
        self._outlets = outlets
        self._stats = stats
        self._drops = drops
        self._on_end = on_end
        self._slot: Slot[Frame] = Slot(SlotOverflow.NEWEST_WINS if source.live else SlotOverflow.WAIT)
        self._log = of_camera(log, name)
        self._faults = FaultLog(self._log)
        self._stopping = threading.Event()
        self._broken = False
        self._offset: int | None = None  # from the source's own numbers
        self._pulses = {"capture": Pulse(), "inference": Pulse()}
        self._capture = threading.Thread(target=self._guarded, args=(self._capture_frames,), daemon=True)
        self._capture.name = f"capture-{name}"
        self._inference = threading.Thread(target=self._guarded, args=(self._infer_frames,), daemon=True)
        self._inference.name = f"inference-{name}"

    def load(self) -> None:
        """Begin to load the model."""
        self._inference.start()

    def start(self) -> None:
        """Open the source as soon as the model is there; after `load`."""
        self._capture.start()

    def interrupt(self) -> None:
        """Ask for the end, and give up the frame that waits."""
        self._stopping.set()
        self._lose(self._slot.close(discard=True))

    def stalled(self, after_s: float) -> list[str]:
        """The threads that have not got on for `after_s` without a reason to wait: "capture", "inference"."""
        return [thread for thread, pulse in self._pulses.items() if pulse.is_silent(after_s)]

    def join(self, deadline: Deadline) -> bool:
        """False when a thread is still busy after `deadline`."""
        for thread in (self._capture, self._inference):
            if thread.ident is not None:
                thread.join(deadline.left_s())
        return not (self._capture.is_alive() or self._inference.is_alive())

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except EdgePoseError as error:
            self._fail(error)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not look like a clean end
            self._log.debug("camera %s: %r", self.name, error, exc_info=error)
            self._fail(
                UnforeseenError(f"camera {self.name}: {type(error).__name__}: {error}; see the log at level debug")
            )
        finally:
            if threading.current_thread() is self._inference:
                self._pulses["inference"].rest()
                self._lose(self._slot.close(discard=True))
                self.ended = True
                self.loaded.set()
                self._on_end(self)
            else:
                self._pulses["capture"].rest()
                self._slot.close()
                self.settled.set()

    def _lose(self, frames: int) -> None:
        """Count frames that will not be estimated."""
        if self._stopping.is_set():
            cause = DropCause.STOPPED
        elif self._broken:
            cause = DropCause.ESTIMATOR_FAILED
        else:
            cause = DropCause.NEWER_FRAME
        self._drops.dropped(f"camera {self.name}", cause, frames)

    def _fail(self, error: EdgePoseError) -> None:
        if self.failure is None:
            self.failure = error

    def _capture_frames(self) -> None:
        self.loaded.wait()
        pulse = self._pulses["capture"]
        backoff = Backoff(first_s=0.5, most_s=10.0)
        while not self._stopping.is_set() and self.failure is None:
            pulse.beat(patience=_TO_OPEN)
            try:
                with self._source:
                    self._read_until_end(pulse, backoff)
            except EndOfStream:
                return
            except CameraLost as error:
                wait_s = backoff.next_s()
                self._faults.failed("camera %s: %s; next try in %.1f s", self.name, error, wait_s)
                self.settled.set()
                pulse.beat()
                self._stopping.wait(wait_s)

    def _read_until_end(self, pulse: Pulse, backoff: Backoff) -> None:
        pulse.beat()
        while self.failure is None:
            frame = self._source.read(IDLE_S)
            pulse.beat()
            if self._stopping.is_set():
                return  # whoever takes over may have begun to count
            if frame is None:
                continue
            self._offset = self.next_seq - frame.seq if self._offset is None else self._offset
            if self._offset:
                frame = replace(frame, seq=frame.seq + self._offset)
            self.next_seq = frame.seq + 1
            self._faults.worked("camera %s is back", self.name)
            backoff.reset()
            self.settled.set()
            self._stats.frame_captured()
            self._outlets.film(frame)
            pulse.rest()  # a file waits here for the inference thread, whose pulse it is then that counts
            if not self._slot.put(frame):
                self._lose(1)
            pulse.beat()

    def _infer_frames(self) -> None:
        pulse = self._pulses["inference"]
        with self._estimator as estimator:
            self.loaded.set()
            while (taken := self._slot.take()) is not None:
                pulse.beat()
                frame, arrived_ns = taken
                started_ns = time.monotonic_ns()
                try:
                    poses = estimator.estimate(frame)
                except BaseException:
                    self._broken = True
                    self._lose(1)
                    raise
                inferred_ns = time.monotonic_ns()
                observation = observe(frame, poses)
                self._outlets.observe(observation)
                self._stats.frame_estimated(
                    people=len(poses),
                    inference_ms=(inferred_ns - started_ns) / 1e6,
                    latency_ms=(time.monotonic_ns() - arrived_ns) / 1e6,
                )
                pulse.rest()


class Daemon:
    """All cameras and all lanes, from start to stop."""

    def __init__(self, inbox: Inbox, groups: Mapping[str, LaneGroup]) -> None:
        self.cameras: dict[str, CameraPipeline] = {}
        self.outlets = Outlets(groups)
        self._inbox = inbox
        self._next_seq: dict[str, int] = {}
        self._told: set[CameraPipeline] = set()

    @property
    def ready(self) -> bool:
        """Whether every camera has its model."""
        return all(camera.loaded.is_set() and camera.failure is None for camera in self.cameras.values())

    def stalled(self, after_s: float = STALLED_AFTER_S) -> list[str]:
        """The threads that hang, such as "camera front: inference"."""
        cameras = tuple(self.cameras.values())
        return [f"camera {camera.name}: {thread}" for camera in cameras for thread in camera.stalled(after_s)]

    def camera_ended(self, camera: CameraPipeline) -> None:
        """For the cameras to call, from their own threads."""
        self._inbox.post(CameraEnded(camera.name))

    def start(self) -> None:
        for group in self.outlets.groups.values():
            _start(group)
        for camera in self.cameras.values():
            camera.load()
            camera.start()

    def wait(self, timeout_s: float | None = None) -> Request | None:
        """The next request that is not the daemon's own business, or None when `timeout_s` is over first."""
        deadline = None if timeout_s is None else Deadline(timeout_s)
        while True:
            request = self._inbox.next(None if deadline is None else deadline.left_s())
            if isinstance(request, CameraEnded):
                request = self._judge(request.name)
            if request is not None or (deadline is not None and not deadline.left_s()):
                return request

    def _judge(self, name: str) -> Stop | None:
        """What follows from a camera's end: a broken estimator ends the daemon, and so does the last one to end."""
        camera = self.cameras.get(name)
        if camera is None or not camera.ended:
            return None  # another one has taken its place
        if camera.failure is not None and not isinstance(camera.failure, CameraUnusable):
            return Stop(f"camera {name} failed")
        if all(each.ended for each in self.cameras.values()):
            return Stop("every camera has ended")
        if camera.failure is not None and camera not in self._told:
            of_camera(log, name).error("camera %s: %s; the other cameras go on", name, camera.failure)
            self._told.add(camera)
        return None

    def exchange_lanes(self, name: str, new: LaneGroup | None) -> None:
        """End the lanes of the group `name` and begin those of `new`, if there is one."""
        old = self.outlets.groups.get(name)
        if old is not None:  # a broker knows a device by one name; what comes meanwhile is counted by the closed lanes
            _warn_of(_end([old], Deadline(STOP_DEADLINE_S / 2)))
        if new is not None:
            _start(new)
        self.outlets.connect(name, new)

    def load(self, new: CameraPipeline, step: Callable[[], None] = lambda: None) -> None:
        """Have a camera that is to take over load its model. Raises what keeps it from that; EndRequested."""
        new.load()
        if not self._until(new.loaded, LOAD_TIMEOUT_S, step):
            raise EstimatorError(f"camera {new.name}: its model is not loaded after {LOAD_TIMEOUT_S:g} s")
        if new.failure is not None:
            raise new.failure

    def exchange_camera(self, name: str, new: CameraPipeline | None, step: Callable[[], None] = lambda: None) -> None:
        """End the camera `name`, and let `new`, whose model is loaded, take over, if there is one.

        It goes on counting frames where the old one ended. Raises what keeps its source from working; there is none of
        that name any more then. Raises EndRequested. step: called a few times a second while this waits.
        """
        old = self.cameras.pop(name, None)
        if old is not None:
            old.interrupt()
            if not old.join(Deadline(STOP_DEADLINE_S / 2)):
                _warn_of([f"camera {name}"])
            self._next_seq[name] = old.next_seq
        if new is not None:
            new.next_seq = self._next_seq.get(name, 0)
            new.start()
            self._until(new.settled, FIRST_FRAME_S, step)
            self._next_seq[name] = new.next_seq
            if new.failure is not None:
                raise new.failure
            self.cameras[name] = new
        # One that ended before it was known here, or whose end is only now that of the last one.
        for camera in self.cameras.values():
            if camera.ended:
                self._inbox.post(CameraEnded(camera.name))

    def _until(self, event: threading.Event, timeout_s: float, step: Callable[[], None]) -> bool:
        """Wait for `event`; False when it does not come. Raises EndRequested."""
        deadline = Deadline(timeout_s)
        while not event.wait(min(IDLE_S, deadline.left_s())):
            if self._inbox.stop_requested:
                raise EndRequested
            if not deadline.left_s():
                return False
            step()
        return True

    def stop(self) -> None:
        """End everything within `STOP_DEADLINE_S`. Raises a camera's failure, if there is one; others' are logged."""
        deadline = Deadline(STOP_DEADLINE_S)
        cameras = tuple(self.cameras.values())
        for camera in cameras:
            camera.interrupt()
        for_cameras = Deadline(STOP_DEADLINE_S / 2)
        stuck = [f"camera {camera.name}" for camera in cameras if not camera.join(for_cameras)]
        _warn_of([*stuck, *_end(tuple(self.outlets.groups.values()), deadline)])
        failed = [camera for camera in cameras if camera.failure is not None]
        news = [camera for camera in failed if camera not in self._told]
        for camera in news[1:]:
            log.error("camera %s: %s", camera.name, camera.failure)
        for camera in (*news, *failed):
            assert camera.failure is not None
            raise camera.failure


def _start(group: LaneGroup) -> None:
    for stage in reversed(group.stages()):
        for lane in stage:
            lane.start()


def _end(groups: Sequence[LaneGroup], deadline: Deadline) -> list[str]:
    """Let the groups' lanes write what they hold, stage by stage, and end; those that are stuck at the deadline."""
    stuck = []
    stages = list(zip(*(group.stages() for group in groups), strict=True))
    for number, stage in enumerate(stages):
        lanes = [lane for part in stage for lane in part]
        share_s = deadline.left_s() / (len(stages) - number)
        for lane in lanes:
            lane.close(Deadline(share_s))
        stuck += [f"sink {lane.name}" for lane in lanes if not lane.join()]
    return stuck


def _warn_of(stuck: Sequence[str]) -> None:
    if stuck:
        log.warning("left behind, still busy at the deadline: %s", ", ".join(stuck))
