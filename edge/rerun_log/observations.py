"""What is seen of people, frame by frame, as chunks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import cv2
import numpy as np
import rerun as rr
from numpy.typing import NDArray
from rerun.chunk import Chunk

from edge.privacy import Shows
from edge.rerun_log.entities import (
    angles_entity,
    class_of,
    mask_entity,
    names_entity,
    points_2d_entity,
    points_3d_entity,
    time_columns,
    video_entity,
    zones_entity,
)
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.places import Places
from edge.vision.frame import UInt8Array
from edge.vision.kinematics import JOINTS
from edge.vision.mount import LEVEL, Mount
from edge.vision.observation import Observation, Person
from edge.vision.placement import standing_m
from edge.vision.pose import Float32Array
from edge.vision.posture import Posture
from edge.vision.zones import Line, Zone

MaskForm = Literal["image", "contour", "off"]
"""How it is logged where somebody is: each pixel, the outline of each person, or not at all."""


class SceneSink:
    """Turns observations into chunks and hands them to `put`.

    mask: how masks are logged. people: how many there may be at once. mounts: how cameras hang, level where it is not
    said. zones, lines: of cameras. outline: log where the picture ends, for scenes without pictures, in which nothing
    else says it.

    Of each picture that people see it logs one observation: that of its own frame, or where there is none, because
    inference is slower than the camera or the lane was full, the first one before the next picture. So there are never
    more than pictures, and inference that finishes 20 of a camera's 60 frames/s is logged with all 20, wherever they
    fall, and not just with those 10 that meet one of 30 pictures.
    """

    def __init__(
        self,
        *,
        mask: MaskForm,
        people: int,
        put: Callable[[Parcel], None],
        mounts: Mapping[str, Mount] = MappingProxyType({}),
        zones: Mapping[str, Sequence[Zone]] = MappingProxyType({}),
        lines: Mapping[str, Sequence[Line]] = MappingProxyType({}),
        outline: bool = False,
    ) -> None:
        self._mask = mask
        self._mounts = mounts
        self._zones = zones
        self._lines = lines
        self._outline = outline
        self._drawn: dict[str, tuple[int, int, int]] = {}  # width and height, and when
        self._people = people
        self._places: dict[str, Places] = {}
        self._shown: dict[str, int] = {}
        self._put = put

    def write(self, batch: Sequence[Observation]) -> None:
        of_cameras: dict[str, list[Observation]] = {}
        for observation in batch:
            if self._shown.get(observation.camera) != observation.shown_seq:
                self._shown[observation.camera] = observation.shown_seq
                of_cameras.setdefault(observation.camera, []).append(observation)
        for camera, observations in of_cameras.items():
            zones, lines = self._zones.get(camera, ()), self._lines.get(camera, ())
            if (self._outline or zones or lines) and self._is_due(observations[0]):
                self._put(drawing_parcel(observations[0], zones, lines, outline=self._outline))
            places = self._places.setdefault(camera, Places(self._people))
            mount = self._mounts.get(camera, LEVEL)
            self._put(
                observation_parcel(
                    camera, observations, mask=self._mask, people=self._people, mount=mount, places=places
                )
            )

    def close(self, timeout_s: float) -> None:
        return

    def _is_due(self, observation: Observation) -> bool:
        """Now and then, for who joins late: what was once said may be gone from a hub's memory."""
        now = observation.width_px, observation.height_px, observation.monotonic_ns
        before = self._drawn.get(observation.camera)
        if before is not None and before[:2] == now[:2] and 0 <= now[2] - before[2] < _DRAWN_EVERY_NS:
            return False
        self._drawn[observation.camera] = now
        return True


def drawing_parcel(
    observation: Observation, zones: Sequence[Zone] = (), lines: Sequence[Line] = (), *, outline: bool = False
) -> Parcel:
    """What does not move: zones, lines with a barb at their ends and, if wanted, the picture's edge, where that would
    be."""
    size = _size(observation)
    indexes = time_columns([observation.seq], [observation.captured_ns])
    chunks = []
    if outline:
        edge = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)], np.float32) * size
        chunks.append(Chunk.from_columns(video_entity(observation.camera), indexes, [_column(_STRIPS, [edge], [1])]))
    if zones or lines:
        closed = [np.array([*zone.corners, zone.corners[0]], np.float32) * size for zone in zones]
        arrows = [_arrow(np.array([line.begin, line.end], np.float32) * size) for line in lines]
        names = [zone.name for zone in zones] + [line.name for line in lines]
        count = [len(names)]
        columns = [
            _column(_STRIPS, [*closed, *arrows], count),
            _column(_STRIP_LABELS, names, count),
            _column(_STRIP_COLOURS, [_LINES_COLOUR], [1]),
            _column(_STRIP_RADII, [rr.Radius.ui_points(1.5)], [1]),
            _column(_STRIP_LABELS_SHOWN, [True], [1]),
        ]
        chunks.append(Chunk.from_columns(zones_entity(observation.camera), indexes, columns))
    return Parcel(str(chunks[0].entity_path), tuple(chunks), rows=len(chunks), shows=Shows.NUMBERS)


def _arrow(ends: Float32Array) -> Float32Array:
    """A line with a barb at its end, by which one sees where its left and its right are."""
    (x, y), (end_x, end_y) = ends.tolist()
    back_x, back_y = 0.06 * (x - end_x), 0.06 * (y - end_y)
    barbs = [(end_x + back_x + turn * back_y / 2, end_y + back_y - turn * back_x / 2) for turn in (1, -1)]
    return np.array([(x, y), (end_x, end_y), barbs[0], barbs[1], (end_x, end_y)], np.float32)


def observation_parcel(
    camera: str,
    observations: Sequence[Observation],
    *,
    mask: MaskForm,
    people: int = 1,
    mount: Mount = LEVEL,
    places: Places | None = None,
) -> Parcel:
    """One camera's observations, one row a frame in each entity; frames without people get empty rows, so that the
    viewer does not go on showing who has left.

    people: how many there may be at once. mount: how the camera hangs. places: those of its people up to the frame
    before, by default none. Each has the colour and the curves of their place, and their own name.
    """
    places = places or Places(people)
    rows = [_seen(each, places.of(each)) for each in observations]
    indexes = time_columns([each.seq for each in observations], [each.captured_ns for each in observations])
    chunks = [
        Chunk.from_columns(points_2d_entity(camera), indexes, _flat(observations, rows)),
        Chunk.from_columns(points_3d_entity(camera), indexes, _standing(observations, rows, mount)),
        Chunk.from_columns(angles_entity(camera), indexes, [_angles(rows, people)]),
        Chunk.from_columns(names_entity(camera), indexes, _names(observations, rows)),
    ]
    if mask == "image":
        chunks.append(Chunk.from_columns(mask_entity(camera), indexes, _silhouettes(observations, rows)))
    elif mask == "contour":
        chunks.append(Chunk.from_columns(mask_entity(camera), indexes, _contours(observations, rows)))
    shows = Shows.NUMBERS if mask == "off" else Shows.SILHOUETTES
    return Parcel(entity=f"/camera/{camera}", chunks=tuple(chunks), rows=len(observations), shows=shows)


# What a column is called and how its values become Arrow's. The archetypes' own `columns` do the same and much that is
# not needed here: 41 us for what takes 16 this way, for eight frames' points.
_Named = tuple[rr.ComponentDescriptor, Callable[[Any], Any]]
_POSITIONS_2D: _Named = rr.Points2D.descriptor_positions(), rr.components.Position2DBatch
_LABELS_2D = rr.Points2D.descriptor_labels(), rr.components.TextBatch
_CLASSES_2D = rr.Points2D.descriptor_class_ids(), rr.components.ClassIdBatch
_POSITIONS_3D = rr.Points3D.descriptor_positions(), rr.components.Position3DBatch
_CLASSES_3D = rr.Points3D.descriptor_class_ids(), rr.components.ClassIdBatch
_SCALARS = rr.Scalars.descriptor_scalars(), rr.components.ScalarBatch
_MASK_BUFFER = rr.SegmentationImage.descriptor_buffer(), rr.components.ImageBufferBatch
_STRIPS = rr.LineStrips2D.descriptor_strips(), rr.components.LineStrip2DBatch
_STRIP_COLOURS = rr.LineStrips2D.descriptor_colors(), rr.components.ColorBatch
_STRIP_RADII = rr.LineStrips2D.descriptor_radii(), rr.components.RadiusBatch
_STRIP_LABELS_SHOWN = rr.LineStrips2D.descriptor_show_labels(), rr.components.ShowLabelsBatch
_STRIP_LABELS = rr.LineStrips2D.descriptor_labels(), rr.components.TextBatch
_STRIP_CLASSES = rr.LineStrips2D.descriptor_class_ids(), rr.components.ClassIdBatch


def _column(
    named: tuple[rr.ComponentDescriptor, Callable[[Any], Any]], values: Any, lengths: Any
) -> rr.ComponentColumn:
    """A column whose rows have so many of `values` each, one row's after the other's."""
    descriptor, batch = named
    return rr.ComponentColumn(descriptor, batch(values), lengths=lengths)


_Seen = Sequence[tuple[int, Person]]
"""Of one frame the people who have a place, and the class that they have by it."""


def _seen(observation: Observation, places: Mapping[int, int]) -> _Seen:
    people = [person for person in observation.people if person.person_id in places]
    return [(class_of(places[person.person_id]), person) for person in people]


_Points = Sequence[Sequence[tuple[int, Float32Array]]]
"""Of each row the people: their classes and some points of each."""


def _points(rows: _Points, columns: int) -> tuple[Float32Array, NDArray[np.uint16], list[int]]:
    """All points of all rows, each one's class, and how many a row has. Classes are in every row, since those who are
    there change."""
    lengths = [sum(len(points) for _, points in row) for row in rows]
    found = [points for row in rows for _, points in row]
    if not found:
        return np.empty((0, columns), np.float32), np.empty(0, np.uint16), lengths
    classes = np.array([number for row in rows for number, _ in row], np.uint16)
    return np.concatenate(found), classes.repeat([len(points) for points in found]), lengths


def _flat(observations: Sequence[Observation], seen: Sequence[_Seen]) -> list[rr.ComponentColumn]:
    """The skeletons on the picture, in its pixels."""
    rows = [
        [(number, person.pose.image_xyz[:, :2] * _size(each)) for number, person in people]
        for each, people in zip(observations, seen, strict=True)
    ]
    points, classes, lengths = _points(rows, 2)
    return [_column(_POSITIONS_2D, points, lengths), _column(_CLASSES_2D, classes, lengths)]


def _names(observations: Sequence[Observation], seen: Sequence[_Seen]) -> list[rr.ComponentColumn]:
    """What each person is called, and where that hangs: a label is drawn below its point, so that is above the head."""
    rows = [
        [(number, _above(person) * _size(each)) for number, person in people]
        for each, people in zip(observations, seen, strict=True)
    ]
    points, classes, lengths = _points(rows, 2)
    names = [_name(person) for people in seen for _, person in people]
    return [
        _column(_POSITIONS_2D, points, lengths),
        _column(_CLASSES_2D, classes, lengths),
        _column(_LABELS_2D, names, lengths),
    ]


def _name(person: Person) -> str:
    """`3`, and how they are as far as that is known: `3 sitting`, `3 lying, fallen?`."""
    posture = "" if person.posture.posture is Posture.UNKNOWN else f" {person.posture.posture}"
    return f"{person.person_id}{posture}{'' if person.fall is None else ', fallen?'}"


def _above(person: Person) -> Float32Array:
    """(1, 2) float32, fractions of the picture, not above its upper edge."""
    box, nose = person.box, person.pose.image_xyz[person.pose.skeleton.index("nose")]
    return np.array([(nose[0], max(0.0, box.top - 0.08 * (box.bottom - box.top) - 0.045))], np.float32)


def _standing(observations: Sequence[Observation], seen: Sequence[_Seen], mount: Mount) -> list[rr.ComponentColumn]:
    """The bodies in space, in metres."""
    rows = [
        [
            (number, body)
            for number, person in people
            if (body := standing_m(person.pose, each.width_px, each.height_px, mount)) is not None
        ]
        for each, people in zip(observations, seen, strict=True)
    ]
    points, classes, lengths = _points(rows, 3)
    return [_column(_POSITIONS_3D, points, lengths), _column(_CLASSES_3D, classes, lengths)]


def _size(observation: Observation) -> Float32Array:
    return np.array([observation.width_px, observation.height_px], np.float32)


def _angles(seen: Sequence[_Seen], people: int) -> rr.ComponentColumn:
    """`JOINTS` of each of `people` places, one after the other; NaN, which a plot leaves out, where there is nobody."""
    table = np.full((len(seen), people, len(JOINTS)), np.nan, np.float32)
    for row, persons in zip(table, seen, strict=True):
        for number, person in persons:
            if person.angles_deg is not None:
                row[number - 1] = person.angles_deg
    return _column(_SCALARS, table.reshape(-1), [people * len(JOINTS)] * len(seen))


def _silhouettes(observations: Sequence[Observation], seen: Sequence[_Seen]) -> list[rr.ComponentColumn]:
    """Masks as images, with fewer pixels than the picture, and what stretches them over it."""
    masks = [_silhouette(people) for people in seen]
    sizes = [(each.width_px, each.height_px, *mask.shape) for each, mask in zip(observations, masks, strict=True)]
    pixels = _column(_MASK_BUFFER, [each.reshape(-1) for each in masks], [1] * len(masks))
    return [pixels, *_mask_sizes(tuple(sizes))]


@functools.lru_cache(maxsize=64)  # few: as many as there are rows in a batch, while sizes stay; 15 us a frame to make
def _mask_sizes(sizes: tuple[tuple[int, int, int, int], ...]) -> list[rr.ComponentColumn]:
    """Of each row, given the picture's width and height and the mask's rows and columns: the mask's format, and the
    scale that stretches it over the picture. In every row, since a size may change, and receivers come and go."""
    formats = [
        rr.components.ImageFormat(width=columns, height=rows, channel_datatype="U8") for _, _, rows, columns in sizes
    ]
    scales = [(width_px / columns, height_px / rows, 1.0) for width_px, height_px, rows, columns in sizes]
    return [
        rr.ComponentColumn(rr.SegmentationImage.descriptor_format(), rr.components.ImageFormatBatch(formats)),
        rr.ComponentColumn(rr.Transform3D.descriptor_scale(), rr.components.Scale3DBatch(scales)),
    ]


def _silhouette(people: _Seen) -> UInt8Array:
    """(rows, columns) uint8 over the whole picture: 0 where nobody is, else the class of the person. One transparent
    pixel where nobody has a mask."""
    masks = _masks(people)
    if len(masks) == 1 and masks[0][0] == 1:
        return masks[0][1]  # ones and zeros already
    image = np.zeros(masks[0][1].shape if masks else (1, 1), np.uint8)
    for number, mask in masks:
        image[mask > 0] = number
    return image


def _contours(observations: Sequence[Observation], seen: Sequence[_Seen]) -> list[rr.ComponentColumn]:
    """Masks as closed lines, in the picture's pixels."""
    rows = [
        [(number, line) for number, mask in _masks(people) for line in outlines(mask, each.width_px, each.height_px)]
        for each, people in zip(observations, seen, strict=True)
    ]
    lengths = [len(row) for row in rows]
    lines = [line for row in rows for _, line in row]
    classes = np.array([number for row in rows for number, _ in row], np.uint16)
    return [_column(_STRIPS, lines, lengths), _column(_STRIP_CLASSES, classes, lengths)]


def outlines(mask: UInt8Array, width_px: int, height_px: int) -> list[Float32Array]:
    """The outer edges of what is not 0 in a mask that covers a picture of that size: each (N, 2) float32 in its pixels,
    closed, its last point the first one. Specks and the finest steps are left out.

    By Suzuki and Abe (1985) and Douglas and Peucker (1973), as OpenCV has them.
    """
    rows, columns = mask.shape
    # Ringed by zeros, the edge of the picture is one of the mask's.
    found, _ = cv2.findContours(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT), *_OUTER_EDGES)
    scale = np.array([width_px / columns, height_px / rows], np.float32)
    lines = [cv2.approxPolyDP(edge, _TOLERANCE, closed=True)[:, 0] for edge in found if cv2.contourArea(edge) >= _SPECK]
    return [(np.concatenate([line, line[:1]]) - 0.5).astype(np.float32) * scale for line in lines]


_LINES_COLOUR = (240, 240, 240)
_DRAWN_EVERY_NS = 2_000_000_000
_OUTER_EDGES = cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
# In the mask's own pixels, of which there are 160 along a picture's longer side.
_TOLERANCE = 0.75
_SPECK = 12.0


def _masks(people: _Seen) -> list[tuple[int, UInt8Array]]:
    """The class of each person who has a mask, and the mask."""
    return [(number, person.pose.mask) for number, person in people if person.pose.mask is not None]
