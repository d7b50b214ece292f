"""Sources, estimators, sinks and a daemon made of them: real implementations that do what a test tells them."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from edge.config import PeopleConfig
from edge.control import Inbox, Stop
from edge.daemon import Daemon
from edge.event_log import EventLog
from edge.inference import Estimators, SpareCores
from edge.interfaces import EndOfStream
from edge.lanes import Lane, LaneGroup, Shown
from edge.pacing import Deadline
from edge.pipeline import CameraPipeline
from edge.reports import Event, Happening
from edge.stats import CameraStatus, DropCause, Stats
from edge.vision.frame import Filmed, Frame
from edge.vision.observation import Observation
from edge.vision.people import Rules
from edge.vision.pose import Pose
from tests.conftest import frame, pose

PROMISED_STOP_S = 5.0
PATIENCE_S = 20.0


def frames(count: int, *, first: int = 0) -> list[Frame]:
    return [frame(seq=seq) for seq in range(first, first + count)]


class Film:
    """A source that plays a script: frames are given, errors raised, events waited for. Then the stream ends."""

    opening = False

    def __init__(
        self, *script: Frame | Exception | threading.Event, live: bool = False, opening: Sequence[Exception] = ()
    ) -> None:
        self.live = live
        self.opened = self.closed = self.given = 0
        self._script = deque(script)
        self._opening: deque[Exception | None] = deque(opening)

    def fails_to_open_after(self, opened: int, *errors: Exception) -> None:
        """Have it opened so many times, and then fail for these reasons before it works again."""
        self._opening.extend([*[None] * opened, *errors])

    def __enter__(self) -> Self:
        self.opened += 1
        if self._opening and (error := self._opening.popleft()):
            raise error
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def read(self, timeout_s: float) -> Frame | None:
        if not self._script:
            raise EndOfStream
        if isinstance(self._script[0], threading.Event) and not self._script[0].wait(min(timeout_s, 0.02)):
            return None
        step = self._script.popleft()
        if isinstance(step, Exception):
            raise step
        if isinstance(step, threading.Event):
            return None
        self.given += 1
        return step


class Watcher:
    """An estimator that sees one person in each frame.

    gate: holds it inside of each frame. error, at: what it raises at which frame. loading: what it raises in place of
    a model. model: when that is there.
    """

    def __init__(
        self,
        *,
        gate: threading.Event | None = None,
        error: Exception | None = None,
        at: int = 0,
        loading: Exception | None = None,
        model: threading.Event | None = None,
    ) -> None:
        self.loads = threading.Event()
        self.busy = threading.Event()
        self.seen: list[int] = []
        self.freed = False
        self._gate = gate
        self._error = error
        self._at = at
        self._loading = loading
        self._model = model

    def __enter__(self) -> Self:
        self.loads.set()
        if self._model:
            self._model.wait()
        if self._loading:
            raise self._loading
        return self

    def __exit__(self, *_: object) -> None:
        self.freed = True

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        self.busy.set()
        if self._gate:
            self._gate.wait()
        if self._error and frame.seq == self._at:
            raise self._error
        self.seen.append(frame.seq)
        return (pose(),)


class Crew:
    """Makes estimators, one after the other: those that it was given, then plain ones."""

    def __init__(self, *first: Watcher) -> None:
        self.made: list[Watcher] = []
        self._first = deque(first)

    def __call__(self) -> Watcher:
        watcher = self._first.popleft() if self._first else Watcher()
        self.made.append(watcher)
        return watcher


class Shelf:
    """A sink that keeps what it gets. `gate` holds it inside of each write, `fails` says which batches it refuses."""

    def __init__(
        self,
        *,
        gate: threading.Event | None = None,
        fails: Callable[[Sequence[Any]], BaseException | None] | None = None,
    ) -> None:
        self.batches: list[list[Any]] = []
        self.refused: list[Any] = []
        self.busy = threading.Event()
        self.idle = threading.Event()
        self.closed_with_s: list[float] = []
        self._gate = gate
        self._fails = fails

    @property
    def items(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]

    @property
    def seqs(self) -> list[int]:
        return [item.seq for item in self.items]

    def write(self, batch: Sequence[Any]) -> None:
        if not batch:
            self.idle.set()
            return
        self.busy.set()
        if self._gate:
            self._gate.wait()
        if self._fails and (error := self._fails(batch)):
            self.refused.extend(batch)
            raise error
        self.batches.append(list(batch))

    def close(self, timeout_s: float) -> None:
        self.closed_with_s.append(timeout_s)


class Rig:
    """A daemon of test parts."""

    def __init__(
        self,
        cameras: Mapping[str, tuple[Film, Watcher | Crew]],
        sinks: Mapping[str, Shelf] | None = None,
        *,
        workers: int | SpareCores = 1,
        video: Mapping[str, Shelf] | None = None,
        capacity: int = 1000,
        shown: Shown | None = None,
        events: tuple[str, ...] = (),
    ) -> None:
        """events: those of people that are told, as people.events."""
        self._rules = Rules(people=PeopleConfig.model_validate({"events": events}))
        self.workers = workers
        self.stats = Stats(list(cameras))
        self.inbox = Inbox()
        self.events: list[Event] = []
        self._event_log = EventLog("session")
        self._event_log.listen(self.events.append)
        observers = tuple(
            Lane[Observation](name, sink, self.stats, capacity=capacity) for name, sink in (sinks or {}).items()
        )
        films = tuple(Lane[Filmed](name, sink, self.stats, capacity=capacity) for name, sink in (video or {}).items())
        self.daemon = Daemon(self.inbox, {"test": LaneGroup(observers=observers, video=films, shown=shown)})
        for name, (source, estimator) in cameras.items():
            self.daemon.cameras[name] = self.pipeline(name, source, estimator)

    def pipeline(
        self,
        name: str,
        source: Film,
        estimator: Watcher | Crew,
        *,
        interval_s: float = 0.0,
        paused: bool = False,
        kind: type[CameraPipeline] = CameraPipeline,
    ) -> CameraPipeline:
        return kind(
            name,
            source,
            self._estimators(estimator),
            outlets=self.daemon.outlets,
            stats=self.stats.cameras[name],
            drops=self.stats,
            on_end=self.daemon.camera_ended,
            on_event=self._event_log.happened,
            rules=self._rules,
            ids=itertools.count(1),
            interval_s=interval_s,
            paused=paused,
        )

    def _estimators(self, estimator: Watcher | Crew) -> Estimators:
        return Estimators(estimator if isinstance(estimator, Crew) else lambda: estimator, workers=self.workers)

    def ended(self) -> str | None:
        """Wait for the end; the reason for it."""
        request = self.daemon.wait(PATIENCE_S)
        return request.reason if isinstance(request, Stop) else None

    def run(self) -> str | None:
        """From start to stop; the reason for the stop. Raises what the daemon raises."""
        self.daemon.start()
        try:
            return self.ended()
        finally:
            self.daemon.stop()

    def exchange(self, name: str, source: Film, estimator: Watcher | None = None) -> None:
        """Have another camera take over."""
        new = self.pipeline(name, source, estimator or Watcher())
        self.daemon.load(new)
        self.daemon.exchange_camera(name, new)

    def swap(self, estimator: Watcher | Crew, name: str = "front") -> None:
        """Have another estimator take over at this camera, or several."""
        new = self.daemon.cameras[name].beside(self._estimators(estimator))
        self.daemon.load(new)
        self.daemon.exchange_estimator(name, new)

    def at_work(self, camera: str = "front") -> int:
        """How many estimators take frames."""
        return self.daemon.cameras[camera]._inference.at_work

    def status(self, camera: str = "front") -> CameraStatus:
        return self.stats.cameras[camera].status

    def happened(self, camera: str = "front") -> list[tuple[type[Happening], str]]:
        """What has happened to the camera, with its reasons."""
        told = [event.what for event in self.events if event.camera == camera]
        return [(type(what), getattr(what, "reason", "")) for what in told]

    def captured(self, camera: str = "front") -> int:
        return self.stats.cameras[camera].counts().captured

    def estimated(self, camera: str = "front") -> int:
        return self.stats.cameras[camera].counts().estimated

    def dropped(self, place: str, cause: DropCause | None = None) -> int:
        drops = self.stats.drops()
        return sum(items for (where, why), items in drops.items() if where == place and cause in (None, why))

    def every_frame_is_accounted_for(self, camera: str = "front") -> bool:
        return self.captured(camera) == self.estimated(camera) + self.dropped(f"camera {camera}")


@contextmanager
def gate() -> Iterator[threading.Event]:
    """An event that is set at the end whatever happens, so that no thread of a test stays behind."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


def lane(sink: Shelf, stats: Stats, *, capacity: int = 1000, **options: Any) -> Lane[int]:
    return Lane("mqtt", sink, stats, capacity=capacity, **options)


def finished(a_lane: Lane[int], *, within_s: float = PATIENCE_S) -> bool:
    a_lane.close(Deadline(within_s))
    return a_lane.join()
