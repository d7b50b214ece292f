"""What the daemon is compared with, written as anybody would write it, on MediaPipe's Python API."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bench.footage import pictures
from edge.bench.measurement import PACED_FPS, Loop, Measured, Task
from edge.vision.frame import UInt8Array
from edge.vision.skeleton import MEDIAPIPE_POSE

_WARM_UP_FRAMES = 20
_FILE_FPS = 30  # the clip's own, which the times that MediaPipe and Rerun are told go by


def measure(task: Task) -> Measured:
    """Run BARE, PACED_BARE or SEED."""
    import mediapipe  # noqa: PLC0415 - 1 s and 100 MB, which the daemon's loops need not spend

    vision = mediapipe.tasks.vision
    options = vision.PoseLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=task.model),
        running_mode=vision.RunningMode.VIDEO,
        num_poses=task.people,
        output_segmentation_masks=task.masks,
    )
    with vision.PoseLandmarker.create_from_options(options) as landmarker:

        def detect(pixels: UInt8Array, number: int) -> Any:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
            return landmarker.detect_for_video(image, number * 1000 // _FILE_FPS)

        if task.loop is Loop.SEED:
            example = Example(task.hub, detect)
            return timed(example.frame, example.finish, pictures(layout="bgr24"), task.seconds)
        fps = PACED_FPS if task.loop is Loop.PACED_BARE else None

        def bare(pixels: UInt8Array, number: int) -> bool:
            return bool(detect(pixels, number).pose_landmarks)

        return timed(bare, lambda: None, pictures(), task.seconds, fps=fps)


def timed(
    one: Callable[[UInt8Array, int], bool],
    finish: Callable[[], None],
    frames: Sequence[UInt8Array],
    seconds: float,
    *,
    fps: float | None = None,
) -> Measured:
    """Give `one` frame after frame, with its number, for `seconds` after a few to warm up.

    one: says whether somebody was in it. finish: waits until what was begun is done, which counts. fps: by the clock.
    """
    for number in range(_WARM_UP_FRAMES):
        one(frames[number % len(frames)], number)
    finish()
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    done = with_people = 0
    while done == 0 or time.perf_counter() - began_s < seconds:
        if fps is not None and (early_s := began_s + done / fps - time.perf_counter()) > 0:
            time.sleep(early_s)
        number = _WARM_UP_FRAMES + done
        with_people += one(frames[number % len(frames)], number)
        done += 1
    finish()
    spent_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Measured(done / spent_s, 1000 * cpu_s / done, with_people / done)


class Example:
    """A frame of Rerun's example of human pose tracking (examples/python/human_pose_tracking, 2025), written anew.

    It logs to a Rerun server what that one logs, under the same paths: the picture as JPEG, 33 points on the picture
    and 33 in space, the mask at the picture's size. Like that one it gives MediaPipe the picture in BGR and calls it
    RGB, which costs the same, and takes the points in space from the image landmarks.
    """

    def __init__(self, hub: str, detect: Callable[[UInt8Array, int], Any]) -> None:
        import rerun as rr  # noqa: PLC0415 - the bare loop does without
        import rerun.blueprint as rrb  # noqa: PLC0415

        self._rr = rr
        self._detect = detect
        self._keypoints = list(range(len(MEDIAPIPE_POSE.keypoints)))
        self._stream = stream = rr.RecordingStream("edge_pose_bench_example")
        stream.connect_grpc(hub)
        stream.send_blueprint(
            rrb.Horizontal(rrb.Spatial2DView(origin="video"), rrb.Spatial3DView(origin="person")),
        )
        stream.log("description", rr.TextDocument("MediaPipe's poses of a clip"), static=True)
        names = enumerate(MEDIAPIPE_POSE.keypoints)
        person = rr.ClassDescription(
            info=rr.AnnotationInfo(id=1, label="Person"),
            keypoint_annotations=[rr.AnnotationInfo(id=index, label=name) for index, name in names],
            keypoint_connections=list(MEDIAPIPE_POSE.connections),
        )
        stream.log("/", rr.AnnotationContext(person), static=True)
        background = rr.AnnotationInfo(id=0, label="Background")
        silhouette = rr.AnnotationInfo(id=1, label="Person", color=(0, 0, 0))
        stream.log("video/mask", rr.AnnotationContext([background, silhouette]), static=True)
        stream.log("person", rr.ViewCoordinates.RIGHT_HAND_Y_DOWN, static=True)

    def frame(self, bgr: UInt8Array, number: int) -> bool:
        rr, stream = self._rr, self._stream
        stream.set_time("time", duration=number / _FILE_FPS)
        stream.set_time("frame_idx", sequence=number)
        result = self._detect(bgr, number)
        stream.log("video/bgr", rr.Image(bgr, color_model="BGR").compress(jpeg_quality=75))
        for landmarks in result.pose_landmarks[:1]:
            height_px, width_px, _ = bgr.shape
            flat: NDArray[Any] = np.array([(width_px * point.x, height_px * point.y) for point in landmarks])
            stream.log("video/pose/points", rr.Points2D(flat, class_ids=1, keypoint_ids=self._keypoints))
            solid: NDArray[Any] = np.array([(point.x, point.y, point.z) for point in landmarks])
            stream.log("person/pose/points", rr.Points3D(solid, class_ids=1, keypoint_ids=self._keypoints))
        for mask in (result.segmentation_masks or [])[:1]:
            pixels = (mask.numpy_view() > 0.5).astype(np.uint8)
            stream.log("video/mask", rr.SegmentationImage(pixels))
        return bool(result.pose_landmarks)

    def finish(self) -> None:
        """Wait until the server has taken everything."""
        self._stream.flush()
