"""What the log holds, said once: static descriptions and the blueprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import rerun as rr

from edge.privacy import Mode, Shows, most_shown
from edge.rerun_log.blueprint import blueprint
from edge.rerun_log.entities import (
    CLASSES,
    DEVICE_STATS,
    angles_entity,
    mask_entity,
    names_entity,
    person_entity,
    points_2d_entity,
    points_3d_entity,
    stats_entity,
    video_entity,
)
from edge.rerun_log.notes import CAMERA_FIGURES, DEVICE_FIGURES
from edge.vision.kinematics import JOINTS
from edge.vision.skeleton import Skeleton

# Easy to tell apart on any picture (Okabe and Ito's palette), first those in which text can be read best.
_COLOURS = ((86, 180, 233), (230, 159, 0), (240, 228, 66), (204, 121, 167), (0, 158, 115), (213, 94, 0))
_NECK = (160, 160, 160)
# Over a picture, which shows through, and over nothing, where the skeleton has to stand out.
_OPACITY, _OPACITY_ALONE = 0.4, 0.6

PRIVACY_PROPERTY = "privacy"
"""In the recording's properties: the mode that it was made in, by which a file says how much it may show."""


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is known before the first frame, and how to tell it to a Rerun stream.

    started_ns: when this run began, since the Unix epoch. video: "h264", "jpeg" or "off". mask: "image", "contour" or
    "off". privacy: the mode that it is logged in. properties: facts about the recording, shown beside it.
    """

    device: str
    session: str
    started_ns: int
    cameras: tuple[str, ...]
    skeleton: Skeleton
    max_people: int
    video: str
    mask: str
    privacy: Mode
    properties: Mapping[str, str]

    @property
    def application_id(self) -> str:
        return f"edge-pose-{self.device}"  # Rerun replaces a name with a slash by one of its own

    @property
    def recording_id(self) -> str:
        return f"{self.device}-{self.session}"

    @property
    def most_shown(self) -> Shows:
        """The most that there may be to see in it."""
        return most_shown(self.privacy)

    def new_stream(self) -> rr.RecordingStream:
        """A stream into this recording, connected to nothing yet."""
        # What comes as ready chunks passes its batcher by. With a server at the other end that would look every 8 ms
        # whether there is anything to send, 120 times a second for nothing.
        batcher = rr.ChunkBatcherConfig(flush_tick=0.2)
        return rr.RecordingStream(self.application_id, recording_id=self.recording_id, batcher_config=batcher)

    def describe(self, stream: rr.RecordingStream) -> None:
        """Send everything that does not change; a receiver that is new, or has lost it, needs it first."""
        stream.send_recording_name(f"{self.device} {self.session}")
        # Or it would be that of the stream, of which more may follow.
        stream.send_recording_start_time_nanos(self.started_ns)
        properties = {**self.properties, PRIVACY_PROPERTY: self.privacy}
        stream.send_property("device", rr.AnyValues(drop_untyped_nones=True, **properties))
        classes = range(1, CLASSES + 1)
        stream.log("/", rr.AnnotationContext([self._class_description(each) for each in classes]), static=True)
        silhouettes = [rr.AnnotationInfo(id=0, label="background", color=(0, 0, 0, 0))]
        silhouettes += [rr.AnnotationInfo(id=each, label=_label(each), color=_colour(each)) for each in classes]
        # Positions and classes change from frame to frame; which keypoint of its person each point is does not.
        keypoint_ids = np.tile(np.arange(len(self.skeleton.keypoints)), self.max_people)
        points_2d = rr.Points2D.from_fields(
            keypoint_ids=keypoint_ids, radii=rr.Radius.ui_points(3.5), show_labels=False
        )
        points_3d = rr.Points3D.from_fields(keypoint_ids=keypoint_ids, radii=0.012)
        outline = rr.LineStrips2D.from_fields(radii=rr.Radius.ui_points(1.0), show_labels=False)
        opacity = _OPACITY if self.video != "off" else _OPACITY_ALONE
        edge = rr.LineStrips2D.from_fields(radii=rr.Radius.ui_points(0.5), colors=(110, 110, 110))
        names = rr.Points2D.from_fields(radii=rr.Radius.ui_points(0), show_labels=True)
        for camera in self.cameras:
            if self.video == "h264":
                stream.log(video_entity(camera), rr.VideoStream(codec=rr.VideoCodec.H264), static=True)
            elif self.video == "off":
                stream.log(video_entity(camera), edge, static=True)
            if self.mask == "image":
                stream.log(mask_entity(camera), rr.AnnotationContext(silhouettes), static=True)
                stream.log(mask_entity(camera), rr.SegmentationImage.from_fields(opacity=opacity), static=True)
            elif self.mask == "contour":
                stream.log(mask_entity(camera), outline, static=True)
            stream.log(points_2d_entity(camera), points_2d, static=True)
            stream.log(names_entity(camera), names, static=True)
            stream.log(person_entity(camera), rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)
            stream.log(points_3d_entity(camera), points_3d, static=True)
            stream.log(angles_entity(camera), self._angles(), static=True)
            stream.log(
                stats_entity(camera),
                rr.SeriesLines(names=CAMERA_FIGURES, colors=_COLOURS[: len(CAMERA_FIGURES)]),
                static=True,
            )
        stream.log(
            DEVICE_STATS, rr.SeriesLines(names=DEVICE_FIGURES, colors=_COLOURS[: len(DEVICE_FIGURES)]), static=True
        )
        stream.send_blueprint(blueprint(self.cameras, pictures=self.video != "off"))

    def _angles(self) -> rr.SeriesLines:
        """The places of angles, as `observations.observation_parcel` fills them. Of one alone right is darker."""
        joints = [joint.replace("_", " ") for joint in JOINTS]
        names = [f"{place} {joint}" for place in range(1, self.max_people + 1) for joint in joints]
        pairs = [colour for joint in _COLOURS for colour in (joint, _darker(joint, 0.6))]
        pairs.append(_NECK)  # it has no sides
        # Of several people each has a colour, in which the joints differ by how dark they are.
        shades = [
            _darker(_colour(place), 1 - 0.05 * number)
            for place in range(1, self.max_people + 1)
            for number in range(len(JOINTS))
        ]
        several = self.max_people > 1
        return rr.SeriesLines(names=names if several else joints, colors=shades if several else pairs)

    def _class_description(self, person: int) -> rr.ClassDescription:
        return rr.ClassDescription(
            info=rr.AnnotationInfo(id=person, label=_label(person), color=_colour(person)),
            keypoint_annotations=[
                rr.AnnotationInfo(id=index, label=name) for index, name in enumerate(self.skeleton.keypoints)
            ],
            keypoint_connections=list(self.skeleton.connections),
        )


def _label(place: int) -> str:
    """Not whose it is: the next one to come may have it. That is written above each head."""
    return f"person, colour {place}"


def _colour(person: int) -> tuple[int, int, int]:
    return _COLOURS[(person - 1) % len(_COLOURS)]


def _darker(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(share * part) for part in colour)
    return red, green, blue
