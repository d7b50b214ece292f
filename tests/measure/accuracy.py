"""Accuracy of a pool of landmarkers, with and without TrackerBlend, against one landmarker that sees every frame.

usage: python -m tests.measure.accuracy --cache DIR [--model full] [--workers 2] [--deal strict] [--seed 1]
       NAME=PATH[:step=N][:fps=F][:people=N][:frames=N] ...

step: take every N-th frame, with its own time: a lower rate. fps: give the frames times F a second: with a step, faster
motion. people: the estimator's max_people. frames: so many frames, playing the clip to and fro until they are reached
(default: the clip once, forwards). Frames are scaled to 640 px of height.

deal: strict (0 1 0 1 ...), or free: each frame goes to a worker that is idle, when inference takes 0.3 to 1.3 of the
time that the pool can afford; --seed says how.

What the landmarkers found is kept in the cache's .npz files and used again, so that a filter can be tried without them.
Jitter is the mean length of the second difference of a landmark over frames, given as a ratio to the one landmarker's;
lag is the shift in frames that explains most of the difference (least squares on the one landmarker's velocity). The
difference is over all 33 landmarks, hidden ones included: its mean is several times its median where the trackers don't
agree which leg is the left one, or where a hidden arm is. The last column counts frames in which not as many people
were found.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.cameras.stream import StreamSource
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.store import ModelStore
from edge.interfaces import EndOfStream
from edge.vision.blend import TrackerBlend
from edge.vision.frame import Frame, Picture, PixelLayout
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE

HEIGHT_PX = 640

FloatArray = NDArray[np.float64]
Found = list[tuple[Pose, ...]]
"""What was found, a tuple of people a frame."""


@dataclass(frozen=True)
class Clip:
    name: str
    path: Path
    step: int = 1
    fps: float = 0.0
    people: int = 1
    frames: int = 0

    @classmethod
    def parse(cls, text: str) -> Clip:
        name, _, rest = text.partition("=")
        path, *options = rest.split(":")
        values: dict[str, str] = dict(option.split("=") for option in options)
        return cls(
            name,
            Path(path),
            step=int(values.pop("step", 1)),
            fps=float(values.pop("fps", 0)),
            people=int(values.pop("people", 1)),
            frames=int(values.pop("frames", 0)),
            **values,  # type: ignore[arg-type]  # complains of an unknown one
        )

    @property
    def key(self) -> str:
        return f"{self.name}-{self.path.stem}-step{self.step}-fps{self.fps:g}-people{self.people}-frames{self.frames}"

    def read(self) -> list[Frame]:
        pictures: list[NDArray[np.uint8]] = []
        times_ns = []
        with StreamSource("front", str(self.path), pace="unlimited") as source:
            try:
                while (frame := source.read(1.0)) is not None:
                    pixels = frame.rgb.pixels
                    scale = HEIGHT_PX / pixels.shape[0]
                    size = (round(pixels.shape[1] * scale), HEIGHT_PX)
                    small = pixels if scale == 1 else cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
                    pictures.append(np.ascontiguousarray(small, np.uint8))
                    times_ns.append(frame.monotonic_ns)
            except EndOfStream:
                pass
        between_ns = (times_ns[-1] - times_ns[0]) / (len(times_ns) - 1)
        between_ns = 1e9 / self.fps if self.fps else between_ns * self.step
        forwards = list(range(len(pictures)))
        count = self.frames or len(range(0, len(pictures), self.step))
        to_and_fro = forwards + forwards[-2:0:-1]
        order = [to_and_fro[(index * self.step) % len(to_and_fro)] for index in range(count)]
        start_ns = 10_000_000_000
        return [
            Frame("front", seq, 0, start_ns + round(seq * between_ns), Picture(pictures[index], PixelLayout.RGB))
            for seq, index in enumerate(order)
        ]


def strict(count: int, workers: int) -> list[int]:
    return [seq % workers for seq in range(count)]


def free(count: int, workers: int, seed: int) -> list[int]:
    """Which worker takes each frame when they take unequally long: one that is idle, or the first to be."""
    dice = random.Random(seed)
    until = [0.0] * workers
    order = []
    now = 0.0
    for _ in range(count):
        now = max(now + 1, min(until))
        worker = dice.choice([each for each, end in enumerate(until) if end <= now])
        until[worker] = now + workers * dice.uniform(0.3, 1.3)
        order.append(worker)
    return order


def estimate(model: Path, clip: Clip, frames: Sequence[Frame], order: Sequence[int]) -> Found:
    """What a pool finds whose workers get the frames in `order`, each at its true time."""
    pool = [MediaPipeEstimator(model, max_people=clip.people, segmentation=False) for _ in range(max(order) + 1)]
    try:
        for worker in pool:
            worker.__enter__()
        return [pool[worker].estimate(frame) for worker, frame in zip(order, frames, strict=True)]
    finally:
        for worker in pool:
            worker.__exit__(None, None, None)


def cached(path: Path, find: Callable[[], Found]) -> Found:
    if not path.exists():
        found = find()
        everyone = [pose for poses in found for pose in poses]
        arrays = {
            "counts": np.array([len(poses) for poses in found]),
            "image": np.array([pose.image_xyz for pose in everyone], np.float32).reshape(-1, 33, 3),
            "visibility": np.array([pose.visibility for pose in everyone], np.float32).reshape(-1, 33),
            "world": np.array([pose.world_m for pose in everyone], np.float32).reshape(-1, 33, 3),
        }
        np.savez(path, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the keywords for allow_pickle
    kept = np.load(path)
    image, visibility, world = kept["image"], kept["visibility"], kept["world"]
    poses = iter(
        [Pose(MEDIAPIPE_POSE, image[at].copy(), visibility[at].copy(), world[at].copy()) for at in range(len(image))]
    )
    return [tuple(next(poses) for _ in range(count)) for count in kept["counts"]]


def people_of(reference: Found, size: FloatArray) -> Iterator[dict[int, int]]:
    """The reference's people followed from frame to frame: {person: index in the frame}."""
    last: dict[int, FloatArray] = {}
    people = 0
    for poses in reference:
        places = [pose.image_xyz[:, :2] * size for pose in poses]
        here = dict(nearest(last, places, HEIGHT_PX / 8))
        new = sorted(set(range(len(poses))) - set(here.values()))
        here |= dict(enumerate(new, start=people))
        people += len(new)
        last = {person: places[index] for person, index in here.items()}
        yield here


def nearest(known: dict[int, FloatArray], places: list[FloatArray], most_px: float) -> list[tuple[int, int]]:
    """Pairs (key of known, index of places) at the least mean distance, each at most once."""
    pairs = sorted(
        (float(np.linalg.norm(before - now, axis=1).mean()), key, index)
        for key, before in known.items()
        for index, now in enumerate(places)
    )
    taken: list[tuple[int, int]] = []
    for distance, key, index in pairs:
        if distance <= most_px and key not in {one for one, _ in taken} and index not in {other for _, other in taken}:
            taken.append((key, index))
    return taken


@dataclass(frozen=True)
class Score:
    """jitter: ratio. difference, median: distance of a landmark, in the unit of what was scored. lag: frames."""

    jitter: float
    difference: float
    median: float
    lag: float


def score(of: Sequence[dict[int, FloatArray]], one: Sequence[dict[int, FloatArray]]) -> Score:
    """Landmarks (K, D) by person and frame, against those of the one landmarker."""
    differences: list[FloatArray] = []
    bends: list[tuple[float, float]] = []
    against_velocity, velocity_squared = 0.0, 0.0
    for at in range(len(one)):
        for person in of[at].keys() & one[at].keys():
            difference = of[at][person] - one[at][person]
            differences.append(np.linalg.norm(difference, axis=1))
            around = (at - 1, at + 1)
            if 0 < at < len(one) - 1 and all(person in of[near] and person in one[near] for near in around):
                (before, here, after), (was, now, then) = (
                    (which[at - 1][person], which[at][person], which[at + 1][person]) for which in (of, one)
                )
                bends.append(
                    tuple(  # type: ignore[arg-type]
                        float(np.linalg.norm(a - 2 * b + c, axis=1).mean())
                        for a, b, c in ((before, here, after), (was, now, then))
                    )
                )
                velocity = (then - was) / 2
                against_velocity += float((difference * velocity).sum())
                velocity_squared += float((velocity * velocity).sum())
    pool, alone = np.array(bends).mean(axis=0)
    distances = np.concatenate(differences)
    lag = -against_velocity / velocity_squared
    return Score(pool / alone, float(distances.mean()), float(np.median(distances)), lag)


def scores(found: Found, reference: Found, frames: Sequence[Frame]) -> tuple[Score, Score, int]:
    """Image landmarks in px, world landmarks in mm, and frames in which not as many people are found."""
    size = np.array([frames[0].rgb.width_px, frames[0].rgb.height_px], np.float64)
    of: list[tuple[dict[int, FloatArray], dict[int, FloatArray]]] = []
    one: list[tuple[dict[int, FloatArray], dict[int, FloatArray]]] = []
    for poses, alone, people in zip(found, reference, people_of(reference, size), strict=True):
        places = {person: alone[index].image_xyz[:, :2] * size for person, index in people.items()}
        pairs = nearest(places, [pose.image_xyz[:, :2] * size for pose in poses], HEIGHT_PX / 8)
        of.append(_image_and_world({person: poses[index] for person, index in pairs}, size))
        one.append(_image_and_world({person: alone[index] for person, index in people.items()}, size))
    unequal = sum(len(poses) != len(alone) for poses, alone in zip(found, reference, strict=True))
    image, world = (score([each[kind] for each in of], [each[kind] for each in one]) for kind in (0, 1))
    return image, world, unequal


def _image_and_world(people: dict[int, Pose], size: FloatArray) -> tuple[dict[int, FloatArray], dict[int, FloatArray]]:
    image = {person: pose.image_xyz[:, :2] * size for person, pose in people.items()}
    world = {person: pose.world_m.astype(float) * 1000 for person, pose in people.items() if pose.world_m is not None}
    return image, world


def blended(found: Found, frames: Sequence[Frame], order: Sequence[int], people: int) -> Found:
    blend = TrackerBlend(max_people=people)
    return [
        blend.blend(worker, frame.monotonic_ns, poses)
        for worker, frame, poses in zip(order, frames, found, strict=True)
    ]


HEADER = (
    "| clip | frames/s | people | | jitter | px | median px | lag | world jitter | mm | median mm | world lag "
    "| frames not equal |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def cells(of: Score) -> str:
    return f"{of.jitter:.2f} | {of.difference:.2f} | {of.median:.2f} | {of.lag:+.2f}"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.measure.accuracy")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--model", default="full")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--deal", choices=("strict", "free"), default="strict")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("clips", nargs="+", type=Clip.parse)
    options = parser.parse_args(arguments)
    options.cache.mkdir(parents=True, exist_ok=True)
    print(HEADER)
    for clip in options.clips:
        frames, order, one, pool = prepared(clip, options)
        rate = 1e9 * (len(frames) - 1) / (frames[-1].monotonic_ns - frames[0].monotonic_ns)
        for name, found in (("pool", pool), ("blend", blended(pool, frames, order, clip.people))):
            image, world, unequal = scores(found, one, frames)
            about = f"{clip.name} | {rate:.3g} | {clip.people} | {name}"
            print(f"| {about} | {cells(image)} | {cells(world)} | {unequal} of {len(frames)} |", flush=True)


def prepared(clip: Clip, options: argparse.Namespace) -> tuple[list[Frame], list[int], Found, Found]:
    frames = clip.read()
    count = len(frames)
    order = strict(count, options.workers) if options.deal == "strict" else free(count, options.workers, options.seed)
    deal = options.deal if options.deal == "strict" else f"{options.deal}{options.seed}"
    model = ModelStore().ensure(options.model).path
    prefix = f"{clip.key}-{options.model}"
    one = cached(options.cache / f"{prefix}-one.npz", lambda: estimate(model, clip, frames, [0] * count))
    pool = cached(
        options.cache / f"{prefix}-{options.workers}-{deal}.npz", lambda: estimate(model, clip, frames, order)
    )
    return frames, order, one, pool


if __name__ == "__main__":
    main(sys.argv[1:])
