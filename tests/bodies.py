"""A computed body with known joint angles, before a computed camera: truth to measure against.

Segments are fractions of the stature by Drillis and Contini (1966), as in Winter, Biomechanics and Motor Control of
Human Movement, 4th edition, figure 4.1. A body is bent as `Held` says, turned, put on the floor and photographed.

    body = Held(left_knee_deg=40)                      # how it is held
    pose = photograph(body, Camera(), x_m=0.5, z_m=4)  # as an estimator would give it
    for now_ns, pose in film([(0, STANDING), (1, SITTING)], fps=30): ...
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from edge.vision.mount import Mount, to_level
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE

FloatArray = NDArray[np.float64]

UPPER_ARM, FOREARM, HAND = 0.186, 0.146, 0.108
TRUNK, THIGH, SHANK = 0.288, 0.245, 0.246
SHOULDER, HIP = 0.129, 0.0955  # from the middle
EAR, NOSE = 0.118, 0.118  # above the shoulders
FOOT, HEEL, SOLE = 0.11, 0.04, 0.039


@dataclass(frozen=True)
class Held:
    """How a body is held. Degrees; 0 everywhere is upright, arms hanging, facing the camera.

    lean_deg, side_deg: the trunk forward, and to its left. neck_deg: the head forward. *_arm_deg: the upper arm forward
    from hanging along the trunk, 180 straight up. *_elbow_deg, *_knee_deg: bent by so much. *_thigh_deg: forward from
    straight down. *_ankle_deg: between shank and foot. pitch_deg, roll_deg: the whole body, about its hips, forward and
    to its left. facing_deg: where it faces, as `Kinematics.facing_deg`. level_m: its hips above where they would be
    with its lowest point on the floor.
    """

    lean_deg: float = 0.0
    side_deg: float = 0.0
    neck_deg: float = 0.0
    left_arm_deg: float = 0.0
    right_arm_deg: float = 0.0
    left_elbow_deg: float = 0.0
    right_elbow_deg: float = 0.0
    left_thigh_deg: float = 0.0
    right_thigh_deg: float = 0.0
    left_knee_deg: float = 0.0
    right_knee_deg: float = 0.0
    left_ankle_deg: float = 100.0
    right_ankle_deg: float = 100.0
    pitch_deg: float = 0.0
    roll_deg: float = 0.0
    facing_deg: float = 0.0
    level_m: float = 0.0

    def towards(self, other: Held, share: float) -> Held:
        """So much of the way to `other`, with a gentle beginning and end."""
        eased = share * share * (3 - 2 * share)
        mixed = {
            field.name: getattr(self, field.name) + eased * (getattr(other, field.name) - getattr(self, field.name))
            for field in fields(self)
        }
        return Held(**mixed)

    def turned(self, facing_deg: float) -> Held:
        return replace(self, facing_deg=facing_deg)

    def mirrored(self) -> Held:
        """Left for right, and facing the other way round."""
        swapped = {
            field.name: getattr(self, _other_side(field.name)) * (-1 if field.name in _SIGNED else 1)
            for field in fields(self)
        }
        return Held(**swapped)


_SIGNED = {"side_deg", "roll_deg", "facing_deg"}


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return name.replace("left_", "right_", 1)
    return name.replace("right_", "left_", 1) if name.startswith("right_") else name


def both(**of_one_side: float) -> dict[str, float]:
    """`both(knee=90)`: the keys of either side."""
    return {f"{side}_{name}_deg": value for name, value in of_one_side.items() for side in ("left", "right")}


STANDING = Held()
HANDS_UP = Held(**both(arm=170, elbow=10))
ONE_HAND_UP = Held(left_arm_deg=175)
BENT = Held(lean_deg=85, **both(arm=60, thigh=-8))
SITTING = Held(lean_deg=5, **both(thigh=88, knee=88, arm=20, elbow=50))
SITTING_ON_THE_FLOOR = Held(lean_deg=-5, **both(thigh=88, knee=5, arm=20))
CROUCHING = Held(lean_deg=35, **both(thigh=115, knee=140, arm=50, elbow=40, ankle=75))
KNEELING = Held(**both(thigh=5, knee=95, ankle=150))
LYING_ON_THE_BACK = Held(pitch_deg=-90)
LYING_FACE_DOWN = Held(pitch_deg=88)
LYING_ON_THE_SIDE = Held(roll_deg=88, **both(thigh=25, knee=30))
CURLED_UP = Held(roll_deg=88, lean_deg=20, **both(thigh=70, knee=90, arm=40, elbow=80))


def stride(share: float) -> Held:
    """Walking, so much of a stride (two steps) in."""
    swing = math.sin(2 * math.pi * share)
    return Held(
        lean_deg=4,
        left_thigh_deg=25 * swing,
        right_thigh_deg=-25 * swing,
        left_knee_deg=30 * max(0.0, math.cos(2 * math.pi * share)) + 5,
        right_knee_deg=30 * max(0.0, -math.cos(2 * math.pi * share)) + 5,
        left_arm_deg=-20 * swing,
        right_arm_deg=20 * swing,
        left_elbow_deg=15,
        right_elbow_deg=15,
    )


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a floor. height_m above it; tilt_deg: how far it looks down; roll_deg as in `Mount`."""

    width_px: int = 1280
    height_px: int = 720
    height_m: float = 1.4
    tilt_deg: float = 0.0
    roll_deg: float = 0.0
    field_of_view_deg: float = 65.0

    @property
    def mount(self) -> Mount:
        return Mount(self.tilt_deg, self.roll_deg, known=True)


def skeleton_m(held: Held, *, stature_m: float = 1.75, shoulder: float = SHOULDER, hip: float = HIP) -> FloatArray:
    """(33, 3) metres from the hips' middle: x right, y down, z away from a level camera. shoulder, hip: half widths as
    fractions of the stature; alike, the angle at a hip or shoulder is just what bends it."""
    trunk = _about_left(held.lean_deg) @ _about_forward(held.side_deg)
    head = trunk @ _about_left(held.neck_deg)
    at: dict[str, FloatArray] = {}
    up, forward, left = np.array([0.0, 1, 0]), np.array([0.0, 0, 1]), np.array([1.0, 0, 0])
    neck = trunk @ (TRUNK * up)
    at["nose"] = neck + head @ (NOSE * up + 0.06 * forward)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        angle = {name: getattr(held, f"{side}_{name}_deg") for name in ("arm", "elbow", "thigh", "knee", "ankle")}
        at[f"{side}_ear"] = neck + head @ (EAR * up + sign * 0.045 * left)
        for place, out in (("eye_inner", 0.01), ("eye", 0.02), ("eye_outer", 0.03)):
            at[f"{side}_{place}"] = neck + head @ ((EAR + 0.01) * up + sign * out * left + 0.05 * forward)
        at[f"mouth_{side}"] = neck + head @ ((EAR - 0.03) * up + sign * 0.015 * left + 0.05 * forward)
        at[f"{side}_shoulder"] = neck + trunk @ (sign * shoulder * left)
        upper = trunk @ _about_left(-angle["arm"]) @ (-up)
        lower = trunk @ _about_left(-angle["arm"] - angle["elbow"]) @ (-up)
        at[f"{side}_elbow"] = at[f"{side}_shoulder"] + UPPER_ARM * upper
        at[f"{side}_wrist"] = at[f"{side}_elbow"] + FOREARM * lower
        for finger, out in (("index", 0.0), ("pinky", 0.02), ("thumb", -0.02)):
            at[f"{side}_{finger}"] = at[f"{side}_wrist"] + HAND * 0.8 * lower + sign * out * (trunk @ left)
        at[f"{side}_hip"] = sign * hip * left
        thigh = _about_left(-angle["thigh"]) @ (-up)
        shank = _about_left(-angle["thigh"] + angle["knee"]) @ (-up)
        foot = _about_left(-angle["thigh"] + angle["knee"] - (180 - angle["ankle"])) @ (-up)
        at[f"{side}_knee"] = at[f"{side}_hip"] + THIGH * thigh
        at[f"{side}_ankle"] = at[f"{side}_knee"] + SHANK * shank
        at[f"{side}_foot_index"] = at[f"{side}_ankle"] + FOOT * foot
        at[f"{side}_heel"] = at[f"{side}_ankle"] + SOLE * shank - HEEL * foot
    local = np.array([at[name] for name in MEDIAPIPE_POSE.keypoints]) * stature_m
    whole = _about_forward(held.roll_deg) @ _about_left(held.pitch_deg)
    turned = local @ whole.T
    facing = math.radians(held.facing_deg)
    # left, up, forward -> right, down, away: who faces the camera has the left on the picture's right
    left_axis = np.array([math.cos(facing), 0, math.sin(facing)])
    forward_axis = np.array([math.sin(facing), 0, -math.cos(facing)])
    return turned @ np.stack([left_axis, [0.0, -1, 0], forward_axis])


def photograph(
    held: Held,
    camera: Camera,
    *,
    x_m: float = 0.0,
    z_m: float = 4.0,
    stature_m: float = 1.75,
    hidden: Collection[str] = (),
    noise: FloatArray | None = None,
    **widths: float,
) -> Pose:
    """The body on the floor at (x_m, z_m) before the camera. hidden: keypoints that are not seen, beside those that are
    not in the picture. noise: (33, 3), in statures, added to what is seen and, away from the camera three times as
    much, to the world landmarks."""
    body = skeleton_m(held, stature_m=stature_m, **widths)
    level = body + np.array([x_m, camera.height_m - body[:, 1].max() - held.level_m, z_m])
    seen = level @ np.asarray(to_level(camera.mount), float).T
    focal_px = max(camera.width_px, camera.height_px) / 2 / math.tan(math.radians(camera.field_of_view_deg / 2))
    away = np.maximum(seen[:, 2], 0.1)
    uv = seen[:, :2] / away[:, None] * focal_px + np.array([camera.width_px, camera.height_px]) / 2
    hips = [MEDIAPIPE_POSE.index("left_hip"), MEDIAPIPE_POSE.index("right_hip")]
    middle = seen[hips].mean(axis=0)
    world = seen - middle
    if noise is not None:
        uv = uv + noise[:, :2] * stature_m * focal_px / middle[2]
        world = world + noise * stature_m * [1, 1, 3]
    image = np.column_stack([uv / [camera.width_px, camera.height_px], world[:, 2] * focal_px / middle[2] / 1280])
    inside = (image[:, :2] >= 0).all(axis=1) & (image[:, :2] <= 1).all(axis=1) & (seen[:, 2] > 0.1)
    shown = np.array([name not in hidden for name in MEDIAPIPE_POSE.keypoints])
    visibility = np.where(inside & shown, 0.98, 0.05)
    return Pose(
        MEDIAPIPE_POSE,
        np.ascontiguousarray(image, np.float32),
        visibility.astype(np.float32),
        np.ascontiguousarray(world, np.float32),
    )


@dataclass(frozen=True)
class Key:
    """How and where a body is at a time."""

    at_s: float
    held: Held
    x_m: float = 0.0
    z_m: float = 4.0
    hidden: Collection[str] = ()


def film(
    keys: Sequence[Key],
    *,
    fps: float = 30.0,
    camera: Camera | None = None,
    noise: float = 0.0,
    lost: float = 0.0,
    seed: int = 1,
    begin_ns: int = 10_000_000_000,
    stature_m: float = 1.75,
) -> Iterator[tuple[int, Pose | None]]:
    """The monotonic time and the pose of each frame from the first key to the last; in between all is interpolated.

    noise: its standard deviation as a part of the stature, from frame to frame alike by 0.7, as an estimator's is.
    lost: the share of frames in which nobody is found.
    """
    chance = np.random.default_rng(seed)
    tremble = noise * chance.standard_normal((33, 3))
    last = keys[-1].at_s
    for number in range(int((last - keys[0].at_s) * fps) + 1):
        at_s = keys[0].at_s + number / fps
        after = next((at for at, key in enumerate(keys) if key.at_s >= at_s), len(keys) - 1)
        to, since = keys[after], keys[max(0, after - 1)]
        share = 1.0 if to.at_s <= since.at_s else min(1.0, (at_s - since.at_s) / (to.at_s - since.at_s))
        tremble = 0.7 * tremble + math.sqrt(1 - 0.49) * noise * chance.standard_normal((33, 3))
        now_ns = begin_ns + round(number * 1e9 / fps)
        if chance.random() < lost:
            yield now_ns, None
            continue
        yield (
            now_ns,
            photograph(
                since.held.towards(to.held, share),
                camera or Camera(),
                x_m=since.x_m + share * (to.x_m - since.x_m),
                z_m=since.z_m + share * (to.z_m - since.z_m),
                hidden=to.hidden,
                stature_m=stature_m,
                noise=tremble if noise else None,
            ),
        )


def walk(
    begin: tuple[float, float], end: tuple[float, float], *, begin_s: float, end_s: float, strides_hz: float = 0.9
) -> list[Key]:
    """Keys of somebody who walks from (x, z) to (x, z) in metres, facing where they go."""
    facing_deg = math.degrees(math.atan2(end[0] - begin[0], begin[1] - end[1]))
    count = max(2, round((end_s - begin_s) * strides_hz * 8))
    return [
        Key(
            begin_s + (end_s - begin_s) * at / count,
            stride(at / 8).turned(facing_deg),
            x_m=begin[0] + (end[0] - begin[0]) * at / count,
            z_m=begin[1] + (end[1] - begin[1]) * at / count,
        )
        for at in range(count + 1)
    ]


def _about_left(degrees: float) -> FloatArray:
    """Turns what points up to the front."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_forward(degrees: float) -> FloatArray:
    """Turns what points up to the left."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
