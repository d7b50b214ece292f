"""Ships the log to a Rerun server, for as long as somebody is there who takes it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import rerun as rr

from edge.logs import FaultLog
from edge.pacing import Backoff, Deadline
from edge.reports import LinkState
from edge.rerun_log import rrd
from edge.rerun_log.channel import Address, Channel, ChannelBrokenError
from edge.rerun_log.hub import mismatch
from edge.rerun_log.log import Entry, Receiver, SceneLog
from edge.stats import DropCause

log = logging.getLogger(__name__)

_CONNECT_S = 2.5
"""For each step of a connection: with 200 ms of delay and a lost packet it takes 1.5 s."""

_INTRODUCTION_S = 10.0
"""So long the scene's description, 33 kB, may take though it gets on."""

_CALL_S = 1.0
_CALL_BYTES = 1_000_000
_UNACKNOWLEDGED_BYTES = 4_000_000
"""On its way at most. What is there twice after a broken connection is at most this much, and counts once."""

_UNACKNOWLEDGED_OF_GAP_BYTES = 1_000_000
_STUCK_S = 2.0
_GIVE_UP_S = 4.0
"""So long nothing moves until the connection counts as dead, though nobody has said so."""

_QUIET_S = 5.0
"""So often a server is asked for an acknowledgement though there is nothing new."""

_MOST_WAITING = 40
"""So many entries may wait for their turn, four seconds of one camera; more, and the newest go first."""

_MOST_WAITING_AT_FIRST = 10
"""The same for a connection that has not delivered anything yet: who comes back wants to see what is now."""

_TURN_S = 0.2
_NOTE_EVERY_S = 30.0
"""So much may be sent again after a crash."""


@dataclass(slots=True)
class _Call:
    """One RPC: what it carries, and when it was begun."""

    number: int
    entries: list[tuple[int, int]] = field(default_factory=list)
    nbytes: int = 0
    is_alone: bool = False
    """It carries one entry of those of which the server could not read one."""
    since_s: float = field(default_factory=time.monotonic)
    """When the first entry came; without any, when it was begun, and then when it was ended."""

    @property
    def is_due(self) -> bool:
        """Whether it is time for an acknowledgement."""
        age_s = time.monotonic() - self.since_s
        return self.is_alone or age_s > (_CALL_S if self.entries else _QUIET_S) or self.nbytes > _CALL_BYTES


class _Lane:
    """One of the two that share a connection: what comes now, and the gap. At most one call of it is open."""

    def __init__(self) -> None:
        self.open: _Call | None = None
        self.unfinished = memoryview(b"")
        self.waiting: dict[int, _Call] = {}
        """Calls that have been ended and not acknowledged."""

    @property
    def nbytes(self) -> int:
        """On its way."""
        return sum(call.nbytes for call in self.waiting.values()) + (self.open.nbytes if self.open else 0)

    def entries(self) -> list[tuple[int, int]]:
        calls = [*self.waiting.values(), *([self.open] if self.open else [])]
        return [entry for call in calls for entry in call.entries]


class _Allowance:
    """Bytes that may be sent: so many a second, and not much more at once."""

    def __init__(self, bytes_s: float) -> None:
        self._bytes_s = bytes_s
        self._left = 0.0
        self._at_s = time.monotonic()

    def is_open(self) -> bool:
        now_s = time.monotonic()
        self._left = min(self._bytes_s / 4, self._left + (now_s - self._at_s) * self._bytes_s)
        self._at_s = now_s
        return self._left > 0

    def take(self, nbytes: int) -> None:
        self._left -= nbytes


class Forwarder:
    """Sends what a log holds to one server, over one connection of its own, from one thread of its own.

    What comes now goes first. What an outage has left behind, the gap, follows at `gap_bytes_s` when nothing new waits.
    Both go in calls of a second each, and only what the server has acknowledged is done with: a connection that breaks,
    or on which nothing moves, costs nothing that the log still holds. So nothing waits here but for the log's own
    memory, and whoever puts something into it never waits for this.

    A new connection begins with the scene's description: a server may be another one. One that has ended meanwhile has
    forgotten all, and gets again what the log has in memory. What comes twice has the same ids, and counts once.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        scene_log: SceneLog,
        *,
        key: str,
        gap_bytes_s: float,
        is_up: Callable[[], bool] | None = None,
    ) -> None:
        """key: which server it is: one that comes later with the same key goes on where this one ended. is_up: of a
        server of our own, whether it is there; it is not asked before, and says for itself how it is."""
        self.name = name
        self._key = key
        self._address = address
        self._log = scene_log
        self._gap_bytes_s = gap_bytes_s
        self._receiver: Receiver | None = None
        self._state = LinkState.AWAY
        self._backoff = Backoff(first_s=0.25, most_s=2.0)
        self._faults = FaultLog(log)
        self._told_version = ""
        self._suspects: set[int] = set()
        self._has_streamed = False
        self._note_s = time.monotonic() + _NOTE_EVERY_S
        self._is_up = is_up
        self._deadline: Deadline | None = None
        self._closing = threading.Event()
        self._waker = self._wake_up = -1
        self._thread = threading.Thread(target=self._run, name=f"forwarder-{name}", daemon=True)

    @property
    def state(self) -> LinkState:
        return self._state

    @property
    def behind(self) -> int:
        """How many entries of the log it has not been acknowledged yet."""
        return 0 if self._receiver is None else self._log.behind(self._receiver)

    def start(self) -> None:
        self._waker, self._wake_up = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._receiver = self._log.attach(self._key, self.name, self._wake)
        self._thread.start()

    def close(self, deadline: Deadline) -> None:
        """End it; what can still be delivered is, as far as `deadline` allows."""
        self._deadline = deadline
        self._closing.set()
        self._wake()

    def join(self) -> bool:
        """Wait for its end, after `close`. False when it is stuck, in a name server's answer for instance."""
        assert self._deadline is not None, "join comes after close"
        self._thread.join(self._deadline.left_s() + 0.1)
        if self._thread.is_alive():
            return False
        for end in (self._waker, self._wake_up):
            os.close(end)
        return True

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # full: it will wake up anyway
            os.write(self._wake_up, b"!")

    def _is_out_of_time(self) -> bool:
        return self._deadline is not None and not self._deadline.left_s()

    def _sleep(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def _run(self) -> None:
        receiver = self._receiver
        assert receiver is not None, "it was started"
        try:
            while self._deadline is None:
                self._state = LinkState.AWAY
                receiver.cause = DropCause.DISCONNECTED
                self._connect_and_serve(receiver)
        finally:
            self._state = LinkState.AWAY
            self._log.detach(receiver, self._wake)

    def _connect_and_serve(self, receiver: Receiver) -> None:
        if self._is_up is not None and not self._is_up():
            self._sleep(_TURN_S)
            return
        channel = stream = None
        try:
            channel = Channel(self._address, _CONNECT_S)
            stream = _Stream(channel, self._log, receiver, self._gap_bytes_s, self._suspects)
            begun_s = time.monotonic()
            self._serve(stream, receiver)
            if time.monotonic() - begun_s < _CALL_S:  # who lets us in just to leave is not to be asked all the time
                self._sleep(self._backoff.next_s())
        except ChannelBrokenError as error:
            if stream is not None and channel is not None:
                self._forget(stream, channel, receiver, error)
            self._lost(error)
        except Exception:  # noqa: BLE001 - h2 may raise what it likes
            # Without this thread nothing would be shipped any more, and nobody would see why.
            if stream is not None:
                self._log.failed(receiver, stream.on_its_way())
            told = "link to Rerun at %s failed in a way nobody foresaw"
            self._faults.failed(told, self._address, kind="unforeseen", exc_info=True)
            self._state = LinkState.AWAY
            self._sleep(self._backoff.next_s())
        finally:
            if channel is not None:
                channel.close()

    def _forget(self, stream: _Stream, channel: Channel, receiver: Receiver, error: ChannelBrokenError) -> None:
        """What a broken connection leaves."""
        self._log.failed(receiver, stream.on_its_way())
        if error.refused_call is not None:
            refused = stream.entries_of(error.refused_call)
            if len(refused) == 1:
                self._log.give_up(receiver, refused)
            else:  # one of them it is, which shows when each goes alone
                self._suspects.update(number for number, _ in refused)
        if error.server_ended and not channel.run:
            self._log.forgotten(receiver)

    def _lost(self, error: ChannelBrokenError) -> None:
        wait_s = self._backoff.next_s()
        self._state = LinkState.AWAY
        told = "Rerun at %s: %s; it is tried again until it is there"
        if self._is_up is None:
            self._faults.failed(told, self._address, error, kind="refused" if error.is_refusal else "")
        self._sleep(wait_s)

    def _serve(self, stream: _Stream, receiver: Receiver) -> None:
        """Until the end of the connection, or of this. Raises ChannelBrokenError."""
        stream.introduce(self._waker, self._is_out_of_time)
        self._state = LinkState.LIVE
        receiver.cause = DropCause.SLOW_RECEIVER
        self._compare_versions(stream.channel.rerun_version)
        if receiver.run and stream.channel.run not in ("", receiver.run):
            self._log.forgotten(receiver)
        receiver.run = stream.channel.run or receiver.run
        self._log.connected(receiver)
        is_told = False
        while not stream.is_over(self._deadline):
            stream.turn(self._waker, self._deadline)
            if stream.has_delivered and not is_told:
                is_told = True
                self._backoff.reset()
                self._say_that_it_works()
            self._drain_waker()
            if time.monotonic() > self._note_s:
                self._note_s = time.monotonic() + _NOTE_EVERY_S
                self._log.note(receiver)
            still_s = max(stream.still_s(), stream.channel.silent_s)
            if still_s > _GIVE_UP_S:
                raise ChannelBrokenError(f"it has taken nothing for {still_s:.0f} s")
            stuck = still_s > _STUCK_S
            self._state = LinkState.STUCK if stuck else LinkState.LIVE
            if stuck and self._deadline is not None:
                break  # what it does not take now it will not take by then
        self._log.failed(receiver, stream.on_its_way())

    def _say_that_it_works(self) -> None:
        if self._is_up is not None:
            return
        if self._has_streamed:
            self._faults.worked("streaming to Rerun at %s again", self._address)
        else:
            self._has_streamed = True
            self._faults.worked("Rerun at %s answers now", self._address)
            log.info("streaming to Rerun at %s", self._address)

    def _compare_versions(self, theirs: str) -> None:
        if theirs != self._told_version and (said := mismatch(theirs, rr.__version__, "device")):
            self._told_version = theirs
            log.warning("Rerun at %s: %s", self._address, said)

    def _drain_waker(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._waker, 4096)


class _Stream:
    """What goes over one connection, new and old."""

    def __init__(
        self, channel: Channel, scene_log: SceneLog, receiver: Receiver, gap_bytes_s: float, suspects: set[int]
    ) -> None:
        """suspects: entries to be sent alone, until they are acknowledged."""
        self.channel = channel
        self.has_delivered = False
        self._suspects = suspects
        self._log = scene_log
        self._receiver = receiver
        self._live = _Lane()
        self._gap = _Lane()
        self._allowance = _Allowance(gap_bytes_s)

    def introduce(self, waker: int, ended: Callable[[], bool]) -> None:
        """Send what does not change. When that is acknowledged there is a server, and one that takes what it gets."""
        channel, limit_s = self.channel, time.monotonic() + _INTRODUCTION_S
        call = channel.begin()
        content = memoryview(_requests(self._log.description.messages))
        closed = False
        while not ended():
            while content and (room := channel.room(call)):
                channel.send(call, content[:room])
                content = content[room:]
            if not content and not closed:
                channel.end(call)
                closed = True
            if call in channel.turn(_TURN_S, waker):
                return
            with contextlib.suppress(BlockingIOError):
                os.read(waker, 4096)
            if time.monotonic() > min(channel.moved_s + _CONNECT_S, limit_s):
                raise ChannelBrokenError("it does not answer")
        raise ChannelBrokenError("it has not answered yet")

    def is_over(self, deadline: Deadline | None) -> bool:
        """Whether nothing more is to come over this connection."""
        if deadline is not None and not deadline.left_s():
            return True
        idle = not self.on_its_way()
        if self.channel.is_leaving:
            return not any(self.channel.answers(number) for number in self._calls())
        return deadline is not None and idle and not self._log.has_more(self._receiver)

    def still_s(self) -> float:
        """So long nothing has moved, though something should."""
        lanes = (self._live, self._gap)
        calls = [*self._live.waiting.values(), *self._gap.waiting.values()]
        calls += [lane.open for lane in lanes if lane.open is not None and lane.open.entries]
        if not calls:
            return 0.0
        return time.monotonic() - max(min(call.since_s for call in calls), self.channel.moved_s)

    def turn(self, waker: int, deadline: Deadline | None) -> None:
        """Send what there is and the other end takes, and see what it has acknowledged."""
        self._log.catch_up(self._receiver, _MOST_WAITING if self.has_delivered else _MOST_WAITING_AT_FIRST)
        self._fill(self._live, hurried=deadline is not None)
        self._fill(self._gap, hurried=deadline is not None)
        if self._live.open is None and deadline is None and self.channel.can_begin:
            # With none open a server could end and another one come, and nobody here would know.
            self._live.open = _Call(self.channel.begin())
        self.channel.flush()
        for number in self.channel.turn(self._wait_s(deadline), waker):
            self.has_delivered = True
            for lane in (self._live, self._gap):
                if call := lane.waiting.pop(number, None):
                    self._log.acknowledged(self._receiver, call.entries)
                    self._suspects.difference_update(entry for entry, _ in call.entries)

    def _calls(self) -> list[int]:
        lanes = (self._live, self._gap)
        return [call.number for lane in lanes for call in (*lane.waiting.values(), lane.open) if call is not None]

    def on_its_way(self) -> list[tuple[int, int]]:
        """(number, rows) of what has not been acknowledged."""
        return [*self._live.entries(), *self._gap.entries()]

    def entries_of(self, number: int) -> list[tuple[int, int]]:
        """What one of the calls carries that have not been acknowledged."""
        calls = [call for lane in (self._live, self._gap) for call in (*lane.waiting.values(), lane.open)]
        return [entry for call in calls if call is not None and call.number == number for entry in call.entries]

    def _wait_s(self, deadline: Deadline | None) -> float:
        """Until something has to be done though nothing happens."""
        lanes = [(lane, lane.open) for lane in (self._live, self._gap) if lane.open is not None]
        if any(lane.unfinished and self.channel.room(call.number) for lane, call in lanes):
            return 0.0
        # One that has still to be sent can't be ended, however late it is: the connection says when it takes more.
        ends = [
            call.since_s + _CALL_S - time.monotonic() for lane, call in lanes if call.entries and not lane.unfinished
        ]
        if deadline is not None:
            ends.append(deadline.left_s())
        return max(0.0, min([_TURN_S, *ends]))

    def _fill(self, lane: _Lane, *, hurried: bool) -> None:
        while True:
            entry = None if lane.unfinished else self._next(lane, hurried=hurried)
            if entry is not None:
                self._open(lane, entry)
            call = lane.open
            if call is None:
                return
            while lane.unfinished and (room := self.channel.room(call.number)):
                self.channel.send(call.number, lane.unfinished[:room])
                lane.unfinished = lane.unfinished[room:]
            if lane.unfinished:
                return  # it takes no more just now
            in_a_hurry = entry is None and (hurried or self.channel.is_leaving)
            if call.is_due or in_a_hurry:
                self._end(lane, call)
            elif entry is None:
                return

    def _end(self, lane: _Lane, call: _Call) -> None:
        if not call.entries:
            call.since_s = time.monotonic()
        self.channel.end(call.number)
        lane.waiting[call.number] = call
        lane.open = None

    def _open(self, lane: _Lane, entry: Entry) -> None:
        alone = entry.number in self._suspects
        if alone and lane.open is not None and lane.open.entries and self.channel.can_begin:
            self._end(lane, lane.open)
        if lane.open is None:
            lane.open = _Call(self.channel.begin())
        lane.open.is_alone = alone
        if not lane.open.entries:
            lane.open.since_s = time.monotonic()
        requests = _requests(entry.framed)
        lane.open.entries.append((entry.number, entry.rows))
        lane.open.nbytes += len(requests)
        lane.unfinished = memoryview(requests)
        if lane is self._gap:
            self._allowance.take(len(requests))

    def _next(self, lane: _Lane, *, hurried: bool) -> Entry | None:
        if self.channel.is_leaving or not (lane.open is not None or self.channel.can_begin):
            return None
        if lane is self._live:
            # No more than the log has in memory: what breaks off on its way has to be there still.
            most = min(_UNACKNOWLEDGED_BYTES, self._log.memory_bytes // 2)
            return self._log.next_live(self._receiver) if lane.nbytes < most else None
        may = lane.nbytes < _UNACKNOWLEDGED_OF_GAP_BYTES and not self._live.unfinished
        may = may and (hurried or self._allowance.is_open())
        return self._log.next_of_gap(self._receiver) if may else None


def _requests(framed: bytes) -> bytes:
    return b"".join(message.request for message in rrd.messages(framed))
