"""How one person moves about, and how much, from pose to pose."""

from __future__ import annotations

import functools
import math
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.vision.kinematics import VISIBLE, trunk_of
from edge.vision.pose import Float32Array, Pose
from edge.vision.skeleton import Skeleton

OVER_S = 0.3
"""Speeds are over so long: in less, the tremble of landmarks is most of what is measured."""

_AT_LEAST_S = 0.1
_GONE_S = 1.0
_MOST = 256  # of the poses in between: 0.3 s of a camera with 240 frames/s, and then some

_LIMBS = tuple(f"{side}_{joint}" for joint in ("elbow", "wrist", "knee", "ankle") for side in ("left", "right"))


@dataclass(frozen=True, slots=True)
class Motion:
    """What has changed over the last `OVER_S`, or as much of it as there is. None: it can't be told.

    speed_bl_s: how fast the trunk's middle goes across the picture, in body lengths a second. One camera doesn't see
    who comes straight towards it. activity_m_s: how fast elbows, wrists, knees and ankles move against the hips,
    metres a second, the mean of those that are seen.
    """

    speed_bl_s: float | None = None
    activity_m_s: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Moment:
    """trunk_px: the middle of shoulders and hips, None where one is not seen. limbs_m: (8, 3). seen: which of them."""

    at_ns: int
    trunk_px: tuple[float, float] | None
    limbs_m: Float32Array | None
    seen: NDArray[np.bool_]


class MotionWatch:
    """One person's. For one thread."""

    def __init__(self) -> None:
        self._past: deque[_Moment] = deque(maxlen=_MOST)

    def update(self, monotonic_ns: int, pose: Pose, width_px: int, height_px: int, length_px: float | None) -> Motion:
        """length_px: the body's own length in the picture, None where it can't be told."""
        past = self._past
        if past and not 0 < monotonic_ns - past[-1].at_ns <= _GONE_S * 1e9:
            past.clear()
        now = _moment(monotonic_ns, pose, width_px, height_px)
        past.append(now)
        while len(past) > 2 and monotonic_ns - past[1].at_ns >= OVER_S * 1e9:
            past.popleft()
        then, passed_s = past[0], (monotonic_ns - past[0].at_ns) / 1e9
        if passed_s < _AT_LEAST_S:
            return Motion()
        speed_bl_s = None
        if now.trunk_px and then.trunk_px and length_px:
            speed_bl_s = math.dist(now.trunk_px, then.trunk_px) / passed_s / length_px
        return Motion(speed_bl_s, _activity_m(then, now, passed_s))


def _moment(monotonic_ns: int, pose: Pose, width_px: int, height_px: int) -> _Moment:
    trunk, limbs = trunk_of(pose.skeleton), _limbs(pose.skeleton)
    seen = pose.visibility >= VISIBLE
    trunk_px = None
    if seen[trunk].all():
        x, y = (pose.image_xyz[trunk, :2].sum(axis=0) / len(trunk)).tolist()
        trunk_px = x * width_px, y * height_px
    return _Moment(monotonic_ns, trunk_px, None if pose.world_m is None else pose.world_m[limbs], seen[limbs])


def _activity_m(then: _Moment, now: _Moment, passed_s: float) -> float | None:
    if then.limbs_m is None or now.limbs_m is None:
        return None
    both = then.seen & now.seen
    count = int(both.sum())
    if not count:
        return None
    moved = now.limbs_m - then.limbs_m
    return float(np.sqrt((moved * moved).sum(axis=1)) @ both) / count / passed_s


@functools.cache
def _limbs(skeleton: Skeleton) -> list[int]:
    return [skeleton.index(name) for name in _LIMBS]
