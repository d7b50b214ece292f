"""All cameras and all lanes, from start to stop: the one stop path, and what can be exchanged meanwhile."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from edge.control import CameraEnded, Inbox, Request, Stop
from edge.errors import CameraUnusable, EstimatorError, OrderRefused
from edge.inference import Inference
from edge.lanes import IDLE_S, LaneGroup, Outlets
from edge.logs import of_camera
from edge.pacing import Deadline
from edge.pipeline import STALLED_AFTER_S, CameraPipeline

log = logging.getLogger(__name__)

T = TypeVar("T")

STOP_DEADLINE_S = 4.0
"""From the request to stop to the last thread's end. The promise is 5 s; the rest is the interpreter's."""

LOAD_TIMEOUT_S = 15.0
"""For the model of a camera that is to take over from another one."""

RELIEF_TIMEOUT_S = 8.0
"""For an estimator to finish its frame before another one takes over: a slow board takes up to 5 s."""

FIRST_FRAME_S = 5.0
"""How long a camera that has taken over is watched for whether it works."""


class EndRequested(Exception):
    """What was being done is left undone, since the daemon is to end."""


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
        """Whether every camera has its model; one whose source can't be used may have it too."""
        cameras = self.cameras.values()
        return all(
            camera.loaded.is_set() and (camera.failure is None or isinstance(camera.failure, CameraUnusable))
            for camera in cameras
        )

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
        self._require_time()
        old = self.outlets.groups.get(name)
        if old is not None:  # a broker knows a device by one name; what comes meanwhile is counted by the closed lanes
            _warn_of(_end([old], Deadline(STOP_DEADLINE_S / 2)))
        if new is not None:
            _start(new)
        self.outlets.connect(name, new)

    def load(self, new: CameraPipeline | Inference, step: Callable[[], None] = lambda: None) -> None:
        """Have what is to take over load its model. Raises what keeps it from that; EndRequested."""
        new.load()
        if not self._until(new.loaded, LOAD_TIMEOUT_S, step):
            raise EstimatorError(f"the model is not loaded after {LOAD_TIMEOUT_S:g} s")
        if new.failure is not None:
            raise new.failure

    def exchange_estimator(self, name: str, new: Inference, step: Callable[[], None] = lambda: None) -> None:
        """Let `new`, whose model is loaded, estimate the frames of camera `name` from the next one on.

        Raises EstimatorError when the old one is stuck; EndRequested. The old one goes on then.
        """

        def wait() -> None:
            self._require_time()
            step()

        if not self.cameras[name].take_over(new, Deadline(RELIEF_TIMEOUT_S), wait):
            raise EstimatorError(f"camera {name}: its estimator is still busy after {RELIEF_TIMEOUT_S:g} s")

    def aside(self, work: Callable[[], T], step: Callable[[], None], timeout_s: float = math.inf) -> T:
        """What `work` returns, which is too slow for the main thread: it goes on in a thread of its own, and `step` is
        called a few times a second meanwhile. Raises what it raises; OrderRefused when it takes longer than
        `timeout_s`, and EndRequested: it is left behind then."""
        result: list[T] = []
        failure: list[BaseException] = []
        done = threading.Event()

        def carry_out() -> None:
            try:
                result.append(work())
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                failure.append(error)
            finally:
                done.set()

        threading.Thread(target=carry_out, name="aside", daemon=True).start()
        if not self._until(done, timeout_s, step):
            raise OrderRefused(f"it takes longer than {timeout_s:g} s; it goes on, so try again later")
        if failure:
            raise failure[0]
        return result[0]

    def exchange_camera(self, name: str, new: CameraPipeline | None, step: Callable[[], None] = lambda: None) -> None:
        """End the camera `name`, and let `new`, whose model is loaded, take over, if there is one.

        It goes on counting frames where the old one ended. Raises what keeps its source from working; there is none of
        that name any more then. Raises EndRequested. step: called a few times a second while this waits.
        """
        self._require_time()
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

    def _require_time(self) -> None:
        """Raises EndRequested: what would be ended next ends with all the rest."""
        if self._inbox.stop_requested:
            raise EndRequested

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
        # Counted from when it was asked for: an exchange may have been under way.
        deadline = Deadline(max(STOP_DEADLINE_S - self._inbox.stopping_s, STOP_DEADLINE_S / 4))
        cameras = tuple(self.cameras.values())
        for camera in cameras:
            camera.interrupt()
        for_cameras = Deadline(deadline.left_s() / 2)
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
    group.begin()
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
