"""A camera's estimators: workers that take frames as they come, and whose results go on in the frames' order.

    Slot --+--> worker 1 --+--> InOrder --> TrackerBlend --> the camera
           +--> worker 2 --+

One landmarker keeps one core busy, so a camera that wants more frames than that needs several of them. A worker takes
a frame when it has time for one, so that no frame gets old on its way to it, and a camera with one worker costs no
thread more than without all this.
"""

from __future__ import annotations

import functools
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from edge.errors import EdgePoseError, UnforeseenError
from edge.interfaces import PoseEstimator
from edge.lanes import Slot
from edge.logs import of_camera
from edge.pacing import Deadline
from edge.stats import DropCause
from edge.vision.blend import TrackerBlend
from edge.vision.frame import Frame
from edge.vision.pose import Pose

log = logging.getLogger(__name__)

T = TypeVar("T")

_MOST_WAITING = 16
_PATIENCE_S = 1.0
"""So many finished frames wait for one that is missing, and for so long when there are as many: all are several times
what a worker that gets on needs."""

_LOOK_EVERY = 64
_TOO_MANY = 0.1
"""A camera gets another worker when of its last 64 frames this share found no worker ready."""


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


class InOrder(Generic[T]):
    """Puts what several threads finish back into the order of their numbers, and delivers it one after the other.

    deliver, give_up: called one at a time, from whichever thread it is. When `most` wait for one that is missing, who
    finishes another one waits as well, up to `patience_s`; then the missing one is given up: it comes too late, if it
    comes.
    """

    def __init__(
        self,
        deliver: Callable[[T], None],
        give_up: Callable[[], None],
        *,
        first: int = 0,
        most: int = _MOST_WAITING,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._deliver = deliver
        self._give_up = give_up
        self._next = first
        self._most = most
        self._patience_s = patience_s
        self._waiting: dict[int, T | None] = {}
        self._condition = threading.Condition()

    def finish(self, number: int, result: T | None) -> None:
        """Each number once; None: there is no result, and those that come after it need not wait for one."""
        with self._condition:
            if number < self._next:
                return
            self._waiting[number] = result
            self._advance()
            while len(self._waiting) > self._most:
                missing = self._next
                self._condition.wait_for(functools.partial(self._is_past, missing), self._patience_s)
                if not self._is_past(missing):
                    self._next += 1
                    self._give_up()
                    self._advance()

    def _is_past(self, number: int) -> bool:
        return self._next > number

    def _advance(self) -> None:
        while self._next in self._waiting:
            ready = self._waiting.pop(self._next)
            self._next += 1
            if ready is not None:
                self._deliver(ready)
        self._condition.notify_all()


class SpareCores:
    """How many workers there may be beyond the first one of each camera, in all cameras together."""

    def __init__(self, most: int = 0, has_memory: Callable[[], bool] = lambda: True) -> None:
        """has_memory: whether another worker has room; asked before each one."""
        self._most = most
        self._has_memory = has_memory
        self._taken = 0
        self._lock = threading.Lock()

    def allow(self, most: int) -> None:
        """Those that are there already may stay."""
        with self._lock:
            self._most = most

    def take(self) -> bool:
        with self._lock:
            if self._taken >= self._most or not self._has_memory():
                return False
            self._taken += 1
            return True

    def give_back(self) -> None:
        with self._lock:
            self._taken -= 1


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What one worker found in one frame. arrived_ns: the time.monotonic_ns at which the frame was there to be taken.
    inference_ns: how long the estimator took."""

    frame: Frame
    poses: tuple[Pose, ...]
    worker: int
    arrived_ns: int
    inference_ns: int


@dataclass(frozen=True, slots=True)
class Estimators:
    """What a camera's workers work with. make: an estimator for one of them. max_people: as many as each finds in a
    frame at most. workers: so many, or as many as the camera needs and the machine has to spare."""

    make: Callable[[], PoseEstimator]
    max_people: int = 1
    workers: int | SpareCores = 1


class Client(Protocol):
    """What estimates are made for: a camera. Its methods are called from the workers' threads."""

    @property
    def name(self) -> str: ...

    @property
    def latest(self) -> Frame | None:
        """The newest frame, for estimators to get warm with."""

    def estimated(self, estimate: Estimate) -> None:
        """In the frames' order, one at a time."""

    def not_estimated(self, cause: DropCause) -> None:
        """A frame was taken and gave nothing."""

    def inference_failed(self, failed: Inference) -> None:
        """There will be no more estimates, but for the frames that other workers have in hand."""

    def inference_ended(self, ended: Inference) -> None:
        """No worker is left. The last thing that happens, unless they were relieved."""


class _Worker:
    """A thread with an estimator of its own: it loads the model, waits for its turn, and works until it is relieved."""

    def __init__(self, team: Inference, number: int, estimator: PoseEstimator) -> None:
        self.number = number
        self.loaded = False
        self.at_work = False
        """It takes frames, or will as soon as it has its turn."""
        self.relieved = threading.Event()
        self.failure: EdgePoseError | None = None
        self.pulse = Pulse()
        self.thread = threading.Thread(target=self._run, name=f"inference-{team.camera}-{number}", daemon=True)
        self._team = team
        self._estimator = estimator

    def _run(self) -> None:
        try:
            with self._estimator as estimator:
                self._team.get_ready(self, estimator)
                self._team.work(self, estimator)
        except EdgePoseError as error:
            self.failure = error
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not look like a clean end
            self.failure = unforeseen(self._team.camera, error)
        finally:
            self.pulse.rest()
            self._team.worker_ended(self)


class Inference:
    """A camera's workers, as many as it needs: from `load` to the last one's end.

    The first one loads its model alone, and works by itself until the others have loaded theirs.

    A worker that fails is replaced as long as there are others and frames get estimated in between; otherwise all of it
    ends, and `failure` says why.
    """

    def __init__(self, client: Client, slot: Slot[Frame], estimators: Estimators) -> None:
        self.camera = client.name
        self.failure: EdgePoseError | None = None
        self.loaded = threading.Event()
        """The first one's model is there, or won't be: then `failure` says why."""
        self.relieved = False
        self._client = client
        self._slot = slot
        self._estimators = estimators
        workers = estimators.workers
        self._number = workers if isinstance(workers, int) else 1
        self._spare = workers if isinstance(workers, SpareCores) else None
        self._turn = threading.Event()
        self._blend = TrackerBlend(max_people=estimators.max_people)
        self._in_order = InOrder(self._deliver, self._give_up)
        self._lock = threading.Lock()  # of what follows
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        self._hired = 0
        self._seats = 0  # taken of `_spare`
        self._grows = self._spare is not None
        self._begun = False
        self._broken = False
        self._estimated = 0  # since a worker failed
        self._looked_at = (0, 0)  # the slot's figures

    @property
    def begun(self) -> bool:
        """Whether it has begun to load a model."""
        return self._hired > 0

    @property
    def alive(self) -> bool:
        return any(thread.is_alive() for thread in tuple(self._threads))

    @property
    def at_work(self) -> int:
        """How many workers take frames."""
        with self._lock:
            return sum(worker.at_work for worker in self._workers)

    def load(self) -> None:
        with self._lock:
            self._hire()

    def begin(self) -> None:
        """Its turn: from now on it takes frames. Nobody else does any more."""
        with self._lock:
            if not self._begun:
                self._begun = True
                self._in_order = InOrder(self._deliver, self._give_up, first=self._slot.taken)
                self._looked_at = self._slot.puts, self._slot.pressed
                self._complete()
        self._turn.set()

    def relieve(self) -> None:
        """Its workers finish the frames that they have and take no others; before its turn, they go."""
        with self._lock:
            self.relieved = True
            for worker in self._workers:
                worker.relieved.set()
        self._slot.wake()
        self._turn.set()

    def call_back(self) -> bool:
        """Take the relief back. False: too late, nobody takes frames any more."""
        with self._lock:
            staying = [worker for worker in self._workers if worker.at_work]
            if staying:
                self.relieved = False
                for worker in staying:
                    worker.relieved.clear()
                self._complete()
            return bool(staying)

    def join(self, deadline: Deadline) -> bool:
        """False when a worker is still busy after `deadline`."""
        for thread in tuple(self._threads):
            thread.join(deadline.left_s())
        return not self.alive

    def has_left(self, deadline: Deadline) -> bool:
        """After `relieve`: whether before `deadline` nobody takes or has frames any more. Who still loads a model will
        see that it is relieved, and is not waited for."""
        with self._lock:
            busy = [worker.thread for worker in self._workers if worker.loaded]
        for thread in busy:
            thread.join(deadline.left_s())
        return not any(thread.is_alive() for thread in busy)

    def is_silent(self, after_s: float) -> bool:
        """Whether a worker has not got on for so long."""
        with self._lock:
            return any(worker.pulse.is_silent(after_s) for worker in self._workers)

    def get_ready(self, worker: _Worker, estimator: PoseEstimator) -> None:
        """For a worker's thread: wait for its turn, warm, since the first frame takes several times as long as those
        after it."""
        newest = self._client.latest
        if newest is not None and not worker.relieved.is_set():
            estimator.estimate(newest)
        with self._lock:
            worker.loaded = True
            worker.at_work = not worker.relieved.is_set()
            self.loaded.set()
            self._complete()
        self._turn.wait()

    def work(self, worker: _Worker, estimator: PoseEstimator) -> None:
        """For a worker's thread: estimate frames until there are no more or it is relieved."""
        while True:
            taken = self._slot.take(worker.relieved)
            if taken is None:
                if self._leaves(worker):
                    return
                continue  # it was called back
            frame, arrived_ns, number = taken
            worker.pulse.beat()
            began_ns = time.monotonic_ns()
            try:
                poses = estimator.estimate(frame)
            except BaseException:
                self._client.not_estimated(DropCause.ESTIMATOR_FAILED)
                self._in_order.finish(number, None)
                raise
            ended_ns = time.monotonic_ns()
            self._in_order.finish(number, Estimate(frame, poses, worker.number, arrived_ns, ended_ns - began_ns))
            worker.pulse.rest()

    def worker_ended(self, worker: _Worker) -> None:
        """For a worker's thread, as the last thing it does."""
        with self._lock:
            self._workers.remove(worker)
            worker.at_work = False
            if self._spare is not None and self._seats > max(0, len(self._workers) - 1):
                self._seats -= 1
                self._spare.give_back()
            breaks = worker.failure is not None and not self._goes_on_without(worker, worker.failure)
            if breaks:
                self.failure = worker.failure
                self._broken = not self.relieved
            last = not self._workers and (self._broken or not self.relieved)
        try:
            if breaks and self._broken:
                self._client.inference_failed(self)
            if last:
                self._client.inference_ended(self)
        finally:
            self.loaded.set()  # last: whoever waits for it looks at the camera's failure next

    def _hire(self) -> None:
        self._hired += 1
        worker = _Worker(self, self._hired, self._estimators.make())
        self._workers.append(worker)
        self._threads = [*(thread for thread in self._threads if thread.is_alive()), worker.thread]
        worker.thread.start()

    def _complete(self) -> None:
        """Hire those that are missing, once the first one has its model."""
        while len(self._workers) < self._number and self._may_hire():
            self._hire()

    def _may_hire(self) -> bool:
        over = self.relieved or self._broken or self._slot.closed
        return self._begun and self.loaded.is_set() and not over

    def _goes_on_without(self, worker: _Worker, error: EdgePoseError) -> bool:
        """Whether the others can do without one that has failed; it is replaced then."""
        if not self._workers or self._broken or (worker.loaded and not self._estimated):
            return False
        told = of_camera(log, self.camera)
        self._estimated = 0
        if worker.loaded:
            told.warning("camera %s: one of its estimators failed, another takes its place: %s", self.camera, error)
        else:
            self._number, self._grows = 1, False  # it would be the same with the next one
            told.warning("camera %s: there can't be another estimator beside the first: %s", self.camera, error)
        self._complete()
        return True

    def _leaves(self, worker: _Worker) -> bool:
        """Whether it is to take no more frames, and if so, for good."""
        with self._lock:
            if worker.relieved.is_set() or self._slot.over:
                worker.at_work = False
            return not worker.at_work

    def _give_up(self) -> None:
        self._client.not_estimated(DropCause.LATE)

    def _deliver(self, estimate: Estimate) -> None:
        poses = self._blend.blend(estimate.worker, estimate.frame.monotonic_ns, estimate.poses)
        self._client.estimated(replace(estimate, poses=poses))
        self._estimated += 1
        if self._grows and self._slot.puts - self._looked_at[0] >= _LOOK_EVERY:
            self._look()

    def _look(self) -> None:
        """Whether another worker is needed."""
        with self._lock:
            puts, pressed = self._slot.puts, self._slot.pressed
            too_many = pressed - self._looked_at[1] > _TOO_MANY * (puts - self._looked_at[0])
            self._looked_at = puts, pressed
            ready = self._may_hire() and all(worker.at_work for worker in self._workers)
            if self._spare is not None and ready and too_many and self._spare.take():
                self._seats += 1
                told = of_camera(log, self.camera)
                told.info(
                    "camera %s: %d estimators can not keep up, one more is loaded", self.camera, len(self._workers)
                )
                self._hire()


def unforeseen(camera: str, error: BaseException) -> UnforeseenError:
    """What nobody thought of, in one line; where it happened goes to the log."""
    of_camera(log, camera).debug("camera %s: %r", camera, error, exc_info=error)
    return UnforeseenError(f"camera {camera}: {type(error).__name__}: {error}; see the log at level debug")
