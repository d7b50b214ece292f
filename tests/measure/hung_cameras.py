"""A camera whose driver hangs over and over: what stays of it, and what another camera loses by it.

usage: python -m tests.measure.hung_cameras [ROUNDS [PARTS]]

ROUNDS times (50) one camera gives three frames and then never returns from its driver's call; it is found stalled,
ended and opened anew, with the daemon's own patience: six seconds each. Beside it another camera's frames come as fast
as they are taken. PARTS (5) times its frames/s with the hanging one beside it and with one that is just open, in turns.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import edge.pipeline
from edge.app import App
from edge.bench.footage import MemorySource, shots
from edge.cameras.driver import DriverSource
from edge.config import CameraConfig, Config, PoseConfig
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from edge.interfaces import FrameSource
from tests.cameras.test_driver import acting, children, descriptors

REOPENED_AFTER = edge.pipeline.REOPENED_AFTER


def main() -> None:
    rounds, parts = (int(value) for value in (*sys.argv[1:], *("50", "5")[len(sys.argv) - 1 :]))
    ratios = []
    for _ in range(parts):
        each = -(-rounds // parts)
        hanging = beside("open 3 hang", rounds=each)
        calm = beside("open 3 wait", seconds=hanging[1], patient=True)
        ratios.append(hanging[0] / calm[0])
        print(f"frames/s beside: {hanging[0]:.1f} with {each} hangs, {calm[0]:.1f} without, ratio {ratios[-1]:.3f}")
    print(f"ratio: median {statistics.median(ratios):.3f}, least {min(ratios):.3f}, most {max(ratios):.3f}")


def beside(script: str, *, rounds: int = 0, seconds: float = 0.0, patient: bool = False) -> tuple[float, float]:
    """The other camera's frames a second, and in how many seconds."""
    hung: DriverSource = acting(script)
    footage = shots()
    sources: dict[str, FrameSource] = {"hung": hung, "other": MemorySource("other", footage)}
    config = Config(
        device="bench",
        camera={name: CameraConfig(source="synthetic") for name in sources},
        pose=PoseConfig(model="full", segmentation=False, workers=1),
    )
    model = ModelStore().find("full")
    assert model is not None
    if patient:
        edge.pipeline.REOPENED_AFTER = 1e9
    app = App(config, model, Inbox(), sources=lambda name, _: sources[name])
    app.daemon.start()
    try:
        wait(lambda: app.stats.cameras["other"].counts().estimated > 30 and hung._seq >= 3)
        kept = memory_mib(), descriptors(), threading.active_count(), len(children())
        frames, began_s, seq = app.stats.cameras["other"].counts().estimated, time.monotonic(), hung._seq
        wait(lambda: hung._seq >= seq + 3 * rounds and time.monotonic() - began_s >= seconds)
        passed_s = time.monotonic() - began_s
        rate = (app.stats.cameras["other"].counts().estimated - frames) / passed_s
        wait(lambda: hung._child is not None)
        if rounds:
            after = memory_mib(), descriptors(), threading.active_count(), len(children())
            names = ("MiB anonymous", "descriptors", "threads", "children")
            told = ", ".join(f"{name} {a} -> {b}" for name, a, b in zip(names, kept, after, strict=True))
            print(f"{rounds} hangs in {passed_s:.0f} s: {told}, left behind {len(hung._left_behind)}")
        return rate, passed_s
    finally:
        app.stop()
        edge.pipeline.REOPENED_AFTER = REOPENED_AFTER


def wait(condition: Callable[[], object]) -> None:
    end_s = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.05)


def memory_mib() -> int:
    return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) // 1024


if __name__ == "__main__":
    main()
