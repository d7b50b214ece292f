"""A small scene for the tests of this folder, and how it is recorded."""

from __future__ import annotations

import random
from pathlib import Path

import rerun as rr
from rerun.chunk import Chunk

from edge.privacy import Mode, Shows, most_shown
from edge.rerun_log.entities import time_columns, video_entity
from edge.rerun_log.log import Entry, SceneLog
from edge.rerun_log.observations import observation_parcel
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.scene import Scene
from edge.rerun_log.segments import Segments
from edge.stats import Stats
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import frame, observe, pose


def scene(
    *,
    cameras: tuple[str, ...] = ("front",),
    max_people: int = 1,
    video: str | None = None,
    mask: str | None = None,
    privacy: Mode = "full",
    device: str = "bench",
    session: str = "20260101T000000Z-0000abcd",
) -> Scene:
    """video, mask: by default what the mode of privacy allows."""
    most = most_shown(privacy)
    return Scene(
        device=device,
        session=session,
        started_ns=1_767_225_600_000_000_000,
        cameras=cameras,
        skeleton=MEDIAPIPE_POSE,
        max_people=max_people,
        video=video or ("h264" if most >= Shows.PICTURES else "off"),
        mask=mask or ("image" if most >= Shows.SILHOUETTES else "off"),
        privacy=privacy,
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
            device=about.device,
            keep_bytes=keep_mb * 1_000_000,
            keep_free_bytes=1,
            description=lambda: self.log.description,
            gone=self.log.gone,
            stats=self.stats,
        )
        self.segments.withhold()
        self.arrived: list[Entry] = []
        self.log.keep_longer(self.segments, self.arrived.append)

    def put(self, parcel: Parcel) -> None:
        self.log.put(parcel)
        self.segments.write(self.arrived)
        self.arrived.clear()

    def close(self) -> Path:
        """Its first file."""
        self.segments.close(1.0)
        self.log.close()
        return self.segments.path


def video_parcel(
    number: int,
    *,
    camera: str = "front",
    every: int = 4,
    keyframe: bool | None = None,
    rows: int = 8,
    nbytes: int = 6000,
) -> Parcel:
    """Rows that weigh as much as video. Each `every`th parcel begins with a keyframe, unless `keyframe` says more."""
    seqs = range(rows * number, rows * (number + 1))
    chance = random.Random(number)
    samples = rr.components.VideoSampleBatch([chance.randbytes(nbytes) for _ in seqs])
    columns = [rr.ComponentColumn(rr.VideoStream.descriptor_sample(), samples)]
    indexes = time_columns(seqs, [1_767_225_600_000_000_000 + seq * 33_333_333 for seq in seqs])
    chunk = Chunk.from_columns(video_entity(camera), indexes, columns)
    if keyframe is None:
        keyframe = number % every == 0
    return Parcel(video_entity(camera), (chunk,), rows=rows, in_order=True, keyframe=keyframe)


def points_parcel(number: int, *, rows: int = 2) -> Parcel:
    """A camera's observations."""
    seqs = range(rows * number, rows * (number + 1))
    return observation_parcel("front", [observe(frame(seq=seq), [pose()]) for seq in seqs], mask="off")
