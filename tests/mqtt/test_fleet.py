"""The fleet as the messages tell it, whatever they hold."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt import fleet
from edge.mqtt.fleet import Fleet, Row, Skipped
from edge.mqtt.wire import v1

NOW_S = 1_790_000_000.0
PREFIX = "pose/v1"


def info(session: str = "run-1", *cameras: str) -> bytes:
    return v1.encode(
        v1.Info(
            device="hall",
            session=session,
            started_us=0,
            versions={},
            board="test",
            model=v1.ModelInfo(name="lite", sha256="0"),
            max_people=1,
            segmentation=False,
            skeleton=v1.SkeletonInfo(name="s", keypoints=[], connections=[]),
            cameras={name: v1.CameraInfo(source="synthetic") for name in cameras or ("front",)},
            landmarks=v1.StreamInfo(content_type=v1.JSON),
            summary=v1.StreamInfo(content_type=v1.JSON, hz=5),
            commands=[*v1.REQUESTS],
            settings={},
        )
    )


def health(session: str = "run-1", *cameras: str, people: int = 1, **fields: Any) -> bytes:
    times = v1.Times(p50_ms=20.5, p95_ms=25.0, p99_ms=31.0)
    figures = v1.CameraHealth(
        status=v1.CameraState.ONLINE,
        fps=29.9,
        captured=300,
        estimated=299,
        with_people=250,
        people=people,
        inference=times,
        latency=times,
    )
    return v1.encode(
        v1.Health(
            session=session,
            t_us=0,
            uptime_s=10,
            cameras=dict.fromkeys(cameras or ("front",), figures),
            drops={},
            sent={},
            outbox=v1.OutboxHealth(waiting=0, lost=0, durable=True),
            rerun=v1.LinkState.LIVE,
            cpu_percent=80,
            memory_mb=300,
            **fields,
        )
    )


def summary(count: int) -> bytes:
    return v1.encode(v1.Summary(seq=1, t_us=0, frames=1, window_s=0.0, count=count, most=count, away=[], people=[]))


def fleet_of(*messages: tuple[str, bytes | str]) -> Fleet:
    """What was heard at NOW_S, topics below the prefix."""
    found = Fleet(PREFIX)
    for topic, payload in messages:
        found.take(f"{PREFIX}/{topic}", payload.encode() if isinstance(payload, str) else payload, NOW_S)
    return found


def only_row(found: Fleet, now_s: float = NOW_S) -> Row:
    (row,) = found.rows(now_s)
    return row


HALL = (
    ("hall/state", "online"),
    ("hall/info", info()),
    ("hall/camera/front/status", "online"),
    ("hall/health", health(temperature_celsius=0.0)),
)


def test_a_row_has_what_all_messages_together_tell() -> None:
    happened = v1.CameraBack(id="run-1-1", t_us=int((NOW_S - 60) * 1e6), camera="front", away_s=3.0)
    found = fleet_of(*HALL, ("hall/camera/front/summary", summary(2)), ("hall/camera/front/event", v1.encode(happened)))
    assert only_row(found, NOW_S + 5) == Row(
        device="hall",
        camera="front",
        state="online",
        fps=29.9,
        latency_p50_ms=20.5,
        latency_p99_ms=31.0,
        people=2,
        temperature_celsius=0.0,
        event="camera_back",
        event_age_s=65.0,
        link="live",
        model="lite",
        session="run-1",
        age_s=5.0,
    )
    assert not found.skipped


def test_rows_are_sorted_and_a_device_without_cameras_has_one() -> None:
    found = fleet_of(
        ("yard/state", "stopped"),
        ("hall/info", info("run-1", "rear", "front")),
        ("attic/state", "online"),
        ("hall/camera/side/status", "paused"),
    )
    assert [(row.device, row.camera, row.state) for row in found.rows(NOW_S)] == [
        ("attic", "", "online"),
        ("hall", "front", ""),
        ("hall", "rear", ""),
        ("hall", "side", "paused"),
        ("yard", "", "stopped"),
    ]


def test_without_info_the_cameras_are_those_heard_of() -> None:
    found = fleet_of(("hall/health", health("run-1", "front")), ("hall/camera/rear/summary", summary(0)))
    assert [(row.camera, row.state, row.people) for row in found.rows(NOW_S)] == [
        ("front", "online", 1),
        ("rear", "", 0),
    ]


@pytest.mark.parametrize("state", ["offline", "stopped"])
def test_what_a_device_measured_is_nothing_new_once_it_is_gone(state: str) -> None:
    row = only_row(fleet_of(*HALL, ("hall/camera/front/summary", summary(2)), ("hall/state", state)))
    assert (row.state, row.fps, row.people, row.link) == (state, None, None, "")
    assert (row.model, row.session) == ("lite", "run-1")


def test_a_camera_that_is_not_online_has_no_figures() -> None:
    row = only_row(
        fleet_of(*HALL, ("hall/camera/front/summary", summary(2)), ("hall/camera/front/status", "reconnecting"))
    )
    assert (row.state, row.fps, row.latency_p50_ms, row.people) == ("reconnecting", None, None, None)
    assert row.link == "live"


def test_figures_of_an_earlier_run_are_not_this_ones() -> None:
    row = only_row(fleet_of(*HALL, ("hall/info", info("run-2"))))
    assert (row.session, row.fps) == ("run-2", None)


def test_only_what_nobody_keeps_is_a_sign_of_life() -> None:
    found = fleet_of(("hall/state", "online"), ("hall/info", info()), ("hall/camera/front/status", "online"))
    assert only_row(found, NOW_S + 9).age_s is None  # the broker may have that from last year
    found.take(f"{PREFIX}/hall/health", health(), NOW_S + 10)
    assert only_row(found, NOW_S + 12).age_s == 2.0
    found.take(f"{PREFIX}/hall/state", b"offline", NOW_S + 20)
    assert only_row(found, NOW_S + 21).age_s == 11.0


def test_a_clock_that_goes_back_makes_no_negative_ages() -> None:
    row = only_row(fleet_of(*HALL), NOW_S - 3600)
    assert row.age_s == 0.0


def test_an_empty_payload_removes() -> None:
    found = fleet_of(*HALL, ("hall/camera/front/status", ""))
    assert only_row(found).state == "online"
    found.take(f"{PREFIX}/hall/info", b"", NOW_S)
    found.take(f"{PREFIX}/hall/state", b"", NOW_S)
    assert found.rows(NOW_S) == []
    assert found.devices == 0
    found.take(f"{PREFIX}/hall/state", b"", NOW_S)  # of what is not there
    assert not found.skipped


def test_what_does_not_come_again_when_the_broker_is_back_is_gone() -> None:
    found = fleet_of(*HALL, ("hall/camera/rear/status", "online"), ("yard/state", "online"))
    found.doubt()
    assert [(row.device, row.camera) for row in found.rows(NOW_S)] == [
        ("hall", "front"),
        ("hall", "rear"),
        ("yard", ""),
    ]
    for topic, payload in HALL[:3]:
        found.take(f"{PREFIX}/{topic}", payload if isinstance(payload, bytes) else payload.encode(), NOW_S)
    found.drop_doubted()
    row = only_row(found)
    assert (row.device, row.camera, row.fps) == ("hall", "front", 29.9)
    found.drop_doubted()
    assert only_row(found) == row


def test_events_of_types_that_came_later_are_shown() -> None:
    later = json.dumps({"v": 1, "type": "fall_suspected", "id": "x-1", "t_us": int(NOW_S * 1e6), "camera": "front"})
    row = only_row(fleet_of(*HALL, ("hall/camera/front/event", later)))
    assert (row.event, row.event_age_s) == ("fall_suspected", 0.0)


@pytest.mark.parametrize(
    ("topic", "payload", "why"),
    [
        ("pose/v2/hall/state", b"online", Skipped.FOREIGN),
        ("pose/v1", b"online", Skipped.FOREIGN),
        ("pose/v1/ha ll/state", b"online", Skipped.FOREIGN),
        ("pose/v1/hall/camera/fr\x1bont/status", b"online", Skipped.FOREIGN),
        ("pose/v1/hall", b"online", Skipped.UNKNOWN),
        ("pose/v1/hall/camera/front/landmarks", b"{}", Skipped.UNKNOWN),
        ("pose/v1/hall/state", b"asleep", Skipped.MALFORMED),
        ("pose/v1/hall/state", b"\xff", Skipped.MALFORMED),
        ("pose/v1/hall/info", b"{}", Skipped.MALFORMED),
        ("pose/v1/hall/health", b"", Skipped.MALFORMED),
        ("pose/v1/hall/camera/front/summary", b'{"v":2,"seq":0,"t_us":0,"count":1,"people":[]}', Skipped.MALFORMED),
        ("pose/v1/hall/camera/front/event", b'{"type":"x","t_us":' + b"9" * 400 + b"}", Skipped.MALFORMED),
        ("pose/v1/hall/camera/front/event", b'{"a":' * 100_000, Skipped.MALFORMED),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_tells_nothing_is_counted(topic: str, payload: bytes, why: Skipped) -> None:
    found = Fleet(PREFIX)
    found.take(topic, payload, NOW_S)
    assert (found.skipped, found.rows(NOW_S)) == ({why: 1}, [])


def test_what_tells_nothing_leaves_what_is_known() -> None:
    found = fleet_of(*HALL)
    before = found.rows(NOW_S)
    for kind in ("state", "info", "health", "camera/front/status", "camera/front/summary", "camera/front/event"):
        found.take(f"{PREFIX}/hall/{kind}", b'{"v":1,"session":"mallory"}', NOW_S + 1)
    assert found.rows(NOW_S) == before
    assert found.skipped == {Skipped.MALFORMED: 6}


def test_there_is_an_end_to_how_much_is_kept() -> None:
    found = Fleet(PREFIX)
    for number in range(fleet.MOST_CAMERAS + 1):
        found.take(f"{PREFIX}/hall/camera/c{number}/status", b"online", NOW_S)
    for number in range(fleet.MOST_DEVICES):
        found.take(f"{PREFIX}/d{number}/state", b"online", NOW_S)
    assert found.devices == fleet.MOST_DEVICES
    assert found.skipped == {Skipped.TOO_MANY: 2}
    found.take(f"{PREFIX}/d0/info", info("run-1", *(f"c{number}" for number in range(200)), "not a name"), NOW_S)
    assert len([row for row in found.rows(NOW_S) if row.device == "d0"]) == fleet.MOST_CAMERAS


NAMES = st.sampled_from(["hall", "yard", "front", "", "+", "ä", "\x1b[2J"]) | st.text(max_size=3)
KINDS = ["state", "info", "health", "status", "summary", "event", "landmarks", "snapshot"]
TOPICS = (
    st.builds("pose/v1/{}/{}".format, NAMES, st.sampled_from(KINDS))
    | st.builds("pose/v1/{}/camera/{}/{}".format, NAMES, NAMES, st.sampled_from(KINDS))
    | st.text(max_size=20)
)
WORDS = [*v1.DeviceState, *v1.CameraState]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def nearly_right(draw: st.DrawFn) -> bytes:
    """A real message with one field that may be anything, or missing."""
    message = json.loads(draw(st.sampled_from([info(), health(), summary(1)])))
    key = draw(st.sampled_from(sorted(message)))
    if draw(st.booleans()):
        message[key] = draw(VALUES)
    else:
        del message[key]
    return json.dumps(message).encode()


PAYLOADS = (
    st.binary(max_size=40)
    | st.sampled_from([word.encode() for word in WORDS] + [info(), health(), summary(3), b""])
    | VALUES.map(lambda value: json.dumps(value).encode())
    | nearly_right()
)


@given(st.lists(st.tuples(TOPICS, PAYLOADS, st.floats(0, 2e9)), max_size=12))
def test_nothing_is_ever_raised_and_rows_can_always_be_had(messages: list[tuple[str, bytes, float]]) -> None:
    found = Fleet(PREFIX)
    for topic, payload, now_s in messages:
        found.take(topic, payload, now_s)
        rows = found.rows(now_s)
        assert rows == sorted(rows, key=lambda row: (row.device, row.camera))
        assert len({row.device for row in rows}) == found.devices
    assert sum(found.skipped.values()) <= len(messages)
