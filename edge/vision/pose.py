"""One person's landmarks in one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.vision.frame import UInt8Array
from edge.vision.skeleton import Skeleton

Float32Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """What an estimator says about one person. K is the number of the skeleton's keypoints.

    image_xyz: (K, 3) float32. x and y as fractions of the frame's width and height, 0..1 inside it; z is depth towards
        (negative) or away from the camera, relative to the hips, roughly on the scale of x.
    visibility: (K,) float32, 0..1, the likelihood that the keypoint is in the picture and not hidden.
    world_m: (K, 3) float32 metres or None. The origin is the middle of the hips, x right, y down, z away from the
        camera; the axes are the camera's.
    mask: (rows, columns) uint8 or None, 1 where this person is. It covers the whole frame, usually with fewer pixels.

    The arrays are owned, C-contiguous and read-only from here on.
    """

    skeleton: Skeleton
    image_xyz: Float32Array
    visibility: Float32Array
    world_m: Float32Array | None = None
    mask: UInt8Array | None = None

    def __post_init__(self) -> None:
        count = len(self.skeleton.keypoints)
        _expect("image_xyz", self.image_xyz, (count, 3))
        _expect("visibility", self.visibility, (count,))
        if self.world_m is not None:
            _expect("world_m", self.world_m, (count, 3))
        if self.mask is not None:
            if self.mask.ndim != 2 or self.mask.dtype != np.uint8:
                raise ValueError(f"mask: expected (rows, columns) uint8, got {self.mask.shape} {self.mask.dtype}")
            self.mask.setflags(write=False)

    @property
    def score(self) -> float:
        """The mean visibility of the keypoints, 0..1."""
        return float(self.visibility.mean())


def _expect(name: str, array: Float32Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise ValueError(f"{name}: expected float32 of shape {shape}, got {array.dtype} of shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite numbers, got NaN or infinity")
    array.setflags(write=False)
