"""What tests of several files need: the model, the clips, poses and frames to feed in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.vision.frame import Frame, Picture, PixelLayout
from edge.vision.pose import Pose
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
