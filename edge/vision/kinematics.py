"""What follows from one pose alone: how bent its joints are, how the body is turned, where it is in the picture."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from edge.vision.mount import Mount, to_level
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
JOINTS: tuple[str, ...] = (*(f"{side}_{joint}" for joint in _JOINTS for side in ("left", "right")), "neck")
"""The joints whose angles are given, in the order of `joint_angles_deg`. The neck's is between the middles of the hips,
the shoulders and the ears."""

_MIDDLES = ("hip", "shoulder", "ear")
"""Between which two a body has a point in its middle."""

FACING_UP_TO_DEG = 60.0
"""Of somebody who leans further, or lies, nobody can say whom they face."""

_EARS_TO_ANKLES = 0.89
"""Of the stature: eyes are at 0.936 of it, and ears at their height, ankles at 0.039 (Drillis and Contini, 1966, as in
Winter, Biomechanics and Motor Control of Human Movement, 4th edition, figure 4.1)."""
_SEEN_AT_LEAST = 4


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


@dataclass(frozen=True, slots=True, eq=False)
class Kinematics:
    """How one body is held. What can't be told from the keypoints that are seen is None.

    angles_deg: as `joint_angles_deg`.
    tilt_deg: 0..180, of the torso (from the hips' middle to the shoulders') from the vertical: 0 upright, 90 level.
    facing_deg: -180..180, where the chest points, from above: 0 towards the camera, 90 to the picture's right, 180
        away. None also where the torso leans by more than FACING_UP_TO_DEG.
    left_hand_m, right_hand_m: the wrist as seen from between the ears, metres towards the person's left, up along the
        torso and forward out of the chest. Where the hips aren't seen, up is from the shoulders to the ears.
    length_px: the body's own length, as if it stood upright where it is, in pixels of the picture.
    """

    angles_deg: Float32Array | None = None
    tilt_deg: float | None = None
    facing_deg: float | None = None
    left_hand_m: Vector | None = None
    right_hand_m: Vector | None = None
    length_px: float | None = None


Vector = tuple[float, float, float]


@functools.cache
def trunk_of(skeleton: Skeleton) -> list[int]:
    """The keypoints of the left and the right shoulder, and of the left and the right hip."""
    return [skeleton.index(f"{side}_{name}") for name in ("shoulder", "hip") for side in ("left", "right")]


def level_m(pose: Pose, mount: Mount) -> Float32Array | None:
    """(K, 3) float32 metres: the world landmarks in axes of which y points down to the floor, in as far as it is known
    how the camera hangs. None where the pose has none."""
    if pose.world_m is None or mount.is_level:
        return pose.world_m
    level: Float32Array = pose.world_m @ to_level(mount)
    return level


def kinematics(pose: Pose, level: Float32Array | None, width_px: int, height_px: int) -> Kinematics:
    """level: what `level_m` gave. width_px, height_px: of the picture."""
    if pose.world_m is None or level is None:
        return Kinematics()
    indices = _indices(pose.skeleton)
    lefts, rights = level[indices.lefts], level[indices.rights]
    seen_lefts, seen_rights = pose.visibility[indices.lefts] >= VISIBLE, pose.visibility[indices.rights] >= VISIBLE
    hips, shoulders, ears = ((lefts + rights) / 2).tolist()[:3]
    across = (lefts[:2] - rights[:2]).tolist()  # of hips and shoulders
    has_hips, has_shoulders, has_ears = (seen_lefts & seen_rights).tolist()[:3]
    torso = _minus(shoulders, hips) if has_hips and has_shoulders else None
    tilt_deg = None if torso is None else _tilt_deg(torso)
    to_left = _plus(*across) if torso is not None else across[1]
    up = torso if torso is not None else _minus(ears, shoulders) if has_shoulders and has_ears else None
    axes = _axes(to_left, up) if has_shoulders and up is not None else None
    hands: list[Vector | None] = [None, None]
    if axes is not None and has_ears:
        for side, (wrists, seen) in enumerate(((lefts[3], seen_lefts[3]), (rights[3], seen_rights[3]))):
            if seen:
                away = _minus(wrists.tolist(), ears)
                hands[side] = _dot(away, axes[0]), _dot(away, axes[1]), _dot(away, axes[2])
    return Kinematics(
        angles_deg=joint_angles_deg(pose),
        tilt_deg=tilt_deg,
        facing_deg=_facing_deg(to_left) if tilt_deg is not None and tilt_deg <= FACING_UP_TO_DEG else None,
        left_hand_m=hands[0],
        right_hand_m=hands[1],
        length_px=_length_px(pose, width_px, height_px),
    )


def joint_angles_deg(pose: Pose) -> Float32Array | None:
    """(len(JOINTS),) float32 degrees, 0 folded to 180 straight: the angle at each joint between its two bones.

    Measured in three dimensions on the world landmarks; None where the pose has none. NaN where a bone has no length
    or where one of the joint's three keypoints is not seen.
    """
    if pose.world_m is None:
        return None
    indices = _indices(pose.skeleton)
    middles = (pose.world_m[indices.lefts[:3]] + pose.world_m[indices.rights[:3]]) / 2
    points = np.concatenate([pose.world_m, middles])
    visibility = pose.visibility
    both = np.minimum(visibility[indices.lefts[:3]], visibility[indices.rights[:3]])
    seen = np.concatenate([visibility, both]) >= VISIBLE
    first, second = points[indices.before] - points[indices.at], points[indices.after] - points[indices.at]
    # atan2 of cross and dot product is exact where arccos loses its digits, near 0 and 180 degrees.
    # |cross|² = |a|²|b|² - dot² would lose them again, so it is written out, faster than np.cross.
    (ax, ay, az), (bx, by, bz) = first.T, second.T
    cross = np.sqrt((ay * bz - az * by) ** 2 + (az * bx - ax * bz) ** 2 + (ax * by - ay * bx) ** 2)
    dot = ax * bx + ay * by + az * bz
    angles: Float32Array = np.degrees(np.arctan2(cross, dot)).astype(np.float32)
    long_enough = np.hypot(cross, dot) > _SHORTEST_M**2  # the product of the bones' lengths
    angles[~(seen[indices.before] & seen[indices.at] & seen[indices.after] & long_enough)] = np.nan
    angles.setflags(write=False)
    return angles


def body_length_m(world_m: Float32Array, skeleton: Skeleton) -> float:
    """The stature of a body with these bones, metres, however it is held."""
    indices = _indices(skeleton)
    lefts, rights = world_m[indices.lengths_left], world_m[indices.lengths_right]
    middles = ((lefts[:3] + rights[:3]) / 2).tolist()
    legs = np.concatenate([lefts[2:-1] - lefts[3:], rights[2:-1] - rights[3:]])
    trunk_m = math.dist(middles[0], middles[1]) + math.dist(middles[1], middles[2])
    return (trunk_m + float(np.sqrt((legs * legs).sum(axis=1)).sum()) / 2) / _EARS_TO_ANKLES


def _length_px(pose: Pose, width_px: int, height_px: int) -> float | None:
    """The body's length times the pixels a metre, those by least squares between what is seen and the world landmarks
    (weak perspective: Hartley and Zisserman, Multiple View Geometry, 2nd edition, 6.3)."""
    assert pose.world_m is not None, "its caller has looked"
    seen = pose.visibility >= VISIBLE
    if int(seen.sum()) < _SEEN_AT_LEAST:
        return None
    weights = seen / seen.sum()
    flat_m = pose.world_m[:, :2]
    about_m = flat_m - weights @ flat_m
    spread = float(weights @ (about_m * about_m).sum(axis=1))
    if spread < _SHORTEST_M:
        return None
    uv = pose.image_xyz[:, :2] * np.array([width_px, height_px], np.float32)
    px_per_m = float(weights @ (about_m * uv).sum(axis=1)) / spread
    return px_per_m * body_length_m(pose.world_m, pose.skeleton) if px_per_m > 0 else None


def _tilt_deg(torso: list[float]) -> float | None:
    x, y, z = torso
    across, up = math.hypot(x, z), -y
    return math.degrees(math.atan2(across, up)) if math.hypot(across, up) > _SHORTEST_M else None


def _facing_deg(to_left: list[float]) -> float | None:
    """Who faces the camera has the left on the picture's right."""
    x, _, z = to_left
    return math.degrees(math.atan2(z, x)) if math.hypot(x, z) > _SHORTEST_M else None


def _axes(to_left: list[float], up: list[float]) -> tuple[Vector, Vector, Vector] | None:
    """The body's own: its left, up and forward, of length 1 and at right angles. None where they are no axes."""
    long = math.hypot(*up)
    if long < _SHORTEST_M:
        return None
    ux, uy, uz = (each / long for each in up)
    along = to_left[0] * ux + to_left[1] * uy + to_left[2] * uz
    lx, ly, lz = to_left[0] - along * ux, to_left[1] - along * uy, to_left[2] - along * uz
    wide = math.hypot(lx, ly, lz)
    if wide < _SHORTEST_M:
        return None
    lx, ly, lz = lx / wide, ly / wide, lz / wide
    return (lx, ly, lz), (ux, uy, uz), (ly * uz - lz * uy, lz * ux - lx * uz, lx * uy - ly * ux)


def _minus(a: list[float], b: list[float]) -> list[float]:
    return [a[0] - b[0], a[1] - b[1], a[2] - b[2]]


def _plus(a: list[float], b: list[float]) -> list[float]:
    return [a[0] + b[0], a[1] + b[1], a[2] + b[2]]


def _dot(a: list[float], b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@dataclass(frozen=True, slots=True, eq=False)
class _Indices:
    """before, at, after: of each joint; behind the keypoints there are the `_MIDDLES`. lefts, rights: hips, shoulders,
    ears and wrists. lengths_left, lengths_right: from the ears down."""

    before: list[int]
    at: list[int]
    after: list[int]
    lefts: list[int]
    rights: list[int]
    lengths_left: list[int]
    lengths_right: list[int]


@functools.cache
def _indices(skeleton: Skeleton) -> _Indices:
    count = len(skeleton.keypoints)

    def column(place: int) -> list[int]:
        sides = ("left", "right")
        of_sides = [skeleton.index(f"{side}_{names[place]}") for names in _JOINTS.values() for side in sides]
        return [*of_sides, count + place]  # the neck: `_MIDDLES` in their order

    def one_side(side: str, *names: str) -> list[int]:
        return [skeleton.index(f"{side}_{name}") for name in names]

    pairs = (*_MIDDLES, "wrist")
    down = ("ear", "shoulder", "hip", "knee", "ankle")
    return _Indices(
        *(column(place) for place in range(3)),
        *(one_side(side, *pairs) for side in ("left", "right")),
        *(one_side(side, *down) for side in ("left", "right")),
    )
