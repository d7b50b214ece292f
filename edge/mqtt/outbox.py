"""Events on their way: on the disk before they count, and in order until the broker has acknowledged them."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from pathlib import Path

from edge.logs import FaultLog
from edge.mqtt import event_store, messages
from edge.mqtt.event_store import SIZE_BYTES, Added, Entry, EventStore, Kept, Loss, StoreDamagedError
from edge.mqtt.wire import v1
from edge.pacing import Backoff, Deadline
from edge.reports import Event, EventsLost, Happening, Interrupted

log = logging.getLogger(__name__)

UNWRITTEN_MOST = 1000
"""Events that wait for a disk that is slow or can't be written. Of a camera that comes and goes every second: a quarter
of an hour."""

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 30.0

_WINDOW = 512  # of the oldest events are in memory, for the one who sends
_BATCH = 64
_ROOM_TO_TELL = 1 / 16  # is free again before losses are told: not while each event costs another one


class Outbox:
    """Any thread may put, and never waits for the disk; one sink sends; a thread of its own writes.

    An event can be sent as soon as it is on the disk. While the disk can't be written, events are kept in memory,
    UNWRITTEN_MOST of them, and sent from there: a broker that is there gets them all the same. What finds no room any
    more is lost, the oldest first; it is counted, and told by an event of its own once there is room again.
    """

    def __init__(
        self, directory: Path | None, happened: Callable[[str, Happening], str], *, size_bytes: int = SIZE_BYTES
    ) -> None:
        """directory: where the events are kept; None: in memory, as long as this object lives. happened: is told of
        what the outbox itself has to say about a camera, and puts it here as an event."""
        self._directory = directory
        self._happened = happened
        self._size_bytes = size_bytes
        self._changed = threading.Condition()
        self._new: deque[Entry] = deque()
        self._writing: list[Entry] = []
        self._sent_early: set[str] = set()  # acknowledged before they were written
        self._window: OrderedDict[str, Kept] = OrderedDict()
        self._more = False  # on the disk behind the window
        self._aside: set[str] = set()
        self._removed: list[int] = []
        self._rewound = False
        self._stored = 0
        self._unrecorded: dict[str, Loss] = {}
        self._degraded = False
        self._ending: Deadline | None = None
        self.lost = 0
        """Events that were given up since this object was made."""
        # For the writing thread only, but for what it is writing.
        self._removing: list[int] = []
        self._recording: dict[str, Loss] = {}
        self._store: EventStore | None = None
        self._at = 0
        self._left_open: list[tuple[str, str]] | None = None  # by earlier sessions
        self._salvaged: list[Entry] = []
        self._backoff = Backoff(first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S)
        self._faults = FaultLog(log)
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin to write. What earlier sessions left behind goes first; what they left open is ended by an event."""
        self._thread.start()

    def put(self, event: Event) -> None:
        what, at_ns = event.what, event.at_ns
        told = Loss(what.count, what.since_ns, what.until_ns) if isinstance(what, EventsLost) else None
        entry = Entry(
            event.event_id,
            event.camera,
            v1.encode(messages.event(event)),
            at=told or Loss(1, at_ns, at_ns),
            begins=event.begins,
            ends=event.ends,
            is_account=told is not None,
        )
        with self._changed:
            self._new.append(entry)
            self._bound_new()
            self._changed.notify_all()

    def __len__(self) -> int:
        """Those that the broker does not have."""
        with self._changed:
            unwritten = len(self._new) + len(self._writing) - len(self._sent_early)
            # What went by itself may be among the removed until they are looked for.
            return max(0, self._stored - len(self._removed) - len(self._removing)) + unwritten

    @property
    def durable(self) -> bool:
        """Whether those that can be sent would survive a crash and a power cut."""
        return self._directory is not None and self._store is not None and not self._degraded

    def waiting(self) -> list[Kept | Entry]:
        """The oldest of those that can be sent, in their order."""
        with self._changed:
            ready: list[Kept | Entry] = [*self._window.values()]
            if self._degraded:
                passed_over = self._aside | self._sent_early
                unwritten = (*self._writing, *self._new)
                ready += [entry for entry in unwritten if entry.event_id not in passed_over]
            return ready[:_WINDOW]

    def remove(self, event_id: str) -> None:
        """The broker has it."""
        with self._changed:
            kept = self._window.pop(event_id, None)
            if kept is not None:
                self._removed.append(kept.seq)
            elif any(entry.event_id == event_id for entry in self._writing):
                self._sent_early.add(event_id)
            elif any(entry.event_id == event_id and entry.has_consequences for entry in self._new):
                self._sent_early.add(event_id)  # the store has to learn what it begins, ends or tells of
            else:
                self._new = deque(entry for entry in self._new if entry.event_id != event_id)
            self._changed.notify_all()

    def set_aside(self, event_id: str) -> None:
        """The broker refuses it: it holds up no others, and waits for `rewind`."""
        with self._changed:
            self._window.pop(event_id, None)
            self._aside.add(event_id)
            self._changed.notify_all()

    def rewind(self) -> None:
        """Begin again with the oldest one."""
        with self._changed:
            self._window.clear()
            self._aside.clear()
            self._rewound = True
            self._changed.notify_all()

    def settle(self, timeout_s: float) -> bool:
        """Wait until all that was put is on the disk, and what was there before is known; False when not by then."""
        with self._changed:
            self._changed.wait_for(lambda: self._degraded or self._is_settled(), timeout_s)
            return self._is_settled()

    def close(self, timeout_s: float) -> None:
        """Write what is there, as far as that is possible within this time, and end."""
        with self._changed:
            self._ending = Deadline(timeout_s)
            self._changed.notify_all()
        self._thread.join(timeout_s)
        with self._changed:
            unwritten = len(self._new) + len(self._writing) - len(self._sent_early)
        if self._directory is None and len(self):
            log.warning("events that the broker did not take are lost: %d; state_dir would keep them", len(self))
        elif unwritten:
            log.error("events that could not be written before the end are lost: %d", unwritten)

    def _is_settled(self) -> bool:
        return self._store is not None and not (self._degraded or self._new or self._writing)

    def _bound_new(self) -> None:
        while len(self._new) > UNWRITTEN_MOST:
            entry = self._new.popleft()
            if entry.event_id in self._sent_early:
                self._sent_early.discard(entry.event_id)
                continue
            self._unrecorded[entry.camera] = entry.at.and_also(self._unrecorded.get(entry.camera))
            self.lost += 1

    # What follows is the writing thread's.

    def _run(self) -> None:
        while self._goes_on():
            try:
                self._write()
                self._tell()
            except Exception as error:  # noqa: BLE001 - whatever it is, events go on being taken and sent
                self._fail(error)
        with contextlib.suppress(sqlite3.Error, OSError):  # then it is as after a crash, which loses nothing either
            if self._store is not None:
                self._store.close()

    def _goes_on(self) -> bool:
        """Wait for something to do; False at the end."""
        with self._changed:
            if self._degraded:
                at_the_end = self._ending is not None
                self._changed.wait_for(lambda: self._ending is not None, self._backoff.next_s())
                return not at_the_end  # once more, then: the disk may be well again
            self._changed.wait_for(lambda: self._ending is not None or self._has_work())
            return self._ending is None or (self._has_work() and self._ending.left_s() > 0)

    def _has_work(self) -> bool:
        short = self._more and len(self._window) < _WINDOW // 2
        return bool(self._store is None or self._new or self._removed or self._rewound or short)

    def _write(self) -> None:
        """Do what has gathered, and have the oldest ones in memory."""
        store = self._opened()
        with self._changed:
            self._writing = [self._new.popleft() for _ in range(min(_BATCH, len(self._new)))]
            self._removing, self._removed = self._removed, []
            self._recording, self._unrecorded = self._unrecorded, {}
        if self._removing:
            removed = store.remove(self._removing)
            with self._changed:
                self._stored -= removed
                self._removing = []
        added = Added((), ())
        if self._writing or self._recording:
            added = store.add(self._writing, self._recording)
        with self._changed:
            self._count(added)
            if self._rewound:
                self._rewound, self._at = False, 0
            wanted = _WINDOW - len(self._window)
        loaded = store.after(self._at, wanted)
        with self._changed:
            self._more = len(loaded) == wanted
            if not self._rewound:  # meanwhile
                self._at = loaded[-1].seq if loaded else self._at
                self._window.update({kept.event_id: kept for kept in loaded if kept.seq not in self._removed})
            if self._degraded:
                self._degraded = False
                self._faults.worked("%s can be written again", self._directory)
            self._changed.notify_all()
        self._backoff.reset()

    def _count(self, added: Added) -> None:
        """What was written is on the disk now, and what went for it is not."""
        self._removed += [
            seq for seq, entry in zip(added.seqs, self._writing, strict=True) if entry.event_id in self._sent_early
        ]
        self._stored += len(added.seqs) - len(added.gone)
        self.lost += len(added.gone)
        for event_id in [kept.event_id for kept in self._window.values() if kept.seq in added.gone]:
            del self._window[event_id]
        self._sent_early.difference_update(entry.event_id for entry in self._writing)
        self._writing, self._recording = [], {}

    def _opened(self) -> EventStore:
        if self._store is None:
            store = self._open()
            if self._left_open is None:
                self._left_open = store.left_open()
            while self._salvaged:
                store.add(self._salvaged[:_BATCH], {})
                del self._salvaged[:_BATCH]
            with self._changed:
                self._window.clear()
                self._rewound = True
                self._stored = len(store)
            self._store = store
        return self._store

    def _open(self) -> EventStore:
        try:
            return EventStore(self._directory, size_bytes=self._size_bytes)
        except StoreDamagedError as error:
            assert self._directory is not None, "what is only in memory is not read from anywhere"
            self._salvaged = event_store.set_aside(self._directory)
            with self._changed:  # their places are others' in the new file; twice is better than never
                self._window.clear()
                self._removing, self._removed = [], []
            log.error(  # noqa: TRY400 - where it showed says nothing
                "%s was damaged (%s) and is kept as %s.damaged; of the events in it %d could still be read",
                *(self._directory / event_store.FILE_NAME, error, event_store.FILE_NAME, len(self._salvaged)),
            )
            return EventStore(self._directory, size_bytes=self._size_bytes)

    def _tell(self) -> None:
        """Have events say what else there is to say."""
        while self._left_open:
            event_id, camera = self._left_open.pop(0)
            self._happened(camera, Interrupted(event_id, "the daemon had ended without a word"))
        assert self._store is not None, "it was written just now"
        # What is on its way to the disk may account for losses.
        if not self._new and self._store.room > _ROOM_TO_TELL:
            for camera, loss in self._store.losses().items():
                self._happened(camera, EventsLost(loss.count, loss.since_ns, loss.until_ns))

    def _fail(self, error: Exception) -> None:
        if self._store is not None:
            with contextlib.suppress(sqlite3.Error, OSError):
                self._store.close()
        self._faults.failed(
            "events can't be written to %s: %s; %d of them are kept in memory, which a crash would lose",
            *(self._directory, _why(error), UNWRITTEN_MOST),
            exc_info=not isinstance(error, sqlite3.Error | OSError),
        )
        with self._changed:
            self._store = None
            for entry in reversed(self._writing):
                if entry.event_id not in self._sent_early or entry.has_consequences:
                    self._new.appendleft(entry)
                else:
                    self._sent_early.discard(entry.event_id)
            self._removed = self._removing + self._removed
            for camera, loss in self._recording.items():
                self._unrecorded[camera] = loss.and_also(self._unrecorded.get(camera))
            self._writing, self._removing, self._recording = [], [], {}
            self._bound_new()
            self._degraded = True
            self._changed.notify_all()


def _why(error: Exception) -> str:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return "another edge-pose is using it"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
