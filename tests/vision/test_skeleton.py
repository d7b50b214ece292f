from __future__ import annotations

import pytest

from edge.vision.skeleton import MEDIAPIPE_POSE, Skeleton


@pytest.mark.integration
def test_keypoints_and_connections_are_those_of_the_installed_mediapipe() -> None:
    from mediapipe.tasks.python import vision

    connections = vision.PoseLandmarksConnections.POSE_LANDMARKS

    assert MEDIAPIPE_POSE.keypoints == tuple(landmark.name.lower() for landmark in vision.PoseLandmark)
    assert MEDIAPIPE_POSE.connections == tuple((pair.start, pair.end) for pair in connections)


def test_the_left_half_of_the_body_is_the_mirror_image_of_the_right_half() -> None:
    sides = {"left": "right", "right": "left"}

    def mirrored(index: int) -> int:
        name = MEDIAPIPE_POSE.keypoints[index]
        return MEDIAPIPE_POSE.index("_".join(sides.get(part, part) for part in name.split("_")))

    lines = {frozenset(pair) for pair in MEDIAPIPE_POSE.connections}
    assert {frozenset(map(mirrored, pair)) for pair in lines} == lines


def test_keypoints_are_found_by_name() -> None:
    assert MEDIAPIPE_POSE.keypoints[MEDIAPIPE_POSE.index("left_wrist")] == "left_wrist"
    with pytest.raises(ValueError, match="not in"):
        MEDIAPIPE_POSE.index("tail")


@pytest.mark.parametrize(
    ("keypoints", "connections", "message"),
    [
        (("nose", "nose"), (), "skeleton dog: keypoint names repeat"),
        (("nose", "tail"), ((0, 2),), r"skeleton dog: connection \(0, 2\) names no keypoint"),
        (("nose", "tail"), ((-1, 0),), r"skeleton dog: connection \(-1, 0\) names no keypoint"),
    ],
)
def test_a_skeleton_that_makes_no_sense_is_refused(
    keypoints: tuple[str, ...], connections: tuple[tuple[int, int], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Skeleton("dog", keypoints, connections)
