"""Whether somebody stands, sits, crouches or lies, as far as trunk and legs are seen.

What tells postures apart is where the legs carry the hips, and which way the trunk points. Heights are those of the
hips above the ankles, as a part of the legs' length: 1 on straight legs, a half on a chair, nothing on the floor. A
classification of the same kind, by thresholds on the angles of trunk and thighs from the vertical, is common with
sensors worn on both (Lyons et al., "A description of an accelerometer-based mobility monitoring technique", Medical
Engineering & Physics 27, 2005). The scores here fade over some degrees, so that there is no edge to tremble on; where
the edges lie is the author's choice, tried on computed bodies and clips.

    stands     the hips are high above an ankle, however far the trunk leans: also who bends forward
    lies       the trunk is level, and the hips no higher than the ankles by much
    crouches   the hips are low and the knees folded, or the thighs point down to knees on the floor: kneels
    sits       the hips are low, the thighs forward, the knees not folded, the trunk not level: also on the floor
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from enum import StrEnum

from edge.vision.debounce import Settled
from edge.vision.kinematics import VISIBLE, trunk_of
from edge.vision.pose import Float32Array, Pose
from edge.vision.skeleton import Skeleton


class Posture(StrEnum):
    STANDING = "standing"
    SITTING = "sitting"
    CROUCHING = "crouching"
    LYING = "lying"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PostureReading:
    """confidence: 0..1, how much speaks for it; 0 where it is unknown. since_ns: the monotonic_ns since when."""

    posture: Posture
    confidence: float
    since_ns: int


_CERTAIN = 0.5
"""A posture for which less speaks is none."""
_STAYS = 0.15
"""And the one that was is given so much on top: another has to be better by this."""
_OVER_S = 0.2
"""Scores are averaged over so long."""
_GONE_S = 1.0

Scores = dict[Posture, float]


def scores(pose: Pose, level: Float32Array | None) -> Scores:
    """What speaks for each posture, 0..1; together 1 at most. Nothing where shoulders and hips, or both legs, aren't
    seen. level: world landmarks as of `kinematics.level_m`."""
    if level is None:
        return {}
    trunk, legs = trunk_of(pose.skeleton), _legs(pose.skeleton)
    visibility = pose.visibility
    if (visibility[trunk] < VISIBLE).any():
        return {}
    seen = [leg for leg in legs if (visibility[leg] >= VISIBLE).all()]
    if not seen:
        return {}
    a, b, c, d = level[trunk].tolist()  # left and right shoulder, left and right hip
    tilt = _from_vertical_deg([a[at] + b[at] - c[at] - d[at] for at in range(3)], up=True)
    held = [_leg(level[leg].tolist()) for leg in seen]
    height, thigh, knee = (sum(each) / len(held) for each in zip(*held, strict=True))
    standing = _rises(max(each[0] for each in held), 0.62, 0.82)
    level_trunk = _rises(tilt, 50, 70)
    lying = (1 - standing) * level_trunk * (1 - _rises(height, 0.35, 0.55))
    rest = 1 - standing - lying
    folded = max(_rises(knee, 105, 130), _rises(knee, 50, 80) * (1 - _rises(thigh, 35, 55)))
    sitting = rest * (1 - folded) * _rises(thigh, 45, 65) * (1 - level_trunk)
    return {
        Posture.STANDING: standing,
        Posture.LYING: lying,
        Posture.CROUCHING: rest * folded,
        Posture.SITTING: sitting,
    }


class PostureWatch:
    """One person's posture over time: one that lasts, and not what a frame or two look like. For one thread."""

    def __init__(self) -> None:
        self._scores: Scores = {}
        self._last_ns = 0
        self._settled: Settled[Posture] | None = None

    def update(self, monotonic_ns: int, pose: Pose, level: Float32Array | None, after_s: float) -> PostureReading:
        """after_s: for how long another posture has to be taken before it counts; also that it can't be told."""
        if self._settled is None:
            self._settled = Settled(Posture.UNKNOWN, monotonic_ns)
        found = scores(pose, level)
        gap_s = (monotonic_ns - self._last_ns) / 1e9
        share = 1.0 if not self._scores or not found or not 0 < gap_s <= _GONE_S else 1 - math.exp(-gap_s / _OVER_S)
        self._scores = {each: self._scores.get(each, 0.0) * (1 - share) + share * now for each, now in found.items()}
        self._last_ns = monotonic_ns
        self._settled.see(monotonic_ns, self._best(), after_s)
        posture = self._settled.value
        return PostureReading(posture, min(1.0, self._scores.get(posture, 0.0)), self._settled.since_ns)

    def _best(self) -> Posture:
        assert self._settled is not None, "its caller has made it"
        now = self._settled.value
        best = max(self._scores, key=lambda each: self._scores[each] + _STAYS * (each is now), default=Posture.UNKNOWN)
        return best if self._scores.get(best, 0.0) + _STAYS * (best is now) >= _CERTAIN else Posture.UNKNOWN


def _leg(points: list[list[float]]) -> tuple[float, float, float]:
    """Of hip, knee and ankle: the hip's height as a part of the leg's length, the thigh's angle from straight down and
    how far the knee is bent, degrees."""
    hip, knee, ankle = points
    thigh, shank = [knee[at] - hip[at] for at in range(3)], [ankle[at] - knee[at] for at in range(3)]
    height = (ankle[1] - hip[1]) / max(math.hypot(*thigh) + math.hypot(*shank), 1e-3)
    return height, _from_vertical_deg(thigh, up=False), _between_deg(thigh, shank)


def _rises(value: float, low: float, high: float) -> float:
    """0 up to `low`, 1 from `high` on."""
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _from_vertical_deg(vector: list[float], *, up: bool) -> float:
    x, y, z = vector
    return math.degrees(math.atan2(math.hypot(x, z), -y if up else y))


def _between_deg(a: list[float], b: list[float]) -> float:
    cross = math.hypot(a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])
    return math.degrees(math.atan2(cross, a[0] * b[0] + a[1] * b[1] + a[2] * b[2]))


@functools.cache
def _legs(skeleton: Skeleton) -> list[list[int]]:
    return [[skeleton.index(f"{side}_{name}") for name in ("hip", "knee", "ankle")] for side in ("left", "right")]
