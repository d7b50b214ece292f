"""What the log holds, said once: static descriptions and the blueprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import rerun as rr
import rerun.blueprint as rrb

from edge.rerun_log.entities import (
    angles_entity,
    mask_entity,
    person_entity,
    points_2d_entity,
    points_3d_entity,
    video_entity,
)
from edge.vision.kinematics import JOINTS
from edge.vision.skeleton import Skeleton

# Colours of the first people, easy to tell apart on any picture (Okabe and Ito's palette).
_COLOURS = ((0, 158, 115), (230, 159, 0), (86, 180, 233), (204, 121, 167), (240, 228, 66), (213, 94, 0))
_MASK_OPACITY = 0.4


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


def _label(person: int) -> str:
    return f"person {person}"


def _colour(person: int) -> tuple[int, int, int]:
    return _COLOURS[(person - 1) % len(_COLOURS)]
