"""Falls, as far as one camera can suspect them: somebody upright goes down fast and stays down.

A fall has a critical phase of 0.3 to 0.5 s and one after it in which the person lies (Noury et al., "Fall detection:
principles and methods", IEEE EMBC 2007). What is looked at is what is common for bodies in pictures: the speed with
which the trunk goes down, and where it points afterwards (Chen et al., "Fall detection based on key points of
human-skeleton using OpenPose", Symmetry 12(5), 2020: the hips' speed, and a body's line less than 45 degrees from the
floor; Rougier et al., IEEE TCSVT 21(5), 2011: that somebody then stays down tells falls from much that is fast).
docs/decisions/0034 has what this makes of sequences.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from edge.vision.kinematics import VISIBLE, Kinematics, trunk_of
from edge.vision.pose import Pose


@dataclass(frozen=True, slots=True)
class FallRules:
    """speed_bl_s: the trunk goes down at least so fast, in body lengths a second. tilt_deg: and leans at least so far
    from upright after it. still_s: for at least so long."""

    speed_bl_s: float = 0.7
    tilt_deg: float = 50.0
    still_s: float = 1.0


@dataclass(frozen=True, slots=True)
class FallEvidence:
    """What speaks for a fall. Speeds and ways are of the trunk's middle, down the picture, in the body's own lengths.

    speed_bl_s: the most, over SPEED_OVER_S. drop_bl: how far it went down. tilt_before_deg: how upright the trunk was,
    the least of the time before. tilt_deg: how far it leans since, the mean. took_s: from the last moment upright to
    the first down. down_s: from that to when it was decided. confidence: 0..1, how far speed and tilt are beyond what
    is asked for; not a probability.
    """

    speed_bl_s: float
    drop_bl: float
    tilt_before_deg: float
    tilt_deg: float
    took_s: float
    down_s: float
    confidence: float


SPEED_OVER_S = 0.25
UPRIGHT_DEG = 40.0
"""Who leans less is upright: has not fallen yet, or is up again. Where the rules ask for less tilt than this, who leans
as far as they ask for is down, and not up."""

_BEFORE_S = 1.5  # from upright to the fastest moment
_AFTER_S = 1.5  # from that to lying
_UP_AFTER_S = 0.7
_GAP_S = 0.5  # without the person: what happened in between is not known
_LEAST_SPAN_S = 0.08
_LENGTH_GAIN = 0.1
_GIVES_DEG = 10.0
"""Who is down may lean by so much less and still be down."""
_LEAST_DROP_BL = 0.22
"""From a chair to the floor is more; sitting down, which tilts nobody, about as much."""
_IMPOSSIBLE_BL_S = 3.5
"""The trunk of somebody who drops from standing, in free fall, reaches 2.5: what is faster is another body's."""


@dataclass(frozen=True, slots=True)
class _Moment:
    at_s: float
    y_px: float
    tilt_deg: float


@dataclass(slots=True)
class _Descent:
    """Somebody who was upright goes down fast, at `at_s` fastest. upright_s: the last moment upright before that.
    top_px: the highest before it. down_s: since when the trunk is level. tilts_deg: since then."""

    at_s: float
    speed_bl_s: float
    upright_s: float
    top_px: float
    tilt_before_deg: float
    down_s: float | None = None
    tilts_deg: list[float] = field(default_factory=list)


class FallWatch:
    """One person's. For one thread."""

    def __init__(self) -> None:
        self._past: deque[_Moment] = deque()
        self._length_px = 0.0
        self._descent: _Descent | None = None
        self._up_since_s: float | None = None
        self._fall: FallEvidence | None = None

    def update(
        self, monotonic_ns: int, pose: Pose, now: Kinematics, height_px: int, rules: FallRules
    ) -> FallEvidence | None:
        """What speaks for a fall after which this person is still down: from the moment it is suspected until the
        person is upright again. While the trunk is not seen nothing changes. height_px: of the picture."""
        trunk = trunk_of(pose.skeleton)
        if now.tilt_deg is None or not now.length_px or (pose.visibility[trunk] < VISIBLE).any():
            return self._fall
        y_px = float(pose.image_xyz[trunk, 1].sum()) / len(trunk) * height_px
        moment = _Moment(monotonic_ns / 1e9, y_px, now.tilt_deg)
        if self._past and not 0 < moment.at_s - self._past[-1].at_s <= _GAP_S:
            self._forget()
        if moment.tilt_deg <= UPRIGHT_DEG or not self._length_px:  # the length of who lies is hard to tell
            share = _LENGTH_GAIN if self._length_px else 1.0
            self._length_px += share * (now.length_px - self._length_px)
        self._past.append(moment)
        while moment.at_s - self._past[0].at_s > _BEFORE_S:
            self._past.popleft()
        if self._fall is None:
            self._look_for_descent(moment, rules)
            self._look_whether_down(moment, rules)
        elif self._is_up_again(moment, rules):
            self._fall = None
            self._forget()
        return self._fall

    def _forget(self) -> None:
        self._past.clear()
        self._descent = self._up_since_s = None

    def _look_for_descent(self, moment: _Moment, rules: FallRules) -> None:
        speed_bl_s = self._speed_bl_s(moment)
        if speed_bl_s > _IMPOSSIBLE_BL_S:
            self._forget()
            return
        before = self._descent
        if speed_bl_s < rules.speed_bl_s or (before and (before.down_s or speed_bl_s <= before.speed_bl_s)):
            return
        upright = [each for each in self._past if _is_up(each, rules)]
        if upright:
            self._descent = _Descent(
                at_s=moment.at_s,
                speed_bl_s=speed_bl_s,
                upright_s=upright[-1].at_s,
                top_px=min(each.y_px for each in self._past),
                tilt_before_deg=min(each.tilt_deg for each in upright),
            )

    def _speed_bl_s(self, moment: _Moment) -> float:
        """How fast the trunk goes down, over SPEED_OVER_S or from the frame before where frames are rarer."""
        then = next((each for each in reversed(self._past) if moment.at_s - each.at_s >= SPEED_OVER_S), self._past[0])
        passed_s = moment.at_s - then.at_s
        return (moment.y_px - then.y_px) / passed_s / self._length_px if passed_s >= _LEAST_SPAN_S else 0.0

    def _look_whether_down(self, moment: _Moment, rules: FallRules) -> None:
        descent = self._descent
        if descent is None:
            return
        drop_bl = (moment.y_px - descent.top_px) / self._length_px
        if descent.down_s is None:
            if moment.at_s - descent.at_s > _AFTER_S:
                self._descent = None
                return
            if _is_up(moment, rules):
                descent.upright_s = moment.at_s
            if moment.tilt_deg < rules.tilt_deg or drop_bl < _LEAST_DROP_BL:
                return
            descent.down_s = moment.at_s
        if moment.tilt_deg < rules.tilt_deg - _GIVES_DEG or drop_bl < _LEAST_DROP_BL:
            descent.down_s = None
            descent.tilts_deg.clear()
            return
        descent.tilts_deg.append(moment.tilt_deg)
        if moment.at_s - descent.down_s >= rules.still_s:
            self._fall = _evidence(descent, drop_bl, moment.at_s, rules)
            self._forget()

    def _is_up_again(self, moment: _Moment, rules: FallRules) -> bool:
        if not _is_up(moment, rules):
            self._up_since_s = None
            return False
        if self._up_since_s is None:
            self._up_since_s = moment.at_s
        return moment.at_s - self._up_since_s >= _UP_AFTER_S


def _is_up(moment: _Moment, rules: FallRules) -> bool:
    return moment.tilt_deg <= UPRIGHT_DEG and moment.tilt_deg < rules.tilt_deg


def _evidence(descent: _Descent, drop_bl: float, now_s: float, rules: FallRules) -> FallEvidence:
    assert descent.down_s is not None, "it is suspected only of who is down"
    tilt_deg = sum(descent.tilts_deg) / len(descent.tilts_deg)
    beyond_speed = (descent.speed_bl_s - rules.speed_bl_s) / rules.speed_bl_s
    beyond_tilt = (tilt_deg - rules.tilt_deg) / max(90 - rules.tilt_deg, 1)
    confidence = 0.5 + 0.25 * min(1.0, beyond_speed) + 0.25 * min(1.0, max(0.0, beyond_tilt))
    return FallEvidence(
        speed_bl_s=descent.speed_bl_s,
        drop_bl=drop_bl,
        tilt_before_deg=descent.tilt_before_deg,
        tilt_deg=tilt_deg,
        took_s=descent.down_s - descent.upright_s,
        down_s=now_s - descent.down_s,
        confidence=confidence,
    )
