"""The log on disk: one recording as a row of .rrd files, within a budget, the oldest going first."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import threading
import time
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge.errors import ConfigError, ConfigProblem
from edge.logs import FaultLog
from edge.privacy import Shows
from edge.rerun_log import disclosure, rrd
from edge.rerun_log.arrears import Arrears, Note
from edge.rerun_log.delivery import Ranges
from edge.rerun_log.log import Description, Entry
from edge.rerun_log.recordings import is_being_written
from edge.stats import DropCause, Stats

log = logging.getLogger(__name__)

NAME = re.compile(r"(?P<recording>.+)\.(?P<part>\d{4,})\.rrd")
"""How the files of recordings are called: `<recording id>.0001.rrd`."""

HOW_TO_DELETE = (
    "edge-pose recordings list shows the recordings, and prune deletes them, this run's after a restart of the service"
)

_SYNC_EVERY_S = 5.0
"""What a power cut may cost. A kill of the process costs nothing that was written."""

_LOOK_EVERY_S = 1.0
_LOOK_SHARE = 0.01
"""Of the time, at most, for directories with thousands of files."""

_SEGMENTS = 8
"""At least so many fit into what room there is, so that what goes at a time is a small part of it."""

_MOST_SEGMENT_BYTES = 32_000_000
_LEAST_SEGMENT_BYTES = 250_000


class _NoRoomError(Exception):
    pass


class _Segment:
    """One file, and where in it each of its entries is."""

    def __init__(self, path: Path, first: int, most_shown: Shows, made_ns: int | None = None) -> None:
        """most_shown: the most that there may be to see in it. made_ns: when an earlier run wrote it; None for a file
        of this run."""
        self.path = path
        self.first = first
        self.most_shown = most_shown
        self.made_ns = made_ns
        self.is_going = False
        self.nbytes = 0
        self.description_end = 0
        self._offsets = array("Q")  # 8 + 4 + 4 + 2 + 4 bytes an entry: 50 GB of video are 1.5 million of them
        self._rows = array("I")
        self._back = array("I")  # so many entries before it is its keyframe
        self._entities = array("H")  # 0: none
        self._sums = array("I")  # CRC-32; none of an earlier run's

    @property
    def end(self) -> int:
        return self.first + len(self._offsets)

    def note(self, entry: Entry, entity: int) -> None:
        """What is missing before it takes no bytes here."""
        for _ in range(self.end, entry.number):
            self._add(rows=0, back=0, entity=0)
        self._add(rows=entry.rows, back=entry.number - entry.since, entity=entity, framed=entry.framed)
        self.nbytes += len(entry.framed)

    def _add(self, *, rows: int, back: int, entity: int, framed: bytes | None = b"") -> None:
        self._offsets.append(self.nbytes)
        self._rows.append(rows)
        self._back.append(back)
        self._entities.append(entity)
        if framed is not None:
            self._sums.append(zlib.crc32(framed))

    def __contains__(self, number: int) -> bool:
        return self.first <= number < self.end and self._place(number)[1] > 0

    def _place(self, number: int) -> tuple[int, int]:
        """(offset, length)."""
        at = number - self.first
        end = self._offsets[at + 1] if at + 1 < len(self._offsets) else self.nbytes
        return self._offsets[at], end - self._offsets[at]

    def place(self, number: int) -> tuple[int, int, int, int, int]:
        """(offset, length, rows, since, entity)."""
        at = number - self.first
        return *self._place(number), self._rows[at], number - self._back[at], self._entities[at]

    def is_sound(self, number: int, framed: bytes) -> bool:
        """Whether that is what was written, as far as one can tell: cards fail, and what a server can't read at all it
        refuses, with all that is in the same call, again and again."""
        if self._sums:
            return zlib.crc32(framed) == self._sums[number - self.first]
        return rrd.is_sound(framed)

    def rows(self, numbers: Ranges) -> int:
        found = numbers.within(self.first, self.end)
        return sum(sum(self._rows[start - self.first : end - self.first]) for start, end in found)

    def entries(self) -> list[tuple[int, int]]:
        """(number, rows) of each."""
        return [(number, rows) for number, rows in enumerate(self._rows, self.first) if number in self]

    def __len__(self) -> int:
        return len(self._offsets)

    @classmethod
    def scanned(cls, path: Path) -> _Segment:
        """A file of an earlier run, each of its messages an entry; `first` is to be set. Raises OSError."""
        segment = cls(path, 0, disclosure.most_shown(path), path.stat().st_mtime_ns)
        segment.nbytes = rrd.HEADER_BYTES
        for end in ends_of_messages(path):
            segment._add(rows=1, back=0, entity=0, framed=None)
            segment.nbytes = end
        return segment

    def numbers_in(self, ranges: Sequence[tuple[int, int]]) -> list[int]:
        """The entries that begin in one of the `ranges` of bytes."""
        found: list[int] = []
        for start, end in ranges:
            found += range(bisect_left(self._offsets, start), bisect_left(self._offsets, end))
        return [self.first + at for at in found]

    def bytes_of(self, wanted: Ranges) -> tuple[tuple[int, int], ...]:
        """Where those of `wanted` are that are in this file, with what the file begins with; none if there are none."""
        found = [
            (self._offset(max(start, self.first)), self._offset(min(end, self.end)))
            for start, end in wanted
            if start < self.end and end > self.first
        ]
        begin = [(rrd.HEADER_BYTES, self.description_end)] if found and self.description_end else []
        return (*begin, *found)

    def _offset(self, number: int) -> int:
        return self.nbytes if number >= self.end else self._offsets[number - self.first]


class Segments:
    """Writes `<directory>/<recording id>.0001.rrd` and so on, and reads again what it has written.

    Each file begins with the header and all that does not change, so that it can be opened alone. It has no index at
    its end: Rerun's viewer, `rerun rrd` and `RrdReader(...).stream()` read it as it is, also while it grows. After a
    crash its last message may be cut off; what an earlier process left that way is mended first.

    keep_bytes: so much all recordings in the directory may take together; keep_free_bytes: so much of the disk is left
    to others. The oldest files go first, of whatever recording, but never the one that is being written. Files of other
    names are neither counted nor touched. Raises ConfigError when the directory can't be written.

    device: beginning of the recording's id, and whose debts to receivers this one takes up.

    A sink for a lane's thread; everything else may be called from any. A lane that a stalled disk holds up may be left
    behind, and another one begin: that one waits, and what the first still brings after `begin` is not written.
    """

    def __init__(
        self,
        directory: Path,
        recording_id: str,
        *,
        device: str,
        keep_bytes: int,
        keep_free_bytes: int,
        description: Callable[[], Description],
        gone: Callable[[Sequence[tuple[int, int]]], None],
        stats: Stats,
    ) -> None:
        self._directory = directory
        self._recording_id = recording_id
        self._keep_bytes = keep_bytes
        self._keep_free_bytes = keep_free_bytes
        self._segment_bytes = _LEAST_SEGMENT_BYTES
        self._description = description
        self._gone = gone
        self._stats = stats
        self._writing = threading.Lock()  # whoever has it may wait for the disk
        self._noting = threading.Lock()  # the same
        self._adopting = threading.Lock()  # the same
        self._lock = threading.Lock()  # of these the last, and never held over anything that reads or writes a file
        self._segments: list[_Segment] = []
        self._entities: list[str] = []
        self._passed = 0
        self._begins_at: int | None = None
        self._expected: int | None = None
        self._whole_from = 0
        self._file: int | None = None
        self._described_by: object = None
        self._faults = FaultLog(log)
        self._damage = FaultLog(log)
        self._lateness = FaultLog(log)
        self._withheld = FaultLog(log)
        self._retry_s = 0.0
        self._pauses_by = DropCause.DISK_BUDGET
        self._look_s = 0.0
        self._sync_s = 0.0
        self._others: dict[Path, os.stat_result] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._look_around()
            mend(self._others)
            self._look_around()
            self._probe()
        except OSError as error:
            problem = f"can't be written: {error.strerror}"
            raise ConfigError([ConfigProblem("config", "rerun.record_dir", str(directory), problem)]) from None
        self._arrears = Arrears(directory, device)
        self._unadopted = self._lacking()
        self._unusable: set[Path] = set()
        self._unwritten: dict[str, Note] = {}
        self._next_part = self._last_part() + 1

    @property
    def path(self) -> Path:
        """The first file of this recording from here on."""
        return next((each.path for each in self._segments if each.first >= 0), self._path(self._next_part))

    def keep(self, keep_bytes: int, keep_free_bytes: int) -> None:
        """Another budget, from the next `begin` on: a file that is being written may be larger than it."""
        self._keep_bytes, self._keep_free_bytes = keep_bytes, keep_free_bytes

    def begin(self, number: int) -> None:
        """The entry `number` is the next one to be written, into a file of its own. There is one soon, before the entry
        comes: who wants a recording sees that there is one, or hears why not."""
        with self._lock:
            self._passed = max(self._passed, number)
            self._begins_at = number

    def write(self, batch: Sequence[Entry]) -> None:
        with self._writing:
            if self._unwritten:
                self._write_notes()
            self._begin()
            for entry in batch:
                if entry.number < self._passed:
                    continue  # of a lane that was left behind, which has counted it
                self._write(entry)
                with self._lock:
                    self._passed = max(self._passed, entry.number + 1)
            if self._file is not None and time.monotonic() >= self._sync_s:
                self._sync_s = time.monotonic() + _SYNC_EVERY_S
                try:
                    os.fdatasync(self._file)
                except OSError as error:
                    self._stop(error)

    def close(self, timeout_s: float) -> None:
        with self._writing:
            self._end_segment()

    def awaits(self, number: int) -> bool:
        """Whether its turn to be written has not come yet."""
        return number >= self._passed

    def holds(self, number: int) -> bool:
        with self._lock:
            return self._segment_of(number) is not None

    def showing_more_than(self, most: Shows) -> Ranges:
        with self._lock:
            return Ranges((each.first, each.end) for each in self._segments if each.most_shown > most)

    def rows(self, numbers: Ranges) -> int:
        with self._lock:
            return sum(each.rows(numbers) for each in self._segments)

    def read(self, number: int) -> Entry | None:
        with self._lock:
            if (segment := self._segment_of(number)) is None:
                return None
            offset, length, rows, since, entity = segment.place(number)
            named = self._entities[entity - 1] if entity else ""
            path, shows = segment.path, segment.most_shown
        framed = b""
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(offset)
            framed = file.read(length)
        if not framed and segment.is_going:
            return None
        if not segment.is_sound(number, framed):
            self._damage.failed("%s is damaged or gone: what was at byte %d is not shipped", path, offset)
            framed = b""
        return Entry(number, framed, rows, named, since, shows)

    def owed(self, receiver: str) -> Ranges:
        """Some more of what it lacks of what earlier runs recorded, as numbers, which are negative: one file's. None
        when that was all, or when it was a file that shows more than may leave by now: that is owed no more."""
        with self._adopting:
            while (path := self._next_unadopted(receiver)) is not None:
                if self._shows_too_much(path):
                    with self._lock:
                        self._unadopted[receiver].pop(path)
                    return Ranges()
                segment = self._adopted(path)
                with self._lock:
                    lacking = self._unadopted[receiver].pop(path) if segment is not None else ()
                if segment is not None and (numbers := segment.numbers_in(lacking)):
                    return Ranges((number, number + 1) for number in numbers)
        return Ranges()

    def withhold(self) -> None:
        """What earlier runs recorded and must not leave by now is owed to nobody any more, also in the notes: a later
        run may be allowed more, and still must not ship it. Reads the beginning of each such file."""
        with self._lock:
            owing = {path for lacking in self._unadopted.values() for path in lacking}
        forbidden = {path for path in owing if self._shows_too_much(path)}
        if not forbidden:
            return
        with self._lock:
            for receiver, lacking in self._unadopted.items():
                self._unadopted[receiver] = {path: part for path, part in lacking.items() if path not in forbidden}
            left = {
                receiver: Note({path.name: tuple(part) for path, part in lacking.items()}, "", 0, 0)
                for receiver, lacking in self._unadopted.items()
            }
        with self._noting:
            for receiver, note in left.items():
                self._arrears.put(receiver, note)

    def note(self, receiver: str, wanted: Ranges) -> bool:
        """Remember beyond the end of this process what it lacks. Whether that is on the disk."""
        with self._noting:
            with self._lock:
                note = self._note(receiver, wanted)
                self._unwritten.pop(receiver, None)
            return self._arrears.put(receiver, note)

    def note_soon(self, receiver: str, wanted: Ranges) -> None:
        """The same without waiting for the disk: before anything more is recorded, which it will lack as well."""
        with self._lock:
            self._unwritten[receiver] = self._note(receiver, wanted)

    def _write_notes(self) -> None:
        with self._noting:
            with self._lock:
                notes, self._unwritten = self._unwritten, {}
            for receiver, note in notes.items():
                self._arrears.put(receiver, note)

    def _note(self, receiver: str, wanted: Ranges) -> Note:
        lacking = {path.name: tuple(ranges) for path, ranges in self._unadopted.get(receiver, {}).items()}
        lacking |= {each.path.name: ranges for each in self._segments if (ranges := each.bytes_of(wanted))}
        last = self._segments[-1] if self._segments and self._segments[-1].made_ns is None else None
        if last is None:
            return Note(lacking, self._path(self._next_part).name, 0, 0)
        return Note(lacking, last.path.name, last.description_end, last.nbytes)

    def _lacking(self) -> dict[str, dict[Path, Sequence[tuple[int, int]]]]:
        """By receiver, the files of earlier runs that it lacks something of, and what. The oldest is the first."""
        sizes = {
            path: each.st_size for path, each in sorted(self._others.items(), key=lambda each: each[1].st_mtime_ns)
        }
        return {
            receiver: {path: found for path, size in sizes.items() if (found := _lacking(note, path, size))}
            for receiver, note in self._arrears.notes.items()
        }

    def _next_unadopted(self, receiver: str) -> Path | None:
        with self._lock:
            return next((path for path in self._unadopted.get(receiver, ()) if path not in self._unusable), None)

    def _shows_too_much(self, path: Path) -> bool:
        """Of a file of an earlier run."""
        with contextlib.suppress(OSError):  # what can't be read is told where it is looked through
            if disclosure.most_shown(path) > self._description().most_shown:
                told = "%s shows more than privacy.mode allows: what was not shipped of it stays there; %s"
                self._withheld.failed(told, path, HOW_TO_DELETE)
                return True
        return False

    def _adopted(self, path: Path) -> _Segment | None:
        """A file of an earlier run, which can be read by number from now on. Looking through it takes a while, so that
        is done when its turn comes. None where that can't be; as long as it is there it is owed then."""
        with self._lock:
            if (known := next((each for each in self._segments if each.path == path), None)) is not None:
                return known
        try:
            found = None if is_being_written(path) else _Segment.scanned(path)
        except FileNotFoundError:
            self._lateness.failed("%s is gone before all of it was shipped", path)
            with self._lock:
                for lacking in self._unadopted.values():
                    lacking.pop(path, None)
            return None
        except (OSError, rrd.BrokenRrdError) as error:
            log.warning("%s stays as it is, and is not shipped: %s", path, error)
            found = None
        with self._lock:
            if found is None:
                self._unusable.add(path)
                return None
            found.first = min(0, self._segments[0].first if self._segments else 0) - len(found)
            self._segments.insert(0, found)
            self._others = {other: status for other, status in self._others.items() if other != path}
        return found

    def _begin(self) -> None:
        """What `begin` asked for: what reads and writes the disk does so in the lane's thread."""
        with self._lock:
            number, self._begins_at = self._begins_at, None
        if number is None:
            return
        self._end_segment()  # which may have to go
        description = self._description()
        try:
            self._look_around()
            self._make_room(len(description.framed))
            self._begin_segment(description, number)
        except (_NoRoomError, OSError) as error:
            self._stop(error)

    def _write(self, entry: Entry) -> None:
        if self._file is None and time.monotonic() < self._retry_s:
            self._stats.dropped("recording", self._pauses_by, entry.rows)
            return
        description = self._description()
        # A lane that was left behind may still bring what came in a more open mode: no file that says that it was made
        # in a stricter one has it.
        if entry.shows > description.most_shown:
            self._stats.dropped("recording", DropCause.PRIVATE, entry.rows)
            return
        if not self._can_be_decoded(entry):
            self._stats.dropped("recording", DropCause.BROKEN_GROUP, entry.rows)
            return
        try:
            self._append(entry, description)
        except (_NoRoomError, OSError) as error:
            self._stop(error)
            self._stats.dropped("recording", self._pauses_by, entry.rows)
        else:
            self._expected = entry.number + 1
            self._stats.sent("recording rows", entry.rows)

    def _can_be_decoded(self, entry: Entry) -> bool:
        """Whether it needs nothing before it, or that is here: after a hole video begins with a keyframe."""
        if entry.number != self._expected:
            self._whole_from = entry.number
        decodable = entry.keyframe or entry.since >= self._whole_from
        if not decodable:
            self._expected = entry.number + 1
        return decodable

    def _append(self, entry: Entry, description: Description) -> None:
        """Into a file that begins with `description`."""
        if time.monotonic() >= self._look_s:
            self._look_around()
        current = self._segments[-1] if self._segments and self._file is not None else None
        if current is None or self._described_by is not description or self._should_end(current, entry):
            self._make_room(len(description.framed) + len(entry.framed))
            current = self._begin_segment(description, entry.number)
        else:
            self._make_room(len(entry.framed))
        assert self._file is not None, "a segment was begun"
        _write_all(self._file, entry.framed, current.nbytes)
        entity = self._number_of(entry.entity)
        with self._lock:
            current.note(entry, entity)

    def _should_end(self, segment: _Segment, entry: Entry) -> bool:
        """Whether it is full and `entry` a good one to begin with: where there is video, its keyframe."""
        nbytes = segment.nbytes + len(entry.framed)
        begins = entry.keyframe if entry.entity else not self._entities
        return nbytes > self._segment_bytes and (begins or nbytes > 2 * self._segment_bytes)

    def _number_of(self, entity: str) -> int:
        """From 1 on; 0 for none."""
        if not entity:
            return 0
        if entity not in self._entities:
            self._entities.append(entity)
        return self._entities.index(entity) + 1

    def _begin_segment(self, description: Description, first: int) -> _Segment:
        self._end_segment()
        self._file, path = self._new_file()
        segment = _Segment(path, first, description.most_shown)
        with self._lock:
            self._segments.append(segment)
        self._segment_bytes = max(_LEAST_SEGMENT_BYTES, min(_MOST_SEGMENT_BYTES, self._room_bytes // _SEGMENTS))
        segment.nbytes = segment.description_end = _write_all(self._file, description.framed, 0)
        self._described_by = description
        self._faults.worked("recording into %s again", self._directory)
        return segment

    def _new_file(self) -> tuple[int, Path]:
        """One that nobody takes for unfinished: it has its lock, which is_being_written looks for, before its name."""
        arriving = self._directory / f".{self._recording_id}.new"
        file = os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            while os.path.lexists(path := self._path(self._next_part)):
                self._next_part += 1  # somebody has copied it here
            arriving.rename(path)
        except OSError:
            os.close(file)
            arriving.unlink(missing_ok=True)
            raise
        self._next_part += 1
        return file, path

    def _end_segment(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                os.fdatasync(self._file)
            os.close(self._file)
            self._file = None

    def _stop(self, error: Exception) -> None:
        """Take back what was written of an entry in part, and try again with another file in a while."""
        if self._file is not None:
            segment = self._segments[-1]
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, segment.nbytes)
                if not segment.entries():
                    with self._lock:
                        self._segments.remove(segment)
                    segment.path.unlink()
        self._end_segment()
        self._pauses_by = DropCause.DISK_BUDGET if isinstance(error, _NoRoomError) else DropCause.SINK_FAILED
        self._retry_s = time.monotonic() + _SYNC_EVERY_S
        why = str(error) if isinstance(error, _NoRoomError) else f"{self._directory} can't be written: {error}"
        self._faults.failed("recording pauses: %s", why)

    def _make_room(self, nbytes: int) -> None:
        """For so many bytes, which are then taken. Raises _NoRoomError."""
        why = self._never(nbytes)
        if not why:
            while (why := self._too_much(nbytes)) and self._delete_the_oldest():
                pass
        if why:
            raise _NoRoomError(f"{why}; make room there, or change rerun.keep_mb or rerun.keep_free_mb")
        self._free_bytes -= nbytes

    @property
    def _used_bytes(self) -> int:
        return sum(each.st_size for each in self._others.values()) + sum(each.nbytes for each in self._segments)

    @property
    def _room_bytes(self) -> int:
        """For all recordings together."""
        return min(self._keep_bytes, self._used_bytes + self._free_bytes - self._keep_free_bytes)

    def _never(self, nbytes: int) -> str:
        """Why there can't be room however much is deleted."""
        if nbytes <= self._keep_bytes:
            return ""
        return (
            f"{nbytes / 1e6:.1f} MB are to be written at once, rerun.keep_mb allows {self._keep_bytes / 1e6:.0f} in all"
        )

    def _too_much(self, nbytes: int) -> str:
        used = self._used_bytes
        if used + nbytes > self._keep_bytes:
            return f"{self._directory} holds {used / 1e6:.0f} MB, rerun.keep_mb allows {self._keep_bytes / 1e6:.0f}"
        if self._free_bytes - nbytes < self._keep_free_bytes:
            free, floor = self._free_bytes / 1e6, self._keep_free_bytes / 1e6
            return f"only {free:.0f} MB are free for {self._directory}, rerun.keep_free_mb wants {floor:.0f}"
        return ""

    def _delete_the_oldest(self) -> bool:
        """Of earlier runs first. Never a file that is being written, be it by another process."""
        earlier = {path: status.st_mtime_ns for path, status in self._others.items()}
        earlier |= {each.path: each.made_ns for each in self._segments if each.made_ns is not None}
        segments = {each.path: each for each in self._segments}
        own = [path for path, each in segments.items() if each.made_ns is None]
        for path in (*sorted(earlier, key=earlier.__getitem__), *own[: len(own) - (self._file is not None)]):
            with contextlib.suppress(OSError):  # what can't be deleted stays, and goes on counting
                if path in segments:
                    self._delete(segments[path])
                    return True
                if not is_being_written(path):
                    path.unlink(missing_ok=True)
                    with self._lock:
                        self._free_bytes += self._others.pop(path).st_size
                    return True
        return False

    def _delete(self, segment: _Segment) -> None:
        """Raises OSError; it can still be read then."""
        segment.is_going = True
        try:
            segment.path.unlink(missing_ok=True)
        except OSError:
            segment.is_going = False
            raise
        self._free_bytes += segment.nbytes
        self._drop(segment)

    def _drop(self, segment: _Segment) -> None:
        segment.is_going = True
        with self._lock:
            self._segments.remove(segment)
        self._gone(segment.entries())

    def _look_around(self) -> None:
        """Other recordings come and go: people copy and delete."""
        began_s = time.monotonic()
        with self._lock:
            known = tuple(self._segments)
        there: dict[Path, os.stat_result] = {}
        with os.scandir(self._directory) as found:
            for file in found:
                if NAME.fullmatch(file.name):
                    with contextlib.suppress(FileNotFoundError):
                        there[Path(file.path)] = file.stat()
        with self._lock:
            own = {segment.path for segment in self._segments}
            self._others = {path: status for path, status in there.items() if path not in own}
        for segment in known:
            if segment.path not in there:
                if segment is self._segments[-1]:
                    self._end_segment()
                self._drop(segment)
        self._free_bytes = shutil.disk_usage(self._directory).free
        now_s = time.monotonic()
        self._look_s = now_s + max(_LOOK_EVERY_S, (now_s - began_s) / _LOOK_SHARE)

    def _last_part(self) -> int:
        """The greatest number that a file of this recording has; 0 where there is none."""
        return max((int(found["part"]) for found in map(self._own, self._others) if found), default=0)

    def _probe(self) -> None:
        probe = self._directory / f".{self._recording_id}.probe"
        probe.touch()
        probe.unlink()

    def _own(self, path: Path) -> re.Match[str] | None:
        found = NAME.fullmatch(path.name)
        return found if found and found["recording"] == self._recording_id else None

    def _path(self, part: int) -> Path:
        return self._directory / f"{self._recording_id}.{part:04d}.rrd"

    def _segment_of(self, number: int) -> _Segment | None:
        at = bisect_right(self._segments, number, key=lambda segment: segment.first) - 1
        return self._segments[at] if at >= 0 and number in self._segments[at] else None


def mend(files: dict[Path, os.stat_result]) -> None:
    """Cut off the torn last message of whichever of `files` has one, so that every reader reads them, and remove what
    is no more than a beginning. Of each recording only the last file can be so."""
    last: dict[str, Path] = {}
    for path in files:
        if found := NAME.fullmatch(path.name):
            last[found["recording"]] = max(path, last.get(found["recording"], path), key=_part)
    for path in last.values():
        try:
            if is_being_written(path):  # asked first: who ends it meanwhile has made it longer than it was
                continue
            whole, size = whole_bytes(path), path.stat().st_size
            if whole and whole == size:
                continue
            log.info("%s: mended, its last %d bytes were half a message", path, size - whole)
            if whole:
                os.truncate(path, whole)
            else:
                path.unlink()
        except (OSError, rrd.BrokenRrdError) as error:
            log.warning("%s stays as it is: %s", path, error)


def whole_bytes(path: Path) -> int:
    """How much of a file are whole messages, with the header; 0 where there are none. An index at its end, if it has
    one, is part of it. Raises OSError, and BrokenRrdError for another kind of file."""
    with path.open("rb") as file:
        header = file.read(rrd.HEADER_BYTES)
        if len(header) < rrd.HEADER_BYTES:
            return 0
        rrd.check_header(header)
        end = max(ends_of_messages(path), default=rrd.HEADER_BYTES)
        file.seek(end)
        following = file.read(rrd.FRAME_BYTES)
        if len(following) == rrd.FRAME_BYTES:
            kind, length = rrd.frame(following)
            if kind == rrd.Kind.END and length:  # without an index it is zeros, as a power cut may leave them
                return os.fstat(file.fileno()).st_size
        return end if end > rrd.HEADER_BYTES else 0


def ends_of_messages(path: Path) -> Iterator[int]:
    """Where each whole message ends, up to an end message or to what is cut off. Raises OSError."""
    with path.open("rb") as file:
        size, at = os.fstat(file.fileno()).st_size, rrd.HEADER_BYTES
        while at + rrd.FRAME_BYTES <= size:
            file.seek(at)
            kind, length = rrd.frame(file.read(rrd.FRAME_BYTES))
            at += rrd.FRAME_BYTES + length
            if at > size or kind == rrd.Kind.END:
                return
            yield at


def _lacking(note: Note, path: Path, size: int) -> Sequence[tuple[int, int]]:
    """What a receiver lacks of this file, by what was noted last. What tells what the file's rest is goes with it."""
    found, noted = NAME.fullmatch(path.name), NAME.fullmatch(note.writing)
    ranges = note.lacking.get(path.name, ())
    if found and noted and found["recording"] == noted["recording"]:
        if int(found["part"]) > int(noted["part"]):
            return [(0, size)]
        if path.name == note.writing and size > note.until:
            return [(rrd.HEADER_BYTES, note.described), *ranges, (note.until, size)]
    return ranges


def _part(path: Path) -> int:
    found = NAME.fullmatch(path.name)
    return int(found["part"]) if found else 0


def _write_all(file: int, content: bytes, at: int) -> int:
    """Raises OSError; how much was written, which is all."""
    view, done = memoryview(content), 0
    while done < len(view):
        done += os.pwrite(file, view[done:], at + done)
    return done
