"""A small scene for the tests of this folder, and how it is recorded."""

from __future__ import annotations

from pathlib import Path

from edge.rerun_log.log import SceneLog
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.scene import Scene
from edge.rerun_log.segments import Segments
from edge.stats import Stats
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


class Recorder:
    """A log whose entries go straight into files in `directory`."""

    def __init__(self, directory: Path, about: Scene, *, stats: Stats | None = None, keep_mb: int = 100) -> None:
        self.stats = stats or Stats([])
        self.log = SceneLog(self.stats)
        self.log.describe(about)
        self.segments = Segments(
            directory,
            about.recording_id,
            keep_bytes=keep_mb * 1_000_000,
            keep_free_bytes=1,
            description=lambda: self.log.description,
            gone=self.log.gone,
            stats=self.stats,
        )
        self.log.keep_longer(self.segments, lambda entry: self.segments.write([entry]))

    def put(self, parcel: Parcel) -> None:
        self.log.put(parcel)

    def close(self) -> Path:
        """Its first file."""
        self.segments.close(1.0)
        self.log.close()
        return self.segments.path
