"""What follows from one pose alone: joint angles and where the person is in the picture."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from edge.vision.pose import Float32Array, Pose
from edge.vision.skeleton import Skeleton

VISIBLE = 0.5
"""A keypoint of at least this visibility counts as seen."""

_SHORTEST_M = 1e-4

# joint: the keypoints (one side's, without left_/right_) before it, at it and after it
_JOINTS = {
    "shoulder": ("elbow", "shoulder", "hip"),
    "elbow": ("shoulder", "elbow", "wrist"),
    "wrist": ("elbow", "wrist", "index"),
    "hip": ("shoulder", "hip", "knee"),
    "knee": ("hip", "knee", "ankle"),
    "ankle": ("knee", "ankle", "foot_index"),
}
JOINTS: tuple[str, ...] = tuple(f"{side}_{joint}" for joint in _JOINTS for side in ("left", "right"))
"""The joints whose angles are given, in the order of `joint_angles_deg`."""


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle, its sides as fractions of the frame's width and height, 0..1."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


def bounding_box(pose: Pose) -> Box:
    """The box around the keypoints that are seen, or around all where none is, cut off at the frame's edges."""
    seen = pose.visibility >= VISIBLE
    points = pose.image_xyz[seen if seen.any() else slice(None), :2].clip(0.0, 1.0)
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return Box(float(left), float(top), float(right), float(bottom))


def joint_angles_deg(pose: Pose) -> Float32Array | None:
    """(len(JOINTS),) float32 degrees, 0 folded to 180 straight: the angle at each joint between its two bones.

    Measured in three dimensions on the world landmarks; None where the pose has none. NaN where a bone has no length
    or where one of the joint's three keypoints is not seen.
    """
    if pose.world_m is None:
        return None
    before, at, after = _joint_indices(pose.skeleton)
    first, second = pose.world_m[before] - pose.world_m[at], pose.world_m[after] - pose.world_m[at]
    # atan2 of cross and dot product is exact where arccos loses its digits, near 0 and 180 degrees.
    # |cross|² = |a|²|b|² - dot² would lose them again, so it is written out, faster than np.cross.
    (ax, ay, az), (bx, by, bz) = first.T, second.T
    cross = np.sqrt((ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2)
    dot = ax * bx + ay * by + az * bz
    angles: Float32Array = np.degrees(np.arctan2(cross, dot)).astype(np.float32)
    seen = pose.visibility >= VISIBLE
    long_enough = np.hypot(cross, dot) > _SHORTEST_M**2  # the product of the bones' lengths
    angles[~(seen[before] & seen[at] & seen[after] & long_enough)] = np.nan
    angles.setflags(write=False)
    return angles


@functools.cache
def _joint_indices(skeleton: Skeleton) -> tuple[list[int], list[int], list[int]]:
    def column(place: int) -> list[int]:
        sides = ("left", "right")
        return [skeleton.index(f"{side}_{names[place]}") for names in _JOINTS.values() for side in sides]

    return column(0), column(1), column(2)
