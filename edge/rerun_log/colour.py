"""Colours as viewers take them to be: BT.709, whatever a stream says of itself."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.vision.frame import UInt8Array

_BT601, _BT709 = (0.299, 0.114), (0.2126, 0.0722)
"""How much red and blue weigh in luma: ITU-R BT.601-7, 2.5.1, and BT.709-6, 3.2."""


def _from_rgb(weights: tuple[float, float]) -> NDArray[np.float64]:
    """(3, 3): R, G, B of 0..1 to Y, Cb, Cr in limited range, without their offsets."""
    red, blue = weights
    luma = np.array([red, 1 - red - blue, blue])
    cb, cr = (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)), (np.array([1, 0, 0]) - luma) / (2 * (1 - red))
    return np.asarray(np.diag([219.0, 224.0, 224.0]) @ np.array([luma, cb, cr]), np.float64)


# Y changes by what the chroma of a pixel says, Cb and Cr by each other.
_TO_BT709 = _from_rgb(_BT709) @ np.linalg.inv(_from_rgb(_BT601))


class Bt709:
    """From BT.601 to BT.709, for pictures of one size in I420 (planes Y, U, V; both sides even).

    Rerun's native viewer decodes with BT.709's matrix whatever the stream says (0.41: red (255, 0, 0) came out as
    (255, 26, 0)), and cameras, MediaPipe's RGB and OpenCV give BT.601's. By planes that takes 0.2 ms for 640x480; the
    converters of FFmpeg take 0.6 to 1.0 ms.
    """

    def __init__(self, width_px: int, height_px: int) -> None:
        self._height = height_px
        self._planes = np.empty((height_px * 3 // 2, width_px), np.uint8)
        self._change = np.empty((height_px // 2, width_px // 2), np.uint8)
        self._larger = np.empty((height_px, width_px), np.uint8)

    def __call__(self, bt601: UInt8Array) -> UInt8Array:
        """(height * 3 / 2, width) uint8, both; what is returned is good until the next call."""
        luma, u, v = self._split(bt601)
        out_luma, out_u, out_v = self._split(self._planes)
        _mix(u, _TO_BT709[0, 1], v, _TO_BT709[0, 2], self._change)
        cv2.resize(self._change, self._larger.shape[::-1], dst=self._larger, interpolation=cv2.INTER_NEAREST)
        cv2.addWeighted(luma, 1.0, self._larger, 1.0, -128.0, dst=out_luma)
        _mix(u, _TO_BT709[1, 1], v, _TO_BT709[1, 2], out_u)
        _mix(u, _TO_BT709[2, 1], v, _TO_BT709[2, 2], out_v)
        return self._planes

    def _split(self, planes: UInt8Array) -> tuple[UInt8Array, UInt8Array, UInt8Array]:
        half = self._change.shape
        u, v = planes[self._height :].reshape(2, *half)
        return planes[: self._height], u, v


def _mix(u: UInt8Array, of_u: float, v: UInt8Array, of_v: float, out: UInt8Array) -> None:
    """128 and so much of what either is above it."""
    cv2.addWeighted(u, of_u, v, of_v, 128.0 * (1 - of_u - of_v), dst=out)
