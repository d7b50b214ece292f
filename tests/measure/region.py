"""How small people may be in the picture to be found, with a region of interest and without.

`python -m tests.measure.region [MODEL]`: the bundled clip, reduced, in a grey picture of 1920x1080.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

import cv2
import numpy as np

from edge.cameras.stream import StreamSource
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.store import ModelStore
from edge.estimators.region import RegionEstimator
from edge.interfaces import PoseEstimator
from edge.vision.frame import Frame, Picture, PixelLayout
from edge.vision.geometry import Part
from edge.vision.pose import Pose
from tests.conftest import CLIP, pose
from tests.conftest import frame as grey_frame

WIDTH_PX, HEIGHT_PX = 1920, 1080
MIDDLE = 0.47, 0.55
"""Where the person is in the clip, and is put in the picture: fractions of its sides."""
TALL = 0.43
"""How tall they are, nose to ankles, as a fraction of the clip's height."""
REGIONS = {
    "whole": Part(),
    "half": Part(0.25, 0.25, 0.5, 0.5),
    "quarter": Part(0.35, 0.4, 0.25, 0.25),
}
FRAMES = 30


def main() -> None:
    cv2.setNumThreads(1)
    model = ModelStore().ensure(*sys.argv[1:] or ["full"]).path
    with StreamSource("front", str(CLIP), pace="unlimited") as source:
        clip = [each for _ in range(FRAMES) if (each := source.read(1.0)) is not None]
    for tall_px in (400, 300, 200, 150, 100, 75, 50):
        reduced = [replace(each, rgb=small(each.rgb, tall_px), video=None) for each in clip]
        counts = []
        for name, region in REGIONS.items():
            with RegionEstimator(MediaPipeEstimator(model, segmentation=False), region) as estimator:
                counts.append(f"{name} {sum(len(estimator.estimate(each)) for each in reduced):2}")
        print(f"{tall_px:3} px tall, found in so many of {FRAMES} frames: {', '.join(counts)}")
    for size_px in ((640, 480), (1280, 720)):
        print(f"{size_px[0]}x{size_px[1]}: a region of half, with masks, takes {overhead_us(*size_px):.0f} us a frame")


def small(picture: Picture, tall_px: int) -> Picture:
    scale = tall_px / (TALL * picture.height_px)
    person = cv2.resize(picture.pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    height_px, width_px = person.shape[:2]
    pixels = np.full((HEIGHT_PX, WIDTH_PX, 3), (86, 88, 85), np.uint8)
    left, top = (
        int(at * (whole - part))
        for at, whole, part in zip(MIDDLE, (WIDTH_PX, HEIGHT_PX), (width_px, height_px), strict=True)
    )
    pixels[top : top + height_px, left : left + width_px] = person
    return Picture(pixels, PixelLayout.RGB)


class AtOnce:
    """A PoseEstimator that takes no time."""

    def __init__(self) -> None:
        self._found = (pose(mask=(90, 120)),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        return self._found


def overhead_us(width_px: int, height_px: int) -> float:
    frame = grey_frame(width_px=width_px, height_px=height_px)
    return statistics.median(took_us(RegionEstimator(AtOnce(), REGIONS["half"]), frame))


def took_us(estimator: PoseEstimator, frame: Frame) -> Iterator[float]:
    for _ in range(300):
        began_ns = time.perf_counter_ns()
        estimator.estimate(frame)
        yield (time.perf_counter_ns() - began_ns) / 1000


if __name__ == "__main__":
    main()
