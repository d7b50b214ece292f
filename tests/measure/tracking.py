"""Who is who in the clips of two people, against the annotation by eye in tests/media/two_people.json.

usage: python -m tests.measure.tracking --cache DIR [--model full] [--people 3] [--raw] [cam01=PATH ...]

cam01 alone is in this repository (tests/media); the others are pose2sim 0.10.49's Demo_MultiPerson (NOTICE there). What
the landmarker found is kept in the cache. --raw: as the estimator numbers people, without tracking.

A person who is reported is the annotated one whose head and hips are nearest, or nobody where none is within a tenth of
the picture's height. switches: another id than the one this person had last. passed on: an id that goes
from one person to another. fragments: ids beyond the first of a
person. twice: frames in which one person is reported twice. invented: the longest time for which somebody is reported
who is nobody. seen: the share of frames in which each is reported. The clip is played once, and to and fro five times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge.estimators.models.store import ModelStore
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from edge.vision.tracking import Tracker
from tests.measure.accuracy import Clip, cached, estimate

MEDIA = Path(__file__).parents[1] / "media"
CAM01 = MEDIA / "two_people_1088x1920_60fps.mp4"
WIDTH_PX, HEIGHT_PX, FPS = 1088, 1920, 60.0
NEAR = 0.1
"""Of the picture's height."""

Reported = Sequence[tuple[int, Pose]]
Places = Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Tally:
    switches: int
    passed_on: int
    fragments: int
    twice: int
    invented_s: float
    seen: Mapping[str, float]

    def __str__(self) -> str:
        seen = ", ".join(f"{name} {share:.0%}" for name, share in self.seen.items())
        return (
            f"switches {self.switches}, passed on {self.passed_on}, fragments {self.fragments}, twice {self.twice}, "
            f"invented {self.invented_s:.2f} s; seen: {seen}"
        )


def annotated(camera: str) -> list[Places]:
    """Of each frame, who is where: head and the hips' middle, fractions of the picture."""
    about = json.loads((MEDIA / "two_people.json").read_text())[camera]
    frames = np.arange(100)
    people = {name: about[name] for name in about if name != "frames"}

    def along(points: Iterable[Sequence[float]]) -> np.ndarray:
        table = np.array(points)
        return np.stack([np.interp(frames, about["frames"], table[:, axis]) for axis in (0, 1)], axis=1)

    lines = {name: (along(of["head"]), along(of["hips"])) for name, of in people.items()}
    return [{name: (head[at], hips[at]) for name, (head, hips) in lines.items()} for at in frames]


def who(pose: Pose, places: Places) -> str:
    """The annotated person that it is, or nothing."""
    keypoints = pose.image_xyz[:, :2]
    ears = [MEDIAPIPE_POSE.index(name) for name in ("left_ear", "right_ear")]
    hips = [MEDIAPIPE_POSE.index(name) for name in ("left_hip", "right_hip")]
    found = keypoints[ears].mean(axis=0), keypoints[hips].mean(axis=0)
    ruler = np.array([WIDTH_PX / HEIGHT_PX, 1.0])
    distances = {
        name: float(np.mean([np.linalg.norm((at - is_at) * ruler) for at, is_at in zip(found, place, strict=True)]))
        for name, place in places.items()
    }
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= NEAR else ""


def tally(reported: Sequence[Reported], places: Sequence[Places]) -> Tally:
    last: dict[str, int] = {}
    ids: dict[str, set[int]] = {}
    of: dict[int, str] = {}
    seen: Counter[str] = Counter()
    switches = passed_on = twice = nobody = longest = 0
    for people, at in zip(reported, places, strict=True):
        names = [(who(pose, at), number) for number, pose in people]
        there = Counter(name for name, _ in names if name)
        twice += any(count > 1 for count in there.values())
        nobody = nobody + 1 if any(not name for name, _ in names) else 0
        longest = max(longest, nobody)
        seen.update(there.keys())
        for name, number in names:
            if name and there[name] == 1:
                switches += last.get(name, number) != number
                passed_on += of.get(number, name) != name
                last[name], of[number] = number, name
                ids.setdefault(name, set()).add(number)
    return Tally(
        switches=switches,
        passed_on=passed_on,
        fragments=sum(len(each) - 1 for each in ids.values()),
        twice=twice,
        invented_s=longest / FPS,
        seen={name: seen[name] / len(places) for name in places[0]},
    )


def tracked(found: Sequence[Sequence[Pose]]) -> list[Reported]:
    tracker = Tracker(itertools.count(1))
    reported = []
    for number, poses in enumerate(found):
        following = tracker.follow(round(number * 1e9 / FPS), WIDTH_PX, HEIGHT_PX, poses)
        reported.append([(each.person_id, each.pose) for each in following.present])
    return reported


def as_found(found: Sequence[Sequence[Pose]]) -> list[Reported]:
    return [list(enumerate(poses, start=1)) for poses in found]


def to_and_fro(count: int, times: int) -> list[int]:
    there = list(range(count))
    return list(itertools.chain.from_iterable(there if turn % 2 == 0 else there[::-1] for turn in range(times)))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("clips", nargs="*")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--model", default="full")
    parser.add_argument("--people", type=int, default=3)
    parser.add_argument("--raw", action="store_true")
    options = parser.parse_args(arguments)
    model = ModelStore(None).ensure(options.model).path
    clips = dict(clip.split("=", 1) for clip in options.clips) or {"cam01": str(CAM01)}
    for name, path in clips.items():
        clip = Clip(name, Path(path), people=options.people)
        found = cached(
            options.cache / f"{clip.key}-{options.model}.npz",
            lambda clip=clip: estimate(model, clip, frames := clip.read(), [0] * len(frames)),
        )
        for what, order in {"once": range(len(found)), "to and fro": to_and_fro(len(found), 5)}.items():
            played, places = [found[at] for at in order], [annotated(name)[at] for at in order]
            print(f"{name}, {what}: {tally((as_found if options.raw else tracked)(played), places)}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
