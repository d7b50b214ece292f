"""MediaPipe's Pose Landmarker as a PoseEstimator."""

from __future__ import annotations

import ctypes
import logging
import os
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edge.errors import BoardError, EstimatorError, ModelError
from edge.estimators import board_set, direct
from edge.estimators.landmarker import GRAPH_ERRORS, Landmarker
from edge.estimators.left_out import left_out
from edge.estimators.tasks_api import TasksLandmarker
from edge.logs import of_camera
from edge.vision.frame import Frame
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE

log = logging.getLogger(__name__)

NOWHERE = "http://255.255.255.255:9"
"""A proxy for MediaPipe's report of its use.

TCP to the broadcast address fails inside the kernel (tcp_v4_connect), before anything is sent, if only to loopback.
"""


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
        self._landmarker: Landmarker | None = None
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
            return self._detect(frame)
        except GRAPH_ERRORS as error:
            # A graph that has failed once fails for ever, so one more try needs a new one. It begins without a
            # track, which costs accuracy for a frame or two.
            told = of_camera(log, frame.camera)
            told.warning("camera %s: the pose graph failed at frame %d, making a new one: %s", *_failure(frame, error))
        self._close()
        self._create()
        try:
            return self._detect(frame)
        except GRAPH_ERRORS as error:
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
            graph = tasks.vision.PoseLandmarker.create_from_options(options)
        except GRAPH_ERRORS as error:
            reason = _first_line(error)
            if "shared object file" in reason:  # the dynamic linker, with the name of what it did not find
                raise BoardError(f"MediaPipe can't start: {reason}; apt install libegl1 libgles2") from None
            raise ModelError(
                f"model {self._model}: MediaPipe can't load it ({reason}); use lite, full or heavy"
            ) from None
        by_api = TasksLandmarker(graph, self._mediapipe)
        self._landmarker = direct.landmarker(by_api, direct.bindings())

    def _close(self) -> None:
        landmarker, self._landmarker = self._landmarker, None
        if landmarker is not None:
            landmarker.close()
            _give_memory_back()

    def _detect(self, frame: Frame) -> tuple[Pose, ...]:
        # Strictly increasing milliseconds are MediaPipe's condition; beyond 1000 frames/s they run ahead of the clock.
        timestamp_ms = max(frame.monotonic_ns // 1_000_000, self._last_timestamp_ms + 1)
        self._last_timestamp_ms = timestamp_ms
        assert self._landmarker is not None, "estimate() before it was entered"
        return self._landmarker.detect(frame.rgb.pixels, timestamp_ms)


def _give_memory_back() -> None:
    """glibc keeps what a model's threads have freed, in an arena of each of them; the next model gets new ones."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)


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
    os.putenv("https_proxy", NOWHERE)
    _take_exceptions_from_native_code()
    # MediaPipe can plot landmarks: 0.33 of the 0.41 s of CPU that its import takes, and 30 MiB.
    with left_out("matplotlib", "matplotlib.pyplot"):
        import mediapipe  # noqa: PLC0415 - only where poses are estimated

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
