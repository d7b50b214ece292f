"""How a camera hangs, and so which way is up."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from edge.vision.geometry import WHOLE, Part
from edge.vision.pose import Float32Array


@dataclass(frozen=True, slots=True)
class Mount:
    """How a camera hangs, and what is seen of its picture.

    tilt_deg: how far it looks down. roll_deg: how far it is turned clockwise, from behind it, in as far as its picture
    was not turned back. crop: which part of that picture is the one that is seen. known: whether somebody has said how
    it hangs, or it is only taken to be level.

    A picture that is turned by quarters is that of a camera which hangs otherwise, and a mirrored one that of a camera
    in a mirrored room; neither moves the middle or changes the longer side. A crop does both.
    """

    tilt_deg: float = 0.0
    roll_deg: float = 0.0
    crop: Part = WHOLE
    known: bool = False

    @property
    def is_level(self) -> bool:
        return self.tilt_deg == self.roll_deg == 0


LEVEL = Mount()


@functools.lru_cache(maxsize=16)
def to_level(mount: Mount) -> Float32Array:
    """(3, 3) float32: rows in the camera's axes times this are in level ones."""
    tilt, roll = math.radians(mount.tilt_deg), math.radians(mount.roll_deg)
    unrolled = np.array([[math.cos(roll), math.sin(roll), 0], [-math.sin(roll), math.cos(roll), 0], [0, 0, 1]])
    level = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    return np.asarray(unrolled @ level, np.float32)
