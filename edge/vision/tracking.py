"""Who is who from frame to frame: each person's poses followed under one id.

A person of whom a pose was found is expected where their motion takes them, and that pose of the next frame is theirs
which is most like it; all pairs are weighed together. What may make a fool of it, and what is done about it:

- An estimator may report one person twice: poses that are almost the same are one, and who is almost the same as
  somebody else does not come into being.
- It may see somebody who is not there: only who was found several times is anybody.
- It may lose somebody for a while, behind another person or a pillar: they are away, expected further and further
  around where they went, and are themselves again when they are found there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge.vision.assignment import assign
from edge.vision.pose import Pose
from edge.vision.similarity import FloatArray, in_pixels, scale_px, similarity


@dataclass(frozen=True, slots=True, eq=False)
class Tracked:
    """Somebody who is seen in this frame. pose: as the estimator found it. since_ns: the monotonic_ns of the first
    frame with this person."""

    person_id: int
    pose: Pose
    since_ns: int


@dataclass(frozen=True, slots=True, eq=False)
class Following:
    """present: who is seen, in the order of their ids. away: the ids of those who are not, but may only be hidden.
    gone: of those who are given up with this frame."""

    present: tuple[Tracked, ...] = ()
    away: tuple[int, ...] = ()
    gone: tuple[int, ...] = ()


_ALIKE = 0.3
"""Two poses less alike are not one person's."""
_TWICE = 0.7
"""Two poses of one frame that are more alike are one person."""
_DOUBTFUL = 0.4
"""Somebody as much like another one of the same frame does not come into being."""

_HITS, _BORN_AFTER_S = 3, 0.1
_HITS_OF_SLOW, _BORN_AFTER_SLOW_S = 2, 0.25
_NEVER_WAS_AFTER_S = 0.3
_LEAST_SCORE = 0.3
_A_HAIR_S = 1e-6  # frames' times are rounded

_DRIFT = 0.9
"""How far somebody may be, after a second, from where they were expected, in their own scale: a quick change of
direction, with arms and legs."""
_MOST_DRIFT = 1.5
_FOUND_AGAIN = 0.25
"""And so far besides, when they were lost in between: who is found anew is found less exactly at first."""
_KEEPS_GOING_S = 0.5
"""Somebody who is not seen goes on as before for about so long, then stays: nobody knows."""
_VELOCITY_S = 0.15
_TYPICAL_K = 0.15
"""Of the constants of similarity, about the middle."""
_SIZES_ALIKE = 0.35
"""The standard deviation of the logarithm of a person's scale from one time to the next, as bodies bend; it tells the
near from the far."""


class Tracker:
    """One camera's. For one thread.

    The people of the first frame are somebody at once: a picture has but one frame. forget_after_s may be changed
    between frames.
    """

    def __init__(self, ids: Iterator[int], *, forget_after_s: float = 2.0) -> None:
        """ids: those that people get, one after the other."""
        self.forget_after_s = forget_after_s
        self._ids = ids
        self._tracks: list[_Track] = []
        self._begun = False
        self._last_s: float | None = None
        self._interval_s: float | None = None

    def clear(self) -> tuple[int, ...]:
        """Forget everybody; the ids of those who were there."""
        ids = tuple(track.person_id for track in self._tracks if track.person_id)
        self._tracks.clear()
        self._begun = False
        return ids

    def follow(self, monotonic_ns: int, width_px: int, height_px: int, poses: Sequence[Pose]) -> Following:
        """The people of one frame, in which `poses` were found; also for frames without any, in their order. Each pose
        is in a frame of width_px by height_px."""
        now_s = monotonic_ns / 1e9
        for track in self._tracks:
            track.begin_frame()
        patience = _Patience(self.forget_after_s, self._usual_interval_s(now_s))
        gone = [track.person_id for track in self._tracks if track.person_id and patience.is_over(track, now_s)]
        self._tracks = [track for track in self._tracks if not patience.is_over(track, now_s)]
        found = [_Found(pose, in_pixels(pose, width_px, height_px)) for pose in poses]
        found, doubtful = _once(found, self._tracks, now_s)
        somebody = [track for track in self._tracks if track.person_id]
        left = self._match(somebody, found, now_s)
        left = self._match([track for track in self._tracks if not track.person_id], left, now_s)
        for each in left:
            if each.pose.score >= _LEAST_SCORE and each not in doubtful:
                self._tracks.append(_Track(each, now_s, monotonic_ns))
        for track in self._tracks:
            if not track.person_id and (not self._begun or track.is_born(now_s)):
                track.person_id = next(self._ids)
        self._begun = True
        for track in self._tracks:
            track.end_frame()
        here = sorted((track for track in self._tracks if track.person_id), key=lambda track: track.person_id)
        return Following(
            present=tuple(
                Tracked(track.person_id, track.found.pose, track.since_ns) for track in here if track.is_seen
            ),
            away=tuple(track.person_id for track in here if not track.is_seen),
            gone=tuple(sorted(gone)),
        )

    def _usual_interval_s(self, now_s: float) -> float:
        """Between frames. A pause is none: of the last two the smaller."""
        before, self._last_s = self._last_s, now_s
        if before is None:
            return 0.0
        last, self._interval_s = self._interval_s, now_s - before
        return self._interval_s if last is None else min(last, self._interval_s)

    def _match(self, tracks: list[_Track], found: list[_Found], now_s: float) -> list[_Found]:
        """Let each track have its pose; those that are nobody's."""
        if not tracks or not found:
            return found
        alike, certain = _alike(tracks, found, now_s)
        taken = set()
        for row, column in assign((1 - alike * certain).tolist()):
            if alike[row, column] >= _ALIKE:
                tracks[row].take(found[column], now_s)
                taken.add(column)
        return [each for at, each in enumerate(found) if at not in taken]


@dataclass(frozen=True, slots=True)
class _Patience:
    """With those who are not seen. Of a camera with a frame in ten seconds, whoever is in two frames in a row was there
    all the time."""

    forget_after_s: float
    interval_s: float

    def is_over(self, track: _Track, now_s: float) -> bool:
        patience_s = self.forget_after_s if track.person_id else _NEVER_WAS_AFTER_S
        return now_s - track.seen_s > max(patience_s, 1.5 * self.interval_s) + _A_HAIR_S


class _Found:
    """A pose of this frame, xy_px (K, 2)."""

    __slots__ = ("pose", "scale_px", "xy_px")

    def __init__(self, pose: Pose, xy_px: FloatArray) -> None:
        self.pose = pose
        self.xy_px = xy_px
        self.scale_px = max(scale_px(xy_px), 1.0)


class _Track:
    """Somebody, or nobody yet: person_id 0."""

    def __init__(self, found: _Found, now_s: float, monotonic_ns: int) -> None:
        self.person_id = 0
        self.found = found
        self.since_ns = monotonic_ns
        self.seen_s = now_s
        self.is_seen = True
        self.missed = False
        """In the frame before this one."""
        self._since_s = now_s
        self._hits = 1
        self._misses = 0
        self._velocity: FloatArray = np.zeros(2)

    def is_born(self, now_s: float) -> bool:
        """Whether it was found often and long enough to be somebody."""
        age_s = now_s - self._since_s
        if not self.is_seen or self._misses >= self._hits:
            return False
        age_s += _A_HAIR_S
        often = self._hits >= _HITS and age_s >= _BORN_AFTER_S
        return often or (self._hits >= _HITS_OF_SLOW and not self._misses and age_s >= _BORN_AFTER_SLOW_S)

    def begin_frame(self) -> None:
        self.is_seen = False

    def end_frame(self) -> None:
        self.missed = not self.is_seen
        self._misses += self.missed

    def take(self, found: _Found, now_s: float) -> None:
        """`found` is this person's."""
        passed_s = now_s - self.seen_s
        if passed_s > 0:
            weights = self.found.pose.visibility * found.pose.visibility + 1e-3
            moved = weights @ (found.xy_px - self.found.xy_px) / weights.sum()
            self._velocity = self._velocity + (1 - math.exp(-passed_s / _VELOCITY_S)) * (
                moved / passed_s - self._velocity
            )
        self.found, self.seen_s, self.is_seen = found, now_s, True
        self._hits += 1

    def expected_px(self, now_s: float) -> FloatArray:
        """(K, 2): where the keypoints should be by now."""
        passed_s = _KEEPS_GOING_S * (1 - math.exp(-(now_s - self.seen_s) / _KEEPS_GOING_S))
        expected: FloatArray = self.found.xy_px + self._velocity * passed_s
        return expected

    def drift_px(self, now_s: float) -> float:
        drift = min(_DRIFT * (now_s - self.seen_s), _MOST_DRIFT)
        return self.found.scale_px * (drift + (_FOUND_AGAIN if self.missed else 0.0))


def _alike(tracks: Sequence[_Track], found: Sequence[_Found], now_s: float) -> tuple[FloatArray, FloatArray]:
    """(M, N) of 0..1: how much each pose is what is expected of each track; and (M, 1), how exact that expectation is:
    what is expected everywhere is met by anything, and tells little. The latter is what a normal distribution's density
    loses by so much more variance, in two dimensions."""
    known = np.array([track.found.scale_px for track in tracks])
    scales = np.sqrt(known[:, None] * np.array([each.scale_px for each in found]))
    slack = np.array([track.drift_px(now_s) for track in tracks])
    alike = similarity(
        np.array([track.expected_px(now_s) for track in tracks]),
        np.array([each.xy_px for each in found]),
        a_seen=np.array([track.found.pose.visibility for track in tracks]),
        b_seen=np.array([each.pose.visibility for each in found]),
        scales_px=scales,
        slack_px=np.broadcast_to(slack[:, None], scales.shape),
        skeleton=found[0].pose.skeleton,
    )
    ratio = np.log(known[:, None] / scales) * (2 / _SIZES_ALIKE)
    blur = slack / known
    certain = _TYPICAL_K**2 / (_TYPICAL_K**2 + blur * blur)
    return alike * np.exp(-0.5 * ratio * ratio), certain[:, None]


def _once(found: list[_Found], tracks: list[_Track], now_s: float) -> tuple[list[_Found], list[_Found]]:
    """Without those who are there twice: of two, the one stays that is more like somebody who is known. And of those
    who stay, who is so much like another one that it may be nobody."""
    if len(found) < 2:
        return found, []
    known = [track for track in tracks if track.person_id]
    worth = [each.pose.score for each in found]
    if known:
        alike, certain = _alike(known, found, now_s)
        worth = ((alike * certain).max(axis=0) + 0.01 * np.array(worth)).tolist()
    each_other = _likeness(found).tolist()
    kept: list[int] = []
    for at in sorted(range(len(found)), key=lambda at: -worth[at]):
        if all(each_other[at][other] < _TWICE for other in kept):
            kept.append(at)
    doubtful = [at for at in kept if any(each_other[at][other] >= _DOUBTFUL for other in kept if other != at)]
    return [found[at] for at in kept], [found[at] for at in doubtful]


def _likeness(found: Sequence[_Found]) -> FloatArray:
    """(N, N) of 0..1: how alike the poses of one frame are."""
    places, seen = np.array([each.xy_px for each in found]), np.array([each.pose.visibility for each in found])
    scales = np.array([each.scale_px for each in found])
    return similarity(
        places,
        places,
        a_seen=seen,
        b_seen=seen,
        scales_px=np.sqrt(scales[:, None] * scales),
        slack_px=np.zeros((len(found), len(found))),
        skeleton=found[0].pose.skeleton,
    )
