"""The threads that work, their queues and the one way to stop.

    source --capture thread--+--> lanes of Frame (video)
                             |
                             +--> Slot --inference thread--> lanes of Observation

Each lane is a bounded queue with a thread that owns one sink. Nothing flows back, so no sink can slow the estimator
or another sink; what does not fit is dropped and counted by cause.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Generic, TypeVar

from edge.errors import CameraLost, CameraUnusable, EdgePoseError, SinkError, UnforeseenError
from edge.interfaces import EndOfStream, FrameSource, PoseEstimator, Sink
from edge.logs import FaultLog
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


class StopSignal:
    """The one way to end: a request from a signal handler, a thread or a timer sets it, and it stays set."""

    def __init__(self) -> None:
        # A signal handler may interrupt the very wait that it wants to end. SimpleQueue.put is documented to be
        # safe there; an Event's lock is not.
        self._requests: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def request(self, reason: str) -> None:
        """Ask for the end. Safe in signal handlers and in every thread."""
        self._requests.put(reason)

    def wait_for_request(self, timeout_s: float | None) -> str | None:
        """Block the main thread until somebody asks for the end; the reason, or None when `timeout_s` is over."""
        deadline = None if timeout_s is None else Deadline(timeout_s)
        while True:
            # Short waits: the kernel may deliver a signal to any thread, and only when the main thread comes back to
            # Python does its handler run.
            wait_s = IDLE_S if deadline is None else min(IDLE_S, deadline.left_s())
            try:
                reason = self._requests.get(timeout=wait_s)
            except queue.Empty:
                if deadline is not None and not deadline.left_s():
                    return None
            else:
                self._stopping.set()
                return reason

    def set(self) -> None:
        self._stopping.set()

    @property
    def is_set(self) -> bool:
        return self._stopping.is_set()

    def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until the end is asked for."""
        self._stopping.wait(seconds)


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


class CameraPipeline:
    """One camera's way from the source to the lanes: a thread that captures and a thread that infers."""

    def __init__(
        self,
        name: str,
        source: FrameSource,
        estimator: PoseEstimator,
        *,
        video: Sequence[Lane[Frame]],
        observers: Sequence[Lane[Observation]],
        stats: CameraStats,
        drops: Stats,
        stop: StopSignal,
        on_end: Callable[[CameraPipeline], None],
    ) -> None:
        self.name = name
        self.failure: EdgePoseError | None = None
        self._source = source
        self._estimator = estimator
        self._video = video
        self._observers = observers
        self._stats = stats
        self._drops = drops
        self._stop = stop
        self._on_end = on_end
        self._slot: Slot[Frame] = Slot(SlotOverflow.NEWEST_WINS if source.live else SlotOverflow.WAIT)
        self._faults = FaultLog(log)
        self._model_ready = threading.Event()
        self._broken = False
        self._capture = threading.Thread(target=self._guarded, args=(self._capture_frames,), daemon=True)
        self._capture.name = f"capture-{name}"
        self._inference = threading.Thread(target=self._guarded, args=(self._infer_frames,), daemon=True)
        self._inference.name = f"inference-{name}"

    def start(self) -> None:
        self._inference.start()
        self._capture.start()

    def interrupt(self) -> None:
        """After the stop signal was set: give up the frame that waits."""
        self._lose(self._slot.close(discard=True))

    def join(self, deadline: Deadline) -> bool:
        """False when a thread is still busy after `deadline`."""
        for thread in (self._capture, self._inference):
            thread.join(deadline.left_s())
        return not (self._capture.is_alive() or self._inference.is_alive())

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except EdgePoseError as error:
            self._fail(error)
        except BaseException as error:  # whatever it is, it must not look like a clean end
            log.debug("camera %s", self.name, exc_info=True)
            self._fail(
                UnforeseenError(f"camera {self.name}: {type(error).__name__}: {error}; see the log at level debug")
            )
        finally:
            self._model_ready.set()
            if threading.current_thread() is self._inference:
                self._lose(self._slot.close(discard=True))
                self._on_end(self)
            else:
                self._slot.close()

    def _lose(self, frames: int) -> None:
        """Count frames that will not be estimated."""
        if self._stop.is_set:
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
        self._model_ready.wait()
        backoff = Backoff(first_s=0.5, most_s=10.0)
        while not self._stop.is_set and self.failure is None:
            try:
                with self._source:
                    self._read_until_end(backoff)
            except EndOfStream:
                return
            except CameraLost as error:
                wait_s = backoff.next_s()
                self._faults.failed("camera %s: %s; next try in %.1f s", self.name, error, wait_s)
                self._stop.pause(wait_s)

    def _read_until_end(self, backoff: Backoff) -> None:
        while not self._stop.is_set and self.failure is None:
            frame = self._source.read(IDLE_S)
            if frame is None:
                continue
            self._faults.worked("camera %s is back", self.name)
            backoff.reset()
            self._stats.frame_captured()
            for lane in self._video:
                lane.offer(frame)
            if not self._slot.put(frame):
                self._lose(1)

    def _infer_frames(self) -> None:
        with self._estimator as estimator:
            self._model_ready.set()
            while (taken := self._slot.take()) is not None:
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
                for lane in self._observers:
                    lane.offer(observation)
                self._stats.frame_estimated(
                    people=len(poses),
                    inference_ms=(inferred_ns - started_ns) / 1e6,
                    latency_ms=(time.monotonic_ns() - arrived_ns) / 1e6,
                )


class Daemon:
    """All cameras and all lanes, from start to stop.

    stages: the lanes in the order in which they end. A lane that feeds another one is in an earlier stage.
    """

    def __init__(self, *, stop: StopSignal, stages: Sequence[Sequence[Lane[Any]]]) -> None:
        self.stop_signal = stop
        self.cameras: list[CameraPipeline] = []
        self._stages = stages
        self._running: set[CameraPipeline] = set()
        self._told: set[CameraPipeline] = set()
        self._lock = threading.Lock()

    def camera_ended(self, camera: CameraPipeline) -> None:
        """For the cameras to call: the last one to end asks for the stop, a broken estimator does so at once."""
        with self._lock:
            self._running.discard(camera)
            last = not self._running
        if camera.failure is not None and not isinstance(camera.failure, CameraUnusable):
            self.stop_signal.request(f"camera {camera.name} failed")
        elif last:
            self.stop_signal.request("every camera has ended")
        if isinstance(camera.failure, CameraUnusable) and not last:
            log.error("camera %s: %s; the other cameras go on", camera.name, camera.failure)
            self._told.add(camera)

    def start(self) -> None:
        self._running = set(self.cameras)
        for stage in reversed(self._stages):
            for lane in stage:
                lane.start()
        for camera in self.cameras:
            camera.start()

    def wait(self, timeout_s: float | None = None) -> str | None:
        """Until the end is asked for; why, or None when `timeout_s` is over first."""
        return self.stop_signal.wait_for_request(timeout_s)

    def stop(self) -> None:
        """End everything within `STOP_DEADLINE_S`. Raises a camera's failure, if there is one; others' are logged."""
        deadline = Deadline(STOP_DEADLINE_S)
        self.stop_signal.set()
        for camera in self.cameras:
            camera.interrupt()
        for_cameras = Deadline(STOP_DEADLINE_S / 2)
        stuck = [f"camera {camera.name}" for camera in self.cameras if not camera.join(for_cameras)]
        for number, stage in enumerate(self._stages):
            share_s = deadline.left_s() / (len(self._stages) - number)
            for lane in stage:
                lane.close(Deadline(share_s))
            stuck += [f"sink {lane.name}" for lane in stage if not lane.join()]
        if stuck:
            log.warning("left behind, still busy at the deadline: %s", ", ".join(stuck))
        failed = [camera for camera in self.cameras if camera.failure is not None]
        news = [camera for camera in failed if camera not in self._told]
        for camera in news[1:]:
            log.error("camera %s: %s", camera.name, camera.failure)
        for camera in (*news, *failed):
            assert camera.failure is not None
            raise camera.failure
