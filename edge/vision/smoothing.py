"""One person's landmarks without their tremble, and without much of a lag.

The One Euro filter (Casiez, Roussel and Vogel, "1€ Filter: A Simple Speed-based Low-pass Filter for Noisy Input in
Interactive Systems", CHI 2012) is a low-pass filter whose cutoff grows with the speed of what it filters: at rest it
takes out the tremble, in motion it lets through.

    dx = (x - last x) / te, smoothed with the cutoff f_d;  cutoff = f_min + beta * |dx|;
    alpha(f) = 1 / (1 + 1 / (2 pi f te));  x = alpha * x + (1 - alpha) * last x

Here the speed is that of a whole keypoint and not of each of its coordinates, so that a filtered motion keeps its
direction; and it is measured in the person's own size, so that one setting fits whatever distance and resolution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.config import Smoothing
from edge.vision.pose import Float32Array, Pose

GONE_S = 0.5
"""After so long without the person, the filter begins anew: where it was says nothing any more."""


@dataclass(frozen=True, slots=True)
class _Filter:
    """at_rest_hz: the cutoff at rest. per_speed: by how many Hz it grows for each body size a second.
    of_speed_hz: the cutoff for the speed itself."""

    at_rest_hz: float
    per_speed: float
    of_speed_hz: float


# By tests/measure/smoothing.py, on the clips: docs/people.md has its table.
_FILTERS: dict[str, _Filter] = {"light": _Filter(2.0, 40.0, 5.0), "strong": _Filter(1.0, 8.0, 3.0)}

FloatArray = NDArray[np.float64]


class PoseSmoother:
    """One person's filter. For one thread."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._last: FloatArray = np.empty(0)
        self._velocity: FloatArray = np.empty(0)

    def smooth(self, monotonic_ns: int, pose: Pose, width_px: int, height_px: int, strength: Smoothing) -> Pose:
        """`pose` with its landmarks in the picture and in space smoothed; its visibility and mask are left alone.

        A person's first pose, and the first one after GONE_S, is returned as it is; so is every one with "off".
        """
        gap_s = math.inf if self._last_ns is None else (monotonic_ns - self._last_ns) / 1e9
        found = _columns(pose, width_px, height_px)
        if strength == "off" or not 0 < gap_s <= GONE_S or found.shape != self._last.shape:
            self._last_ns, self._last, self._velocity = monotonic_ns, found, np.zeros_like(found)
            return pose
        self._last_ns = monotonic_ns
        of = _FILTERS[strength]
        moved = found - self._last
        self._velocity += _alpha(of.of_speed_hz, gap_s) * (moved / gap_s - self._velocity)
        sizes = _sizes(found)
        squares = self._velocity * self._velocity
        speed = np.sqrt(np.stack([squares[:, 0] + squares[:, 1], squares[:, 3:].sum(axis=1)], axis=1)) / sizes
        # Frames as rare as this say nothing of a tremble: alpha goes to 1.
        cutoff = of.at_rest_hz + of.per_speed * speed
        alpha = 1 / (1 + 1 / (2 * math.pi * gap_s * cutoff))
        self._last = self._last + alpha.repeat((3, found.shape[1] - 3), axis=1) * moved
        return _pose(pose, self._last, width_px, height_px)


def _alpha(cutoff_hz: float, interval_s: float) -> float:
    return 1 / (1 + 1 / (2 * math.pi * cutoff_hz * interval_s))


def _columns(pose: Pose, width_px: int, height_px: int) -> FloatArray:
    """(K, 6) float64: image x, y, z in pixels (z is on the scale of x), world x, y, z (of zeros without any)."""
    columns = np.zeros((len(pose.visibility), 6))
    columns[:, :3] = pose.image_xyz * np.array([width_px, height_px, width_px], np.float32)
    if pose.world_m is not None:
        columns[:, 3:] = pose.world_m
    return columns


def _sizes(columns: FloatArray) -> FloatArray:
    """(2,): the body's size in the picture and in space, as the diagonal of the box around all of its keypoints."""
    spread = columns.max(axis=0) - columns.min(axis=0)
    squares = spread * spread
    sizes: FloatArray = np.sqrt(np.array([squares[0] + squares[1], squares[3:].sum()])) + 1e-6
    return sizes


def _pose(pose: Pose, columns: FloatArray, width_px: int, height_px: int) -> Pose:
    image: Float32Array = (columns[:, :3] / (width_px, height_px, width_px)).astype(np.float32)
    world: Float32Array | None = None if pose.world_m is None else columns[:, 3:].astype(np.float32)
    return Pose(pose.skeleton, image, pose.visibility, world, pose.mask)
