"""A camera's estimators: workers that take frames as they come, and whose results go on in the frames' order.

    Slot --+--> worker 1 --+--> InOrder --> TrackerBlend --> the camera
           +--> worker 2 --+

One landmarker keeps one core busy, so a camera that wants more frames than that needs several of them. A worker takes
a frame when it has time for one, so that no frame gets old on its way to it, and a camera with one worker costs no
thread more than without all this.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from edge.errors import EdgePoseError, EstimatorError, UnforeseenError
from edge.in_order import InOrder
from edge.interfaces import PoseEstimator
from edge.lanes import Slot, SlotOverflow
from edge.logs import FaultLog, of_camera
from edge.pacing import Backoff, Deadline, Pulse
from edge.stats import DropCause
from edge.vision.blend import TrackerBlend
from edge.vision.frame import Frame
from edge.vision.pose import Pose

log = logging.getLogger(__name__)

_PATIENCE_S = 1.0
_PATIENCE_FRAMES = 5
"""A frame that others wait for is given up after so long, or after so many times what a frame takes."""

_TO_LOAD = 9.0
"""Times as patient while a model is loaded."""

_CALM_FRAMES = 1000
"""After so many without a failure, those not counted while a replacement is put off, it counts as over."""

_LOOK_EVERY = 64
_TOO_MANY = 0.1
"""A camera gets another worker when of its last 64 frames this share found no worker ready."""


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
        self.has_worked = False
        self.relieved = threading.Event()
        self.failure: EdgePoseError | None = None
        self.pulse = Pulse()
        self.thread = threading.Thread(target=self._run, name=f"inference-{team.camera}-{number}", daemon=True)
        self._team = team
        self._estimator = estimator

    def _run(self) -> None:
        self.pulse.beat(patience=_TO_LOAD)
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

    One that fails is replaced after a while, as long as there are others; the last one's failure ends all of it, and
    `failure` says why.
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
        self._usual_s = 0.0  # that a frame takes
        self._in_order = self._line()
        self._lock = threading.Lock()  # of what follows
        self._workers: list[_Worker] = []
        self._threads: list[threading.Thread] = []
        self._hired = 0
        self._seats = 0  # taken of `_spare`
        self._has_turn = False
        self._broken = False
        self._end_told = False
        self._looked_at = (0, 0)  # the slot's figures
        self._told_of = 0  # so many workers being too few
        self._faults = FaultLog(of_camera(log, self.camera))
        self._hold_off = Backoff(first_s=2.0, most_s=300.0)
        self._next_hire_s = 0.0
        self._calm = 0  # frames since a worker failed

    @property
    def alive(self) -> bool:
        with self._lock:
            return any(thread.is_alive() for thread in self._threads)

    @property
    def at_work(self) -> int:
        """How many workers take frames."""
        with self._lock:
            return sum(worker.at_work for worker in self._workers)

    def load(self) -> None:
        """Raises EstimatorError where there can't be even one more thread."""
        with self._lock:
            try:
                self._hire()
            except (RuntimeError, MemoryError) as error:
                raise EstimatorError(f"camera {self.camera}: no thread for its estimator: {error}") from None

    def begin(self) -> None:
        """Its turn: from now on it takes frames. Nobody else does any more."""
        with self._lock:
            if not self._has_turn:
                self._has_turn = True
                self._in_order = self._line()
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
                for worker in self._workers:
                    if worker.at_work or not worker.loaded:
                        worker.relieved.clear()
                self._complete()
            return bool(staying)

    def join(self, deadline: Deadline) -> bool:
        """False when a worker is still busy after `deadline`."""
        with self._lock:
            threads = list(self._threads)
        for thread in threads:
            thread.join(deadline.left_s())
        return not any(thread.is_alive() for thread in threads)

    def has_left(self, deadline: Deadline) -> bool:
        """After `relieve`: whether before `deadline` nobody takes or has frames any more. Who still loads a model will
        see that it is relieved, and is not waited for."""
        with self._lock:
            busy = [worker.thread for worker in self._workers if worker.loaded]
        for thread in busy:
            thread.join(deadline.left_s())
        return not any(thread.is_alive() for thread in busy)

    def abandon(self) -> None:
        """A worker hangs, and nobody will hear of it any more: let go of what waits for it."""
        self._in_order.flush()

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
        worker.pulse.rest()
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
            worker.has_worked = True
            worker.pulse.beat()
            began_ns = time.monotonic_ns()
            try:
                poses = estimator.estimate(frame)
            except BaseException:
                if self._in_order.finish(number, None):
                    self._client.not_estimated(DropCause.ESTIMATOR_FAILED)
                raise
            took_ns = time.monotonic_ns() - began_ns
            self._usual_s += 0.1 * (took_ns / 1e9 - self._usual_s)
            self._in_order.finish(number, Estimate(frame, poses, worker.number, arrived_ns, took_ns))
            worker.pulse.rest()

    def worker_ended(self, worker: _Worker) -> None:
        """For a worker's thread, as the last thing it does."""
        with self._lock:
            self._workers.remove(worker)
            worker.at_work = False
            self._give_seats_back()
            if worker.failure is not None:
                self._consider(worker, worker.failure)
            over = self._broken or self._slot.over
            # Who still loads a model when all frames are done will see that, and is not waited for.
            gone = not any(other.loaded for other in self._workers) if over else not self._workers
            tells = gone and (self._broken or not self.relieved) and not self._end_told
            self._end_told = self._end_told or tells
        try:
            if tells:
                self._client.inference_ended(self)
        finally:
            self.loaded.set()  # last: whoever waits for it looks at the camera's failure next

    def _line(self) -> InOrder[Estimate]:
        """For the frames from here on. A live camera's are not held up for long; a file's wait if they can."""
        return InOrder(
            self._deliver,
            self._give_up,
            patience_s=lambda: max(_PATIENCE_S, _PATIENCE_FRAMES * self._usual_s),
            first=self._slot.taken,
            by_age=self._slot.overflow is SlotOverflow.NEWEST_WINS,
        )

    def _hire(self) -> None:
        worker = _Worker(self, self._hired + 1, self._estimators.make())
        self._workers.append(worker)
        try:
            worker.thread.start()
        except BaseException:
            self._workers.remove(worker)
            raise
        self._hired += 1
        self._threads = [*(thread for thread in self._threads if thread.is_alive()), worker.thread]

    def _hire_another(self) -> None:
        try:
            self._hire()
        except (RuntimeError, MemoryError) as error:
            self._give_seats_back()
            self._put_off(EstimatorError(f"no thread for another one: {error}"))

    def _give_seats_back(self) -> None:
        while self._spare is not None and self._seats > max(0, len(self._workers) - 1):
            self._seats -= 1
            self._spare.give_back()

    def _complete(self) -> None:
        """Hire those that are missing, once the first one has its model."""
        while len(self._workers) < self._number and self._may_hire():
            self._hire_another()

    def _may_hire(self) -> bool:
        over = self.relieved or self._broken or self._slot.closed
        return self._has_turn and self.loaded.is_set() and not over and time.monotonic() >= self._next_hire_s

    def _consider(self, worker: _Worker, error: EdgePoseError) -> None:
        """What follows from a worker's failure."""
        if self._slot.closed and self.loaded.is_set() and not worker.has_worked:
            log.debug("camera %s: an estimator that is not needed any more: %s", self.camera, error)
        elif self._workers and not self._broken:
            self._put_off(error)
        else:
            self._break(error)

    def _put_off(self, error: EdgePoseError) -> None:
        """The others go on, and a replacement has to wait: what is wrong may be so for longer."""
        self._calm = 0
        self._next_hire_s = time.monotonic() + self._hold_off.next_s()
        told = "camera %s: one of its estimators failed, %d go on: %s"
        self._faults.failed(told, self.camera, len(self._workers), error)

    def _break(self, error: EdgePoseError) -> None:
        """No more frames can be estimated, but those that others have in hand."""
        if self.failure is None:
            self.failure = error
        if not self.relieved and not self._broken:
            self._broken = True
            self._client.inference_failed(self)

    def _leaves(self, worker: _Worker) -> bool:
        """Whether it is to take no more frames, and if so, for good."""
        with self._lock:
            if worker.relieved.is_set() or self._slot.over:
                worker.at_work = False
            return not worker.at_work

    def _give_up(self) -> None:
        self._client.not_estimated(DropCause.LATE)

    def _deliver(self, estimate: Estimate) -> None:
        try:
            poses = self._blend.blend(estimate.worker, estimate.frame.monotonic_ns, estimate.poses)
            self._client.estimated(replace(estimate, poses=poses))
        except BaseException as error:  # noqa: BLE001 - no worker's fault, and it would be the same with the next frame
            self._client.not_estimated(DropCause.ESTIMATOR_FAILED)
            with self._lock:
                self._break(unforeseen(self.camera, error))
            return
        self._calm += time.monotonic() >= self._next_hire_s
        if self._calm == _CALM_FRAMES:
            self._hold_off.reset()
            self._faults.worked("camera %s: its estimators work again", self.camera)
        if len(self._workers) < self._number:
            with self._lock:
                self._complete()
        elif self._spare is not None and self._slot.puts - self._looked_at[0] >= _LOOK_EVERY:
            self._look(self._spare)

    def _look(self, spare: SpareCores) -> None:
        """Whether another worker is needed."""
        with self._lock:
            puts, pressed = self._slot.puts, self._slot.pressed
            too_many = pressed - self._looked_at[1] > _TOO_MANY * (puts - self._looked_at[0])
            self._looked_at = puts, pressed
            if not (too_many and self._may_hire() and all(worker.at_work for worker in self._workers)):
                return
            told, workers = of_camera(log, self.camera), len(self._workers)
            if spare.take():
                self._seats += 1
                told.info("camera %s: %d at work can't keep up, one worker more", self.camera, workers)
                self._hire_another()
            elif self._told_of != workers:
                self._told_of = workers
                told.info("camera %s: %d at work can't keep up, and no core or memory is left", self.camera, workers)


def unforeseen(camera: str, error: BaseException) -> UnforeseenError:
    """What nobody thought of, in one line; where it happened goes to the log."""
    of_camera(log, camera).debug("camera %s: %r", camera, error, exc_info=error)
    return UnforeseenError(f"camera {camera}: {type(error).__name__}: {error}; see the log at level debug")
