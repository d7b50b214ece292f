"""Chunks that travel together from where they are built to where they are kept."""

from __future__ import annotations

from dataclasses import dataclass

from rerun.chunk import Chunk

from edge.privacy import Shows


@dataclass(frozen=True, slots=True)
class Parcel:
    """Some rows of one entity family, ready to ship.

    entity: what the rows belong to, e.g. /camera/front/video. in_order: it is video, in which what follows a keyframe
    is understood only with all between the two. keyframe: it begins with one, or needs none. shows: the most that there
    is to see in it; of who does not say, all.
    """

    entity: str
    chunks: tuple[Chunk, ...]
    rows: int
    in_order: bool = False
    keyframe: bool = True
    shows: Shows = Shows.PICTURES
