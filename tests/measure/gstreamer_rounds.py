"""A pipeline's process that is killed, and one that is frozen: when its camera is back, and what that leaves behind.

usage: python -m tests.measure.gstreamer_rounds [--rounds 20] [--pipeline "videotestsrc is-live=true"]

killed: SIGKILL; counted from there. frozen: SIGSTOP and nothing else, as a driver that never returns; counted from
there to the first frame of the process that takes its place, and so with the silence that has to be noticed first.
"""

from __future__ import annotations

import argparse
import functools
import os
import signal

from edge.app import driver_request
from edge.cameras.driver import DRIVERS, DriverSource
from edge.config import CameraConfig
from edge.vision.geometry import View
from tests.camera_rounds import Watched, rounds, told, watched

WANTED = driver_request(CameraConfig(source="gstreamer:-"), View())
"""What a child is asked for of a camera of which nothing else is configured."""


def pipeline_source(pipeline: str, *, waits: bool = False) -> DriverSource:
    shown = f"gstreamer:{pipeline}"
    return DriverSource("front", DRIVERS["gstreamer"], shown, {**WANTED, "source": pipeline}, waits=waits)


def disturb(camera: Watched, source: DriverSource, signal_number: int) -> float:
    """How many seconds it takes until frames come of another process."""
    assert source._child is not None
    before = source._child
    os.kill(before._process.pid, signal_number)
    return camera.seconds_until(lambda: source._child not in (None, before) and not source.opening)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--pipeline", default="videotestsrc is-live=true")
    options = parser.parse_args()
    source = pipeline_source(options.pipeline)
    with watched(source) as camera:
        for name, number in {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}.items():
            disturbed = functools.partial(disturb, camera, source, number)
            print(told(name, *rounds(camera, options.rounds, disturbed)), flush=True)


if __name__ == "__main__":
    main()
