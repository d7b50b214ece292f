"""What smoothing takes out, and what it costs in time.

usage: python -m tests.measure.smoothing --cache DIR [--model full] [NAME=PATH[:people=N][:step=N] ...]

Clips as in tests.measure.accuracy; by default the one of one person and the one of two that are in this repository.
Jitter is the mean length of the second difference of a landmark over frames, px of a picture 640 px high and mm in
space; lag the shift in time that explains most of the difference from what was found (least squares on its velocity);
off by: the mean distance from that, which is lag and taken-out tremble together.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge.config import Smoothing
from edge.estimators.models.store import ModelStore
from edge.vision.frame import Frame
from edge.vision.pose import Pose
from edge.vision.smoothing import PoseSmoother
from edge.vision.tracking import Tracker
from tests.conftest import CLIP
from tests.measure.accuracy import Clip, cached, estimate
from tests.measure.tracking import CAM01

FloatArray = NDArray[np.float64]

STRENGTHS: tuple[Smoothing, ...] = ("off", "light", "strong")


def people(found: Sequence[Sequence[Pose]], frames: Sequence[Frame]) -> list[list[tuple[int, Pose]]]:
    """Of each person who is there for long enough, the frames in a row with them."""
    tracker = Tracker(itertools.count(1))
    rows: dict[int, list[tuple[int, Pose]]] = defaultdict(list)
    for at, (frame, poses) in enumerate(zip(frames, found, strict=True)):
        size = frame.rgb.width_px, frame.rgb.height_px
        for each in tracker.follow(frame.monotonic_ns, *size, poses).present:
            rows[each.person_id].append((at, each.pose))
    return [row for row in rows.values() if len(row) >= 20]


def smoothed(row: Sequence[tuple[int, Pose]], frames: Sequence[Frame], strength: Smoothing) -> list[Pose]:
    smoother = PoseSmoother()
    return [
        smoother.smooth(frames[at].monotonic_ns, pose, frames[at].rgb.width_px, frames[at].rgb.height_px, strength)
        for at, pose in row
    ]


def figures(of: FloatArray, found: FloatArray, times_s: FloatArray) -> tuple[float, float, float]:
    """of, found: (T, K, 2 or 3). Jitter, lag in s and the mean distance."""
    steps = np.diff(times_s)
    apart = np.diff(np.diff(of, axis=0), axis=0)[np.abs(np.diff(steps)) < 0.2 * steps.min()]
    jitter = float(np.linalg.norm(apart, axis=2).mean())
    velocity = (found[2:] - found[:-2]) / (times_s[2:] - times_s[:-2])[:, None, None]
    behind = (found - of)[1:-1]
    lag_s = float((behind * velocity).sum() / (velocity * velocity).sum())
    return jitter, lag_s, float(np.linalg.norm(of - found, axis=2).mean())


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument(
        "clips", nargs="*", default=[f"one={CLIP}", f"one, max_people 2={CLIP}:people=2", f"two={CAM01}:people=2"]
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--model", default="full")
    options = parser.parse_args(arguments)
    model = ModelStore(None).ensure(options.model).path
    for clip in map(Clip.parse, options.clips):
        frames = clip.read()
        found = cached(
            options.cache / f"{clip.key.replace(' ', '_').replace(',', '')}-{options.model}.npz",
            lambda clip=clip, frames=frames: estimate(model, clip, frames, [0] * len(frames)),
        )
        for strength in STRENGTHS:
            cells = []
            for row in people(found, frames):
                times_s = np.array([frames[at].monotonic_ns / 1e9 for at, _ in row])
                result = smoothed(row, frames, strength)
                size = [frames[0].rgb.width_px, frames[0].rgb.height_px]
                image = [
                    np.array([pose.image_xyz[:, :2] * size for pose in each], float)
                    for each in (result, [p for _, p in row])
                ]
                world = [
                    np.array([pose.world_m * 1000 for pose in each], float) for each in (result, [p for _, p in row])
                ]
                cells.append((*figures(image[0], image[1], times_s), *figures(world[0], world[1], times_s)))
            px, lag, off, mm, lag_m, off_m = np.mean(cells, axis=0)
            print(
                f"{clip.name:18} {strength:7} jitter {px:5.2f} px {mm:5.1f} mm, lag {lag * 1e3:5.1f} ms "
                f"{lag_m * 1e3:5.1f} ms, off by {off:4.2f} px {off_m:4.1f} mm",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
