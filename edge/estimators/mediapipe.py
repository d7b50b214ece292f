"""MediaPipe's Pose Landmarker as a PoseEstimator."""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from edge.errors import BoardError, EstimatorError, ModelError
from edge.estimators import board_set
from edge.logs import of_camera
from edge.vision.frame import Frame, UInt8Array
from edge.vision.pose import Float32Array, Pose
from edge.vision.skeleton import MEDIAPIPE_POSE

log = logging.getLogger(__name__)

# TCP to the broadcast address fails inside the kernel (tcp_v4_connect), before anything is sent, if only to loopback.
_NOWHERE = "http://255.255.255.255:9"

_MASK_THRESHOLD = 0.5

# MediaPipe turns the status of a failed call into one of these, by its code.
_GRAPH_ERRORS = (RuntimeError, ValueError, OSError, IndexError)


class MediaPipeEstimator:
    """One landmarker in VIDEO mode: it tracks from frame to frame, so it serves one camera, whose frames come in order.

    model: path of a .task bundle. max_people: 1..N; temporal smoothing and the shortcut past the person detector work
    with 1 only. segmentation: whether poses carry masks.
    """

    skeleton = MEDIAPIPE_POSE

    def __init__(self, model: Path, *, max_people: int = 1, segmentation: bool = True) -> None:
        self._model = model
        self._max_people = max_people
        self._segmentation = segmentation
        self._mediapipe: Any = None
        self._landmarker: Any = None
        self._last_timestamp_ms = -1

    def __enter__(self) -> Self:
        """Raises BoardError where the processor or the system can't run MediaPipe, ModelError for a damaged model."""
        self._mediapipe = _import_mediapipe()
        self._create()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        try:
            result = self._detect(frame)
        except _GRAPH_ERRORS as error:
            # A graph that has failed once fails for ever, so one more try needs a new one. It begins without a
            # track, which costs accuracy for a frame or two.
            told = of_camera(log, frame.camera)
            told.warning("camera %s: the pose graph failed at frame %d, making a new one: %s", *_failure(frame, error))
        else:
            return _poses(result)
        self._close()
        self._create()
        try:
            return _poses(self._detect(frame))
        except _GRAPH_ERRORS as error:
            camera, seq, reason = _failure(frame, error)
            raise EstimatorError(f"camera {camera}: the pose graph failed twice at frame {seq}: {reason}") from None

    def _create(self) -> None:
        tasks = self._mediapipe.tasks
        options = tasks.vision.PoseLandmarkerOptions(
            base_options=tasks.BaseOptions(model_asset_path=str(self._model)),
            running_mode=tasks.vision.RunningMode.VIDEO,
            num_poses=self._max_people,
            output_segmentation_masks=self._segmentation,
        )
        try:
            self._landmarker = tasks.vision.PoseLandmarker.create_from_options(options)
        except _GRAPH_ERRORS as error:
            reason = _first_line(error)
            if "shared object file" in reason:  # the dynamic linker, with the name of what it did not find
                raise BoardError(f"MediaPipe can't start: {reason}; apt install libegl1 libgles2") from None
            raise ModelError(
                f"model {self._model}: MediaPipe can't load it ({reason}); use lite, full or heavy"
            ) from None

    def _close(self) -> None:
        landmarker, self._landmarker = self._landmarker, None
        if landmarker is not None:
            try:
                landmarker.close()
            except _GRAPH_ERRORS as error:
                # A failed graph says so once more. MediaPipe frees it all the same but keeps its handle, and its
                # finaliser would free that again, which never returns.
                landmarker._handle = None  # noqa: SLF001
                log.debug("closing the pose graph: %s", error)

    def _detect(self, frame: Frame) -> Any:
        mediapipe = self._mediapipe
        # Strictly increasing milliseconds are MediaPipe's condition; beyond 1000 frames/s they run ahead of the clock.
        timestamp_ms = max(frame.monotonic_ns // 1_000_000, self._last_timestamp_ms + 1)
        self._last_timestamp_ms = timestamp_ms
        image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=frame.rgb.pixels)
        return self._landmarker.detect_for_video(image, timestamp_ms)


def _poses(result: Any) -> tuple[Pose, ...]:
    """A result's people as arrays of our own, for it frees its memory when it goes; the best seen one first.

    People with coordinates that are no numbers are left out.
    """
    masks = result.segmentation_masks or [None] * len(result.pose_landmarks)
    people = zip(result.pose_landmarks, result.pose_world_landmarks, masks, strict=True)
    poses = [
        Pose(
            skeleton=MEDIAPIPE_POSE,
            image_xyz=_xyz(landmarks),
            visibility=np.array([point.visibility for point in landmarks], np.float32).clip(0.0, 1.0),
            world_m=_xyz(world),
            mask=None if mask is None else _person_pixels(mask),
        )
        for landmarks, world, mask in people
        if np.isfinite([*_xyz(landmarks), *_xyz(world)]).all()
    ]
    return tuple(sorted(poses, key=lambda pose: pose.score, reverse=True))


def _xyz(landmarks: Any) -> Float32Array:
    return np.array([(point.x, point.y, point.z) for point in landmarks], np.float32)


def _person_pixels(mask: Any) -> UInt8Array:
    """A mask as 0 and 1. The comparison also copies: the view points into memory that the result frees when it goes."""
    view = mask.numpy_view()
    pixels: UInt8Array = np.greater(view.reshape(view.shape[:2]), _MASK_THRESHOLD).view(np.uint8)
    return pixels


def _failure(frame: Frame, error: Exception) -> tuple[str, int, str]:
    return frame.camera, frame.seq, _first_line(error)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def missing_features() -> frozenset[str]:
    """What the MediaPipe that is installed needs and this processor has not; empty when it can run."""
    return board_set.missing_here() if int(version("mediapipe").split(".")[0]) >= 1 else frozenset()


def _import_mediapipe() -> Any:
    if missing := missing_features():
        # Without this its library would end the process with SIGABRT.
        features = ", ".join(sorted(missing))
        remedy = f"install requirements/{board_set.ARMV8_0}.txt"
        raise BoardError(f"this processor has no {features}, which MediaPipe {version('mediapipe')} needs; {remedy}")
    # MediaPipe from 1.0 on reports its use to a Google host and has no option against it; without a route close()
    # even waits ten seconds. Its HTTP client obeys this variable, and nothing can be at that address: the report fails.
    # putenv tells native code only; os.environ, and with it whatever this program itself fetches, stays as it is.
    os.putenv("https_proxy", _NOWHERE)
    _take_exceptions_from_native_code()
    import mediapipe  # noqa: PLC0415 - 1 s and 100 MB, and only where poses are estimated

    return mediapipe


def _take_exceptions_from_native_code() -> None:
    """Exempt Google's hosts from no proxy. Other exceptions stay: FFmpeg, which reads http cameras, obeys them too."""
    for name in ("no_proxy", "NO_PROXY"):
        exceptions = [entry.strip() for entry in os.environ.get(name, "").split(",")]
        if "*" in exceptions:  # as if there were no proxies
            for proxy in ("http_proxy", "HTTP_PROXY"):
                os.unsetenv(proxy)
        kept = [entry for entry in exceptions if "google" not in entry and entry.strip("*.") not in {"", "com"}]
        if kept:
            os.putenv(name, ",".join(kept))
        else:
            os.unsetenv(name)
