"""What the log's entities are called, and the timelines that all of them share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import rerun as rr


def video_entity(camera: str) -> str:
    return f"/camera/{camera}/video"


def mask_entity(camera: str) -> str:
    return f"/camera/{camera}/video/mask"


def points_2d_entity(camera: str) -> str:
    return f"/camera/{camera}/video/pose/points"


def names_entity(camera: str) -> str:
    return f"/camera/{camera}/video/pose/names"


def zones_entity(camera: str) -> str:
    return f"/camera/{camera}/video/zones"


def person_entity(camera: str) -> str:
    return f"/camera/{camera}/person"


def points_3d_entity(camera: str) -> str:
    return f"/camera/{camera}/person/pose/points"


def angles_entity(camera: str) -> str:
    return f"/camera/{camera}/angles"


def stats_entity(camera: str) -> str:
    return f"/camera/{camera}/stats"


DEVICE_STATS = "/stats"
LOG = "/log"
EVENTS = f"{LOG}/events"
LINES = f"{LOG}/lines"


def time_columns(seqs: Sequence[int], captured_ns: Sequence[int]) -> list[rr.TimeColumn]:
    """The two timelines: `frame_idx`, the capture's number, and `time`, its instant."""
    return [
        rr.TimeColumn("frame_idx", sequence=np.array(seqs, np.int64)),
        rr.TimeColumn("time", timestamp=np.array(captured_ns, "datetime64[ns]")),
    ]


CLASSES = 16
"""So many people at once are told apart in colours: as many as can be looked for in a picture."""


def class_of(place: int) -> int:
    """The class, which has the colour, of whoever has that place, from 0. Class 0 is the background."""
    return place % CLASSES + 1
