"""What it costs to turn and crop pictures: `python -m tests.measure.turning`."""

from __future__ import annotations

import statistics
import time

import cv2
import numpy as np

from edge.cameras.oriented import shown
from edge.vision.frame import Picture, PixelLayout
from edge.vision.geometry import Part, Turn, View

VIEWS = {
    "rotate_deg = 90": View(Turn.of(90)),
    "rotate_deg = 180": View(Turn.of(180)),
    "rotate_deg = 270": View(Turn.of(270)),
    'flip = "horizontal"': View(Turn.of(0, "horizontal")),
    'flip = "vertical"': View(Turn.of(0, "vertical")),
    "rotate_deg = 90, flip": View(Turn.of(90, "horizontal")),
    "rotate_deg = 270, flip": View(Turn.of(270, "horizontal")),
    "crop to a quarter": View(crop=Part(0.25, 0.25, 0.5, 0.5)),
    "rotate_deg = 90, a quarter": View(Turn.of(90), Part(0.25, 0.25, 0.5, 0.5)),
}
TIMES = 300


def main() -> None:
    cv2.setNumThreads(1)  # as the daemon has it
    chance = np.random.default_rng(0)
    for width_px, height_px in ((640, 480), (1280, 720)):
        rgb = chance.integers(0, 256, (height_px, width_px, 3), np.uint8)
        i420 = chance.integers(0, 256, (height_px * 3 // 2, width_px), np.uint8)
        pictures = Picture(rgb, PixelLayout.RGB), Picture(i420, PixelLayout.I420)
        for name, view in VIEWS.items():
            took = " ".join(f"{each.layout} {median_us(each, view):4.0f} us" for each in pictures)
            print(f"{width_px}x{height_px} {name:26} {took}")


def median_us(picture: Picture, view: View) -> float:
    took_ns = []
    for _ in range(TIMES):
        began_ns = time.perf_counter_ns()
        shown(picture, view)
        took_ns.append(time.perf_counter_ns() - began_ns)
    return statistics.median(took_ns) / 1000


if __name__ == "__main__":
    main()
