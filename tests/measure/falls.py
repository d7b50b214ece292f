"""What is taken for a fall: a table over sequences of computed bodies.

usage: python -m tests.measure.falls [--all] [--varied COUNT]

Each sequence is played by a body (tests/bodies.py) that faces eight directions, before four cameras (height and tilt:
level at 1.4 m, 2.2 m and 15 degrees, 2.6 m and 30 degrees, 2.2 m as if nobody had said how it hangs), at 10, 15 and 30
frames/s, with an estimator's noise of 0, 1 and 2 % of the stature (three times that in depth) and 0, 3 and 6 % of the
frames lost. A row counts how many of them were suspected. --all: also by what.

Thresholds were chosen with those. --varied: by COUNT bodies each that they were not chosen with, of another stature,
elsewhere, faster or slower, facing anywhere; then by as many of whose trunk two keypoints go out of sight about once a
second, for 0.1 to 0.4 s.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge.vision.falls import FallRules, FallWatch
from edge.vision.kinematics import kinematics, level_m
from edge.vision.mount import LEVEL
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from edge.vision.smoothing import PoseSmoother
from tests import bodies
from tests.bodies import Camera, Held, Key, both, film

CAMERAS = {
    "1.4 m level": Camera(),
    "2.2 m, 15°": Camera(height_m=2.2, tilt_deg=15),
    "2.6 m, 30°": Camera(height_m=2.6, tilt_deg=30),
    "2.2 m, 15°, not said": Camera(height_m=2.2, tilt_deg=15),
}
NOISES = ((0.0, 0.0), (0.01, 0.03), (0.02, 0.06))
RATES = (10.0, 15.0, 30.0)
DIRECTIONS = range(0, 360, 45)

BEGINS_S = 1.5
"""Of most sequences: until then somebody stands or sits. What follows may be made faster or slower."""
_TRUNK = [MEDIAPIPE_POSE.index(f"{side}_{name}") for side in ("left", "right") for name in ("shoulder", "hip")]

_UP, _SIT = bodies.STANDING, bodies.SITTING
_ON_THE_WAY = Held(lean_deg=25, **both(thigh=40, knee=60, arm=50))
_KNEES_GIVE = replace(_ON_THE_WAY, roll_deg=20)


def _keys(*steps: tuple[float, Held]) -> list[Key]:
    return [Key(at_s, held) for at_s, held in steps]


FALLS = {
    "falls forward": _keys((0, _UP), (1.5, _UP), (2.2, bodies.LYING_FACE_DOWN), (6, bodies.LYING_FACE_DOWN)),
    "falls backward": _keys((0, _UP), (1.5, _UP), (2.15, bodies.LYING_ON_THE_BACK), (6, bodies.LYING_ON_THE_BACK)),
    "falls to the side": _keys((0, _UP), (1.5, _UP), (2.2, bodies.LYING_ON_THE_SIDE), (6, bodies.LYING_ON_THE_SIDE)),
    "collapses": _keys((0, _UP), (1.5, _UP), (1.9, _KNEES_GIVE), (2.5, bodies.CURLED_UP), (6, bodies.CURLED_UP)),
    "falls while walking": [
        *bodies.walk((-1.0, 4.0), (0.5, 4.0), begin_s=0, end_s=1.5),
        Key(2.2, bodies.LYING_FACE_DOWN.turned(90), x_m=1.2),
        Key(6, bodies.LYING_FACE_DOWN.turned(90), x_m=1.2),
    ],
    "falls from a chair": _keys((0, _SIT), (1.5, _SIT), (2.1, bodies.LYING_ON_THE_SIDE), (6, bodies.LYING_ON_THE_SIDE)),
}
OTHERS = {
    "stands": _keys((0, _UP), (6, _UP)),
    "walks by": bodies.walk((-2.0, 4.0), (2.0, 4.0), begin_s=0, end_s=4),
    "comes closer": bodies.walk((0.0, 6.0), (0.0, 2.2), begin_s=0, end_s=3.5),
    "sits down": _keys((0, _UP), (1.5, _UP), (2.6, _SIT), (6, _SIT)),
    "sits down fast": _keys((0, _UP), (1.5, _UP), (2.0, _SIT), (6, _SIT)),
    "sits down on the floor": _keys(
        (0, _UP), (1.5, _UP), (2.3, bodies.SITTING_ON_THE_FLOOR), (6, bodies.SITTING_ON_THE_FLOOR)
    ),
    "lies down slowly": _keys(
        (0, _UP),
        (1.5, _UP),
        (3, bodies.SITTING_ON_THE_FLOOR),
        (5, bodies.LYING_ON_THE_BACK),
        (9, bodies.LYING_ON_THE_BACK),
    ),
    "lies down on a bed": [
        Key(0, _UP),
        Key(1.5, _UP),
        Key(2.8, replace(_SIT, level_m=0.0)),
        Key(4.6, replace(bodies.LYING_ON_THE_BACK, level_m=0.45)),
        Key(9, replace(bodies.LYING_ON_THE_BACK, level_m=0.45)),
    ],
    "bends and stays": _keys((0, _UP), (1.5, _UP), (2.2, bodies.BENT), (5, bodies.BENT), (6, _UP)),
    "picks something up": _keys(
        (0, _UP), (1.5, _UP), (2.1, bodies.CROUCHING), (2.8, bodies.CROUCHING), (3.5, _UP), (5, _UP)
    ),
    "crouches": _keys((0, _UP), (1.5, _UP), (2.1, bodies.CROUCHING), (6, bodies.CROUCHING)),
    "kneels": _keys((0, _UP), (1.5, _UP), (2.2, bodies.KNEELING), (6, bodies.KNEELING)),
    "jumps": [
        Key(0, _UP),
        Key(1.5, _UP),
        Key(1.75, replace(_UP, level_m=0.35)),
        Key(2.0, _UP),
        Key(5, _UP),
    ],
    "stumbles": _keys(
        (0, _UP), (1.5, _UP), (1.8, Held(lean_deg=45, **both(thigh=30, knee=40, arm=60))), (2.3, _UP), (5, _UP)
    ),
    "leaves downwards": [Key(0, _UP), Key(1.5, _UP), Key(2.2, _UP, z_m=1.0), Key(4, _UP, z_m=0.8)],
    "push-ups": _keys(
        (0, bodies.LYING_FACE_DOWN),
        (1, replace(bodies.LYING_FACE_DOWN, pitch_deg=70)),
        (2, bodies.LYING_FACE_DOWN),
        (5, bodies.LYING_FACE_DOWN),
    ),
}


@dataclass(frozen=True)
class Setting:
    """slower: what follows after BEGINS_S takes so much longer. further_m: from the camera than the sequence says.
    hides_hz: how often two of the trunk's keypoints go out of sight, once it has begun."""

    camera: str
    direction_deg: float
    fps: float
    noise: tuple[float, float]
    stature_m: float = 1.75
    further_m: float = 0.0
    slower: float = 1.0
    hides_hz: float = 0.0


def settings() -> list[Setting]:
    return [Setting(*each) for each in itertools.product(CAMERAS, DIRECTIONS, RATES, NOISES)]


def varied_settings(count: int, *, hides_hz: float, seed: int) -> list[Setting]:
    chance = random.Random(seed)
    return [
        Setting(
            chance.choice(list(CAMERAS)),
            chance.uniform(0, 360),
            chance.choice(RATES),
            chance.choice(NOISES),
            stature_m=chance.uniform(1.2, 1.95),
            further_m=chance.uniform(0, 2.5),
            slower=chance.uniform(0.75, 1.35),
            hides_hz=hides_hz,
        )
        for _ in range(count)
    ]


def suspected(keys: Sequence[Key], setting: Setting, *, seed: int = 1) -> bool:
    """Whether a fall is, at any time."""
    camera = CAMERAS[setting.camera]
    mount = LEVEL if "not said" in setting.camera else camera.mount
    watch, smoother, rules = FallWatch(), PoseSmoother(), FallRules()
    for now_ns, pose in played(keys, setting, seed=seed):
        smooth = smoother.smooth(now_ns, pose, camera.width_px, camera.height_px, "light")
        now = kinematics(smooth, level_m(smooth, mount), camera.width_px, camera.height_px)
        if watch.update(now_ns, smooth, now, camera.height_px, rules) is not None:
            return True
    return False


def played(keys: Sequence[Key], setting: Setting, *, seed: int) -> Iterator[tuple[int, Pose]]:
    """The time and the pose of each frame in which somebody is found."""
    as_set = [
        replace(
            key,
            at_s=key.at_s + max(0.0, key.at_s - BEGINS_S) * (setting.slower - 1),
            held=replace(key.held, facing_deg=key.held.facing_deg + setting.direction_deg),
            z_m=key.z_m + setting.further_m,
        )
        for key in keys
    ]
    noise, lost = setting.noise
    begin_ns = 10_000_000_000
    hidden, hidden_until_s, chance = list[int](), 0.0, random.Random(seed)
    for now_ns, pose in film(
        as_set,
        fps=setting.fps,
        camera=CAMERAS[setting.camera],
        noise=noise,
        lost=lost,
        seed=seed,
        begin_ns=begin_ns,
        stature_m=setting.stature_m,
    ):
        if pose is None:
            continue
        at_s = (now_ns - begin_ns) / 1e9
        if at_s >= max(BEGINS_S, hidden_until_s) and chance.random() < setting.hides_hz / setting.fps:
            hidden, hidden_until_s = chance.sample(_TRUNK, 2), at_s + chance.uniform(0.1, 0.4)
        if at_s >= hidden_until_s:
            yield now_ns, pose
            continue
        visibility = np.array(pose.visibility)
        visibility[hidden] = 0.3
        yield now_ns, replace(pose, visibility=visibility)


def varied(count: int) -> None:
    print(f"{'':33} {'all in sight':>14} {'out of sight':>14}   of {count}")
    for title, sequences in (("fall", FALLS), ("no fall", OTHERS)):
        for number, (name, keys) in enumerate(sequences.items()):
            found = [
                [
                    suspected(keys, setting, seed=seed)
                    for seed, setting in enumerate(varied_settings(count, hides_hz=hides_hz, seed=number))
                ]
                for hides_hz in (0.0, 1.0)
            ]
            print(f"{title:8} {name:24} {sum(found[0]):14} {sum(found[1]):14}", flush=True)


def main(arguments: Sequence[str]) -> None:
    if "--varied" in arguments:
        varied(int(arguments[arguments.index("--varied") + 1]))
        return
    for title, sequences in (("fall", FALLS), ("no fall", OTHERS)):
        for name, keys in sequences.items():
            found = [(setting, suspected(keys, setting)) for setting in settings()]
            count = sum(each for _, each in found)
            print(f"{title:8} {name:24} {count:4} of {len(found)} suspected", flush=True)
            if "--all" in arguments:
                wrong = [setting for setting, each in found if each != (title == "fall")]
                for what in ("camera", "direction_deg", "fps", "noise"):
                    counted = Counter(getattr(setting, what) for setting in wrong)
                    print(f"{'':10}{what}: {dict(counted)}")


if __name__ == "__main__":
    main(sys.argv[1:])
