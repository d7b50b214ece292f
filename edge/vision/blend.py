"""Several trackers that share a camera's frames, made to look like one.

Each tracker of a pool of landmarkers looks for the person where it found them last, and its answer leans with the crop
that this gives: two trackers differ by a pixel or so, slowly changing, and when they take turns the pose trembles at
half the frame rate. Averaging frames would take that out and add lag. Here each result is compared with what the other
trackers would have said at the same instant, namely their last results carried forward at the person's velocity:

    error = found - mean(others carried forward)
    blended = found - weight * error,  weight = (n - 1) / n * lean / (lean + bend)

n trackers give each an equal say by the first factor. The second asks whether the error is a difference between
trackers, which belongs to the tracker and so changes with it (lean), or the carrying forward went wrong because the
motion is curved, which all trackers see alike (bend): squares, averaged over the last few frames, of the current error
less the mean of all trackers' newest errors, and of that mean. So fast motion is left as it was found, coordinate by
coordinate. tests/measure/accuracy.py gives the figures, docs/performance.md has them.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from edge.vision.pose import Float32Array, Pose

FloatArray = NDArray[np.float64]

GONE_S = 0.5
"""A person, or what a tracker said of one, that is older than this counts for nothing."""

# Somebody running, from two sides, jitter without -> with the blend always on and what it does to the difference from
# one landmarker: at 15 frames/s 1.19 -> 0.96 (0 %) and 1.18 -> 0.92 (+5 %), at 10 1.13 -> 1.00 and 1.20 -> 1.00 (+5 %),
# at 7.5 1.03 -> 0.95 and 1.07 -> 0.97 (+10 %), at 5 0.99 -> 0.92 and 1.04 -> 0.95 (+29, +24 %). It ends below 10.
FULL_INTERVAL_S, OFF_INTERVAL_S = 0.105, 0.130
"""Frames at most so far apart are blended in full, frames at least so far apart not at all; in between it fades."""

# MediaPipe smooths only one person. Of two, each tracker's own noise is most of what differs, and the blend in full
# smooths it beyond one landmarker's (jitter 0.64-0.80) with lag (0.1 to 0.3 frames); so much of it gives 0.89-1.02.
SEVERAL_STRENGTH = 0.25

_FRESH_FRAMES = 3
"""A tracker that has had none of the last so many frames times the number of trackers is left out."""

_VELOCITY_GAIN = 0.4
_POWER_GAIN = 0.15
_INTERVAL_GAIN = 0.2

_JUMP = 0.5
"""Nobody moves by more than this part of their own width + height from one frame to the next."""

_WILD = 1.0
"""A correction beyond the frame's width or a metre is none: two frames of one tracker had almost the same time."""

# Columns image x, y, z (fractions), world x, y, z (metres), visibility. Errors as small as this are blended whatever
# they come from, since their squares say nothing.
_FLOOR = np.array([2e-3, 2e-3, 2e-3, 5e-3, 5e-3, 5e-3, 1e-2]) ** 2


class TrackerBlend:
    """The poses of one camera whose frames were dealt to several trackers. For one thread.

    max_people: the trackers' own. Where it is more than 1, MediaPipe looks for people in every frame in which it has
    fewer: its answers then depend on the frame alone, are those of one landmarker to the bit, and pass unchanged.
    """

    def __init__(self, *, max_people: int = 1) -> None:
        self._max_people = max_people
        self._first_tracker: int | None = None
        self._several_trackers = False
        self._last_ns: int | None = None
        self._interval_s = 0.0
        self._people: list[_Person] = []

    def blend(self, tracker: int, monotonic_ns: int, poses: tuple[Pose, ...]) -> tuple[Pose, ...]:
        """The poses of one frame, as many and in the same order, their masks untouched.

        Called for every frame in order, also for those without people. tracker: who found them, any number. A time
        that is not after the last one begins anew. While only one tracker has been seen, and for a person who is new,
        has been gone for GONE_S or has jumped, the poses are the caller's own objects.
        """
        self._advance(tracker, monotonic_ns)
        if not self._several_trackers:
            return poses
        now_s = monotonic_ns / 1e9
        known = self._people = [person for person in self._people if now_s - person.seen_s <= GONE_S]
        found = [_columns(pose) for pose in poses]
        strength = self._strength(len(poses))
        blended = list(poses)
        for at, person in enumerate(_match(known, found)):
            if person is None:
                person = _Person()  # noqa: PLW2901
                known.append(person)
            correction = person.follow(tracker, now_s, found[at], self._interval_s)
            if correction is not None and strength:
                blended[at] = _pose(poses[at], found[at] - strength * correction)
        unchanged = all(after is before for after, before in zip(blended, poses, strict=True))
        return poses if unchanged else tuple(blended)

    def _advance(self, tracker: int, monotonic_ns: int) -> None:
        if self._last_ns is not None and monotonic_ns <= self._last_ns:
            self._people, self._last_ns, self._interval_s = [], None, 0.0
            self._first_tracker, self._several_trackers = None, False
        if self._first_tracker is None:
            self._first_tracker = tracker
        self._several_trackers = self._several_trackers or tracker != self._first_tracker
        if self._last_ns is not None:
            interval_s = min((monotonic_ns - self._last_ns) / 1e9, GONE_S)
            gain = _INTERVAL_GAIN if self._interval_s else 1.0
            self._interval_s += gain * (interval_s - self._interval_s)
        self._last_ns = monotonic_ns

    def _strength(self, people: int) -> float:
        """0..1: how much of the correction is made."""
        if people < self._max_people:
            return 0.0
        fading = (OFF_INTERVAL_S - self._interval_s) / (OFF_INTERVAL_S - FULL_INTERVAL_S)
        return min(max(fading, 0.0), 1.0) * (1.0 if people == 1 else SEVERAL_STRENGTH)


class _Person:
    """What each tracker said last of one person, as columns (K, 7)."""

    def __init__(self) -> None:
        self.seen_s = 0.0
        self.last: FloatArray = np.empty((0, 7))
        self._said: dict[int, tuple[float, FloatArray]] = {}
        self._errors: dict[int, FloatArray] = {}
        self._velocity: FloatArray | None = None
        self._lean: FloatArray = _FLOOR
        self._bend: FloatArray = np.zeros(7)

    def follow(self, tracker: int, now_s: float, found: FloatArray, interval_s: float) -> FloatArray | None:
        """What to subtract from `found`, None where nothing is known yet."""
        self.seen_s, self.last = now_s, found
        fresh_s = min(GONE_S, (_FRESH_FRAMES * max(len(self._said), 2) + 0.5) * interval_s)
        for stale in [each for each, (said_s, _) in self._said.items() if now_s - said_s > fresh_s]:
            del self._said[stale]
            self._errors.pop(stale, None)
        own = self._said.pop(tracker, None)
        others = list(self._said.values())
        self._said[tracker] = (now_s, found)
        if own is None:
            if not others:
                self._velocity = None
            return None
        velocity = (found - own[1]) / (now_s - own[0])
        before = self._velocity
        carried = self._velocity = velocity if before is None else before + _VELOCITY_GAIN * (velocity - before)
        if not others:
            return None
        error = found - _mean([said + carried * (now_s - said_s) for said_s, said in others])
        self._errors[tracker] = error
        if len(self._errors) > 1:  # one error alone says nothing of where it comes from
            common = _mean(list(self._errors.values()))
            self._lean = self._lean + _POWER_GAIN * ((error - common) ** 2 - self._lean)
            self._bend = self._bend + _POWER_GAIN * (common**2 - self._bend)
        lean = self._lean + _FLOOR
        correction: FloatArray = error * (len(others) / (len(others) + 1) * lean / (lean + self._bend))
        return correction if np.abs(correction).max() <= _WILD else None


def _mean(arrays: Collection[FloatArray]) -> FloatArray:
    first, *rest = arrays
    for each in rest:
        first = first + each
    return first / len(arrays) if rest else first


def _match(known: list[_Person], found: list[FloatArray]) -> list[_Person | None]:
    """Who of the known each of the found is: the nearest pairs first, nobody twice, None for the new."""
    distances = []
    for at, columns in enumerate(found):
        size = float((columns[:, :2].max(axis=0) - columns[:, :2].min(axis=0)).sum())
        for who, person in enumerate(known):
            distance = float(np.abs(columns[:, :2] - person.last[:, :2]).sum()) / len(columns)
            if distance <= _JUMP * size:
                distances.append((distance, at, who))
    matched: list[_Person | None] = [None] * len(found)
    taken: set[int] = set()
    for _, at, who in sorted(distances):
        if matched[at] is None and who not in taken:
            matched[at] = known[who]
            taken.add(who)
    return matched


def _columns(pose: Pose) -> FloatArray:
    """(K, 7) float64: image x, y, z, world x, y, z (zeros without), visibility."""
    columns = np.zeros((len(pose.visibility), 7))
    columns[:, :3] = pose.image_xyz
    if pose.world_m is not None:
        columns[:, 3:6] = pose.world_m
    columns[:, 6] = pose.visibility
    return columns


def _pose(pose: Pose, columns: FloatArray) -> Pose:
    image: Float32Array = columns[:, :3].astype(np.float32)
    world: Float32Array = columns[:, 3:6].astype(np.float32)
    visibility: Float32Array = columns[:, 6].clip(0.0, 1.0).astype(np.float32)
    return Pose(pose.skeleton, image, visibility, None if pose.world_m is None else world, pose.mask)
