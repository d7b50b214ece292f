"""Where a body stands in front of the camera, in metres, as far as one picture tells."""

from __future__ import annotations

import math

import numpy as np

from edge.vision.kinematics import VISIBLE
from edge.vision.pose import Float32Array, Pose

FIELD_OF_VIEW_DEG = 65.0
"""Across the longer side of the picture: what is assumed of every lens. Most cameras of boards, phones and laptops are
within ten degrees of it; distances go with the inverse of its half's tangent."""

_SEEN_AT_LEAST = 4
_NEAREST_M, _FARTHEST_M = 0.2, 50.0


def standing_m(pose: Pose, width_px: int, height_px: int) -> Float32Array | None:
    """(K, 3) float32 metres: the world landmarks, put where they were seen. None where the pose has none.

    x to the right of the camera, y down with the floor at 0, z away from the camera. The body's lowest keypoint is on
    the floor: one camera can't tell a jump. width_px, height_px: of the picture.
    """
    if pose.world_m is None:
        return None
    x_m, z_m = _ground_m(pose, width_px, height_px)
    placed: Float32Array = pose.world_m + np.array([x_m, -pose.world_m[:, 1].max(), z_m], np.float32)
    return placed


def _ground_m(pose: Pose, width_px: int, height_px: int) -> tuple[float, float]:
    """x and z of the hips' middle, by scaled orthography, also called weak perspective (Hartley and Zisserman, Multiple
    View Geometry, 2nd edition, 6.3.1): a body is flat beside its distance, so that its picture is its own shape times
    f / z. That factor is the least squares' between the two, without their means.
    """
    assert pose.world_m is not None, "its caller has looked"
    focal_px = max(width_px, height_px) / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG / 2))
    seen = (pose.visibility >= VISIBLE).astype(np.float32)
    if (count := float(seen.sum())) < _SEEN_AT_LEAST:
        seen, count = np.ones_like(seen), float(len(seen))
    # About the means, by products with the weights: a frame has little time for this.
    shape_m, picture = pose.world_m[:, :2], pose.image_xyz[:, :2]
    middle_m, middle = seen @ shape_m / count, seen @ picture / count
    centred = (shape_m - middle_m) * seen[:, None]
    size = float(np.vdot(centred, centred))
    along_x, along_y = np.einsum("ij,ij->j", centred, picture - middle).tolist()
    px_per_m = (along_x * width_px + along_y * height_px) / size if size else 0.0
    # Turned by more than a right angle, or a point, it tells nothing: as near or far as anything is.
    px_per_m = min(max(px_per_m, focal_px / _FARTHEST_M), focal_px / _NEAREST_M)
    x_m = (float(middle[0]) - 0.5) * width_px / px_per_m - float(middle_m[0])
    return x_m, focal_px / px_per_m
