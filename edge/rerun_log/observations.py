"""What is seen of people, frame by frame, as chunks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import rerun as rr
from rerun.chunk import Chunk

from edge.rerun_log.entities import angles_entity, mask_entity, points_2d_entity, points_3d_entity, time_columns
from edge.rerun_log.parcel import Parcel
from edge.vision.frame import UInt8Array
from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation
from edge.vision.pose import Float32Array


class SceneSink:
    """Turns observations into chunks and hands them to `put`. mask: whether masks are logged.

    Of each picture that people see it logs one observation: that of its own frame, or where there is none, because
    inference is slower than the camera or the lane was full, the first one before the next picture. So there are never
    more than pictures, and inference that finishes 20 of a camera's 60 frames/s is logged with all 20, wherever they
    fall, and not just with those 10 that meet one of 30 pictures.
    """

    def __init__(self, *, mask: bool, put: Callable[[Parcel], None]) -> None:
        self._mask = mask
        self._shown: dict[str, int] = {}
        self._put = put

    def write(self, batch: Sequence[Observation]) -> None:
        of_cameras: dict[str, list[Observation]] = {}
        for observation in batch:
            if self._shown.get(observation.camera) != observation.shown_seq:
                self._shown[observation.camera] = observation.shown_seq
                of_cameras.setdefault(observation.camera, []).append(observation)
        for camera, observations in of_cameras.items():
            self._put(observation_parcel(camera, observations, mask=self._mask))

    def close(self, timeout_s: float) -> None:
        return


def observation_parcel(camera: str, observations: Sequence[Observation], *, mask: bool) -> Parcel:
    """One camera's observations, one row a frame in each entity; frames without people get empty rows, so that the
    viewer does not go on showing who has left."""
    indexes = time_columns([each.seq for each in observations], [each.captured_ns for each in observations])
    points_2d = [_stack(_pixels(each), 2) for each in observations]
    points_3d = [
        _stack([person.pose.world_m for person in each.people if person.pose.world_m is not None], 3)
        for each in observations
    ]
    angles = [_angles(each) for each in observations]
    masks = [_silhouettes(each) for each in observations] if mask else []
    chunks = [
        Chunk.from_columns(points_2d_entity(camera), indexes, [_rows(*_POSITIONS_2D, points_2d)]),
        Chunk.from_columns(points_3d_entity(camera), indexes, [_rows(*_POSITIONS_3D, points_3d)]),
        Chunk.from_columns(angles_entity(camera), indexes, [_rows(*_SCALARS, angles)]),
    ]
    if mask:
        sizes = [(each.width_px, each.height_px, *mask.shape) for each, mask in zip(observations, masks, strict=True)]
        pixels = rr.components.ImageBufferBatch([each.reshape(-1) for each in masks])
        columns = [rr.ComponentColumn(rr.SegmentationImage.descriptor_buffer(), pixels), *_mask_sizes(tuple(sizes))]
        chunks.append(Chunk.from_columns(mask_entity(camera), indexes, columns))
    nbytes = sum(each.nbytes for each in (*points_2d, *points_3d, *angles)) + sum(each.nbytes for each in masks)
    return Parcel(entity=f"/camera/{camera}", chunks=tuple(chunks), rows=len(observations), nbytes=nbytes)


# What a column is called and how its values become Arrow's. The archetypes' own `columns` do the same and much that is
# not needed here: 41 us for what takes 16 this way, for eight frames' points.
_POSITIONS_2D = rr.Points2D.descriptor_positions(), rr.components.Position2DBatch
_POSITIONS_3D = rr.Points3D.descriptor_positions(), rr.components.Position3DBatch
_SCALARS = rr.Scalars.descriptor_scalars(), rr.components.ScalarBatch


def _rows(
    descriptor: rr.ComponentDescriptor, batch: Callable[[Any], Any], tables: Sequence[Float32Array]
) -> rr.ComponentColumn:
    """A column with a row for each of `tables`."""
    return rr.ComponentColumn(descriptor, batch(np.concatenate(tables)), lengths=[len(each) for each in tables])


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


def _pixels(observation: Observation) -> list[Float32Array]:
    scale = np.array([observation.width_px, observation.height_px], np.float32)
    return [person.pose.image_xyz[:, :2] * scale for person in observation.people]


def _stack(tables: Sequence[Float32Array], columns: int) -> Float32Array:
    return np.concatenate(tables) if tables else np.empty((0, columns), np.float32)


def _angles(observation: Observation) -> Float32Array:
    """The first person's; NaN, which the plot leaves out, where there is none."""
    for person in observation.people[:1]:
        if person.angles_deg is not None:
            return person.angles_deg
    return np.full(len(JOINTS), np.nan, np.float32)


def _silhouettes(observation: Observation) -> UInt8Array:
    """(rows, columns) uint8 over the whole picture: 0 where nobody is, else the number of the person. One transparent
    pixel where nobody has a mask."""
    masks = [(person.person_id, person.pose.mask) for person in observation.people if person.pose.mask is not None]
    if len(masks) == 1 and masks[0][0] == 1:
        return masks[0][1]  # ones and zeros already
    image = np.zeros(masks[0][1].shape if masks else (1, 1), np.uint8)
    for number, mask in masks:
        image[mask > 0] = number
    return image
