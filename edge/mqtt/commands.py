"""Commands: from what arrives to an order that the main thread carries out, and from its answer to a reply."""

from __future__ import annotations

import functools
import queue
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from edge.control import Answer, Command, Order, Pause, Ping, Refusal, Reload, Restart, Set, Snapshot, Still
from edge.logs import printable
from edge.mqtt.message import Message, Received
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1

BURST = 20
PER_SECOND = 10.0
REFUSALS_PER_SECOND = 50.0
"""Beyond that what comes too often is not even answered: a flood must not become two."""


class Bucket:
    """A token bucket: `burst` at once, and `per_second` in the long run."""

    def __init__(self, *, burst: float, per_second: float) -> None:
        self._burst = burst
        self._per_second = per_second
        self._tokens = burst
        self._last_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether one more is within the limit. now_s: of a clock that never goes back."""
        if self._last_s is not None:
            self._tokens = min(self._burst, self._tokens + (now_s - self._last_s) * self._per_second)
        self._last_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom an answer goes to. topic: where replies to it are published."""

    verb: str
    topic: str
    correlation: bytes | None = None
    number: str | UnsetType = UNSET


class Answers:
    """What the main thread answers, until the sink's thread publishes it: also the sink that has taken over."""

    def __init__(self) -> None:
        self._waiting: queue.SimpleQueue[tuple[Asked, Answer]] = queue.SimpleQueue()  # no more than orders may wait

    def put(self, asked: Asked, answer: Answer) -> None:
        self._waiting.put((asked, answer))

    def take(self) -> list[tuple[Asked, Answer]]:
        taken = []
        while not self._waiting.empty():
            taken.append(self._waiting.get())
        return taken


class CommandDesk:
    """Judges what arrives below `P/cmd/`. For the sink's thread alone.

    verbs: those that are obeyed. ask: hands an order to the main thread, False when too many wait there.
    """

    def __init__(
        self, topics: Topics, *, verbs: Collection[str], ask: Callable[[Command], bool], answers: Answers
    ) -> None:
        self._topics = topics
        self._verbs = verbs
        self._ask = ask
        self._answers = answers
        self._commands = Bucket(burst=BURST, per_second=PER_SECOND)
        self._refusals = Bucket(burst=REFUSALS_PER_SECOND, per_second=REFUSALS_PER_SECOND)
        self.ignored = 0
        """How many got no answer, since too many came."""

    def receive(self, received: Received) -> Message | None:
        """Hand the order on; or the message that refuses it, or None when it gets no answer at all."""
        if received.retain and not received.payload:
            return None  # a retained command is taken back
        verb = received.topic.rpartition("/")[2]
        asked = self._asked(verb if verb in v1.REQUESTS else v1.UNKNOWN_VERB, received)
        refused = self._refusal(verb, asked, received)
        if refused is None:
            return None
        if not self._refusals.take(time.monotonic()):
            self.ignored += 1
            return None
        return refused

    def _refusal(self, verb: str, asked: Asked, received: Received) -> Message | None:
        """None: it was handed on."""
        if fault := self._inadmissible(verb, received):
            return _refused(asked, *fault)
        try:
            request = msgspec.json.decode(received.payload, type=v1.REQUESTS[verb])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return _refused(asked, v1.ErrorCode.MALFORMED, f"payload of {verb}: {_one_line(error)}")
        if not self._ask(Command(to_order(request), functools.partial(self._answers.put, asked))):
            return _refused(asked, v1.ErrorCode.BUSY, "other commands are still being carried out; try again")
        return None

    def _inadmissible(self, verb: str, received: Received) -> tuple[v1.ErrorCode, str] | None:
        """Why a command is not even read."""
        if not self._commands.take(time.monotonic()):
            why = f"more than {BURST} commands at once or {PER_SECOND:g} a second; send fewer"
            return v1.ErrorCode.TOO_FREQUENT, why
        if received.retain:
            why = "a retained command is not obeyed; clear it, and send it without retain"
            return v1.ErrorCode.RETAINED, why
        if verb not in self._verbs:
            return v1.ErrorCode.UNKNOWN_VERB, f"no verb that this device obeys; those are: {', '.join(self._verbs)}"
        if not received.payload:
            # It is how a retained command is taken back, and with 3.1.1 nothing tells that from a command.
            return v1.ErrorCode.MALFORMED, f"payload of {verb}: is empty; send {{}} where there is nothing to say"
        if len(received.payload) > v1.MOST_COMMAND_BYTES:
            return (
                v1.ErrorCode.OVERSIZED,
                f"{len(received.payload)} bytes; a command has {v1.MOST_COMMAND_BYTES} at most",
            )
        return None

    def _asked(self, verb: str, received: Received) -> Asked:
        below = self._topics.reply("")
        wanted = received.response_topic
        fits = wanted.startswith(below) and len(wanted) > len(below) and not {"+", "#", "\0"} & {*wanted}
        topic = wanted if fits else self._topics.reply(verb)
        return Asked(verb, topic, received.correlation, _number(received.payload))


class _Numbered(msgspec.Struct):
    id: Annotated[str, msgspec.Meta(max_length=64)] | UnsetType = UNSET


def _number(payload: bytes) -> str | UnsetType:
    """The id by which a command wants to know its reply again, also where the rest of it is wrong."""
    try:
        return msgspec.json.decode(payload, type=_Numbered).id if len(payload) <= v1.MOST_COMMAND_BYTES else UNSET
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return UNSET


def to_order(request: v1.Request) -> Order:
    """What the main thread is asked for."""
    order: Order
    match request:
        case v1.Snapshot(camera=camera):
            order = Snapshot(_named(camera))
        case v1.Pause(camera=camera, keep=keep) | v1.Resume(camera=camera, keep=keep):
            order = Pause(_named(camera), isinstance(request, v1.Pause), keep)
        case v1.Set(values=values, keep=keep):
            order = Set(values, keep)
        case v1.Record(on=on, keep=keep):
            order = Set({"rerun.record": on}, keep)
        case v1.Reload():
            order = Reload()
        case v1.Restart():
            order = Restart()
        case _:
            order = Ping()
    return order


def _named(camera: str | UnsetType) -> str | None:
    return None if camera is UNSET else camera


def reply(asked: Asked, answer: Answer) -> Message:
    if answer.refusal is not None:
        code = v1.ErrorCode.INVALID if answer.refusal is Refusal.INVALID else v1.ErrorCode.FAILED
        return _refused(asked, code, "; ".join(answer.why.splitlines()))
    result = {**answer.result, **(_about(answer.still) if answer.still is not None else {})}
    return _message(asked, v1.Reply(verb=asked.verb, ok=True, t_us=_now_us(), id=asked.number, result=result))


def _about(still: Still) -> dict[str, object]:
    return {
        "camera": still.camera,
        "seq": still.seq,
        "t_us": still.captured_ns // 1000,
        "width_px": still.width_px,
        "height_px": still.height_px,
        "bytes": len(still.jpeg),
    }


def _refused(asked: Asked, code: v1.ErrorCode, why: str) -> Message:
    error = v1.CommandError(code=code, text=why)
    return _message(asked, v1.Reply(verb=asked.verb, ok=False, t_us=_now_us(), id=asked.number, error=error))


def _message(asked: Asked, content: v1.Reply) -> Message:
    return Message(
        asked.topic,
        v1.encode(content),
        qos=1,
        expiry_s=v1.ANSWER_EXPIRY_S,
        content_type=v1.JSON,
        correlation=asked.correlation,
    )


def _now_us() -> int:
    return time.time_ns() // 1000


def _one_line(error: Exception) -> str:
    return printable(" ".join(str(error).split())[:200]) or type(error).__name__
