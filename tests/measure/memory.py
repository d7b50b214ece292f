"""Resident memory by model and number of estimators, after 90 frames of the bundled clip in each, masks on.

usage: python -m tests.measure.memory [--models lite full heavy] [--workers 1 2] [--everything]

Each line is a process of its own, which holds the clip's frames (55 MB, not counted) and nothing else of edge-pose.
--everything: with matplotlib imported first, as MediaPipe does by itself.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from pathlib import Path

from edge.estimators.models.store import ModelStore


def resident_mib() -> tuple[float, float]:
    """Of this process: in all, and what is no file's."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    total, anonymous = (int(status[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon"))
    return total, anonymous


def measure(model: Path, workers: int, *, everything: bool) -> tuple[float, float]:
    if everything:
        import matplotlib.pyplot as plt  # noqa: F401
    from edge.cameras.stream import StreamSource
    from edge.estimators.mediapipe import MediaPipeEstimator
    from tests.conftest import CLIP

    with StreamSource("front", str(CLIP), pace="unlimited") as source:
        clip = [read for _ in range(60) if (read := source.read(1.0)) is not None]
    done, counted = threading.Barrier(workers + 1), threading.Event()

    def work() -> None:
        with MediaPipeEstimator(model) as estimator:
            for number in range(90):
                estimator.estimate(clip[number % len(clip)])
            done.wait()
            counted.wait()

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for each in threads:
        each.start()
    done.wait()
    total, anonymous = resident_mib()
    counted.set()
    for each in threads:
        each.join()
    frames = sum(each.rgb.pixels.nbytes + (each.video.pixels.nbytes if each.video else 0) for each in clip) / 2**20
    return total - frames, anonymous - frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lite", "full", "heavy"])
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--everything", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        path, workers = ModelStore().ensure(options.models[0]).path, options.workers[0]
        total, anonymous = measure(path, workers, everything=options.everything)
        print(f"{options.models[0]:<6} {workers}  {total:6.0f} {anonymous:6.0f}")
        return
    print("model  estimators  RSS MiB, of that no file's")
    for model in options.models:
        for workers in options.workers:
            more = ["--everything"] if options.everything else []
            command = [sys.executable, "-m", "tests.measure.memory", "--one", "--models", model, *more]
            subprocess.run([*command, "--workers", str(workers)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
