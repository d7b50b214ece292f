"""MediaPipe's Pose Landmarker as the estimator needs it, and how its numbers become poses, however it is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np

from edge.vision.frame import UInt8Array
from edge.vision.pose import Float32Array, Pose
from edge.vision.skeleton import MEDIAPIPE_POSE

GRAPH_ERRORS = (RuntimeError, ValueError, OSError, IndexError)
"""MediaPipe turns the status of a failed call into one of these, by its code."""

_MASK_THRESHOLD = 0.5
_MASK_SIDE_PX = 160

Person = tuple[Float32Array, Float32Array, Float32Array, UInt8Array | None]
"""image_xyz, visibility, world_m and mask as in Pose; the numbers as MediaPipe gives them, in memory of our own."""


class Landmarker(Protocol):
    """One graph in VIDEO mode. All calls come from one thread."""

    def detect(self, pixels: UInt8Array, timestamp_ms: int, /) -> tuple[Pose, ...]:
        """The people in `pixels`, as `poses` gives them.

        pixels: (height, width, 3) RGB, C-contiguous, for MediaPipe copies from the raw pointer. timestamp_ms: later
        than all before. Raises one of GRAPH_ERRORS; a graph that has failed fails for ever.
        """

    def close(self) -> None:
        """Free it. Called once; a failed graph goes too, without another error."""


def poses(people: Iterable[Person]) -> tuple[Pose, ...]:
    """The best seen one first. People with something that is no number are left out."""
    found = [
        Pose(
            skeleton=MEDIAPIPE_POSE,
            image_xyz=image_xyz,
            visibility=visibility.clip(0.0, 1.0),
            world_m=world_m,
            mask=mask,
        )
        for image_xyz, visibility, world_m, mask in people
        if all(np.isfinite(numbers).all() for numbers in (image_xyz, visibility, world_m))
    ]
    return tuple(sorted(found, key=lambda pose: pose.score, reverse=True))


def mask_step(height_px: int, width_px: int) -> int:
    """Of how many rows and columns of a picture its mask has one."""
    return -(-max(height_px, width_px) // _MASK_SIDE_PX)


def person_pixels(confidence: Float32Array) -> UInt8Array:
    """A mask of (height, width), 0..1, as 0 and 1 at a reduced resolution: its longest side has 160 pixels or fewer.

    Of every step rows and columns the middle ones are taken, before the comparison, for at 640x480 both together take
    0.01 ms that way and 0.03 ms the other way round. The result is a copy: MediaPipe frees the memory behind
    `confidence` together with its result.
    """
    step = mask_step(*confidence.shape)
    middle = step // 2
    pixels: UInt8Array = np.greater(confidence[middle::step, middle::step], _MASK_THRESHOLD).view(np.uint8)
    return pixels
