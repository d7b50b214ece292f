"""The daemon itself under load: everything as in `run`, but for the frames, which come from memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.app import App
from edge.bench.footage import MemorySource, shots
from edge.bench.measurement import CAPPED_HZ, PACED_FPS, WITH_BROKER, WITH_RERUN, Loop, Measured, Task
from edge.config import CameraConfig, Config, MqttConfig, PoseConfig, RerunConfig
from edge.control import Inbox
from edge.errors import EstimatorError, SinkError
from edge.estimators.models.store import ModelStore
from edge.stats import CameraStats, DropCause, Stats
from edge.vision.frame import Picture

_WARM_UP_FRAMES = 20
_WARM_UP_S = 1.0
"""From when all workers are there."""
_WARM_UP_TIMEOUT_S = 60.0
_STEP_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.004

_ROWS = 2
"""A frame's in Rerun: what was found in it, and its picture."""


def measure(task: Task) -> Measured:
    """Run POOL, MQTT, ALL, ALL_CAPPED or PACED_ALL. Raises what has ended the daemon before its time."""
    settled = configuration(task)
    model = ModelStore().find(task.model)
    assert model is not None, "a path is taken as it is"
    paced = task.loop is Loop.PACED_ALL
    footage: list[Picture] = shots()
    app = App(
        settled,
        model,
        Inbox(),
        sources=lambda name, _: MemorySource(name, footage, fps=PACED_FPS if paced else None),
    )
    app.daemon.start()
    try:
        return _Window(app, task).measure()
    finally:
        app.stop()


def configuration(task: Task) -> Config:
    """What the daemon is told for this loop."""
    cameras = {f"bench{number}": CameraConfig(source="synthetic") for number in range(task.cameras)}
    paced = task.loop is Loop.PACED_ALL
    return Config(
        device="bench",
        log_level="warning",
        camera=cameras,
        pose=PoseConfig(
            model=task.model,
            max_people=task.people,
            segmentation=task.masks,
            workers="auto" if paced else task.workers,
        ),
        mqtt=MqttConfig.model_validate(
            {
                "url": task.broker if task.loop in WITH_BROKER else "",
                "version": task.mqtt_version,
                "landmarks_hz": "unlimited",
                "commands": (),
            }
        ),
        # Without Rerun nobody wants masks, and none would be made. A recording that may begin any time wants them.
        rerun=RerunConfig(
            url=task.hub if task.loop in WITH_RERUN else "",
            record_dir=None if task.loop in WITH_RERUN else Path(),
            record=False,
            frames_hz="unlimited" if task.loop is Loop.ALL else CAPPED_HZ,
        ),
    )


@dataclass(frozen=True, slots=True)
class _Counts:
    """What had happened by an instant."""

    at_s: float
    cpu_s: float
    estimated: int
    with_people: int
    workers: int
    sends: Mapping[str, int]
    drops: Mapping[tuple[str, DropCause], int]

    @classmethod
    def now(cls, stats: Stats) -> _Counts:
        cameras = [camera.counts() for camera in stats.cameras.values()]
        return cls(
            at_s=time.perf_counter(),
            cpu_s=time.process_time(),
            estimated=sum(counts.estimated for counts in cameras),
            with_people=sum(counts.with_people for counts in cameras),
            workers=sum(counts.workers for counts in cameras),
            sends=stats.sends(),
            drops=stats.drops(),
        )


@dataclass(frozen=True, slots=True)
class Edge:
    """The instant at which a count changed, and what it is since then."""

    at_s: float
    count: float


class _Window:
    """A stretch of the running daemon, from one step of each receiver's count to another.

    Receivers are given several frames at once, so their counts stand still and jump: between two jumps the rate is
    exact, however short the window.
    """

    def __init__(self, app: App, task: Task) -> None:
        self._app = app
        self._task = task
        self._receivers: dict[str, Callable[[_Counts], float]] = {"the estimator": lambda counts: counts.estimated}
        if task.loop in WITH_BROKER:
            self._receivers["the broker"] = lambda counts: counts.sends.get("mqtt landmarks", 0)
        if task.loop is Loop.ALL:
            self._receivers["Rerun"] = lambda counts: counts.sends.get("rerun link rows", 0) / _ROWS

    def measure(self) -> Measured:
        self._warm_up()
        self._first_camera.forget_times()
        first = self._counts()
        begin = self._edges(first)
        began_s = time.perf_counter()
        while (left_s := began_s + self._task.seconds - time.perf_counter()) > 0:
            self._wait(left_s)
        last = self._counts()
        end = self._edges(last)
        frames = last.estimated - first.estimated
        return Measured(
            frames_per_s=min(rate(begin[name], end[name]) for name in self._receivers),
            cpu_ms=1000 * (last.cpu_s - first.cpu_s) / frames,
            with_people=(last.with_people - first.with_people) / frames,
            delivered=delivered(first.sends, last.sends, first.drops, last.drops),
            overhead=self._first_camera.counts().overhead,
            workers=last.workers,
        )

    @property
    def _first_camera(self) -> CameraStats:
        return next(iter(self._app.stats.cameras.values()))

    def _counts(self) -> _Counts:
        return _Counts.now(self._app.stats)

    def _wait(self, seconds: float) -> None:
        """Raises EstimatorError when the daemon has ended. What has ended it is raised where the daemon is stopped."""
        if self._app.daemon.wait(seconds) is not None:
            raise EstimatorError("the daemon has ended before it was measured")

    def _warm_up(self) -> None:
        began_s = time.perf_counter()
        workers = (1 if self._task.loop is Loop.PACED_ALL else self._task.workers) * self._task.cameras
        first_s: float | None = None
        while True:
            counts = self._counts()
            if counts.workers < workers:
                first_s = None
            elif first_s is None and counts.estimated >= _WARM_UP_FRAMES:
                first_s = counts.at_s
            if first_s is not None and counts.at_s - first_s >= _WARM_UP_S:
                return
            if counts.at_s - began_s > _WARM_UP_TIMEOUT_S:
                told = (
                    f"{counts.estimated} frames in {_WARM_UP_TIMEOUT_S:g} s with {counts.workers} of {workers} workers"
                )
                raise EstimatorError(f"{told}: too slow to be measured")
            self._wait(0.05)

    def _edges(self, since: _Counts) -> dict[str, Edge]:
        """The next step of each receiver's count after `since`. Raises SinkError for one that stands still."""
        found: dict[str, Edge] = {}
        while len(found) < len(self._receivers):
            counts = self._counts()
            for name, count in self._receivers.items():
                if name not in found and count(counts) != count(since):
                    found[name] = Edge(counts.at_s, count(counts))
            if counts.at_s - since.at_s > _STEP_TIMEOUT_S:
                missing = ", ".join(sorted(self._receivers.keys() - found.keys()))
                raise SinkError(f"{missing} took nothing for {_STEP_TIMEOUT_S:g} s")
            self._wait(_LOOK_EVERY_S)
        return found


def rate(begin: Edge, end: Edge) -> float:
    """Steps a second between two edges."""
    return (end.count - begin.count) / (end.at_s - begin.at_s)


def delivered(
    sends_before: Mapping[str, int],
    sends_after: Mapping[str, int],
    drops_before: Mapping[tuple[str, DropCause], int],
    drops_after: Mapping[tuple[str, DropCause], int],
) -> float:
    """The share of everything that was meant for the broker and for Rerun and was sent, 0..1; the worse of the two.

    A row counts as sent once it is with Rerun's SDK, one window of the link or less before the server says it has it.
    """

    def taken(sent: Sequence[str], places: Sequence[str]) -> float:
        got = sum(sends_after.get(what, 0) - sends_before.get(what, 0) for what in sent)
        lost = sum(
            items - drops_before.get((place, cause), 0)
            for (place, cause), items in drops_after.items()
            if place in places
        )
        return got / (got + lost) if got + lost else 1.0

    rerun = ("rerun link", "rerun scene", "rerun video")
    return min(taken(["mqtt landmarks"], ["mqtt", "mqtt landmarks"]), taken(["rerun link rows"], rerun))
