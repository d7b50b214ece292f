"""What tests of several files need: the model, the clips, poses and frames to feed in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.vision import observation
from edge.vision.frame import Frame, Picture, PixelLayout
from edge.vision.kinematics import bounding_box, kinematics
from edge.vision.motion import Motion
from edge.vision.observation import Observation, Person
from edge.vision.pose import Pose
from edge.vision.posture import Posture, PostureReading
from edge.vision.skeleton import MEDIAPIPE_POSE

CLIP = Path(edge.__file__).parent / "media" / "one_person_640x480_30fps.mp4"
"""60 frames, 30 a second, one person in each."""


def frame(*, seq: int = 0, camera: str = "front", width_px: int = 64, height_px: int = 48, fps: float = 30.0) -> Frame:
    """Frame `seq` of a camera whose picture is grey and gets brighter from frame to frame."""
    pixels = np.full((height_px, width_px, 3), seq % 256, np.uint8)
    time_ns = int(seq * 1e9 / fps)
    return Frame(
        camera, seq, 1_700_000_000_000_000_000 + time_ns, 10_000_000_000 + time_ns, Picture(pixels, PixelLayout.RGB)
    )


def pose(*, x: float = 0.5, mask: tuple[int, int] | None = None) -> Pose:
    """A pose with its keypoints on a small spiral around (x, 0.5); with a mask of (height, width) when given."""
    count = len(MEDIAPIPE_POSE.keypoints)
    angle = np.linspace(0, 6, count, dtype=np.float32)
    spiral = np.stack([np.cos(angle), np.sin(angle), angle / 6], axis=1) * (0.01 + angle[:, None] / 60)
    return Pose(
        skeleton=MEDIAPIPE_POSE,
        image_xyz=(spiral + np.array([x, 0.5, 0.0])).astype(np.float32),
        visibility=np.linspace(0.6, 1.0, count, dtype=np.float32),
        world_m=spiral.astype(np.float32),
        mask=None if mask is None else np.ones(mask, np.uint8),
    )


def observe(seen: Frame, poses: Sequence[Pose], **times_ns: int) -> Observation:
    """An observation in which each of `poses` is a person of their own, numbered from 1, of whom no more is known than
    the pose tells. times_ns: arrived_ns and inference_ns."""
    width_px, height_px = seen.rgb.width_px, seen.rgb.height_px
    people = [
        Person(
            person_id=number,
            pose=each,
            box=bounding_box(each),
            kinematics=kinematics(each, each.world_m, width_px, height_px),
            motion=Motion(),
            posture=PostureReading(Posture.UNKNOWN, 0.0, seen.monotonic_ns),
            since_ns=seen.monotonic_ns,
        )
        for number, each in enumerate(poses, start=1)
    ]
    return observation.observe(seen, people, **times_ns)


def eventually(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Return as soon as `condition` holds; fail when it still doesn't after `timeout_s`."""
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end_s, f"not so within {timeout_s:g} s"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def model() -> Path:
    """The `full` model, fetched by the way a user's is when it is not here yet."""
    from edge.estimators.models.store import ModelStore

    kept = os.environ.get("EDGE_POSE_TEST_MODELS")
    return ModelStore(Path(kept) if kept else None).ensure("full").path
