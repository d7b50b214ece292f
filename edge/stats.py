"""What the daemon counts: frames, drops by place and cause, times. Any thread may write, any may read."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class DropCause(StrEnum):
    """Why something did not reach its receiver."""

    NEWER_FRAME = "newer_frame"  # the estimator was busy and a newer frame took its place
    OVERRUN = "overrun"  # the camera gave it and its driver, or the driver's process, could not hand it over in time
    LANE_FULL = "lane_full"  # the sink was too slow, its lane let the oldest go
    DISCONNECTED = "disconnected"  # the receiver is away
    SLOW_RECEIVER = "slow_receiver"  # the receiver is there and does not take what it gets
    REFUSED = "refused"  # the receiver can't read it
    TOO_LARGE = "too_large"  # more than the receiver takes in one piece
    BROKEN_GROUP = "broken_group"  # a video packet whose keyframe is gone can't be shown
    ESTIMATOR_FAILED = "estimator_failed"  # the pose estimator broke, with this frame or before it
    LATE = "late"  # its estimator fell so far behind the others that later frames went ahead
    SINK_FAILED = "sink_failed"  # the sink raised an error
    DISK_BUDGET = "disk_budget"  # the recordings have used up the space they may take
    TOO_MANY = "too_many"  # more than anybody could mean: not even refused
    PRIVATE = "private"  # it shows more than privacy.mode allows
    STOPPED = "stopped"  # the daemon ended before its turn came


class CameraStatus(StrEnum):
    """How a camera is. The values are those of MQTT."""

    RECONNECTING = "reconnecting"  # not open; tried again
    ONLINE = "online"
    STALLED = "stalled"  # open, and gives no frames
    PAUSED = "paused"  # let go of on request
    DISABLED = "disabled"  # no frames will come: its file is over, or it can't be used as configured


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Percentiles of a time in milliseconds over the last observations."""

    p50_ms: float
    p95_ms: float
    p99_ms: float

    @classmethod
    def of(cls, values_ms: Sequence[float]) -> Percentiles | None:
        """None where nothing was measured yet. Nearest-rank percentiles."""
        if not values_ms:
            return None
        ordered = sorted(values_ms)
        return cls(*(ordered[math.ceil(q * len(ordered)) - 1] for q in (0.50, 0.95, 0.99)))


@dataclass(frozen=True, slots=True)
class CameraCounts:
    """One camera's figures since the start; the times are of the last few hundred frames."""

    status: CameraStatus
    captured: int
    estimated: int
    with_people: int
    people: int  # in the newest frame
    workers: int  # estimators at work
    inference: Percentiles | None
    latency: Percentiles | None  # frame in the pipeline's hands to observation sealed
    publish: Percentiles | None  # frame in the pipeline's hands to its landmarks handed to the broker
    overhead: Percentiles | None  # the same without the inference
    age: Percentiles | None  # light fallen, as far as the camera tells, to landmarks handed to the broker; not of files


class CameraStats:
    """Counts of one camera. Each number has one writing thread."""

    _WINDOW = 512

    def __init__(self) -> None:
        self.status = CameraStatus.RECONNECTING
        self.live = True
        """Its frames are of now: a film's have no age."""
        self.workers = 0
        self._captured = 0
        self._estimated = 0
        self._with_people = 0
        self._people = 0
        self._inference_ms: deque[float] = deque(maxlen=self._WINDOW)
        self._latency_ms: deque[float] = deque(maxlen=self._WINDOW)
        self._publish_ms: deque[float] = deque(maxlen=self._WINDOW)
        self._overhead_ms: deque[float] = deque(maxlen=self._WINDOW)
        self._age_ms: deque[float] = deque(maxlen=self._WINDOW)

    @property
    def captured(self) -> int:
        """How many frames so far."""
        return self._captured

    def frame_captured(self) -> None:
        self._captured += 1

    def frame_estimated(self, *, people: int, inference_ms: float, latency_ms: float) -> None:
        self._estimated += 1
        self._with_people += people > 0
        self._people = people
        self._inference_ms.append(inference_ms)
        self._latency_ms.append(latency_ms)

    def frame_published(self, *, publish_ms: float, inference_ms: float, age_ms: float) -> None:
        if self.live:
            self._age_ms.append(age_ms)
        self._publish_ms.append(publish_ms)
        self._overhead_ms.append(publish_ms - inference_ms)

    def forget_times(self) -> None:
        """The percentiles are those of frames from now on: what came before was the warming up."""
        for times in (self._inference_ms, self._latency_ms, self._publish_ms, self._overhead_ms, self._age_ms):
            times.clear()

    def counts(self) -> CameraCounts:
        return CameraCounts(
            status=self.status,
            captured=self._captured,
            estimated=self._estimated,
            with_people=self._with_people,
            people=self._people,
            workers=self.workers,
            inference=Percentiles.of(tuple(self._inference_ms)),
            latency=Percentiles.of(tuple(self._latency_ms)),
            publish=Percentiles.of(tuple(self._publish_ms)),
            overhead=Percentiles.of(tuple(self._overhead_ms)),
            age=Percentiles.of(tuple(self._age_ms)),
        )


class Stats:
    """The counts of one run of the daemon."""

    def __init__(self, cameras: Sequence[str]) -> None:
        self.cameras: dict[str, CameraStats] = {}
        self.count(cameras)
        self._lock = threading.Lock()
        self._drops: Counter[tuple[str, DropCause]] = Counter()
        self._sent: Counter[str] = Counter()

    def count(self, cameras: Sequence[str]) -> None:
        """Count these cameras from now on; those known already go on with the figures they have, others are gone."""
        self.cameras = {name: self.cameras.get(name) or CameraStats() for name in cameras}

    def dropped(self, place: str, cause: DropCause, items: int = 1) -> None:
        """Count `items` that did not get past `place` (a lane or a camera)."""
        if items:
            with self._lock:
                self._drops[place, cause] += items

    def sent(self, what: str, items: int = 1) -> None:
        """Count `items` handed to a receiver."""
        with self._lock:
            self._sent[what] += items

    def drops(self) -> dict[tuple[str, DropCause], int]:
        with self._lock:
            return dict(self._drops)

    def sends(self) -> dict[str, int]:
        with self._lock:
            return dict(self._sent)


class FrameRates:
    """Frames estimated a second, camera by camera, from one question to the next."""

    def __init__(self, stats: Stats, *, shortest_s: float = 2.0) -> None:
        """shortest_s: over less time a rate would be chance."""
        self._stats = stats
        self._shortest_s = shortest_s
        self._at_s, self._before = time.monotonic(), self._estimated()

    def since_last(self) -> dict[str, float]:
        """Empty, and the question does not count, when the last one was less than `shortest_s` ago."""
        at_s, estimated = time.monotonic(), self._estimated()
        passed_s = at_s - self._at_s
        if passed_s < self._shortest_s:
            return {}
        passed_s = max(passed_s, 1e-3)
        rates = {name: _since(self._before.get(name, 0), frames) / passed_s for name, frames in estimated.items()}
        self._at_s, self._before = at_s, estimated
        return rates

    def _estimated(self) -> dict[str, int]:
        return {name: camera.counts().estimated for name, camera in self._stats.cameras.items()}


def _since(before: int, now: int) -> int:
    """How many frames more; a camera that was gone meanwhile has begun to count anew."""
    return now - before if now >= before else now
