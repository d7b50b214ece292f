"""The scene as a log: encoded once, numbered, kept until every receiver has it or there is no more room."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Container, Sequence
from typing import NamedTuple, Protocol

import rerun as rr
from rerun.chunk import Chunk

from edge.privacy import Shows
from edge.rerun_log import rrd, streams
from edge.rerun_log.delivery import Delivery, Ranges
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.scene import Scene
from edge.stats import DropCause, Stats


class Entry(NamedTuple):
    """One parcel as the log keeps it.

    number: its place in the log. framed: its messages, as they stand in an .rrd; empty where a store has it and can't
    read it any more. entity: of video that has to be
    decoded in order, else "". since: where its keyframe is, from which on all of its entity is needed to decode it;
    its own number where nothing is, less than any where there was none. shows: the most that there is to see in it, or
    where a store has it, in the file that it stands in.
    """

    number: int
    framed: bytes
    rows: int
    entity: str
    since: int
    shows: Shows

    @property
    def keyframe(self) -> bool:
        return self.since == self.number


_NO_KEYFRAME = -1


class Description(NamedTuple):
    """What a file begins with: its header, and the framed messages of all that does not change.

    most_shown: the most that there may be to see in what follows.
    """

    header: bytes
    messages: bytes
    most_shown: Shows

    @property
    def framed(self) -> bytes:
        return self.header + self.messages


class Store(Protocol):
    """Where entries are longer than in memory, such as on a disk. Any thread may ask."""

    def holds(self, number: int) -> bool: ...
    def read(self, number: int) -> Entry | None: ...

    def showing_more_than(self, most: Shows) -> Ranges:
        """The numbers of what stands in files that may show more."""

    def rows(self, numbers: Ranges) -> int:
        """How many rows it holds of these."""

    def awaits(self, number: int) -> bool:
        """Whether this one, which it has been told of, may still come to be held."""

    def owed(self, receiver: str) -> Ranges:
        """Some more of what this one lacks of what earlier runs left, by numbers below 0; none when that was all. May
        read from a disk."""

    def note(self, receiver: str, wanted: Ranges) -> bool:
        """Remember for the next run what this one lacks. Whether that worked; it may wait for a disk."""

    def note_soon(self, receiver: str, wanted: Ranges) -> None:
        """The same without waiting."""


class _Encoder:
    """Chunks to bytes, by the SDK."""

    def __init__(self, scene: Scene) -> None:
        self._stream = scene.new_stream()
        self._bytes = rr.binary_stream(self._stream)
        scene.describe(self._stream)
        self.description = Description(*rrd.split(self._read()), scene.most_shown)

    def encode(self, chunks: Sequence[Chunk]) -> bytes:
        """The framed messages of `chunks`. What is read from the SDK is a whole file each time, of which they are all
        but the store's introduction."""
        self._stream.send_chunks(chunks)
        _, framed = rrd.split(self._read())
        return b"".join(each.framed for each in rrd.messages(framed) if each.kind == rrd.Kind.CHUNK)

    def close(self) -> None:
        self._stream.disconnect()
        streams.release()

    def _read(self) -> bytes:
        return self._bytes.read() or b""


class Receiver:
    """What the log knows of one that takes all of it, at its own pace. Made by `SceneLog.attach`."""

    def __init__(self, key: str, name: str, delivery: Delivery) -> None:
        self.key = key
        self.name = name
        self.delivery = delivery
        self.on_append: Callable[[], None] | None = None
        self.cause = DropCause.DISCONNECTED
        """Why it does not get what it does not get, just now."""
        self.run = ""
        """Which run of its server it last was, as far as that is told."""


class SceneLog:
    """Numbers parcels, and hands them to whoever keeps or ships them.

    Where there are receivers, the newest `memory_bytes` of entries stay in memory, also those that all have: a receiver
    may come back without its memory. A store, where there is one, has entries longer. What a receiver can't get any
    more is counted as dropped. Methods may be called from any thread; those that take a `Receiver` from its own.

    It is the one gate between what is logged and both disk and network: `put` refuses what shows more than the scene's
    mode of privacy allows. What came in a more open mode before is not handed to receivers any more.
    """

    def __init__(self, stats: Stats, clock: Callable[[], float] = time.monotonic) -> None:
        """clock: seconds that never go back."""
        self._clock = clock
        self.memory_bytes = 0
        self.want_keyframes: Callable[[], None] = lambda: None
        """Called from any thread when a receiver is behind and could go on with the picture of now, if that began a
        group. Whoever encodes may do as asked, or not."""
        self._lock = threading.Lock()
        self._encoder: _Encoder | None = None
        self._most_shown = Shows.NUMBERS
        self._withheld = Ranges()
        """What once must not be handed out never is, whatever the mode becomes, and to whomever."""
        self._stats = stats
        self._bytes = 0
        self._next = 0
        self._kept: dict[int, Entry] = {}
        self._keyframes: dict[str, int] = {}
        self._filmed_s: dict[str, float] = {}
        self._receivers: dict[str, Receiver] = {}
        self._store: Store | None = None
        self._queue_bytes = 0
        self._forgetful: Container[str] = ()
        self._followers: list[Callable[[Entry], None]] = []

    @property
    def description(self) -> Description:
        """All that does not change: what a file and a connection begin with."""
        assert self._encoder is not None, "it was described"
        return self._encoder.description

    @property
    def next(self) -> int:
        """The number of the entry that comes next."""
        return self._next

    @property
    def kept_bytes(self) -> int:
        return self._bytes

    def describe(self, scene: Scene) -> bool:
        """What the scene is, from now on; before anything is put in. Receivers get it, files begin with it.

        Whether its mode of privacy is stricter than the one before. What came in that and shows more is forgotten then;
        of what a store holds it stays there.
        """
        encoder = _Encoder(scene)
        now = encoder.description
        with self._lock:
            before, self._encoder = self._encoder, encoder
            stricter = before is not None and now.most_shown < before.description.most_shown
            self._most_shown = now.most_shown
            if stricter:
                self._withhold()
            if before is not None:
                self._append(now.messages, rows=0, entity="", keyframe=True, shows=now.most_shown)
        if before is not None:
            before.close()
        return stricter

    def restrict(self, most: Shows) -> bool:
        """Nothing that shows more is taken or handed out from now on, until `describe` says how it goes on: lanes and
        links that are told to end deliver first what they can. Whether that changes anything."""
        with self._lock:
            stricter = most < self._most_shown
            if stricter:
                self._most_shown = most
                self._withhold()
        return stricter

    def _withhold(self) -> None:
        """Forget what shows more than is allowed now, and that anybody wants it."""
        most = self._most_shown
        first = next(iter(self._kept), self._next)
        refused = [entry for entry in self._kept.values() if entry.shows > most]
        for entry in refused:
            del self._kept[entry.number]
            self._bytes -= len(entry.framed)
        stored = Ranges() if self._store is None else self._store.showing_more_than(most)
        stored.remove(first, self._next)  # what is in memory too is judged by what it shows itself
        for start, end in [*stored, *((entry.number, entry.number + 1) for entry in refused)]:
            self._withheld.add(start, end)
        for receiver in self._receivers.values():
            rows = sum(entry.rows for entry in refused if receiver.delivery.given_up(entry.number))
            never = receiver.delivery.all_given_up(stored)
            rows += self._store.rows(never) if self._store is not None else 0
            self._stats.dropped(receiver.name, DropCause.PRIVATE, rows)

    def keep_longer(
        self,
        store: Store | None,
        follow: Callable[[Entry], None] | None,
        *,
        queue_bytes: int = 0,
        forgetful: Container[str] = (),
    ) -> int:
        """Where to look for what is no longer in memory, and who gets each entry at once, to keep it there.

        queue_bytes: so much may wait in front of the store. That stays in memory until its turn has come, which costs
        nothing, since it is there anyway. forgetful: receivers that have no more than one run: the store remembers
        nothing of what they lack.

        Returns how many entries receivers lack that only the store before has. They stay there, and it has noted them.
        """
        before = self._store
        if before is not None and before is not store:
            for receiver in tuple(self._receivers.values()):
                self.note(receiver)
        with self._lock:
            self._store, self._queue_bytes, self._forgetful = store, queue_bytes, forgetful
            self._followers = [] if follow is None else [follow]
            if before is None or before is store:
                return 0
            return sum(self._leave_behind(receiver) for receiver in self._receivers.values())

    def _leave_behind(self, receiver: Receiver) -> int:
        """What is not in memory: numbers below 0 mean something else to every store."""
        wanted = [number for start, end in receiver.delivery.wanted for number in range(start, end)]
        return sum(receiver.delivery.given_up(number) for number in wanted if number not in self._kept)

    def put(self, parcel: Parcel) -> None:
        """What shows more than the scene's mode of privacy allows goes nowhere, and is counted."""
        with self._lock:
            assert self._encoder is not None, "it was described"
            if parcel.shows > self._most_shown:
                self._stats.dropped("rerun log", DropCause.PRIVATE, parcel.rows)
                return
            framed = self._encoder.encode(parcel.chunks)
            entity = parcel.entity if parcel.in_order else ""
            self._append(framed, rows=parcel.rows, entity=entity, keyframe=parcel.keyframe, shows=parcel.shows)

    def attach(self, key: str, name: str, on_append: Callable[[], None]) -> Receiver:
        """One that gets what comes from now on, and where there was one of this key, what that has not got.

        name: what its rows are counted under. on_append: called when there is something new, from any thread.
        """
        with self._lock:
            receiver = self._receivers.get(key)
            if receiver is None:
                receiver = self._receivers[key] = Receiver(key, name, Delivery(self._next))
            receiver.on_append = on_append
            if (store := self._store_for(receiver)) is not None:
                store.note_soon(key, receiver.delivery.wanted)
        return receiver

    def note(self, receiver: Receiver) -> bool:
        """Have the store, if there is one, remember what it lacks, for the case that this process ends before it.
        Whether it does."""
        with self._lock:
            store, wanted = self._store_for(receiver), Ranges(receiver.delivery.wanted)
        return store is not None and store.note(receiver.key, wanted)

    def detach(self, receiver: Receiver, on_append: Callable[[], None]) -> None:
        """It takes no more for now; what comes is kept for it, until `retain` names it no more."""
        with self._lock:
            if receiver.on_append == on_append:  # nobody else has taken over
                receiver.on_append = None

    def retain(self, keys: Container[str]) -> None:
        """Forget receivers of other keys. What they have not got is counted as dropped."""
        self._retain(keys, remembered=())

    def release(self) -> None:
        """Forget all receivers and the store, as at the end. What the next run will ship is not counted as dropped."""
        receivers = tuple(self._receivers.values())
        self._retain((), remembered={receiver.key for receiver in receivers if self.note(receiver)})
        self.keep_longer(None, None)

    def _retain(self, keys: Container[str], *, remembered: Container[str]) -> None:
        with self._lock:
            for key in [key for key in self._receivers if key not in keys]:
                receiver = self._receivers.pop(key)
                missing = [entry for number, entry in self._kept.items() if receiver.delivery.is_undelivered(number)]
                if key in remembered and self._store is not None:
                    missing = [entry for entry in missing if not self._store.holds(entry.number)]
                self._stats.dropped(receiver.name, DropCause.STOPPED, sum(entry.rows for entry in missing))
            if not self._receivers:
                self._kept.clear()
                self._bytes = 0

    def connected(self, receiver: Receiver) -> None:
        """A peer is there: it gets what comes from now on, and of video what is needed to see that."""
        with self._lock:
            receiver.delivery.connected(self._live_from())

    def catch_up(self, receiver: Receiver, most: int) -> None:
        """Where more than `most` entries wait to be sent, let the newest go first again."""
        with self._lock:
            if receiver.delivery.unsent_live > most:
                receiver.delivery.skip_to(self._live_from())
            is_behind = receiver.delivery.unsent_live > most  # still: the newest keyframe is as old
        if is_behind:
            self.want_keyframes()

    def next_live(self, receiver: Receiver) -> Entry | None:
        """What it should get now, which counts as being on its way from here on."""
        return self._next_of(receiver, receiver.delivery.next_live)

    def next_of_gap(self, receiver: Receiver) -> Entry | None:
        """What it should have got before, which counts as being on its way from here on. May read from a disk."""
        entry = self._next_of(receiver, receiver.delivery.next_of_gap)
        if entry is None and self._take_up_debts(receiver):
            entry = self._next_of(receiver, receiver.delivery.next_of_gap)
        return entry

    def _take_up_debts(self, receiver: Receiver) -> bool:
        """Look for more of what earlier runs owe it."""
        with self._lock:
            store = self._store_for(receiver)
        owed = Ranges() if store is None else store.owed(receiver.key)
        with self._lock:
            if store is self._store:
                receiver.delivery.owes(owed)
        return bool(owed)

    def _store_for(self, receiver: Receiver) -> Store | None:
        return None if receiver.key in self._forgetful else self._store

    def acknowledged(self, receiver: Receiver, entries: Sequence[tuple[int, int]]) -> None:
        """(number, rows) of what it has for certain."""
        with self._lock:
            rows = sum(rows for number, rows in entries if receiver.delivery.acknowledged(number))
        self._stats.sent(f"{receiver.name} rows", rows)

    def forgotten(self, receiver: Receiver) -> None:
        """Its peer was there and has ended: another one will have nothing. What is in memory is wanted again."""
        with self._lock:
            receiver.delivery.forgotten(next(iter(self._kept), self._next))
            receiver.delivery.all_given_up(self._withheld)

    def failed(self, receiver: Receiver, entries: Sequence[tuple[int, int]]) -> None:
        """(number, rows) of what was on its way to a peer that vanished: wanted again, as far as it still is here."""
        with self._lock:
            receiver.delivery.connected(self._next)
            self._lose([each for each in entries if not self._is_here(each[0])])

    def give_up(self, receiver: Receiver, entries: Sequence[tuple[int, int]]) -> None:
        """(number, rows) of what its peer can't read: sent again, that would end each connection."""
        with self._lock:
            rows = sum(rows for number, rows in entries if receiver.delivery.given_up(number))
        self._stats.dropped(receiver.name, DropCause.REFUSED, rows)

    def gone(self, entries: Sequence[tuple[int, int]]) -> None:
        """(number, rows) of what the store no longer holds."""
        with self._lock:
            self._lose([each for each in entries if each[0] not in self._kept])

    def behind(self, receiver: Receiver) -> int:
        """How many entries it has not acknowledged yet."""
        with self._lock:
            return len(receiver.delivery.wanted)

    def has_more(self, receiver: Receiver) -> bool:
        """Whether there is anything that it has not been sent."""
        with self._lock:
            return receiver.delivery.next_live() is not None or receiver.delivery.next_of_gap() is not None

    def close(self) -> None:
        self.release()
        if self._encoder is not None:
            self._encoder.close()

    def _append(self, framed: bytes, *, rows: int, entity: str, keyframe: bool, shows: Shows) -> None:
        number = self._next
        if entity:
            self._filmed_s[entity] = self._clock()
            if keyframe:
                self._keyframes[entity] = number
        since = self._keyframes.get(entity, _NO_KEYFRAME) if entity else number
        entry = Entry(number, framed, rows, entity, since, shows)
        self._next += 1
        if self._receivers:
            self._kept[entry.number] = entry
            self._bytes += len(framed)
        for follow in self._followers:
            follow(entry)
        for receiver in self._receivers.values():
            receiver.delivery.appended(entry.number)
            if receiver.on_append is not None:
                receiver.on_append()
        while self._bytes > self.memory_bytes and len(self._kept) > 1 and self._evict_the_oldest():
            pass

    def _evict_the_oldest(self) -> bool:
        """False when it stays, since it is on its way to the store."""
        number = next(iter(self._kept))
        if self._bytes <= self.memory_bytes + self._queue_bytes and self._is_awaited(number):
            return False
        entry = self._kept.pop(number)
        self._bytes -= len(entry.framed)
        if not self._is_here(number):
            self._lose([(number, entry.rows)])
        return True

    def _is_awaited(self, number: int) -> bool:
        return bool(self._followers) and self._store is not None and self._store.awaits(number)

    def _is_here(self, number: int) -> bool:
        return number in self._kept or (self._store is not None and self._store.holds(number))

    def _lose(self, entries: Sequence[tuple[int, int]]) -> None:
        for receiver in self._receivers.values():
            lost = sum(rows for number, rows in entries if receiver.delivery.lost(number))
            self._stats.dropped(receiver.name, receiver.cause, lost)

    def _next_of(self, receiver: Receiver, next_number: Callable[[], int | None]) -> Entry | None:
        while True:
            with self._lock:
                number = next_number()
                if number is None:
                    return None
                receiver.delivery.sent(number)
                entry, store = self._kept.get(number), self._store
            if entry is None and store is not None:
                entry = store.read(number)
            with self._lock:
                if (cause := self._why_not(receiver, entry)) is None:
                    return entry
                lost = receiver.delivery.given_up(number)
            rows = 1 if entry is None else entry.rows  # what went just now has not been counted: it was on its way
            self._stats.dropped(receiver.name, cause, rows if lost else 0)

    def _why_not(self, receiver: Receiver, entry: Entry | None) -> DropCause | None:
        """Why it is not handed over, if it is not."""
        if entry is None:
            return receiver.cause
        if entry.shows > self._most_shown:
            return DropCause.PRIVATE
        if not entry.framed:
            return DropCause.SINK_FAILED
        decodable = receiver.delivery.can_be_decoded(entry.number, entry.since)
        return None if decodable else DropCause.BROKEN_GROUP

    def _live_from(self) -> int:
        """From where on what is kept shows every video that goes on: its newest keyframe, however far back."""
        now_s = self._clock()
        going_on = [entity for entity, at_s in self._filmed_s.items() if now_s - at_s < _GOES_ON_S]
        keyframes = [self._keyframes.get(entity, _NO_KEYFRAME) for entity in going_on]
        return min((number for number in keyframes if number in self._kept), default=self._next)


_GOES_ON_S = 3.0
"""A camera that has sent no video for so long is away, or at its end."""
