"""What the log holds: entity paths, static descriptions, the blueprint, and observations as chunks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

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
        return rr.RecordingStream(self.application_id, recording_id=self.recording_id)

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
    """Turns observations into chunks and hands them to each of `outputs`. mask: whether masks are logged."""

    def __init__(self, *, mask: bool, outputs: Sequence[Callable[[Parcel], None]]) -> None:
        self._mask = mask
        self._outputs = outputs

    def write(self, batch: Sequence[Observation]) -> None:
        by_camera = sorted(batch, key=lambda observation: observation.camera)
        for camera, group in groupby(by_camera, key=lambda observation: observation.camera):
            parcel = observation_parcel(camera, tuple(group), mask=self._mask)
            for output in self._outputs:
                output(parcel)

    def close(self, timeout_s: float) -> None:
        return


def observation_parcel(camera: str, observations: Sequence[Observation], *, mask: bool) -> Parcel:
    """One camera's observations, one row a frame in each entity; frames without people get empty rows, so that the
    viewer does not go on showing who has left."""
    rows = len(observations)
    indexes = time_columns([each.seq for each in observations], [each.captured_ns for each in observations])
    points_2d = [_stack(_pixels(each), 2) for each in observations]
    points_3d = [
        _stack([person.pose.world_m for person in each.people if person.pose.world_m is not None], 3)
        for each in observations
    ]
    angles = np.stack([_angles(each) for each in observations])
    chunks = [
        Chunk.from_columns(
            points_2d_entity(camera),
            indexes,
            rr.Points2D.columns(positions=np.concatenate(points_2d)).partition([len(each) for each in points_2d]),
        ),
        Chunk.from_columns(
            points_3d_entity(camera),
            indexes,
            rr.Points3D.columns(positions=np.concatenate(points_3d)).partition([len(each) for each in points_3d]),
        ),
        Chunk.from_columns(
            angles_entity(camera), indexes, rr.Scalars.columns(scalars=angles.ravel()).partition([len(JOINTS)] * rows)
        ),
    ]
    nbytes = sum(each.nbytes for each in (*points_2d, *points_3d)) + angles.nbytes
    if mask:
        masks = [_silhouettes(each) for each in observations]
        formats = [
            rr.components.ImageFormat(width=each.shape[1], height=each.shape[0], channel_datatype="U8")
            for each in masks
        ]
        columns = rr.SegmentationImage.columns(buffer=[each.reshape(-1) for each in masks], format=formats)
        chunks.append(Chunk.from_columns(mask_entity(camera), indexes, columns))
        nbytes += sum(each.nbytes for each in masks)
    return Parcel(entity=f"/camera/{camera}", chunks=tuple(chunks), rows=rows, nbytes=nbytes)


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
    """(height, width) uint8: 0 where nobody is, else the number of the person."""
    masks = [(person.person_id, person.pose.mask) for person in observation.people if person.pose.mask is not None]
    if len(masks) == 1 and masks[0][0] == 1:
        return masks[0][1]  # ones and zeros already
    image = np.zeros((observation.height_px, observation.width_px), np.uint8)
    for number, mask in masks:
        image[mask > 0] = number
    return image


def _label(person: int) -> str:
    return f"person {person}"


def _colour(person: int) -> tuple[int, int, int]:
    return _COLOURS[(person - 1) % len(_COLOURS)]
