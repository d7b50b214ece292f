"""Events in a file of fixed size, each there for good before it counts and until the broker has it. See 0018.

SQLite's write-ahead log is what makes an addition cost one fsync. Additions wait for it: they survive a power cut.
Removals don't: a crash of this process can't undo them, but a power cut can, and then an event is told once more.

All the space is taken when the file is made, pages in its list of free ones and the log as zeros, since on a full disk
SQLite could not even delete. The file never grows: the oldest events go instead.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

FILE_NAME = "outbox.db"
SIZE_BYTES = 8 * 1024 * 1024
"""Two weeks of an event a minute."""

_PAGE_BYTES = 4096
_LOG_BYTES = 512 * 1024
_LOG_PAGES = 64
"""Then what is in the log goes into the file. A transaction comes on top, which the rest of the log's space is for."""

_SLACK_PAGES = 6  # that an addition may want beside its own content: three tables, split once each
_OLDEST_AT_ONCE = 16
_MOST_OPEN = 1000
_VERSION = 1

_TABLES = """
CREATE TABLE event (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, camera TEXT NOT NULL, content BLOB NOT NULL,
    count INTEGER NOT NULL, since_ns INTEGER NOT NULL, until_ns INTEGER NOT NULL) STRICT;
CREATE TABLE open (seq INTEGER PRIMARY KEY, id TEXT NOT NULL, camera TEXT NOT NULL) STRICT;
CREATE TABLE lost (camera TEXT PRIMARY KEY, count INTEGER NOT NULL, since_ns INTEGER NOT NULL,
    until_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Loss:
    """So many events of one camera, and when the first and the last of them happened."""

    count: int
    since_ns: int
    until_ns: int

    def and_also(self, other: Loss | None) -> Loss:
        if other is None:
            return self
        return Loss(self.count + other.count, min(self.since_ns, other.since_ns), max(self.until_ns, other.until_ns))


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as it is kept: content is what is published.

    begins: another event is to tell its end. ends: the id of the event whose end it is. at: when it happened, or the
    loss that it tells of. is_account: whether it tells of one, that is remembered until then.
    """

    event_id: str
    camera: str
    content: bytes
    at: Loss
    begins: bool = False
    ends: str = ""
    is_account: bool = False

    @property
    def has_consequences(self) -> bool:
        """Whether something else in the store changes with it."""
        return self.begins or bool(self.ends) or self.is_account


@dataclass(frozen=True, slots=True)
class Added:
    """seqs: of what was added. gone: of the oldest, which had to go for it."""

    seqs: Sequence[int]
    gone: Sequence[int]


@dataclass(frozen=True, slots=True)
class Kept:
    """seq: the place in the order of all."""

    seq: int
    event_id: str
    camera: str
    content: bytes


class StoreDamagedError(Exception):
    """The file is no database, or one of another version."""


class EventStore:
    """For one thread, and one process at a time.

    Every method raises sqlite3.Error or OSError when the file can't be read or written, and changes nothing then; what
    is to be done with it is to open it anew. Raises StoreDamagedError, too, when it is opened.
    """

    def __init__(self, directory: Path | None, *, size_bytes: int = SIZE_BYTES) -> None:
        """directory: where the file is or is to be; None: in memory, as long as this object lives."""
        self._path = None if directory is None else directory / FILE_NAME
        if self._path is not None and not self._path.exists():
            _create(self._path, size_bytes)
        if self._path is not None:
            _reserve_log(self._path)
        self._db = _connect(self._path)
        try:
            self._open(size_bytes)
        except BaseException:
            self._db.close()
            raise

    def _open(self, size_bytes: int) -> None:
        if self._path is None:
            self._db.executescript(f"PRAGMA page_size={_PAGE_BYTES}; {_TABLES}")
            pages = size_bytes // _PAGE_BYTES
        else:
            try:
                self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # and so without a file of shared memory
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute(f"PRAGMA wal_autocheckpoint={_LOG_PAGES}")
                version = self._number("PRAGMA user_version")
                found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    raise StoreDamagedError(str(error)) from error
                raise
            if version != _VERSION or found != "ok":
                raise StoreDamagedError(found if version == _VERSION else f"its version is {version}, not {_VERSION}")
            pages = self._number("PRAGMA page_count")
        self._pages = self._number(f"PRAGMA max_page_count={pages}")
        query = "SELECT coalesce(max(seq), 0) FROM (SELECT seq FROM event UNION ALL SELECT seq FROM open)"
        self._next = self._number(query) + 1

    def __len__(self) -> int:
        return self._number("SELECT count(*) FROM event")

    @property
    def room(self) -> float:
        """How much of the file is free, 0..1: 0 when the oldest have to go for the next one."""
        return max(0, self._free_pages() - _SLACK_PAGES) / self._pages

    def after(self, seq: int, most: int) -> list[Kept]:
        """The oldest events behind `seq`, so many at most."""
        query = "SELECT seq, id, camera, content FROM event WHERE seq > ? ORDER BY seq LIMIT ?"
        return [Kept(*row) for row in self._db.execute(query, (seq, most))]

    def left_open(self) -> list[tuple[str, str]]:
        """Id and camera of each event whose end was not told, the oldest first."""
        return self._db.execute("SELECT id, camera FROM open ORDER BY seq").fetchall()

    def losses(self) -> dict[str, Loss]:
        """By camera; what an event has told of already is not among them."""
        return {camera: Loss(*loss) for camera, *loss in self._db.execute("SELECT * FROM lost")}

    def add(self, entries: Sequence[Entry], losses: Mapping[str, Loss]) -> Added:
        """Keep all of `entries`, in this order, and remember `losses`. They are on the disk when this returns."""
        gone: list[int] = []
        with self._transaction(durable=True):
            for camera, loss in losses.items():
                self._remember(camera, loss)
            added = [self._add(entry, gone) for entry in entries]
        return Added(added, gone)

    def remove(self, seqs: Sequence[int]) -> int:
        """The broker has them. How many of them were there."""
        with self._transaction(durable=False):
            return self._db.executemany("DELETE FROM event WHERE seq = ?", [(seq,) for seq in seqs]).rowcount

    def close(self) -> None:
        """Put everything into the one file. The log's space stays reserved."""
        if self._path is None:
            self._db.close()
            return
        log, reserve = _log_and_reserve(self._path)
        with contextlib.suppress(OSError):  # SQLite removes the log; on a full disk there might be no new one
            os.link(log, reserve)
        self._db.close()
        with contextlib.suppress(OSError):
            if log.exists():  # the file could not take in what is in it: it is what there is of those events
                reserve.unlink()
            else:
                _put_back(reserve, log)

    def _add(self, entry: Entry, gone: list[int]) -> int:
        gone += self._make_room(len(entry.content))
        at = entry.at
        row = (self._next, entry.event_id, entry.camera, entry.content, at.count, at.since_ns, at.until_ns)
        self._db.execute("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        if entry.begins:
            self._db.execute("INSERT INTO open VALUES (?, ?, ?)", (self._next, entry.event_id, entry.camera))
            self._db.execute(
                "DELETE FROM open WHERE seq NOT IN (SELECT seq FROM open ORDER BY seq DESC LIMIT ?)", (_MOST_OPEN,)
            )
        if entry.ends:
            self._db.execute("DELETE FROM open WHERE id = ?", (entry.ends,))
        if entry.is_account:
            self._db.execute("UPDATE lost SET count = count - ? WHERE camera = ?", (at.count, entry.camera))
            self._db.execute("DELETE FROM lost WHERE count <= 0")
        self._next += 1
        return self._next - 1

    def _make_room(self, content_bytes: int) -> list[int]:
        wanted = content_bytes // _PAGE_BYTES + _SLACK_PAGES
        gone: list[int] = []
        while self._free_pages() < wanted:
            query = "SELECT seq, camera, count, since_ns, until_ns FROM event ORDER BY seq LIMIT ?"
            oldest = self._db.execute(query, (_OLDEST_AT_ONCE,)).fetchall()
            if not oldest:
                break  # it is too large for the file: SQLite says so
            for seq, camera, *at in oldest:
                self._db.execute("DELETE FROM event WHERE seq = ?", (seq,))
                self._remember(camera, Loss(*at))
                gone.append(seq)
        return gone

    def _remember(self, camera: str, loss: Loss) -> None:
        before = self._db.execute("SELECT count, since_ns, until_ns FROM lost WHERE camera = ?", (camera,)).fetchone()
        both = loss.and_also(Loss(*before) if before else None)
        values = (camera, both.count, both.since_ns, both.until_ns)
        self._db.execute("INSERT OR REPLACE INTO lost VALUES (?, ?, ?, ?)", values)

    def _free_pages(self) -> int:
        return self._pages - self._number("PRAGMA page_count") + self._number("PRAGMA freelist_count")

    def _number(self, query: str) -> int:
        (number,) = self._db.execute(query).fetchone()
        return int(number)

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[None]:
        self._db.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
        at = self._next
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._next = at
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise


def set_aside(directory: Path) -> list[Entry]:
    """Rename a damaged file to outbox.db.damaged, in the place of an earlier one; what can still be read of it.

    Raises OSError when it can't be renamed.
    """
    path = directory / FILE_NAME
    log, reserve = _log_and_reserve(path)
    found: list[Entry] = []
    with contextlib.suppress(sqlite3.Error, OSError), contextlib.closing(_connect(path)) as db:
        query = "SELECT id, camera, content, count, since_ns, until_ns FROM event ORDER BY seq"
        for event_id, camera, content, *at in db.execute(query):
            found.append(Entry(event_id, camera, content, Loss(*at)))
    for file in (log, reserve, path.with_name(f"{FILE_NAME}-shm")):
        file.unlink(missing_ok=True)
    path.replace(path.with_name(f"{FILE_NAME}.damaged"))
    return found


def is_damage(error: BaseException) -> bool:
    """Whether SQLite says that the file's content is wrong, and not that it can't be got at."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _connect(path: Path | None) -> sqlite3.Connection:
    return sqlite3.connect(":memory:" if path is None else path, isolation_level=None, timeout=0)


def _create(path: Path, size_bytes: int) -> None:
    """Made under another name, so that it is there as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < size_bytes + 2 * _LOG_BYTES:
        # Not to fill it up to the last byte with each attempt.
        raise OSError(errno.ENOSPC, f"less than {(size_bytes + 2 * _LOG_BYTES) / 1e6:.0f} MB are free")
    scratch = path.with_name(f"{FILE_NAME}.new")
    scratch.unlink(missing_ok=True)
    scratch.touch(mode=0o600)  # who was seen where is nobody else's to read; SQLite gives its log the same mode
    try:
        with contextlib.closing(_connect(scratch)) as db:
            db.executescript(f"PRAGMA page_size={_PAGE_BYTES}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")
            db.executescript(f"{_TABLES} PRAGMA user_version={_VERSION}; CREATE TABLE filler (content BLOB);")
            # Its pages are written before they become free ones: otherwise the file would have holes.
            db.execute("INSERT INTO filler VALUES (zeroblob(?))", (max(size_bytes - 8 * _PAGE_BYTES, 1),))
            db.execute("DROP TABLE filler")
        _sync(scratch)
        _log_and_reserve(path)[0].unlink(missing_ok=True)  # of a file that somebody removed
        scratch.replace(path)
        _sync(path.parent)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise


def _reserve_log(path: Path) -> None:
    """Zeros behind what is in the log: SQLite takes them for no entries, and overwrites them.

    On a disk that is full already it goes without.
    """
    log, reserve = _log_and_reserve(path)
    if reserve.exists() and not log.exists():
        _put_back(reserve, log)
    reserve.unlink(missing_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(handle, "ab") as file, contextlib.suppress(OSError):
        if file.tell() < _LOG_BYTES:
            file.write(bytes(_LOG_BYTES - file.tell()))
            file.flush()
            os.fsync(file.fileno())


def _put_back(reserve: Path, log: Path) -> None:
    """What is in it is in the file by now: it has to begin anew."""
    with reserve.open("r+b") as file:
        file.write(bytes(32))  # its header, see "WAL Header Format" in SQLite's description of its files
        file.flush()
        os.fsync(file.fileno())
    reserve.replace(log)


def _log_and_reserve(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{FILE_NAME}-wal"), path.with_name(f"{FILE_NAME}-reserve")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
