"""What becomes of what arrives below P/cmd/, without a broker."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.control import (
    MOST_COMMANDS,
    Answer,
    Command,
    Inbox,
    Order,
    Pause,
    Ping,
    Refusal,
    Reload,
    Restart,
    Set,
    Snapshot,
    Still,
)
from edge.mqtt import commands
from edge.mqtt.commands import BURST, REFUSALS_PER_SECOND, Answers, Bucket, CommandDesk
from edge.mqtt.message import Message, Received
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1

TOPICS = Topics("pose/v1", "hall")
BELOW = "pose/v1/hall/reply/"

ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


class Bench:
    """A desk, what it hands its orders to, and the answers."""

    def __init__(self, *verbs: str) -> None:
        self.inbox = Inbox()
        self.answers = Answers()
        self.desk = CommandDesk(TOPICS, verbs=verbs or tuple(v1.REQUESTS), ask=self.inbox.ask, answers=self.answers)

    def send(self, verb: str, payload: bytes | str | dict[str, Any] = b"{}", **received: Any) -> Message | None:
        """What the desk says to it at once, if anything."""
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        content = payload.encode() if isinstance(payload, str) else payload
        return self.desk.receive(Received(TOPICS.command(verb), content, 1, received.pop("retain", False), **received))

    def order(self) -> Command | None:
        request = self.inbox.next(0)
        assert request is None or isinstance(request, Command)
        return request

    def refused(self, verb: str, payload: bytes | str | dict[str, Any] = b"{}", **received: Any) -> v1.CommandError:
        message = self.send(verb, payload, **received)
        assert message is not None
        assert self.order() is None, "what is refused is not carried out"
        error = decoded(message).error
        assert isinstance(error, v1.CommandError)
        return error

    def answered(self, answer: Answer, verb: str, payload: dict[str, Any], **received: Any) -> Message:
        """The reply to a command whose order is answered so."""
        assert self.send(verb, payload, **received) is None
        command = self.order()
        assert command is not None
        command.answer(answer)
        ((asked, given_answer),) = self.answers.take()
        return commands.reply(asked, given_answer)


def decoded(message: Message) -> v1.Reply:
    reply = msgspec.json.decode(message.payload, type=v1.Reply)
    assert reply.ok == (reply.error is msgspec.UNSET)
    return reply


@pytest.mark.parametrize(
    ("verb", "payload", "order"),
    [
        ("ping", {}, Ping()),
        ("snapshot", {}, Snapshot(None)),
        ("snapshot", {"camera": "front"}, Snapshot("front")),
        ("pause", {}, Pause(None, paused=True, keep=False)),
        ("pause", {"camera": "front", "keep": True}, Pause("front", paused=True, keep=True)),
        ("resume", {"camera": "front"}, Pause("front", paused=False, keep=False)),
        ("resume", {"keep": True}, Pause(None, paused=False, keep=True)),
        (
            "set",
            {"values": {"pose.model": "lite", "mqtt.landmarks_hz": 10, "x": None}, "keep": True},
            Set({"pose.model": "lite", "mqtt.landmarks_hz": 10, "x": None}, keep=True),
        ),
        ("record", {"on": False}, Set({"rerun.record": False}, keep=False)),
        ("record", {"on": True, "keep": True}, Set({"rerun.record": True}, keep=True)),
        ("reload", {}, Reload()),
        ("restart", {"id": "7"}, Restart()),
    ],
)
def test_each_verb_becomes_an_order(verb: str, payload: dict[str, Any], order: Order) -> None:
    bench = Bench()

    assert bench.send(verb, payload) is None
    command = bench.order()
    assert command is not None
    assert command.order == order


@pytest.mark.parametrize("verb", sorted(v1.REQUESTS.keys() - {"set", "record"}))
def test_most_verbs_need_no_fields_but_an_empty_payload_is_how_a_retained_command_is_taken_back(verb: str) -> None:
    bench = Bench()

    assert bench.send(verb) is None
    assert bench.order() is not None
    message = bench.send(verb, b"")
    assert message is not None
    error = decoded(message).error
    assert isinstance(error, v1.CommandError)
    assert (error.code, error.text) == (
        v1.ErrorCode.MALFORMED,
        f"payload of {verb}: is empty; send {{}} where there is nothing to say",
    )


@pytest.mark.parametrize(
    ("verb", "payload"),
    [
        ("ping", "{"),
        ("ping", "[]"),
        ("ping", " "),
        ("ping", b"\xff"),
        ("ping", "{} {}"),
        ("ping", {"id": "x" * 65}),
        ("ping", {"id": 5}),
        ("ping", {"id": None}),
        ("ping", {"loud": True}),
        ("ping", '{"id": "\\ud800"}'),
        ("ping", '{"a\nb": 1}'),
        ("ping", "[" * 4000),
        ("ping", '{"id":' + "[" * 4000),
        ("snapshot", {"camera": "front door"}),
        ("snapshot", {"camera": ""}),
        ("snapshot", {"camera": "front\n"}),
        ("pause", {"keep": "yes"}),
        ("set", {}),
        ("set", {"values": {}}),
        ("set", {"values": {str(number): 1 for number in range(33)}}),
        ("set", {"values": {"pose.model": ["lite"]}}),
        ("set", {"values": {"pose": {"model": "lite"}}}),
        ("set", '{"values": {"mqtt.landmarks_hz": NaN}}'),
        ("set", '{"values": {"mqtt.landmarks_hz": 1e999}}'),
        ("record", {}),
        ("record", {"on": 1}),
    ],
)
def test_what_is_no_request_of_its_verb_is_malformed_and_told_in_one_line(
    verb: str, payload: bytes | str | dict[str, Any]
) -> None:
    error = Bench().refused(verb, payload)

    assert error.code == v1.ErrorCode.MALFORMED
    assert error.text.startswith(f"payload of {verb}: ")
    assert len(error.text.splitlines()) == 1
    assert len(error.text) < 250


def test_verbs_that_there_are_not_or_that_are_not_obeyed_are_told_which_are() -> None:
    bench = Bench("ping", "snapshot")
    error = bench.refused("restart")
    assert (error.code, error.text) == (
        v1.ErrorCode.UNKNOWN_VERB,
        "no verb that this device obeys; those are: ping, snapshot",
    )
    assert bench.refused("fly").code == bench.refused("").code == v1.ErrorCode.UNKNOWN_VERB

    message = bench.send("fly", {"id": "7"})
    assert message is not None
    assert (message.topic, decoded(message).verb) == (f"{BELOW}unknown", "unknown"), "no stranger names a topic of ours"
    message = bench.send("restart")
    assert message is not None
    assert (message.topic, decoded(message).verb) == (f"{BELOW}restart", "restart")


def test_a_retained_command_is_for_nobody() -> None:
    error = Bench().refused("restart", retain=True)

    assert error.code == v1.ErrorCode.RETAINED
    assert "without retain" in error.text


def test_what_is_too_long_is_not_even_read() -> None:
    fits = b'{"id": "7"}'.ljust(v1.MOST_COMMAND_BYTES)
    assert Bench().send("ping", fits) is None

    error = Bench().refused("ping", fits + b" ")
    assert (error.code, str(v1.MOST_COMMAND_BYTES) in error.text) == (v1.ErrorCode.OVERSIZED, True)


def test_more_than_may_wait_are_told_to_come_again() -> None:
    bench = Bench()
    for _ in range(MOST_COMMANDS):
        assert bench.send("ping") is None
    message = bench.send("ping", {"id": "7"}, correlation=b"c")
    assert message is not None
    reply = decoded(message)
    assert isinstance(reply.error, v1.CommandError)
    assert (reply.error.code, reply.id, message.correlation) == (v1.ErrorCode.BUSY, "7", b"c")

    assert bench.order() is not None
    assert bench.send("ping") is None, "there is room again"


def test_a_flood_is_refused_at_first_and_then_ignored_and_counted() -> None:
    bench = Bench()
    told = [bench.send("fly") for _ in range(300)]

    codes = [error.code for message in told if message and isinstance(error := decoded(message).error, v1.CommandError)]
    assert codes[:BURST] == [v1.ErrorCode.UNKNOWN_VERB] * BURST
    assert {*codes[BURST + 1 :]} == {v1.ErrorCode.TOO_FREQUENT}
    # Both buckets go on filling while the test runs, be it on a slow machine.
    assert REFUSALS_PER_SECOND <= len(codes) < 300
    assert bench.desk.ignored == 300 - len(codes)


def test_who_is_refused_for_coming_too_often_does_not_have_it_carried_out() -> None:
    bench = Bench()
    carried_out = 0
    for _ in range(100):
        message = bench.send("ping")
        assert (message is None) == (bench.order() is not None) or bench.desk.ignored
        carried_out += message is None
    assert carried_out >= BURST
    assert carried_out - bench.desk.ignored < BURST + 10


@given(
    burst=st.integers(1, 30),
    per_second=st.floats(0.1, 100),
    waits_s=st.lists(st.floats(0, 3) | st.just(0.0), max_size=100),
)
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(
    burst: int, per_second: float, waits_s: list[float]
) -> None:
    bucket = Bucket(burst=burst, per_second=per_second)
    now_s, taken = 1000.0, []
    for wait_s in waits_s:
        now_s += wait_s
        if bucket.take(now_s):
            taken.append(now_s)
    # In every stretch of time, not only from the start.
    for first, begin_s in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + (taken[last] - begin_s) * per_second + 1e-6


@given(burst=st.integers(1, 30), per_second=st.floats(0.1, 100), idle_s=st.floats(0, 1e6))
def test_a_bucket_that_was_left_alone_gives_its_burst_again(burst: int, per_second: float, idle_s: float) -> None:
    bucket = Bucket(burst=burst, per_second=per_second)
    assert [bucket.take(5.0) for _ in range(burst + 1)] == [True] * burst + [False]

    later_s = 5.0 + burst / per_second + 1e-3 + idle_s
    assert [bucket.take(later_s) for _ in range(burst + 1)] == [True] * burst + [False]


def test_a_reply_goes_where_it_was_asked_for_with_the_commands_correlation() -> None:
    bench = Bench()
    message = bench.answered(
        Answer(result={"uptime_s": 5.0}), "ping", {"id": "7"}, correlation=b"\0\xff", response_topic=f"{BELOW}anna/1"
    )

    assert (message.topic, message.correlation, message.qos, message.retain) == (
        f"{BELOW}anna/1",
        b"\0\xff",
        1,
        False,
    )
    assert (message.content_type, message.expiry_s) == ("application/json", 60)
    reply = decoded(message)
    assert (reply.verb, reply.ok, reply.id, reply.result) == ("ping", True, "7", {"uptime_s": 5.0})


@pytest.mark.parametrize(
    "elsewhere",
    [
        "",
        "pose/v1/hall/cmd/restart",
        "pose/v1/other/reply/ping",
        "pose/v1/hall/reply",
        "pose/v1/hall/reply/",
        "pose/v1/hall/reply/#",
        "pose/v1/hall/reply/+/x",
        "pose/v1/hall/reply/\0",
        "pose/v1/hall/replys/x",
        "/pose/v1/hall/reply/x",
        "$SYS/x",
    ],
)
def test_nobody_has_this_device_publish_elsewhere(elsewhere: str) -> None:
    message = Bench().send("fly", response_topic=elsewhere)

    assert message is not None
    assert message.topic == f"{BELOW}unknown"


@pytest.mark.parametrize(
    ("refusal", "code"), [(Refusal.INVALID, v1.ErrorCode.INVALID), (Refusal.FAILED, v1.ErrorCode.FAILED)]
)
def test_a_refusal_of_several_lines_is_one_line_of_the_reply(refusal: Refusal, code: v1.ErrorCode) -> None:
    message = Bench().answered(Answer(refusal, "one\ntwo"), "reload", {"id": "7"})

    reply = decoded(message)
    assert (reply.ok, reply.id, reply.error) == (False, "7", v1.CommandError(code=code, text="one; two"))


def test_a_picture_is_told_apart_from_its_bytes() -> None:
    still = Still("front", 7, 1_700_000_000_123_456_789, 640, 480, b"\xff\xd8jpeg")
    reply = decoded(Bench().answered(Answer(still=still), "snapshot", {}))

    assert reply.result == {
        "camera": "front",
        "seq": 7,
        "t_us": 1_700_000_000_123_456,
        "width_px": 640,
        "height_px": 480,
        "bytes": 6,
    }


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "id": ANY_TEXT | st.integers(),
        "camera": st.sampled_from(["front", "a b", ""]) | ANY_TEXT,
        "keep": st.booleans() | st.none(),
        "on": st.booleans() | st.none(),
        "values": st.dictionaries(
            ANY_TEXT,
            st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT | st.lists(st.none()),
            max_size=3,
        ),
        "more": st.none(),
    },
)
PAYLOADS = (
    st.binary(max_size=60)
    | REQUESTS.map(lambda request: json.dumps(request).encode())
    | REQUESTS.map(lambda request: json.dumps(request, ensure_ascii=False).encode())
    | st.integers(v1.MOST_COMMAND_BYTES - 1, v1.MOST_COMMAND_BYTES + 2).map(b"{}".ljust)
)
ANSWERS = st.builds(Answer, st.sampled_from([None, *Refusal]), ANY_TEXT) | st.just(Answer(result={"exchanged": []}))


RECEIVED = st.builds(
    Received,
    topic=(st.sampled_from([*v1.REQUESTS, "", "fly"]) | ANY_TEXT).map(TOPICS.command),
    payload=PAYLOADS,
    qos=st.just(1),
    retain=st.booleans(),
    correlation=st.none() | st.binary(max_size=8),
    response_topic=ANY_TEXT | ANY_TEXT.map(lambda text: BELOW + text),
)


@given(received=RECEIVED, answer=ANSWERS)
@settings(deadline=None, max_examples=400)
def test_whatever_comes_gets_one_reply_at_most_and_in_its_place(received: Received, answer: Answer) -> None:
    bench = Bench()
    replies = [bench.desk.receive(received)]
    if (command := bench.order()) is not None:
        command.answer(answer)
    replies += [commands.reply(asked, given_answer) for asked, given_answer in bench.answers.take()]

    told = [reply for reply in replies if reply is not None]
    if received.retain and not received.payload:
        assert told == []  # a retained command is taken back
        return
    (message,) = told
    assert message.topic.startswith(BELOW)
    assert len(message.topic) > len(BELOW)
    assert not {*message.topic} & {*"+#\0"}
    assert (message.correlation, message.qos, message.retain) == (received.correlation, 1, False)
    reply = decoded(message)
    assert reply.verb in (received.topic.rpartition("/")[2], "unknown")
    if isinstance(reply.error, v1.CommandError):
        assert len(reply.error.text.splitlines()) <= 1


@given(received=st.lists(st.tuples(st.sampled_from([*v1.REQUESTS, "fly"]), PAYLOADS), max_size=60))
@settings(deadline=None, max_examples=50)
def test_however_many_come_as_many_are_answered_as_are_not_ignored(received: list[tuple[str, bytes]]) -> None:
    bench = Bench()
    refused = sum(bench.send(verb, payload) is not None for verb, payload in received)
    carried_out = 0
    while (command := bench.order()) is not None:
        command.answer(Answer())
        carried_out += 1

    assert carried_out <= MOST_COMMANDS
    assert len(bench.answers.take()) == carried_out
    assert refused + carried_out + bench.desk.ignored == len(received)


@pytest.mark.parametrize(
    ("verb", "payload"),
    [
        ("ping", {"id": "7", "loud": True}),
        ("set", {"id": "7", "values": {"pose.model": ["lite"]}}),
        ("snapshot", {"camera": "front door", "id": "7"}),
        ("fly", {"id": "7"}),
    ],
)
def test_also_what_is_refused_unread_comes_back_with_its_id(verb: str, payload: dict[str, Any]) -> None:
    """With MQTT 3.1.1 there is nothing else to tell by which command a reply is about."""
    message = Bench().send(verb, payload)

    assert message is not None
    assert decoded(message).id == "7"
