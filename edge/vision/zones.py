"""Parts of the picture and lines across it, and who is in them or crosses them."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

from edge.config import BodyPoint
from edge.vision.kinematics import VISIBLE
from edge.vision.pose import Pose
from edge.vision.skeleton import Skeleton

Point = tuple[float, float]
"""x, y as fractions of the picture's width and height."""

_SIDES: dict[BodyPoint, tuple[tuple[str, ...], ...]] = {
    "feet": (("left_ankle", "left_heel", "left_foot_index"), ("right_ankle", "right_heel", "right_foot_index")),
    "hips": (("left_hip",), ("right_hip",)),
    "head": (("nose",), ("left_eye", "right_eye"), ("left_ear", "right_ear")),
}


@dataclass(frozen=True, slots=True)
class Zone:
    """A part of the picture. corners: in order, three at least; its edges may go in and out."""

    name: str
    corners: tuple[Point, ...]
    point: BodyPoint = "feet"

    def holds(self, x: float, y: float) -> bool:
        """Whether it is inside, by the number of edges to its right (Shimrat, Algorithm 112, 1962)."""
        inside = False
        before_x, before_y = self.corners[-1]
        for at_x, at_y in self.corners:
            if (at_y > y) != (before_y > y) and x < at_x + (before_x - at_x) * (y - at_y) / (before_y - at_y):
                inside = not inside
            before_x, before_y = at_x, at_y
        return inside


@dataclass(frozen=True, slots=True)
class Line:
    """A line from `begin` to `end`. Who stands at its beginning and looks along it has a left and a right."""

    name: str
    begin: Point
    end: Point
    point: BodyPoint = "feet"


def body_point(pose: Pose, point: BodyPoint) -> Point | None:
    """Where it is in the picture: the middle of its parts that are seen, each of which is the middle of its keypoints.

    Of two feet or hips one is enough. None where none is seen.
    """
    visibility, found = pose.visibility, []
    for part in _parts(pose.skeleton, point):
        seen = [index for index in part if visibility[index] >= VISIBLE]
        if seen:
            places = [pose.image_xyz[index].tolist() for index in seen]
            found.append((sum(at[0] for at in places) / len(places), sum(at[1] for at in places) / len(places)))
    if not found:
        return None
    return sum(x for x, _ in found) / len(found), sum(y for _, y in found) / len(found)


@functools.cache
def _parts(skeleton: Skeleton, point: BodyPoint) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(skeleton.index(name) for name in part) for part in _SIDES[point])


@dataclass(frozen=True, slots=True)
class Crossing:
    """How a line was crossed. to: the side that was reached. at: where on the line."""

    to: Literal["left", "right"]
    at: Point


class LineWatch:
    """On which side of one line one person is. For one thread.

    Nobody who stands on the line and sways crosses it: a side counts from `margin_px` on. Who walks around its end
    does not cross it, and who comes into being on a side has not come from the other one.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._side = 0
        self._from: Point = (0.0, 0.0)

    def follow(self, at: Point, width_px: int, height_px: int, margin_px: float) -> Crossing | None:
        """at: where the person is by now. Distances are those in the picture, whose pixels are square."""
        (begin_x, begin_y), (end_x, end_y) = self._line.begin, self._line.end
        along_x, along_y = (end_x - begin_x) * width_px, (end_y - begin_y) * height_px
        length_px = math.hypot(along_x, along_y)
        away_px = self._away(at, width_px, height_px, along_x, along_y) / length_px
        if abs(away_px) < margin_px or not away_px:
            return None
        side = 1 if away_px > 0 else -1
        before, self._side = self._side, side
        came_from, self._from = self._from, at
        if before in {0, side}:
            return None
        was_px = self._away(came_from, width_px, height_px, along_x, along_y) / length_px
        share = was_px / (was_px - away_px)
        on_x, on_y = came_from[0] + share * (at[0] - came_from[0]), came_from[1] + share * (at[1] - came_from[1])
        part = ((on_x - begin_x) * width_px * along_x + (on_y - begin_y) * height_px * along_y) / length_px**2
        if not 0 <= part <= 1:
            return None
        return Crossing("right" if side > 0 else "left", (on_x, on_y))

    def _away(self, at: Point, width_px: int, height_px: int, along_x: float, along_y: float) -> float:
        """Twice the area between the line and the point, px²: more than 0 to the right, as y goes down."""
        begin_x, begin_y = self._line.begin
        return along_x * (at[1] - begin_y) * height_px - along_y * (at[0] - begin_x) * width_px
