"""What may leave the process, to network or disk: the privacy modes, and how much there is to see in what leaves."""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

Mode = Literal["full", "mask", "landmarks"]
"""The values of privacy.mode, from the most open one to the strictest."""


class Shows(IntEnum):
    """How much of a person there is to see in something; each includes those before it."""

    NUMBERS = 0  # landmarks, angles, counts, text
    SILHOUETTES = 1  # masks and contours
    PICTURES = 2  # pixels of a camera, however they are encoded


_MOST: dict[str, Shows] = {"full": Shows.PICTURES, "mask": Shows.SILHOUETTES, "landmarks": Shows.NUMBERS}


def most_shown(mode: Mode) -> Shows:
    """The most that may leave in this mode."""
    return _MOST[mode]


def most_declared(mode: str) -> Shows:
    """The most that something may hold that says it was made in this mode. A word that is no mode says nothing."""
    return _MOST.get(mode, Shows.PICTURES)
