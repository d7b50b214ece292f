"""The recordings in a directory, each a row of files, as whoever keeps, moves or deletes them sees them.

It needs nothing of Rerun's, and tells recordings that are being written from others by the lock that their writer has.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from edge.rerun_log import rrd

_NAME = re.compile(
    r"(?P<recording>(?P<device>[A-Za-z0-9_-]{1,64})-(?P<began>\d{8}T\d{6}Z)-[0-9a-f]+)\.(?P<part>\d{4,})\.rrd"
)
_LOOKED_AT = 4096
"""So many messages of a file are looked at for the first that is not static."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A file of a recording. part: counts from 1. changed_s: since 1970."""

    path: Path
    part: int
    nbytes: int
    changed_s: float
    is_being_written: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """segments: in order, at least one; the first may be gone, since the oldest files of a long recording go first."""

    name: str
    device: str
    session_began_s: float
    segments: tuple[Segment, ...]

    @property
    def nbytes(self) -> int:
        return sum(segment.nbytes for segment in self.segments)

    @property
    def is_being_written(self) -> bool:
        return any(segment.is_being_written for segment in self.segments)

    @property
    def begins_s(self) -> float:
        """When what is still there begins: the session, or the first file that is left."""
        first = self.segments[0]
        return self.session_began_s if first.part == 1 else _first_moment_s(first.path) or first.changed_s

    @property
    def ends_s(self) -> float:
        return max(segment.changed_s for segment in self.segments)

    @property
    def missing(self) -> list[int]:
        """The parts between the first and the last that are not there."""
        there = {segment.part for segment in self.segments}
        return [part for part in range(min(there), max(there)) if part not in there]


def recordings(directory: Path) -> list[Recording]:
    """Those in `directory`, the oldest first. Files of other names are none. Raises OSError."""
    found: dict[str, list[Segment]] = {}
    facts: dict[str, tuple[str, float]] = {}
    for path in directory.iterdir():
        if (name := _NAME.fullmatch(path.name)) is None:
            continue
        with contextlib.suppress(FileNotFoundError):  # the daemon makes room
            status = path.stat()
            segment = Segment(path, int(name["part"]), status.st_size, status.st_mtime, is_being_written(path))
            found.setdefault(name["recording"], []).append(segment)
            began = datetime.strptime(name["began"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            facts[name["recording"]] = name["device"], began.timestamp()
    every = [
        Recording(name, *facts[name], tuple(sorted(segments, key=lambda segment: segment.part)))
        for name, segments in found.items()
    ]
    return sorted(every, key=lambda recording: (recording.session_began_s, recording.name))


def match(names: Sequence[str], given: str) -> str:
    """Of `names` the one that is `given`, or the only one that begins so. Raises LookupError with a line."""
    if given in names:
        return given
    similar = [name for name in names if name.startswith(given)]
    if len(similar) == 1:
        return similar[0]
    if similar:
        raise LookupError(f"{given}: {len(similar)} recordings begin so, the last of them is {similar[-1]}")
    raise LookupError(f"{given}: no such recording; edge-pose recordings list shows those there are")


def of_file(given: str) -> str:
    """Of a recording's file, as `ls` shows it, the recording's name; anything else as it is."""
    name = _NAME.fullmatch(given.rpartition("/")[2])
    return given if name is None else name["recording"]


def is_being_written(path: Path) -> bool:
    """Whether some process holds the lock of who writes this file."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def join(recording: Recording, out: BinaryIO) -> int:
    """Write the recording into `out` as one whole .rrd; how many bytes it has.

    What each file repeats, the header and all that does not change, comes once, and again when it becomes another.
    Messages that are cut off, as after a crash or while they are written, are left out. Raises OSError, and
    BrokenRrdError when no file of it is an .rrd. Memory: a message.
    """
    written = 0
    described: set[bytes] = set()  # by the file before
    for segment in recording.segments:
        try:
            file = segment.path.open("rb")
        except FileNotFoundError:  # the daemon made room
            continue
        with file:
            header = file.read(rrd.HEADER_BYTES)
            if len(header) < rrd.HEADER_BYTES:
                continue
            rrd.check_header(header)
            if not written:
                written += out.write(header)
            describes: set[bytes] = set()
            for kind, payload in _messages(file):
                if _describes(kind, payload):
                    digest = hashlib.blake2b(payload, digest_size=16, salt=kind.to_bytes(8, "little")).digest()
                    is_known = digest in described or digest in describes
                    describes.add(digest)
                    if is_known:
                        continue
                message = rrd.Message(kind, memoryview(payload)).framed
                out.write(message)
                written += len(message)
            described = describes
    if not written:
        raise rrd.BrokenRrdError(f"{recording.name}: none of its files has even a header")
    return written


def superfluous(
    every: Sequence[Recording], *, before_s: float | None = None, keep_bytes: int | None = None
) -> list[Segment]:
    """The files that were last changed before `before_s`, and the oldest ones beyond `keep_bytes` in all.

    Never one that is being written, but that one counts.
    """
    segments = sorted(
        (segment for recording in every for segment in recording.segments),
        key=lambda segment: (segment.changed_s, segment.path.name),
    )
    total = sum(segment.nbytes for segment in segments)
    chosen = []
    for segment in segments:
        too_old = before_s is not None and segment.changed_s < before_s
        too_much = keep_bytes is not None and total > keep_bytes
        if (too_old or too_much) and not segment.is_being_written:
            chosen.append(segment)
            total -= segment.nbytes
    return chosen


def delete(segment: Segment) -> bool:
    """Whether it is gone; False when somebody has begun to write it. Raises OSError."""
    if is_being_written(segment.path):
        return False
    segment.path.unlink(missing_ok=True)
    return True


def _messages(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(kind, payload) of the whole messages from here on, up to an end message."""
    while len(head := file.read(rrd.FRAME_BYTES)) == rrd.FRAME_BYTES:
        kind, length = rrd.frame(head)
        if kind == rrd.Kind.END or length > os.fstat(file.fileno()).st_size:
            return
        payload = file.read(length)
        if len(payload) < length:
            return
        yield kind, payload


def _describes(kind: int, payload: bytes) -> bool:
    """Whether it is part of what does not change: all but chunks that lie in time."""
    if kind != rrd.Kind.CHUNK:
        return True
    chunk = rrd.chunk(payload)
    return chunk.is_static or chunk.is_of_blueprint


def _first_moment_s(path: Path) -> float | None:
    """When the first chunk of the file that lies in time was made."""
    with contextlib.suppress(OSError, rrd.BrokenRrdError), path.open("rb") as file:
        file.seek(rrd.HEADER_BYTES)
        for (kind, payload), _ in zip(_messages(file), range(_LOOKED_AT), strict=False):
            if not _describes(kind, payload):
                return rrd.chunk(payload).made_ns / 1e9
    return None
