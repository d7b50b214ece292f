"""All that is known about one frame, sealed: what every sink receives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.vision.falls import FallEvidence
from edge.vision.frame import Frame
from edge.vision.kinematics import Box, Kinematics
from edge.vision.motion import Motion
from edge.vision.pose import Float32Array, Pose
from edge.vision.posture import PostureReading


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One person in one frame.

    person_id: of one camera, from 1; the same number in another frame is the same person as far as can be told, and it
    is never given again while the daemon runs. since_ns: the monotonic_ns of the first frame with this person. fall:
    what speaks for a fall after which this person is still down, None when there is none.
    """

    person_id: int
    pose: Pose
    box: Box
    kinematics: Kinematics
    motion: Motion
    posture: PostureReading
    since_ns: int
    fall: FallEvidence | None = None

    @property
    def angles_deg(self) -> Float32Array | None:
        """As `kinematics.joint_angles_deg`."""
        return self.kinematics.angles_deg


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One frame's result. camera, seq, captured_ns and monotonic_ns are the frame's own.

    people: those who are seen, in the order of their ids. away: the ids of those who are not, but may only be hidden.
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
    away: tuple[int, ...] = ()
    arrived_ns: int = 0
    inference_ns: int = 0


def observe(
    frame: Frame, people: Sequence[Person], *, away: Sequence[int] = (), arrived_ns: int = 0, inference_ns: int = 0
) -> Observation:
    """Seal what is known of `frame`."""
    return Observation(
        camera=frame.camera,
        seq=frame.seq,
        captured_ns=frame.captured_ns,
        monotonic_ns=frame.monotonic_ns,
        width_px=frame.rgb.width_px,
        height_px=frame.rgb.height_px,
        people=tuple(people),
        away=tuple(away),
        shown_seq=frame.seq if frame.shown_seq is None else frame.shown_seq,
        arrived_ns=arrived_ns,
        inference_ns=inference_ns,
    )
