"""A drawn figure that waves and walks: a camera for machines that have none, and for tests that need no file."""

from __future__ import annotations

import math
import time
from types import TracebackType
from typing import Literal, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.clocks import CaptureClock, Clock
from edge.vision.frame import Frame, Picture, PixelLayout, UInt8Array

_SKIN = (224, 172, 138)
_HAIR = (62, 43, 32)
_SHIRT = (38, 84, 156)
_SLEEVE = (52, 104, 184)
_TROUSERS = (58, 58, 66)
_SHOE = (24, 24, 26)
_LIPS = (176, 82, 78)
_NOSE = (200, 145, 112)

Vector = NDArray[np.float64]


class SyntheticSource:
    """A person, 80 % of the picture's height, drawn anew for each frame. What it does depends on the frame's seq only.

    pace: "realtime" gives `fps` frames a second and behaves like a camera (the newest frame wins); "unlimited" draws as
    fast as the frames are taken. The times are `fps` apart in both.
    """

    def __init__(
        self,
        camera: str,
        *,
        width_px: int,
        height_px: int,
        fps: float,
        pace: Literal["realtime", "unlimited"] = "realtime",
    ) -> None:
        self._camera = camera
        self._width_px = width_px
        self._height_px = height_px
        self._fps = fps
        self._paced = pace == "realtime"
        self._background = _room(width_px, height_px)
        self._seq = 0
        self._clock = CaptureClock()
        self._first_ns: int | None = None

    @property
    def opening(self) -> bool:
        return False  # entering is opening

    @property
    def live(self) -> bool:
        return self._paced

    def __enter__(self) -> Self:
        if self._first_ns is None:
            self._first_ns = self._clock.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def read(self, timeout_s: float) -> Frame | None:
        assert self._first_ns is not None, "read comes after entering"
        media_ns = int(self._seq * 1e9 / self._fps)
        early_s = (self._first_ns + media_ns - time.monotonic_ns()) / 1e9
        if self._paced and early_s > 0:
            time.sleep(min(early_s, timeout_s))
            if early_s > timeout_s:
                return None
        at_ns = self._first_ns + media_ns
        instant = self._clock.at(at_ns, Clock.MONOTONIC) if self._paced else self._clock.media(media_ns)
        frame = Frame(
            camera=self._camera,
            seq=self._seq,
            captured_ns=instant.captured_ns,
            monotonic_ns=instant.monotonic_ns,
            rgb=Picture(draw(self._background, phase=self._seq / self._fps), PixelLayout.RGB),
        )
        self._seq += 1
        return frame


def draw(background: UInt8Array, *, phase: float) -> UInt8Array:
    """(height, width, 3) uint8 RGB: the figure in front of `background`, `phase` seconds into its movement."""
    picture: UInt8Array = background.copy()
    height_px, width_px = picture.shape[:2]
    unit = 0.1 * height_px  # the figure is eight units tall
    swing = math.sin(2 * math.pi * 0.8 * phase)
    wave = math.sin(2 * math.pi * 1.3 * phase)
    middle = np.array([width_px / 2 + 0.6 * unit * math.sin(0.7 * phase), 0.1 * height_px])

    def at(x: float, y: float) -> Vector:
        point: Vector = middle + np.array([x, y]) * unit
        return point

    def limb(start: Vector, end: Vector, thick: float, thin: float, colour: tuple[int, int, int]) -> None:
        along = end - start
        across = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-6)
        corners = [
            start + across * thick * unit,
            end + across * thin * unit,
            end - across * thin * unit,
            start - across * thick * unit,
        ]
        cv2.fillConvexPoly(picture, np.array(corners, np.int32), colour, cv2.LINE_AA)
        for centre, radius in ((start, thick), (end, thin)):
            cv2.circle(picture, centre.astype(int).tolist(), max(1, int(radius * unit)), colour, -1, cv2.LINE_AA)

    def line(start: Vector, end: Vector, thickness: int, colour: tuple[int, int, int]) -> None:
        cv2.line(picture, start.astype(int).tolist(), end.astype(int).tolist(), colour, thickness, cv2.LINE_AA)

    for side in (-1, 1):  # legs: the picture's left is the person's right
        hip, knee = at(0.42 * side, 4.0), at(0.48 * side + 0.1 * swing, 5.8 + 0.12 * swing * side)
        ankle = at(0.5 * side, 7.6 + 0.1 * swing * side)
        limb(hip, knee, 0.42, 0.27, _TROUSERS)
        limb(knee, ankle, 0.27, 0.17, _TROUSERS)
        limb(ankle, ankle + np.array([0.35 * side, 0.18]) * unit, 0.17, 0.12, _SHOE)
    torso = [at(-0.95, 1.55), at(0.95, 1.55), at(0.72, 3.2), at(0.75, 4.2), at(-0.75, 4.2), at(-0.72, 3.2)]
    cv2.fillPoly(picture, [np.array(torso, np.int32)], _SHIRT, cv2.LINE_AA)
    for side in (-1, 1):
        shoulder = at(0.9 * side, 1.75)
        if side < 0:  # the hand that waves
            elbow, wrist = at(-1.75, 2.5), at(-1.9 + 0.5 * wave, 1.1)
        else:
            elbow, wrist = at(1.2 + 0.1 * swing, 3.1), at(1.25 + 0.3 * swing, 4.4)
        limb(shoulder, elbow, 0.32, 0.24, _SLEEVE)
        limb(elbow, wrist, 0.22, 0.14, _SKIN)
        hand = wrist + (wrist - elbow) / max(float(np.hypot(*(wrist - elbow))), 1e-6) * 0.25 * unit
        limb(wrist, hand, 0.15, 0.16, _SKIN)
    limb(at(0, 1.0), at(0, 1.6), 0.25, 0.3, _SKIN)
    head = at(0, 0.55).astype(int).tolist()
    cv2.ellipse(picture, head, (int(0.48 * unit), int(0.62 * unit)), 0, 0, 360, _SKIN, -1, cv2.LINE_AA)
    cv2.ellipse(picture, at(0, 0.3).astype(int).tolist(), (int(0.5 * unit), int(0.42 * unit)), 0, 180, 360, _HAIR, -1)
    for side in (-1, 1):
        eye = at(0.19 * side, 0.5).astype(int).tolist()
        cv2.circle(picture, eye, max(1, int(0.085 * unit)), (250, 250, 250), -1, cv2.LINE_AA)
        cv2.circle(picture, eye, max(1, int(0.045 * unit)), (40, 30, 30), -1, cv2.LINE_AA)
        cv2.circle(picture, at(0.5 * side, 0.6).astype(int).tolist(), max(1, int(0.1 * unit)), _SKIN, -1, cv2.LINE_AA)
        line(at(0.1 * side, 0.36), at(0.3 * side, 0.36), 1, _HAIR)
    nose = np.array([at(0, 0.5), at(-0.08, 0.72), at(0.08, 0.72)], np.int32)
    cv2.fillConvexPoly(picture, nose, _NOSE, cv2.LINE_AA)
    line(at(-0.15, 0.9), at(0.15, 0.9), 2, _LIPS)
    return picture


def _room(width_px: int, height_px: int) -> UInt8Array:
    """A wall that darkens upwards and a floor."""
    shade = np.linspace(188, 222, height_px, dtype=np.float32)[:, None]
    floor = np.arange(height_px)[:, None] > 0.82 * height_px
    grey = np.where(floor, shade * 0.72, shade)
    room = np.stack([grey * 0.99, grey, grey * 1.01], axis=-1).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(room, (height_px, width_px, 3)))
