"""An estimator that looks at a part of the picture only."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from edge.estimators.landmarker import mask_step
from edge.interfaces import PoseEstimator
from edge.vision.frame import Frame, Picture, PixelLayout, UInt8Array
from edge.vision.geometry import Part, Window
from edge.vision.pose import Pose

Indices = NDArray[np.intp]


class RegionEstimator:
    """A PoseEstimator around another one, which gets to see `region` of each picture as if that were all of it.

    Its poses are in coordinates of the whole picture all the same. A person at the border may have keypoints outside.
    """

    def __init__(self, estimator: PoseEstimator, region: Part) -> None:
        self._estimator = estimator
        self._region = region

    def __enter__(self) -> Self:
        self._estimator.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._estimator.__exit__(kind, error, trace)

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        size_px = frame.rgb.width_px, frame.rgb.height_px
        window = self._region.window(*size_px)
        seen = frame.rgb.pixels[window.top : window.bottom, window.left : window.right]
        inside = replace(frame, rgb=Picture(np.ascontiguousarray(seen), PixelLayout.RGB), video=None, packets=None)
        return tuple(_in_whole(pose, window, *size_px) for pose in self._estimator.estimate(inside))


def _in_whole(pose: Pose, window: Window, width_px: int, height_px: int) -> Pose:
    """A pose found in `window` of a picture of that size, in coordinates of the picture."""
    across, down = window.width_px / width_px, window.height_px / height_px
    # Depth is on the scale of x, in widths of the picture.
    scale = np.array([across, down, across], np.float32)
    origin = np.array([window.left / width_px, window.top / height_px, 0.0], np.float32)
    mask = None if pose.mask is None else whole_mask(pose.mask, window, width_px, height_px)
    return replace(pose, image_xyz=pose.image_xyz * scale + origin, mask=mask)


def whole_mask(mask: UInt8Array, window: Window, width_px: int, height_px: int) -> UInt8Array:
    """A mask that covers `window` of a picture of that size, as one that covers the picture, 0 outside the window.

    As many rows and columns as a mask of the picture has otherwise. 0.02 ms at 640x480.
    """
    step = mask_step(height_px, width_px)
    to_rows, rows = _places(len(mask), window.top, window.bottom, height_px, step)
    to_columns, columns = _places(mask.shape[1], window.left, window.right, width_px, step)
    whole = np.zeros((_count(height_px, step), _count(width_px, step)), np.uint8)
    whole[to_rows, to_columns] = mask[rows[:, None], columns]
    return whole


@functools.lru_cache(maxsize=64)
def _places(count: int, begin_px: int, end_px: int, whole_px: int, step: int) -> tuple[slice, Indices]:
    """Along one side: which rows of the whole mask lie in a window, and which of the window's `count` is in each."""
    middles_px = np.arange(_count(whole_px, step)) * step + step // 2
    inside = np.flatnonzero((middles_px >= begin_px) & (middles_px < end_px))
    # The middle of the pixel itself, as a fraction of the window: one on a border would fall to either side.
    at = (middles_px[inside] + 0.5 - begin_px) / (end_px - begin_px)
    first = int(inside[0]) if len(inside) else 0
    return slice(first, first + len(inside)), (at * count).astype(np.intp)


def _count(side_px: int, step: int) -> int:
    """How many middles of steps a side has."""
    return len(range(step // 2, side_px, step))
