"""MediaPipe called directly against its Python API: CPU a frame, and frames a second from two threads.

usage: python -m tests.measure.landmarkers [--rounds 5] [--seconds 4] [--model full]

All ways take turns within one process, so that what else the machine does strikes them alike. The ratios say how many
times the frames of one thread of the API a way gives; two threads have a landmarker each. On a machine that does other
things as well, the best of many short rounds says more than the median.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from edge.cameras.stream import StreamSource
from edge.estimators import direct
from edge.estimators.direct import DirectLandmarker
from edge.estimators.landmarker import Landmarker
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.store import ModelStore
from edge.vision.frame import UInt8Array
from tests.conftest import CLIP

API, DIRECT = "Python API", "direct"


class Turn:
    """One way of calling, with a landmarker a thread that lasts from turn to turn."""

    def __init__(self, landmarkers: Sequence[Landmarker], pixels: Sequence[UInt8Array]) -> None:
        self._landmarkers = landmarkers
        self._pixels = pixels
        self._taken = [0] * len(landmarkers)

    def run(self, seconds: float) -> tuple[float, float]:
        """Frames a second, and CPU milliseconds of the process a frame."""
        before, end_s = sum(self._taken), time.monotonic() + seconds
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        threads = [
            threading.Thread(target=self._work, args=(number, end_s)) for number in range(len(self._landmarkers))
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        frames = sum(self._taken) - before
        return frames / (time.monotonic() - began_s), 1000 * (time.process_time() - began_cpu_s) / frames

    def _work(self, number: int, end_s: float) -> None:
        landmarker = self._landmarkers[number]
        while time.monotonic() < end_s:
            taken = self._taken[number]
            landmarker.detect(self._pixels[taken % len(self._pixels)], taken * 33)
            self._taken[number] = taken + 1


def clip() -> list[UInt8Array]:
    with StreamSource("front", str(CLIP), pace="unlimited") as source:
        return [read.rgb.pixels for _ in range(60) if (read := source.read(1.0)) is not None]


def measure(model: Path, *, masks: bool, rounds: int, seconds: float) -> None:
    pixels = clip()
    estimators = [MediaPipeEstimator(model, segmentation=masks).__enter__() for _ in range(6)]
    found = [each._landmarker for each in estimators]
    assert all(isinstance(each, DirectLandmarker) for each in found), "MediaPipe can't be called directly here"
    called = [each for each in found if isinstance(each, DirectLandmarker)]
    turns = {
        (API, 1): Turn([called[0]._tasks], pixels),
        (DIRECT, 1): Turn(called[1:2], pixels),
        (API, 2): Turn([each._tasks for each in called[2:4]], pixels),
        (DIRECT, 2): Turn(called[4:6], pixels),
    }
    rates, cpu_ms = defaultdict(list), defaultdict(list)
    for turn in turns.values():
        turn.run(1.0)
    for _ in range(rounds):
        for name, turn in turns.items():
            rate, cpu = turn.run(seconds)
            rates[name].append(rate)
            cpu_ms[name].append(cpu)
    print(f"masks {'on' if masks else 'off'}: median and best of {rounds} rounds; ratio to {API}, 1 thread, of either")
    for name, found_rates in rates.items():
        way, threads = name
        best = max(found_rates)
        ratio = statistics.median(one / other for one, other in zip(found_rates, rates[API, 1], strict=True))
        print(
            f"  {way:<10} {threads} thread{'s' if threads > 1 else ' '}"
            f" {statistics.median(found_rates):6.1f} {best:6.1f} frames/s"
            f" {statistics.median(cpu_ms[name]):6.2f} ms of CPU a frame  {ratio:.2f} {best / max(rates[API, 1]):.2f}"
        )
    bindings = direct.bindings()
    assert bindings is not None
    assert not bindings.wrong
    for each in estimators:
        each.__exit__(None, None, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--model", default="full")
    options = parser.parse_args()
    model = ModelStore().ensure(options.model).path
    for masks in (True, False):
        measure(model, masks=masks, rounds=options.rounds, seconds=options.seconds)


if __name__ == "__main__":
    main()
