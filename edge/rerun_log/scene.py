"""What the log holds: entity paths, static descriptions, the blueprint, and observations as chunks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import rerun as rr
import rerun.blueprint as rrb
from rerun.chunk import Chunk

from edge.rerun_log.parcel import Parcel
from edge.vision.frame import UInt8Array
from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation
from edge.vision.pose import Float32Array
from edge.vision.skeleton import Skeleton

# Colours of the first people, easy to tell apart on any picture (Okabe and Ito's palette).
_COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (213, 94, 0))
_MASK_OPACITY = 0.4


def video_entity(camera: str) -> str:
    return f"/camera/{camera}/video"


def mask_entity(camera: str) -> str:
    return f"/camera/{camera}/video/mask"


def points_2d_entity(camera: str) -> str:
    return f"/camera/{camera}/video/pose/points"


def person_entity(camera: str) -> str:
    return f"/camera/{camera}/person"


def points_3d_entity(camera: str) -> str:
    return f"/camera/{camera}/person/pose/points"


def angles_entity(camera: str) -> str:
    return f"/camera/{camera}/angles"


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is known before the first frame, and how to tell it to a Rerun stream.

    video: "h264", "jpeg" or "off". properties: facts about the recording, shown beside it.
    """

    device: str
    session: str
    cameras: tuple[str, ...]
    skeleton: Skeleton
    max_people: int
    video: str
    properties: Mapping[str, str]

    @property
    def application_id(self) -> str:
        return f"edge-pose-{self.device}"  # Rerun replaces a name with a slash by one of its own

    @property
    def recording_id(self) -> str:
        return f"{self.device}-{self.session}"

    def new_stream(self) -> rr.RecordingStream:
        """A stream into this recording, connected to nothing yet."""
        # What comes as ready chunks passes its batcher by. With a server at the other end that would look every 8 ms
        # whether there is anything to send, 120 times a second for nothing.
        batcher = rr.ChunkBatcherConfig(flush_tick=0.2)
        return rr.RecordingStream(self.application_id, recording_id=self.recording_id, batcher_config=batcher)

    def describe(self, stream: rr.RecordingStream) -> None:
        """Send everything that does not change; a receiver that is new, or has lost it, needs it first."""
        stream.send_recording_name(f"{self.device} {self.session}")
        stream.send_property("device", rr.AnyValues(drop_untyped_nones=True, **self.properties))
        people = range(1, self.max_people + 1)
        bodies = [self._class_description(person) for person in people]
        stream.log("/", rr.AnnotationContext(bodies), static=True)
        keypoints = np.arange(len(self.skeleton.keypoints))
        class_ids = np.repeat(np.arange(1, self.max_people + 1), len(keypoints))
        # Positions alone change from frame to frame; which keypoint of which person each one is does not.
        keypoint_ids = np.tile(keypoints, self.max_people)
        silhouettes = [rr.AnnotationInfo(id=0, label="background", color=(0, 0, 0, 0))]
        silhouettes += [rr.AnnotationInfo(id=person, label=_label(person), color=_colour(person)) for person in people]
        for camera in self.cameras:
            if self.video == "h264":
                stream.log(video_entity(camera), rr.VideoStream(codec=rr.VideoCodec.H264), static=True)
            stream.log(mask_entity(camera), rr.AnnotationContext(silhouettes), static=True)
            stream.log(mask_entity(camera), rr.SegmentationImage.from_fields(opacity=_MASK_OPACITY), static=True)
            stream.log(
                points_2d_entity(camera),
                rr.Points2D.from_fields(class_ids=class_ids, keypoint_ids=keypoint_ids, radii=rr.Radius.ui_points(3.5)),
                static=True,
            )
            # MediaPipe's world landmarks: x right, y down, z away from the camera.
            stream.log(person_entity(camera), rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
            stream.log(
                points_3d_entity(camera),
                rr.Points3D.from_fields(class_ids=class_ids, keypoint_ids=keypoint_ids, radii=0.012),
                static=True,
            )
            names = [joint.replace("_", " ") for joint in JOINTS]
            stream.log(angles_entity(camera), rr.SeriesLines(names=names), static=True)
        stream.send_blueprint(self.blueprint())

    def blueprint(self) -> rrb.Blueprint:
        """A row of views for each of up to two cameras, a tab for each of more."""
        rows = [self._row(camera) for camera in self.cameras]
        layout = rows[0] if len(rows) == 1 else rrb.Vertical(*rows) if len(rows) == 2 else rrb.Tabs(*rows)
        return rrb.Blueprint(
            layout,
            rrb.TimePanel(state="collapsed", timeline="time"),
            rrb.BlueprintPanel(state="hidden"),
            rrb.SelectionPanel(state="hidden"),
            auto_views=False,
            auto_layout=False,
        )

    def _row(self, camera: str) -> rrb.Horizontal:
        return rrb.Horizontal(
            rrb.Spatial2DView(origin=video_entity(camera), name=f"{camera}: video"),
            rrb.Vertical(
                rrb.Spatial3DView(origin=person_entity(camera), name=f"{camera}: body in metres"),
                rrb.TimeSeriesView(origin=angles_entity(camera), name=f"{camera}: joint angles in degrees"),
                row_shares=[3, 2],
            ),
            column_shares=[3, 2],
            name=camera,
        )

    def _class_description(self, person: int) -> rr.ClassDescription:
        return rr.ClassDescription(
            info=rr.AnnotationInfo(id=person, label=_label(person), color=_colour(person)),
            keypoint_annotations=[
                rr.AnnotationInfo(id=index, label=name) for index, name in enumerate(self.skeleton.keypoints)
            ],
            keypoint_connections=list(self.skeleton.connections),
        )


class SceneSink:
    """Turns observations into chunks and hands them to each of `outputs`. mask: whether masks are logged.

    Of each picture that people see it logs one observation: that of its own frame, or where there is none, because
    inference is slower than the camera or the lane was full, the first one before the next picture. So there are never
    more than pictures, and inference that finishes 20 of a camera's 60 frames/s is logged with all 20, wherever they
    fall, and not just with those 10 that meet one of 30 pictures.
    """

    def __init__(self, *, mask: bool, outputs: Sequence[Callable[[Parcel], None]]) -> None:
        self._mask = mask
        self._shown: dict[str, int] = {}
        self._outputs = outputs

    def write(self, batch: Sequence[Observation]) -> None:
        of_cameras: dict[str, list[Observation]] = {}
        for observation in batch:
            if self._shown.get(observation.camera) != observation.shown_seq:
                self._shown[observation.camera] = observation.shown_seq
                of_cameras.setdefault(observation.camera, []).append(observation)
        for camera, observations in of_cameras.items():
            parcel = observation_parcel(camera, observations, mask=self._mask)
            for output in self._outputs:
                output(parcel)

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


def time_columns(seqs: Sequence[int], captured_ns: Sequence[int]) -> list[rr.TimeColumn]:
    """The two timelines: `frame_idx`, the capture's number, and `time`, its instant."""
    return [
        rr.TimeColumn("frame_idx", sequence=np.array(seqs, np.int64)),
        rr.TimeColumn("time", timestamp=np.array(captured_ns, "datetime64[ns]")),
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


def _label(person: int) -> str:
    return f"person {person}"


def _colour(person: int) -> tuple[int, int, int]:
    return _COLOURS[(person - 1) % len(_COLOURS)]
