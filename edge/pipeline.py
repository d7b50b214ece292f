"""One camera's way: the threads between its source and the lanes.

    source --capture thread--+--> lanes of Frame (video)
                             |
                             +--> Slot --inference threads--> lanes of Observation

Nothing flows back, so no sink can slow the estimator or another sink. While the camera runs it can be paused, and
another estimator can take over from one frame to the next.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace

from edge import reports
from edge.errors import CameraLost, EdgePoseError
from edge.inference import Estimate, Estimators, Inference, unforeseen
from edge.interfaces import EndOfStream, FrameSource
from edge.lanes import IDLE_S, Outlets, Slot, SlotOverflow
from edge.logs import FaultLog, of_camera
from edge.pacing import Backoff, Deadline, Pulse
from edge.presence import Presence
from edge.reports import Happening
from edge.stats import CameraStats, CameraStatus, DropCause, Stats
from edge.vision.frame import Frame, from_keyframe
from edge.vision.people import Rules

log = logging.getLogger(__name__)

STALLED_AFTER_S = 20.0
"""A thread that has not got on for so long hangs: to open a network camera may take 10 s, a frame on a slow board 5."""

SILENT_AFTER_S = 3.0
"""A camera that is open and gives no frame for so long, and for five of its intervals, is called stalled."""

REOPENED_AFTER = 2.0
"""Times as long, and it is opened anew: its driver may have hung, or it has come back as another device."""

STEADY_AFTER_S = 2.0
"""A camera that gives frames for so long works: one that is lost sooner is tried again no faster than before."""

_TO_OPEN = 9.0
"""Times as patient while a source is opened: a look-up of its name can take a minute, and nothing can cut it short."""

_NOT_SEEN = {
    CameraStatus.STALLED: "the camera gives no frames",
    CameraStatus.RECONNECTING: "the camera is lost",
    CameraStatus.PAUSED: "the camera is paused",
    CameraStatus.DISABLED: "the camera has ended",
}

EventReport = Callable[[str, Happening], str]
"""Takes the camera and what has happened; gives the event's id."""


class CameraPipeline:
    """One camera's way from the source to the lanes: a thread that captures and one or several that infer."""

    def __init__(
        self,
        name: str,
        source: FrameSource,
        estimators: Estimators,
        *,
        outlets: Outlets,
        stats: CameraStats,
        drops: Stats,
        on_end: Callable[[CameraPipeline], None],
        on_event: EventReport,
        rules: Rules,
        ids: Iterator[int],
        interval_s: float = 0.0,
        paused: bool = False,
    ) -> None:
        """rules: by what people are understood. ids: theirs; another camera of this name goes on with the same.
        interval_s: between the frames that the source was asked for; 0: unknown, it has its own."""
        self.name = name
        self.failure: EdgePoseError | None = None
        self.settled = threading.Event()
        """The source has given a frame, or it is clear that none will come for now."""
        self.ended = False
        self.next_seq = 0
        """Of the next frame. Set before `start` to go on where another camera of this name has ended."""
        self.latest: Frame | None = None
        """The newest frame, while the camera gives some."""
        self._source = source
        self._outlets = outlets
        self._stats = stats
        self._drops = drops
        self._on_end = on_end
        self._on_event = on_event
        self._presence = Presence(rules, ids, functools.partial(on_event, name))
        self._interval_s = interval_s
        self._slot: Slot[Frame] = Slot(SlotOverflow.NEWEST_WINS if source.live else SlotOverflow.WAIT)
        self._log = of_camera(log, name)
        self._faults = FaultLog(self._log)
        self._stopping = threading.Event()
        self._orders = threading.Condition()
        self._paused = paused
        self._broken = False
        self._left_behind = False
        self._inferred = threading.Event()
        self._end: str | None = None  # why there will be no more frames
        self._offset: int | None = None  # from the source's own numbers
        self._lost: tuple[float, str] | None = None  # since when, and the event that says so
        self._pulse = Pulse()
        self._capture = threading.Thread(target=self._run_capture, name=f"capture-{name}", daemon=True)
        self._inference = Inference(self, self._slot, estimators)

    @property
    def loaded(self) -> threading.Event:
        """The model is there, or won't be: then `failure` says why."""
        return self._inference.loaded

    def load(self) -> None:
        """Begin to load the model."""
        self._inference.load()

    def start(self) -> None:
        """Open the source as soon as the model is there; after `load`."""
        self._stats.live = self._source.live
        self._stats.status = CameraStatus.RECONNECTING  # another one of this name may have left its own
        self._inference.begin()
        self._capture.start()

    def pause(self, paused: bool) -> None:  # noqa: FBT001 - what it is set to
        """Let go of the source, or take it up again. What was captured before is still estimated."""
        with self._orders:
            self._paused = paused
            self._orders.notify_all()

    def adopt(self, rules: Rules) -> None:
        """Understand people by other rules from the next frame on."""
        self._presence.adopt(rules)

    def beside(self, estimators: Estimators) -> Inference:
        """Other estimators, to be loaded while those in use go on; then `take_over`."""
        return Inference(self, self._slot, estimators)

    def take_over(self, new: Inference, deadline: Deadline, step: Callable[[], None] = lambda: None) -> bool:
        """Let `new`, which is loaded, estimate from the next frame on. False, and nothing has changed, when the old one
        does not finish its frames before `deadline`; it may still be freeing its model when this is True.

        step: called a few times a second while this waits; whatever it raises ends the wait in the same way.
        """
        old = self._inference
        old.relieve()
        given_up: BaseException | None = None
        while not old.has_left(Deadline(min(IDLE_S, deadline.left_s()))):
            try:
                step()
            except BaseException as error:  # noqa: BLE001 - raised again below
                given_up = error
            if given_up is not None or not deadline.left_s():
                if not old.call_back():
                    break  # they have left meanwhile
                if given_up is not None:
                    raise given_up
                return False
        if old.failure is not None and not self.ended:
            self._log.warning("camera %s: %s; another estimator was about to take over", self.name, old.failure)
        self._inference = new
        new.begin()
        if given_up is not None:
            raise given_up
        return True

    def interrupt(self) -> None:
        """Ask for the end, and give up the frame that waits."""
        self._stopping.set()
        with self._orders:
            self._orders.notify_all()
        self._lose(self._slot.close(discard=True))
        self._inference.begin()  # it finds the slot closed

    def stalled(self, after_s: float) -> list[str]:
        """The threads that have not got on for `after_s` without a reason to wait: "capture", "inference"."""
        silent = {"capture": self._pulse.is_silent(after_s), "inference": self._inference.is_silent(after_s)}
        return [thread for thread, is_silent in silent.items() if is_silent]

    def join(self, deadline: Deadline) -> bool:
        """False when a thread is still busy after `deadline`."""
        if self._capture.ident is not None:
            self._capture.join(deadline.left_s())
        self._left_behind = not self._inference.join(deadline) or self._capture.is_alive()
        if self._left_behind:
            self._inference.abandon()
        return not self._left_behind

    def estimated(self, estimate: Estimate) -> None:
        """For its inference: the next frame's result."""
        if self._left_behind:  # another camera of this name may have published newer ones
            self._lose(1)
            return
        arrived_ns, inference_ns = estimate.arrived_ns, estimate.inference_ns
        observation = self._presence.observe(estimate)
        self._outlets.observe(observation)
        self._stats.workers = self._inference.at_work
        self._stats.frame_estimated(
            people=len(observation.people),
            inference_ms=inference_ns / 1e6,
            latency_ms=(time.monotonic_ns() - arrived_ns) / 1e6,
        )

    def not_estimated(self, cause: DropCause) -> None:
        """For its inference: a frame was taken and gave nothing."""
        self._lose(1, cause)

    def inference_failed(self, failed: Inference) -> None:
        """For its inference: no more frames can be estimated."""
        if failed is self._inference and failed.failure is not None:
            self._fail(failed.failure)
            self._broken = True
            self._lose(self._slot.close(discard=True))

    def inference_ended(self, ended: Inference) -> None:
        """For its inference, as the last thing it does: without it the camera is at its end.

        The status that follows is for the capture thread to set, as all others are.
        """
        if ended is not self._inference:
            return  # it never had its turn
        self._lose(self._slot.close(discard=True))
        if not self._stopping.is_set():
            self._end = str(self.failure or "its frames are over")
        self._inferred.set()
        with self._orders:
            self._orders.notify_all()
        self.ended = True
        self._on_end(self)

    def _run_capture(self) -> None:
        self.loaded.wait()
        try:
            self._capture_frames()
        except EdgePoseError as error:
            self._fail(error)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must not look like a clean end
            self._fail(unforeseen(self.name, error))
        finally:
            self._pulse.rest()
            self.latest = None
            self._slot.close()
            self.settled.set()
            self._inferred.wait()
            if self._end is not None:
                self._become(CameraStatus.DISABLED, self._end)
            self._presence.interrupt("the camera is stopped", self.next_seq)
            self._no_longer_missed("the camera is stopped")

    def _lose(self, frames: int, cause: DropCause = DropCause.NEWER_FRAME) -> None:
        """Count frames that will not be estimated."""
        if self._stopping.is_set():
            cause = DropCause.STOPPED
        elif self._broken:
            cause = DropCause.ESTIMATOR_FAILED
        self._drops.dropped(f"camera {self.name}", cause, frames)

    def _fail(self, error: EdgePoseError) -> None:
        if self.failure is None:
            self.failure = error

    def _become(self, status: CameraStatus, reason: str = "") -> None:
        """The camera's status from now on, and what follows from the change."""
        before, self._stats.status = self._stats.status, status
        if status is not CameraStatus.ONLINE and before is not status:
            self._presence.interrupt(_NOT_SEEN[status], self.next_seq)
        match status:
            case CameraStatus.ONLINE if self._lost is not None:
                lost_s, event_id = self._lost
                self._on_event(self.name, reports.CameraBack(time.monotonic() - lost_s, of=event_id))
                self._lost = None
            case CameraStatus.RECONNECTING | CameraStatus.STALLED if self._lost is None:
                lost_s = time.monotonic()
                self._lost = lost_s, self._on_event(self.name, reports.CameraLost(reason))
            case CameraStatus.PAUSED:
                self._no_longer_missed("the camera is paused")
            case CameraStatus.DISABLED if before is not status:
                self._on_event(self.name, reports.CameraEnded(reason, of="" if self._lost is None else self._lost[1]))
                self._lost = None

    def _no_longer_missed(self, why: str) -> None:
        if self._lost is not None:
            self._on_event(self.name, reports.Interrupted(self._lost[1], why))
            self._lost = None

    def _goes_on(self) -> bool:
        return not self._stopping.is_set() and self.failure is None

    def _capture_frames(self) -> None:
        backoff = Backoff(first_s=0.5, most_s=4.0)  # who plugs a camera in looks whether it works
        while self._goes_on():
            if self._paused:
                self._wait_for_orders(None)
                continue
            self._pulse.beat(patience=_TO_OPEN)
            try:
                with self._source:
                    self._read_until_end(backoff)
            except EndOfStream:
                return
            except CameraLost as error:
                if not self._goes_on():
                    return  # nobody misses it
                wait_s = backoff.next_s()
                self._faults.failed("camera %s: %s; next try in %.1f s", self.name, error, wait_s)
                self._become(CameraStatus.RECONNECTING, str(error))
                self.latest = None
                self.settled.set()
                self._pulse.beat()
                self._wait_for_orders(wait_s)

    def _no_frame(self, last_s: float, patience_s: float) -> float:
        """What follows from a silence since `last_s`; when it counts from. Raises CameraLost when it is too long."""
        if self._source.opening:
            return time.monotonic()
        silent_s = time.monotonic() - last_s
        if self._source.live and silent_s > REOPENED_AFTER * patience_s:
            raise CameraLost(f"no frame for {silent_s:.0f} s")
        if self._stats.status is not CameraStatus.STALLED and silent_s > patience_s:
            self._faults.failed("camera %s: no frame for %.0f s", self.name, silent_s)
            self._become(CameraStatus.STALLED, f"no frame for {silent_s:.0f} s")
            self.latest = None
            self.settled.set()
        return last_s

    def _wait_for_orders(self, wait_s: float | None) -> None:
        """Wait until `wait_s` is over or something else is wanted; without a time, as long as it is paused."""
        with self._orders:
            if wait_s is None:
                self._become(CameraStatus.PAUSED)
                self.latest = None
                self.settled.set()
                self._pulse.rest()
                self._orders.wait_for(lambda: not (self._paused and self._goes_on()))
                if self._goes_on():
                    self._stats.status = CameraStatus.RECONNECTING
            else:
                self._orders.wait_for(lambda: self._paused or not self._goes_on(), wait_s)

    def _read_until_end(self, backoff: Backoff) -> None:
        self._pulse.beat()
        last_s = time.monotonic()
        # Of the last two the smaller: a silence that has ended is no interval, nor is the time to the first frame.
        intervals_s: deque[float] = deque(maxlen=2)
        first = True
        begun_s = last_s
        has_begun = False  # what it encodes: nothing from before it was opened can be referred to
        while self._goes_on() and not self._paused:
            frame = self._source.read(IDLE_S)
            self._pulse.beat()
            if not self._goes_on():
                return  # whoever takes over may have begun to count
            if frame is None:
                last_s = self._no_frame(last_s, max(SILENT_AFTER_S, 5 * min(intervals_s, default=self._interval_s)))
                continue
            now_s = time.monotonic()
            if first:
                begun_s = now_s
            else:
                intervals_s.append(now_s - last_s)
            if now_s - begun_s >= STEADY_AFTER_S:
                backoff.reset()
            first, last_s = False, now_s
            self._offset = self.next_seq - frame.seq if self._offset is None else self._offset
            if self._offset:
                frame = replace(frame, seq=frame.seq + self._offset)
            self.next_seq = frame.seq + 1
            if frame.packets and not has_begun:
                frame = replace(frame, packets=from_keyframe(frame.packets))
                has_begun = bool(frame.packets)
            if self._stats.status is not CameraStatus.ONLINE:
                self._become(CameraStatus.ONLINE)
            self._faults.worked("camera %s is back", self.name)
            self.settled.set()
            self.latest = frame
            self._stats.frame_captured()
            frame = self._outlets.film(frame)
            self._pulse.rest()  # a file waits here for the inference thread, whose pulse it is then that counts
            if not self._slot.put(frame):
                self._lose(1)
            self._pulse.beat()
