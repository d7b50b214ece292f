"""The estimator against MediaPipe itself, on the real model and clips."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.cameras.stream import StreamSource
from edge.errors import ModelError
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.vision.frame import Frame
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import CLIP, frame

pytestmark = pytest.mark.integration

TWO_PEOPLE = Path(__file__).parents[1] / "media" / "two_people_1088x1920_60fps.mp4"


def frames(clip: Path, most: int) -> Iterator[Frame]:
    with StreamSource("front", str(clip), pace="unlimited") as source:
        for _ in range(most):
            read = source.read(1.0)
            assert read is not None
            yield read


def directly(model: Path, clip: Sequence[Frame]) -> list[Any]:
    """What MediaPipe says to the same frames, as (image, world, mask) a frame, without any code of ours."""
    import mediapipe as mp

    vision = mp.tasks.vision
    options = vision.PoseLandmarkerOptions(
        base_options=mp.tasks.BaseOptions(model_asset_path=str(model)),
        running_mode=vision.RunningMode.VIDEO,
        output_segmentation_masks=True,
    )
    answers = []
    with vision.PoseLandmarker.create_from_options(options) as landmarker:
        for each in clip:
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=each.rgb.pixels)
            result = landmarker.detect_for_video(image, each.monotonic_ns // 1_000_000)
            answers.append(
                (
                    [[p.x, p.y, p.z] for p in result.pose_landmarks[0]],
                    [[p.x, p.y, p.z] for p in result.pose_world_landmarks[0]],
                    result.segmentation_masks[0].numpy_view().reshape(each.rgb.pixels.shape[:2]) > 0.5,
                )
            )
    return answers


def test_landmarks_world_and_masks_are_mediapipes_own(model: Path) -> None:
    clip = list(frames(CLIP, 60))
    expected = directly(model, clip)
    with MediaPipeEstimator(model) as estimator:
        found = [estimator.estimate(each) for each in clip]
    # All results are kept until here: had a mask not been copied, its memory would have been used again by now.
    for poses, (image, world, mask) in zip(found, expected, strict=True):
        (pose,) = poses
        assert pose.world_m is not None
        assert pose.mask is not None
        assert np.array_equal(pose.image_xyz, np.array(image, np.float32))
        assert np.array_equal(pose.world_m, np.array(world, np.float32))
        assert pose.mask.shape == (120, 160)
        assert np.array_equal(pose.mask, mask[2::4, 2::4])


def test_skeleton_is_mediapipes_own() -> None:
    from mediapipe.tasks.python.vision.pose_landmarker import PoseLandmark, PoseLandmarksConnections

    assert MEDIAPIPE_POSE.keypoints == tuple(landmark.name.lower() for landmark in PoseLandmark)
    connections = {(each.start, each.end) for each in PoseLandmarksConnections.POSE_LANDMARKS}
    assert set(MEDIAPIPE_POSE.connections) == connections


def test_world_landmarks_are_metres_around_the_hips(model: Path) -> None:
    with MediaPipeEstimator(model) as estimator:
        (pose,) = [estimator.estimate(each) for each in frames(CLIP, 10)][-1]
    assert pose.world_m is not None
    hips = pose.world_m[[MEDIAPIPE_POSE.index("left_hip"), MEDIAPIPE_POSE.index("right_hip")]]
    assert np.abs(hips.mean(axis=0)).max() < 0.05
    nose, ankle = (pose.world_m[MEDIAPIPE_POSE.index(name)] for name in ("nose", "left_ankle"))
    assert 0.8 < np.linalg.norm(ankle - nose) < 2.0
    assert nose[1] < 0 < ankle[1]  # y points down


def test_several_people(model: Path) -> None:
    with MediaPipeEstimator(model, max_people=3, segmentation=False) as estimator:
        counts = [len(estimator.estimate(each)) for each in frames(TWO_PEOPLE, 30)]
    assert max(counts) == 2


def test_a_frame_without_people_gives_no_pose(model: Path) -> None:
    with MediaPipeEstimator(model) as estimator:
        assert estimator.estimate(frame(width_px=320, height_px=240)) == ()


def test_frames_closer_than_a_millisecond_keep_their_order(model: Path) -> None:
    with MediaPipeEstimator(model, segmentation=False) as estimator:
        for seq in range(5):
            estimator.estimate(frame(seq=seq, fps=100_000))


def test_a_graph_that_has_failed_is_replaced(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    import mediapipe as mp

    clip = list(frames(CLIP, 12))
    with MediaPipeEstimator(model) as estimator:
        assert estimator.estimate(clip[0])
        # A picture in a format that the graph can't take breaks it for good.
        depth = mp.Image(image_format=mp.ImageFormat.VEC32F1, data=np.zeros((48, 64), np.float32))
        by_api = getattr(estimator._landmarker, "_tasks", estimator._landmarker)
        with pytest.raises(ValueError, match="Unsupported format"):
            by_api.graph.detect_for_video(depth, clip[1].monotonic_ns // 1_000_000)
        with pytest.raises(ValueError, match="Unsupported format"):
            estimator._detect(clip[2])
        assert estimator.estimate(clip[3])
        assert estimator.estimate(clip[4])
    assert "making a new one" in caplog.text
    # What is left of the failed graph goes without freeing it a second time, which would hang.
    collecting = threading.Thread(target=gc.collect, daemon=True)
    collecting.start()
    collecting.join(20)
    assert not collecting.is_alive()


def test_a_file_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.task"
    broken.write_bytes(b"not a model" * 1000)
    with pytest.raises(ModelError) as raised, MediaPipeEstimator(broken):
        pass
    assert str(broken) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_what_a_freed_model_took_is_given_back(model: Path) -> None:
    """Each thread's memory would stay with it otherwise: 240 MiB after three exchanges of four models."""
    (one,) = frames(CLIP, 1)

    all_there = threading.Barrier(4)  # else the first four may take turns on a busy machine, and later ones not

    def work() -> None:
        with MediaPipeEstimator(model) as estimator:
            estimator.estimate(one)
            all_there.wait(60)

    def exchange() -> int:
        workers = [threading.Thread(target=work) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return int(Path("/proc/self/status").read_text().split("RssAnon:")[1].split()[0]) // 1024

    first_mib = exchange()
    assert min([exchange() for _ in range(6)][3:]) < first_mib + 150
