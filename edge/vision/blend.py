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

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edge.vision.pose import Float32Array, Pose

FloatArray = NDArray[np.float64]

GONE_S = 0.5
"""A person, or what a tracker said of them, that is older than this counts for nothing."""

FULL_INTERVAL_S, OFF_INTERVAL_S = 0.105, 0.130
"""Frames at most so far apart are blended in full, frames at least so far apart not at all; in between it fades."""

_FRESH_FRAMES = 3
"""A tracker that has had none of the last so many frames times the number of trackers is left out."""

_VELOCITY_GAIN = 0.5
_POWER_GAIN = 0.15

_JUMP = 0.5
"""Nobody moves by more than this part of their own size (width + height) from one frame to the next."""

# What doesn't matter: columns image x, y, z (fractions), world x, y, z (metres), visibility. Errors as small as this
# are blended whatever they come from, since their squares say nothing.
_FLOOR = np.array([1e-3, 1e-3, 1e-3, 3e-3, 3e-3, 3e-3, 1e-2]) ** 2


class TrackerBlend:
    """The poses of one camera whose frames were dealt to several trackers, for one pipeline's thread."""

    def __init__(self) -> None:
        self._first_tracker: int | None = None
        self._several = False
        self._last_ns: int | None = None
        self._interval_s = 0.0
        self._people: list[_Person] = []

    def blend(self, tracker: int, monotonic_ns: int, poses: tuple[Pose, ...]) -> tuple[Pose, ...]:
        """The poses of one frame, as many and in the same order, their masks untouched.

        Called for every frame in order, also for those without people. tracker: who found them, any number. A time
        that is not after the last one begins anew. While only one tracker has been seen, and for a person who is new,
        has been gone for GONE_S or has jumped, the poses are the caller's own objects.
        """
        if self._last_ns is not None and monotonic_ns <= self._last_ns:
            self._people, self._last_ns = [], None
        if self._first_tracker is None:
            self._first_tracker = tracker
        self._several = self._several or tracker != self._first_tracker
        now_s = monotonic_ns / 1e9
        if self._last_ns is not None:
            interval_s = min((monotonic_ns - self._last_ns) / 1e9, GONE_S)
            self._interval_s += 0.2 * (interval_s - self._interval_s) if self._interval_s else interval_s
        self._last_ns = monotonic_ns
        strength = (OFF_INTERVAL_S - self._interval_s) / (OFF_INTERVAL_S - FULL_INTERVAL_S)
        strength = min(max(strength, 0.0), 1.0)

        known = [person for person in self._people if now_s - person.seen_s <= GONE_S]
        found = [_columns(pose) for pose in poses]
        matched = _match(known, found)
        blended = []
        for pose, columns, person in zip(poses, found, matched, strict=True):
            if person is None:
                person = _Person()  # noqa: PLW2901
                known.append(person)
            correction = person.follow(tracker, now_s, columns, self._interval_s)
            if correction is None or not self._several or not strength:
                blended.append(pose)
            else:
                blended.append(_pose(pose, columns - strength * correction))
        self._people = known
        if all(after is before for after, before in zip(blended, poses, strict=True)):
            return poses
        return tuple(blended)


class _Person:
    """What each tracker said last of one person, as columns (K, 7)."""

    def __init__(self) -> None:
        self.seen_s = 0.0
        self.last: FloatArray = np.empty(0)
        self._said: dict[int, tuple[float, FloatArray]] = {}
        self._errors: dict[int, FloatArray] = {}
        self._velocity: FloatArray | None = None
        self._lean: FloatArray | None = None
        self._bend: FloatArray | None = None

    def follow(self, tracker: int, now_s: float, found: FloatArray, interval_s: float) -> FloatArray | None:
        """What to subtract from `found`, None where nothing is known yet."""
        own = self._said.get(tracker)
        self._said[tracker] = (now_s, found)
        self.seen_s, self.last = now_s, found
        fresh_s = min(GONE_S, (_FRESH_FRAMES * len(self._said) + 0.5) * interval_s)
        if own is None or now_s - own[0] > fresh_s:
            self._errors.pop(tracker, None)
            return None
        velocity = (found - own[1]) / (now_s - own[0])
        if self._velocity is None:
            self._velocity = velocity
        else:
            self._velocity += _VELOCITY_GAIN * (velocity - self._velocity)
        for other in [other for other, (said_s, _) in self._said.items() if now_s - said_s > fresh_s]:
            del self._said[other]
            self._errors.pop(other, None)
        others = [said + self._velocity * (now_s - said_s) for said_s, said in self._said.values() if said is not found]
        if not others:
            return None
        error = found - (others[0] if len(others) == 1 else sum(others) / len(others))
        self._errors[tracker] = error
        common = sum(self._errors.values()) / len(self._errors)
        lean, bend = (error - common) ** 2, common**2
        if len(self._errors) == 1:
            lean, bend = _FLOOR, 0 * bend
        if self._lean is None or self._bend is None:
            self._lean, self._bend = lean, bend
        else:
            self._lean = self._lean + _POWER_GAIN * (lean - self._lean)
            self._bend = self._bend + _POWER_GAIN * (bend - self._bend)
        lean = self._lean + _FLOOR
        share = len(others) / (len(others) + 1)
        return share * lean / (lean + self._bend) * error


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
