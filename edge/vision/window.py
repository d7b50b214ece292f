"""What a camera's people did over a while: means, ranges and how active they were, not just the last frame."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation, Person
from edge.vision.posture import Posture

FloatArray = NDArray[np.float64]

_ANGLES = slice(0, len(JOINTS))
_TILT, _SPEED, _ACTIVITY, _SCORE = range(len(JOINTS), len(JOINTS) + 4)
_LEFT_HAND, _RIGHT_HAND = slice(_SCORE + 1, _SCORE + 4), slice(_SCORE + 4, _SCORE + 7)
_FACING_X, _FACING_Y = _SCORE + 7, _SCORE + 8
_COUNT = _FACING_Y + 1

Vector = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class Range:
    """A value's mean over those of the window's frames in which it is known, the least and the most of it."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True, slots=True, eq=False)
class PersonWindow:
    """One person over a window. What is known in none of its frames is None, or not among the angles.

    last: as in the last frame with this person. frames: in how many the person is seen. age_s: from the first frame
    with this person ever to `last`. angles_deg: by joint. facing_deg: the mean direction. postures: the share of the
    frames in each, those in which it is unknown included. hands: as `Kinematics.left_hand_m`, means.
    """

    last: Person
    frames: int
    age_s: float
    posture_s: float
    score: float
    angles_deg: dict[str, Range]
    tilt_deg: Range | None
    facing_deg: float | None
    left_hand_m: Vector | None
    right_hand_m: Vector | None
    speed_bl_s: Range | None
    activity_m_s: Range | None
    postures: dict[Posture, float]


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Frames in a row of one camera. last: the newest. span_s: from the oldest frame to it. most: people at once.
    people: everybody who was seen, in the order of their ids."""

    last: Observation
    frames: int
    span_s: float
    most: int
    people: tuple[PersonWindow, ...]


class SummaryWindow:
    """Gathers one camera's observations until somebody takes what they say together. For one thread.

    What it keeps does not grow with the number of frames.
    """

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._first_ns = 0
        self._last: Observation | None = None
        self._frames = self._most = 0
        self._people: dict[int, _Sums] = {}

    def add(self, observation: Observation) -> None:
        if self._last is None:
            self._first_ns = observation.monotonic_ns
        self._last = observation
        self._frames += 1
        self._most = max(self._most, len(observation.people))
        for person in observation.people:
            sums = self._people.get(person.person_id)
            if sums is None:
                sums = self._people[person.person_id] = _Sums()
            sums.add(person, observation.monotonic_ns)

    def take(self) -> Window | None:
        """What was added since the last time, and begin anew; None when that is nothing."""
        last = self._last
        if last is None:
            return None
        span_s = (last.monotonic_ns - self._first_ns) / 1e9
        people = tuple(self._people[person_id].taken() for person_id in sorted(self._people))
        window = Window(last, self._frames, span_s, self._most, people)
        self._begin()
        return window


class _Sums:
    """Of one person's values, NaN where one is not known: how many, their sum, the least and the most."""

    def __init__(self) -> None:
        self._counts = np.zeros(_COUNT, np.int64)
        self._sums = np.zeros(_COUNT)
        self._least, self._most = np.full(_COUNT, np.inf), np.full(_COUNT, -np.inf)
        self._postures: Counter[Posture] = Counter()
        self._frames = 0
        self._last: Person | None = None
        self._last_ns = 0

    def add(self, person: Person, monotonic_ns: int) -> None:
        values = _values(person)
        known = ~np.isnan(values)
        self._counts += known
        self._sums += np.where(known, values, 0.0)
        np.fmin(self._least, values, out=self._least)
        np.fmax(self._most, values, out=self._most)
        self._postures[person.posture.posture] += 1
        self._frames += 1
        self._last, self._last_ns = person, monotonic_ns

    def taken(self) -> PersonWindow:
        assert self._last is not None, "it is made for a person"
        known = self._counts > 0
        means = (self._sums / np.maximum(self._counts, 1)).tolist()
        least, most = self._least.tolist(), self._most.tolist()

        def span(at: int) -> Range | None:
            return Range(means[at], least[at], most[at]) if known[at] else None

        def vector(of: slice) -> Vector | None:
            x, y, z = means[of]
            return (x, y, z) if known[of].all() else None

        angles = {joint: found for at, joint in enumerate(JOINTS) if (found := span(at)) is not None}
        facing = math.degrees(math.atan2(means[_FACING_Y], means[_FACING_X])) if known[_FACING_X] else None
        return PersonWindow(
            last=self._last,
            frames=self._frames,
            age_s=(self._last_ns - self._last.since_ns) / 1e9,
            posture_s=max(0, self._last_ns - self._last.posture.since_ns) / 1e9,
            score=means[_SCORE],
            angles_deg=angles,
            tilt_deg=span(_TILT),
            facing_deg=facing,
            left_hand_m=vector(_LEFT_HAND),
            right_hand_m=vector(_RIGHT_HAND),
            speed_bl_s=span(_SPEED),
            activity_m_s=span(_ACTIVITY),
            postures={posture: count / self._frames for posture, count in self._postures.items()},
        )


def _values(person: Person) -> FloatArray:
    now, motion, nan = person.kinematics, person.motion, math.nan
    facing = nan if now.facing_deg is None else math.radians(now.facing_deg)
    rest = [
        nan if now.tilt_deg is None else now.tilt_deg,
        nan if motion.speed_bl_s is None else motion.speed_bl_s,
        nan if motion.activity_m_s is None else motion.activity_m_s,
        person.pose.score,
        *((nan, nan, nan) if now.left_hand_m is None else now.left_hand_m),
        *((nan, nan, nan) if now.right_hand_m is None else now.right_hand_m),
        math.cos(facing),
        math.sin(facing),
    ]
    angles = [nan] * len(JOINTS) if now.angles_deg is None else now.angles_deg.tolist()
    return np.array([*angles, *rest])
