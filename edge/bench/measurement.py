"""What is measured, and what comes of it, as they pass between the processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from edge.stats import Percentiles


class Loop(StrEnum):
    """What runs in a process of its own, frames in memory, as fast as it goes unless it says otherwise."""

    BARE = "bare"  # MediaPipe's landmarker and nothing else
    SEED = "seed"  # what Rerun's example of human pose tracking does with each frame
    POOL = "pool"  # the daemon without a receiver
    MQTT = "mqtt"  # the daemon with a broker, every frame
    ALL = "all"  # the daemon with a broker and a Rerun server, every frame
    ALL_CAPPED = "all_capped"  # the same, Rerun at `CAPPED_HZ` at most
    PACED_BARE = "paced_bare"  # bare, `PACED_FPS` frames a second
    PACED_ALL = "paced_all"  # all_capped, from a live camera of `PACED_FPS`


CAPPED_HZ = 30.0
PACED_FPS = 30.0

FREE_RUNNING = (Loop.BARE, Loop.SEED, Loop.POOL, Loop.MQTT, Loop.ALL, Loop.ALL_CAPPED)
PACED = (Loop.PACED_BARE, Loop.PACED_ALL)
WITH_BROKER = frozenset({Loop.MQTT, Loop.ALL, Loop.ALL_CAPPED, Loop.PACED_ALL})
WITH_RERUN = frozenset({Loop.SEED, Loop.ALL, Loop.ALL_CAPPED, Loop.PACED_ALL})


@dataclass(frozen=True, slots=True)
class Task:
    """One loop to be measured for `seconds`, after what it takes to warm up.

    model: path of a .task bundle. workers, cameras: of the daemon; the other loops have one of each. mqtt_version: as
    in the configuration. broker, hub: addresses of servers on this machine, "" for none.
    """

    loop: Loop
    model: str
    seconds: float
    masks: bool = True
    people: int = 1
    workers: int = 1
    cameras: int = 1
    broker: str = ""
    mqtt_version: str = "auto"
    hub: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**{**values, "loop": Loop(values["loop"])})


@dataclass(frozen=True, slots=True)
class Measured:
    """What a loop did in its window.

    frames_per_s: of all cameras together; of the daemon's receivers that get every frame, the slowest counts.
    cpu_ms: processor time of the loop's process a frame, its threads together, without the servers'.
    with_people: share of frames in which somebody was found, 0..1.
    delivered: share of what was meant for the receivers that was sent and not dropped, 0..1; of the worst of them.
    overhead: from a frame's arrival to its hand-over to the broker, less its inference; None where none was measured.
    workers: landmarkers at work at the end, of all cameras together.
    """

    frames_per_s: float
    cpu_ms: float
    with_people: float
    delivered: float = 1.0
    overhead: Percentiles | None = None
    workers: int = 1

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        values: dict[str, Any] = json.loads(text)
        overhead = values.pop("overhead")
        return cls(**values, overhead=None if overhead is None else Percentiles(**overhead))
