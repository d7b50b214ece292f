"""A camera that is disturbed again and again: how long until it is back, and what each time leaves behind."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from edge.interfaces import FrameSource
from edge.vision.frame import Frame
from edge.vision.pose import Pose
from tests.conftest import eventually, pose
from tests.rigs import Crew, Rig

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Level:
    """What this process holds. threads: the kernel's count. children: processes of which it is the parent."""

    threads: int
    descriptors: int
    children: int
    resident_mib: float

    @classmethod
    def now(cls) -> Level:
        gc.collect()
        tasks = list(Path("/proc/self/task").iterdir())
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return cls(
            threads=len(tasks),
            descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
            children=len(children()),
            resident_mib=int(status["VmRSS"].split()[0]) / 1024,
        )

    def __str__(self) -> str:
        held = f"{self.threads} threads, {self.descriptors} descriptors, {self.children} children"
        return f"{held}, {self.resident_mib:.1f} MiB resident"


def children() -> set[int]:
    """Processes of which this one is the parent."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended meanwhile
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


class _Blind:
    """An estimator that costs nothing and keeps nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        return (pose(),)


class _Blinds(Crew):
    def __call__(self) -> _Blind:  # type: ignore[override]
        return _Blind()


@dataclass
class Watched:
    """A camera of a running daemon."""

    rig: Rig

    def frames(self) -> int:
        return self.rig.captured()

    def wait_for_frames(self, count: int = 5) -> None:
        begin = self.frames()
        eventually(lambda: self.frames() >= begin + count, PATIENCE_S)

    def seconds_to_next_frame(self) -> float:
        return self.seconds_until(lambda: True)

    def seconds_until(self, condition: Callable[[], object]) -> float:
        """To the next frame that comes once `condition` holds."""
        begun_s = time.monotonic()
        eventually(condition, PATIENCE_S)
        begin = self.frames()
        eventually(lambda: self.frames() > begin, PATIENCE_S)
        return time.monotonic() - begun_s


@contextlib.contextmanager
def watched(source: FrameSource) -> Iterator[Watched]:
    """`source` in a daemon that does nothing with its frames, from the first frame on."""
    rig = Rig({"front": (source, _Blinds())})  # type: ignore[dict-item]
    rig.daemon.start()
    try:
        camera = Watched(rig)
        camera.wait_for_frames()
        yield camera
    finally:
        rig.daemon.stop()


def rounds(camera: Watched, count: int, disturb: Callable[[], float]) -> tuple[list[float], list[Level]]:
    """disturb: disturbs the camera; how many seconds it took to be back. The levels: before, and after each round."""
    back_s, levels = [], [Level.now()]
    for _ in range(count):
        back_s.append(disturb())
        camera.wait_for_frames()
        levels.append(Level.now())
    return back_s, levels


def told(name: str, back_s: Sequence[float], levels: Sequence[Level]) -> str:
    """What is printed of the rounds."""
    ordered = sorted(back_s)
    median, least, most = statistics.median(ordered), ordered[0], ordered[-1]
    lines = [f"{name}: {len(ordered)} rounds, back after {median:.2f} s in the median, {least:.2f} to {most:.2f}"]
    lines.append(f"  before           {levels[0]}")
    shown = sorted({1, max(1, len(ordered) // 2), len(ordered)})
    lines += [f"  after round {number:>3}  {levels[number]}" for number in shown]
    return "\n".join(lines)
