"""Which keypoints a pose has, what they are called and which of them are joined."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A keypoint's number is its index in `keypoints`; `connections` are pairs of such numbers."""

    name: str
    keypoints: tuple[str, ...]
    connections: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if len(set(self.keypoints)) != len(self.keypoints):
            raise ValueError(f"skeleton {self.name}: keypoint names repeat")
        for pair in self.connections:
            if not all(0 <= index < len(self.keypoints) for index in pair):
                raise ValueError(f"skeleton {self.name}: connection {pair} names no keypoint")

    def index(self, keypoint: str) -> int:
        """The number of `keypoint`. ValueError when the skeleton has none of that name."""
        return self.keypoints.index(keypoint)


# Order and connections as in MediaPipe's PoseLandmark and PoseLandmarksConnections, names in their lower case.
MEDIAPIPE_POSE = Skeleton(
    name="mediapipe_pose_33",
    keypoints=(
        "nose",
        "left_eye_inner",
        "left_eye",
        "left_eye_outer",
        "right_eye_inner",
        "right_eye",
        "right_eye_outer",
        "left_ear",
        "right_ear",
        "mouth_left",
        "mouth_right",
        "left_shoulder",
        "right_shoulder",
        "left_elbow",
        "right_elbow",
        "left_wrist",
        "right_wrist",
        "left_pinky",
        "right_pinky",
        "left_index",
        "right_index",
        "left_thumb",
        "right_thumb",
        "left_hip",
        "right_hip",
        "left_knee",
        "right_knee",
        "left_ankle",
        "right_ankle",
        "left_heel",
        "right_heel",
        "left_foot_index",
        "right_foot_index",
    ),
    connections=(
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 7),
        (0, 4),
        (4, 5),
        (5, 6),
        (6, 8),
        (9, 10),
        (11, 12),
        (11, 13),
        (13, 15),
        (15, 17),
        (15, 19),
        (15, 21),
        (17, 19),
        (12, 14),
        (14, 16),
        (16, 18),
        (16, 20),
        (16, 22),
        (18, 20),
        (11, 23),
        (12, 24),
        (23, 24),
        (23, 25),
        (24, 26),
        (25, 27),
        (26, 28),
        (27, 29),
        (28, 30),
        (29, 31),
        (30, 32),
        (27, 31),
        (28, 32),
    ),
)
