"""A small scene for the tests of this folder."""

from __future__ import annotations

from edge.rerun_log.scene import Scene
from edge.vision.skeleton import MEDIAPIPE_POSE


def scene(*, cameras: tuple[str, ...] = ("front",), max_people: int = 1, video: str = "h264") -> Scene:
    return Scene(
        device="bench",
        session="20260101T000000Z-0000abcd",
        cameras=cameras,
        skeleton=MEDIAPIPE_POSE,
        max_people=max_people,
        video=video,
        properties={"board": "test"},
    )
