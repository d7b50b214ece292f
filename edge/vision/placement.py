"""Where a body stands in front of the camera, in metres, as far as one picture tells."""

from __future__ import annotations

import math

import numpy as np

from edge.vision.geometry import Part
from edge.vision.kinematics import VISIBLE
from edge.vision.mount import LEVEL, Mount, to_level
from edge.vision.pose import Float32Array, Pose

FIELD_OF_VIEW_DEG = 65.0
"""Across the longer side of the whole picture: what is assumed of every lens. Most cameras of boards, phones and
laptops are within ten degrees of it; distances go with the inverse of its half's tangent."""

_SEEN_AT_LEAST = 4
_NEAREST_M, _FARTHEST_M = 0.2, 50.0


def standing_m(pose: Pose, width_px: int, height_px: int, mount: Mount = LEVEL) -> Float32Array | None:
    """(K, 3) float32 metres: the world landmarks, put where they were seen. None where the pose has none.

    x to the right of the camera, y down with the floor at 0, z away from the camera, level. The body's lowest keypoint
    is on the floor: one camera can't tell a jump. width_px, height_px: of the picture that is seen.
    """
    if pose.world_m is None:
        return None
    hips_m = np.array(_hips_m(pose, width_px, height_px, mount.crop), np.float32)
    placed: Float32Array = pose.world_m + hips_m
    if not mount.is_level:
        placed = placed @ to_level(mount)
    placed[:, 1] -= placed[:, 1].max()
    return placed


def _hips_m(pose: Pose, width_px: int, height_px: int, crop: Part) -> tuple[float, float, float]:
    """The hips' middle (a, b, c) in the camera's axes, by least squares on the equations of a pinhole camera (Hartley
    and Zisserman, Multiple View Geometry, 2nd edition, 6.1), u (Z + c) = f (X + a) and v (Z + c) = f (Y + b), where
    u and v go from the whole picture's middle. They are linear in what is wanted: with p = u Z - f X and q alike, a and
    b follow from the means, and c from what varies about them.
    """
    assert pose.world_m is not None, "its caller has looked"
    whole_px = max(width_px / crop.width, height_px / crop.height)
    focal_px = whole_px / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG / 2))
    seen = (pose.visibility >= VISIBLE).astype(np.float32)
    if (count := float(seen.sum())) < _SEEN_AT_LEAST:
        seen, count = np.ones_like(seen), float(len(seen))
    size_px = np.array([width_px, height_px], np.float32)
    middle = np.array([(0.5 - crop.left) / crop.width, (0.5 - crop.top) / crop.height], np.float32)
    uv = (pose.image_xyz[:, :2] - middle) * size_px
    pq = uv * pose.world_m[:, 2:] - np.float32(focal_px) * pose.world_m[:, :2]
    mean_uv, mean_pq = seen @ uv / count, seen @ pq / count
    about = (uv - mean_uv) * seen[:, None]
    spread = float(np.vdot(about, about))
    away_m = -float(np.vdot(about, pq - mean_pq)) / spread if spread else 0.0
    # Turned by more than a right angle, or a point, it tells nothing: as near or far as anything is.
    away_m = min(max(away_m, _NEAREST_M), _FARTHEST_M)
    a_m, b_m = ((mean_pq + mean_uv * np.float32(away_m)) / np.float32(focal_px)).tolist()
    return a_m, b_m, away_m
