"""All that is known about one frame, sealed: what every sink receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.vision.frame import Frame
from edge.vision.kinematics import Box, bounding_box, joint_angles_deg
from edge.vision.pose import Float32Array, Pose


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One person in one frame.

    person_id: counts from 1 within the frame; the same number in the next frame may be somebody else.
    angles_deg: as `kinematics.joint_angles_deg`.
    """

    person_id: int
    pose: Pose
    box: Box
    angles_deg: Float32Array | None


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One frame's result. camera, seq, captured_ns and monotonic_ns are the frame's own.

    shown_seq: the seq of the picture that people look at while the frame is the newest, its own or an earlier one's.
    arrived_ns: the time.monotonic_ns at which the frame was there to be estimated. inference_ns: how long the estimator
    took for it.
    """

    camera: str
    seq: int
    captured_ns: int
    monotonic_ns: int
    width_px: int
    height_px: int
    people: tuple[Person, ...]
    shown_seq: int
    arrived_ns: int = 0
    inference_ns: int = 0


def observe(frame: Frame, poses: Sequence[Pose], *, arrived_ns: int = 0, inference_ns: int = 0) -> Observation:
    """Seal what the estimator found in `frame`."""
    return Observation(
        camera=frame.camera,
        seq=frame.seq,
        captured_ns=frame.captured_ns,
        monotonic_ns=frame.monotonic_ns,
        width_px=frame.rgb.width_px,
        height_px=frame.rgb.height_px,
        people=tuple(
            Person(person_id=number, pose=pose, box=bounding_box(pose), angles_deg=joint_angles_deg(pose))
            for number, pose in enumerate(poses, start=1)
        ),
        shown_seq=frame.seq if frame.shown_seq is None else frame.shown_seq,
        arrived_ns=arrived_ns,
        inference_ns=inference_ns,
    )
