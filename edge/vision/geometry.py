"""Where things are in a picture that is turned, mirrored or cropped: numbers only, whatever the pixels are.

A `Turn` is one of the eight ways to lay a picture on a table (the dihedral group of the square), a `Part` a rectangle
of it, a `View` both: what is shown of the picture that a camera gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Flip = Literal["none", "horizontal", "vertical"]


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, never empty. right and bottom are the first ones outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width_px(self) -> int:
        return self.right - self.left

    @property
    def height_px(self) -> int:
        return self.bottom - self.top


@dataclass(frozen=True, slots=True)
class Part:
    """A rectangle of a picture, as fractions of its width and height: 0 <= left, left + width <= 1, and so on."""

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0

    def window(self, width_px: int, height_px: int) -> Window:
        """The pixels of a picture of that size which are in this part wholly.

        Borders are even, since the colours of I420 are kept for two by two pixels, and rounded inwards, so that nothing
        is seen that was to be left out; there are two pixels at least. A side that isn't cropped stays as it is.
        """
        left, right = _pixels(self.left, self.width, width_px)
        top, bottom = _pixels(self.top, self.height, height_px)
        return Window(left, top, right, bottom)


WHOLE = Part()


def _pixels(begin: float, length: float, whole_px: int) -> tuple[int, int]:
    pairs = whole_px // 2
    if not pairs or (begin <= 0 and begin + length >= 1):
        return 0, whole_px
    # Of 0.1 and 0.6 the sum is above 0.7: what is that near to a border is meant to be on it.
    first = min(math.ceil(round(begin * whole_px / 2, 6)), pairs - 1)
    end = min(math.floor(round((begin + length) * whole_px / 2, 6)), pairs)
    return 2 * first, 2 * max(end, first + 1)


@dataclass(frozen=True, slots=True)
class Turn:
    """quarters: so many quarter turns clockwise, 0..3. mirrored: then left and right are exchanged."""

    quarters: int = 0
    mirrored: bool = False

    @classmethod
    def of(cls, rotate_deg: int = 0, flip: Flip = "none") -> Turn:
        """Turned clockwise by a multiple of 90 degrees, then flipped. Upside down is turned by 180 and mirrored."""
        return cls((rotate_deg // 90 + (2 if flip == "vertical" else 0)) % 4, flip != "none")

    @classmethod
    def of_flips(cls, *, horizontal: bool, vertical: bool) -> Turn:
        return cls(2 if vertical else 0, horizontal != vertical)

    @property
    def flips(self) -> tuple[bool, bool]:
        """Whether a sensor that can flip, but can't turn a picture on its side, has to do so (horizontally, vertically)
        for all of this; neither where that does not do."""
        upside_down = self.quarters == 2
        return (False, False) if self.on_its_side else (upside_down != self.mirrored, upside_down)

    @property
    def on_its_side(self) -> bool:
        """Whether width and height are exchanged."""
        return self.quarters % 2 == 1

    @property
    def inverse(self) -> Turn:
        return self if self.mirrored else Turn(-self.quarters % 4)

    def then(self, other: Turn) -> Turn:
        """This one, and `other` after it. What is mirrored turns the other way."""
        quarters = self.quarters + (-other.quarters if self.mirrored else other.quarters)
        return Turn(quarters % 4, self.mirrored != other.mirrored)

    def size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Of what becomes of a picture of that size."""
        return (height_px, width_px) if self.on_its_side else (width_px, height_px)

    def window(self, window: Window, width_px: int, height_px: int) -> Window:
        """Where the pixels of a `window` of a picture of that size are afterwards."""
        left, top, right, bottom = window.left, window.top, window.right, window.bottom
        for _ in range(self.quarters):  # (x, y) becomes (height - y, x)
            left, top, right, bottom = height_px - bottom, left, height_px - top, right
            width_px, height_px = height_px, width_px
        if self.mirrored:
            left, right = width_px - right, width_px - left
        return Window(left, top, right, bottom)


UPRIGHT = Turn()


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of a picture: turned first, and of that the part `crop`."""

    turn: Turn = UPRIGHT
    crop: Part = WHOLE

    @property
    def is_whole(self) -> bool:
        """Whether the picture is shown as it is."""
        return self.turn == UPRIGHT and self.crop == WHOLE

    def without(self, done: Turn) -> View:
        """What is left to do where `done` has been done to the picture already."""
        return View(done.inverse.then(self.turn), self.crop)

    def window(self, width_px: int, height_px: int) -> Window:
        """Which pixels of a picture of that size, before it is turned, are shown."""
        turned_px = self.turn.size(width_px, height_px)
        return self.turn.inverse.window(self.crop.window(*turned_px), *turned_px)
