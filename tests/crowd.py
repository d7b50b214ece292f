"""Computed bodies before a computed camera, understood by the real thing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from edge.vision.events import Noticed
from edge.vision.frame import Frame, Picture, PixelLayout
from edge.vision.observation import Observation
from edge.vision.people import People, Rules
from edge.vision.pose import Pose
from tests.bodies import Camera, Key, film

EPOCH_NS = 1_700_000_000_000_000_000
BEGIN_NS = 10_000_000_000
CAMERA = Camera(height_m=2.0, tilt_deg=15)
"""All of a body that is 3 to 7 m away is in its picture."""


def frames(
    crowd: Sequence[Sequence[Key]],
    *,
    camera: Camera = CAMERA,
    fps: float = 30.0,
    noise: float = 0.005,
    lost: float = 0.0,
) -> Iterator[tuple[Frame, list[Pose]]]:
    """From the first key of anybody to the last."""
    found: dict[int, list[Pose]] = {}
    first_s = min(keys[0].at_s for keys in crowd)
    for number, keys in enumerate(crowd, start=1):
        begin_ns = BEGIN_NS + round((keys[0].at_s - first_s) * fps) * round(1e9 / fps)
        for at_ns, pose in film(keys, fps=fps, camera=camera, noise=noise, lost=lost, seed=number, begin_ns=begin_ns):
            found.setdefault(round((at_ns - BEGIN_NS) * fps / 1e9), []).extend([] if pose is None else [pose])
    pixels = np.zeros((camera.height_px, camera.width_px, 3), np.uint8)
    for seq in range(max(found) + 1):
        after_ns = round(seq * 1e9 / fps)
        picture = Picture(pixels, PixelLayout.RGB)
        yield Frame("front", seq, EPOCH_NS + after_ns, BEGIN_NS + after_ns, picture), found.get(seq, [])


def understood(
    crowd: Sequence[Sequence[Key]], rules: Rules | None = None, **options: float
) -> list[tuple[Observation, list[Noticed]]]:
    """What is known of each frame, and noticed with it."""
    people = People(rules or Rules(mount=CAMERA.mount), itertools.count(1))
    return [people.see(frame, poses) for frame, poses in frames(crowd, **options)]  # type: ignore[arg-type]


def noticed(crowd: Sequence[Sequence[Key]], rules: Rules | None = None, **options: float) -> list[Noticed]:
    return [each for _, found in understood(crowd, rules, **options) for each in found]
