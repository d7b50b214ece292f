"""What it costs to understand people: microseconds a frame, everything between the estimator's poses and the sinks.

usage: python -m tests.measure.people [--frames 600] [--rounds 5]

Computed bodies that walk about, two zones and a line, light smoothing, all events. The least of the rounds' medians
counts, since others use the machine; each frame is timed by itself. The summary's window is the MQTT thread's.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence

from edge.config import PeopleConfig
from edge.vision.events import EventWatch
from edge.vision.falls import FallRules, FallWatch
from edge.vision.kinematics import bounding_box, kinematics, level_m
from edge.vision.motion import MotionWatch
from edge.vision.people import People, Rules
from edge.vision.posture import PostureWatch
from edge.vision.smoothing import PoseSmoother
from edge.vision.tracking import Tracker
from edge.vision.window import SummaryWindow
from edge.vision.zones import Line, Zone
from tests.bodies import walk
from tests.crowd import CAMERA, frames

RULES = Rules(
    PeopleConfig(),
    CAMERA.mount,
    (
        Zone("left", ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))),
        Zone("far", ((0.2, 0.4), (0.8, 0.4), (0.9, 0.6), (0.1, 0.6))),
    ),
    (Line("middle", (0.5, 1.0), (0.5, 0.0)),),
)


def crowd(people: int, seconds: float) -> list[list[object]]:
    return [
        walk((-1.2 + 0.8 * number, 4 + number), (1.2 - 0.8 * number, 4.5 + number), begin_s=0, end_s=seconds)
        for number in range(people)
    ]


def timed(step: Callable[..., object], rows: Sequence[tuple[object, ...]]) -> float:
    """The median, microseconds."""
    spent = []
    for row in rows:
        begin_ns = time.perf_counter_ns()
        step(*row)
        spent.append(time.perf_counter_ns() - begin_ns)
    return statistics.median(spent) / 1000


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    for count in (1, 2, 4):
        shown = list(frames(crowd(count, options.frames / 30)))  # type: ignore[arg-type]
        print(f"{count} people: {min(whole(shown) for _ in range(options.rounds)):6.0f} us a frame, all together")
        if count == 1:
            rounds = [parts(shown) for _ in range(options.rounds)]
            for part in rounds[0]:
                print(f"   {part:22} {min(each[part] for each in rounds):6.0f}")


def whole(shown: Sequence[tuple[object, ...]]) -> float:
    return timed(People(RULES, itertools.count(1)).see, shown)


def parts(shown: Sequence[tuple[object, ...]]) -> dict[str, float]:
    size = CAMERA.width_px, CAMERA.height_px
    alone = [(frame.monotonic_ns, poses[0]) for frame, poses in shown]  # type: ignore[attr-defined, index]
    levels = [(now_ns, pose, level_m(pose, CAMERA.mount)) for now_ns, pose in alone]
    known = [(now_ns, pose, kinematics(pose, level, *size)) for now_ns, pose, level in levels]
    people = People(RULES, itertools.count(1))
    observed = [people.see(*row)[0] for row in shown]  # type: ignore[arg-type]
    return {
        "tracking": timed(Tracker(itertools.count(1)).follow, [(now_ns, *size, [pose]) for now_ns, pose in alone]),
        "smoothing": timed(PoseSmoother().smooth, [(now_ns, pose, *size, "light") for now_ns, pose in alone]),
        "level and kinematics": timed(
            lambda pose: kinematics(pose, level_m(pose, CAMERA.mount), *size), [(pose,) for _, pose in alone]
        ),
        "box": timed(bounding_box, [(pose,) for _, pose in alone]),
        "motion": timed(MotionWatch().update, [(now_ns, pose, *size, 300.0) for now_ns, pose in alone]),
        "posture": timed(PostureWatch().update, [(*row, 0.5) for row in levels]),
        "falls": timed(FallWatch().update, [(*row, size[1], FallRules()) for row in known]),
        "events": timed(EventWatch(RULES.people, RULES.zones, RULES.lines).see, [(each, ()) for each in observed]),
        "summary's window": timed(SummaryWindow().add, [(each,) for each in observed]),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
