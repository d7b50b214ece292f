"""Chunks that travel together from where they are built to where they are kept."""

from __future__ import annotations

from dataclasses import dataclass

from rerun.chunk import Chunk


@dataclass(frozen=True, slots=True)
class Parcel:
    """Some rows of one entity family, ready to ship.

    entity: what the rows belong to, e.g. /camera/front/video. nbytes: roughly what they weigh in memory.
    number: counts the parcels of video that has to be decoded in order, from 0 for each entity; None where each row
    can be understood alone. keyframe: the parcel can be decoded without the ones before it.
    """

    entity: str
    chunks: tuple[Chunk, ...]
    rows: int
    nbytes: int
    number: int | None = None
    keyframe: bool = True
