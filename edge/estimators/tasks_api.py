"""The landmarker by MediaPipe's Python API: every version has it, and it costs an object a landmark."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from edge.estimators.landmarker import GRAPH_ERRORS, person_pixels, poses
from edge.vision.frame import UInt8Array
from edge.vision.pose import Float32Array, Pose

log = logging.getLogger(__name__)


class TasksLandmarker:
    """A Landmarker. graph: a PoseLandmarker in VIDEO mode, owned from here on. mediapipe: the package."""

    def __init__(self, graph: Any, mediapipe: Any) -> None:
        self.graph = graph
        self._mediapipe = mediapipe

    def detect(self, pixels: UInt8Array, timestamp_ms: int) -> tuple[Pose, ...]:
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=pixels)
        return poses_of(self.graph.detect_for_video(image, timestamp_ms))

    def close(self) -> None:
        try:
            self.graph.close()
        except GRAPH_ERRORS as error:
            # A failed graph says so once more. MediaPipe frees it all the same but keeps its handle, and its
            # finaliser would free that again, which never returns.
            self.graph._handle = None  # noqa: SLF001
            log.debug("closing the pose graph: %s", error)


def poses_of(result: Any) -> tuple[Pose, ...]:
    """The people of a PoseLandmarkerResult, copied: its masks' memory goes with it."""
    masks = result.segmentation_masks or [None] * len(result.pose_landmarks)
    return poses(
        (
            _xyz(landmarks),
            np.array([point.visibility for point in landmarks], np.float32),
            _xyz(world),
            None if mask is None else person_pixels(_confidence(mask)),
        )
        for landmarks, world, mask in zip(result.pose_landmarks, result.pose_world_landmarks, masks, strict=True)
    )


def _xyz(landmarks: Any) -> Float32Array:
    return np.array([(point.x, point.y, point.z) for point in landmarks], np.float32)


def _confidence(mask: Any) -> Float32Array:
    """(height, width) of a mask, which older versions give a third dimension. It lives as long as the mask."""
    view = mask.numpy_view()
    confidence: Float32Array = view.reshape(view.shape[:2])
    return confidence
