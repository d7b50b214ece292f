"""What holds a device against its contract: it finds nothing wrong where all is right, and what is wrong."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.mqtt import contract
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1
from tests.conftest import eventually
from tests.mqtt.capture import Capture, Received, counts, main, problems
from tests.servers import mosquitto

DOCUMENT = contract.json_schema()
TOPICS = Topics("pose/v1", "hall-pi")
V: dict[str, Any] = {"user_properties": (("v", "1"),)}
ROW = struct.pack("<4f", 0.25, 0.5, -0.5, 1.0)
PEOPLE = [(1, 0.5, ROW * 3, None), (2, 0.5, ROW * 3, ROW[:12] * 3)]
CBOR = v1.encode_binary(1, 2, PEOPLE, 3)
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"

STATE = Received(TOPICS.state, b"online", qos=1, retain=True, content_type=v1.TEXT, **V)
SUMMARY = Received(
    TOPICS.summary("front"),
    v1.encode(v1.Summary(seq=1, t_us=2, frames=1, window_s=0.0, count=0, most=0, away=[], people=[])),
    content_type=v1.JSON,
    expiry_s=5,
    **V,
)
LANDMARKS = Received(
    TOPICS.landmarks("front"), v1.encode(v1.decode_landmarks(CBOR)), content_type=v1.JSON, expiry_s=4, **V
)
BINARY = dataclasses.replace(LANDMARKS, payload=CBOR, content_type=v1.CBOR)
EVENT = Received(
    TOPICS.event("front"),
    v1.encode(v1.CameraBack(id="s-1", t_us=1, camera="front", away_s=1.0)),
    qos=1,
    content_type=v1.JSON,
    **V,
)
SNAPSHOT = Received(
    TOPICS.snapshot("front"),
    JPEG,
    content_type=v1.JPEG,
    expiry_s=60,
    user_properties=(("v", "1"), ("seq", "7"), ("t_us", "8")),
)
STATUS = Received(TOPICS.status("front"), b"stalled", qos=1, retain=True, content_type=v1.TEXT, **V)
WITHDRAWN = Received(TOPICS.status("back"), b"", qos=1, retain=True)
PING = Received(TOPICS.command("ping"), b"", qos=1)
SET = Received(TOPICS.command("set"), b'{"values":{"pose.model":null}}')
REPLY = Received(
    TOPICS.reply("ping"),
    v1.encode(v1.Reply(verb="ping", ok=True, t_us=1, result={})),
    qos=1,
    content_type=v1.JSON,
    expiry_s=60,
    correlation=b"\x00",
    **V,
)
GOOD = [STATE, SUMMARY, LANDMARKS, BINARY, EVENT, SNAPSHOT, STATUS, WITHDRAWN, PING, SET, REPLY]


def test_where_all_is_right_nothing_is_found() -> None:
    assert problems(GOOD, DOCUMENT) == []


def test_a_device_with_mqtt_3_1_1_has_no_properties() -> None:
    bare = [Received(each.topic, each.payload, qos=each.qos, retain=each.retain) for each in GOOD]
    assert problems(bare, DOCUMENT, properties=False) == []
    assert problems(bare, DOCUMENT)


@pytest.mark.parametrize(
    ("message", "change", "problem"),
    [
        (STATE, {"topic": "pose/v1/hall-pi/mood"}, "no such topic"),
        (STATE, {"payload": b"on"}, "'on' is not one of"),
        (STATE, {"payload": b"\xff"}, "can't decode"),
        (STATE, {"retain": False}, "not retained"),
        (STATE, {"qos": 0}, "QoS 0, not 1"),
        (STATE, {"content_type": v1.JSON}, "content type application/json, not text/plain"),
        (STATE, {"content_type": None}, "content type None"),
        (STATE, {"user_properties": ()}, "user property v is []"),
        (STATE, {"user_properties": (("v", "1"), ("v", "1"))}, "user property v is ['1', '1']"),
        (STATE, {"expiry_s": 5}, "message expiry 5, not None"),
        (SUMMARY, {"retain": True}, "retained"),
        (SUMMARY, {"expiry_s": None}, "message expiry None, not 5"),
        (SUMMARY, {"expiry_s": 3600}, "message expiry 3600, not 5"),
        (SUMMARY, {"payload": b""}, "Expecting value"),
        (SUMMARY, {"payload": b"[]"}, "[] is not of type 'object'"),
        (SUMMARY, {"payload": SUMMARY.payload.replace(b'"v":1,', b"")}, "'v' is a required property"),
        (SUMMARY, {"payload": SUMMARY.payload.replace(b'"v":1', b'"v":1,"mood":2')}, "'mood' was unexpected"),
        (SUMMARY, {"payload": SUMMARY.payload.replace(b'"seq":1', b'"seq":NaN')}, "NaN is no JSON"),
        (SUMMARY, {"payload": SUMMARY.payload.replace(b'"count":0', b'"count":-1')}, "$.count: -1 is less than"),
        (LANDMARKS, {"content_type": v1.CBOR}, "no CBOR"),
        (LANDMARKS, {"payload": LANDMARKS.payload.replace(b"0.25,", b"")}, "is too short"),
        (BINARY, {"content_type": v1.JSON}, "can't decode"),
        (BINARY, {"payload": CBOR[:-1]}, "no CBOR"),
        (BINARY, {"payload": v1.encode_binary(1, 2, [(1, 1.5, ROW, None)], 1)}, "$.people[0].score: 1.5 is greater"),
        (BINARY, {"payload": v1.encode_binary(1, 2, [(1, 0.5, ROW, None)], 2)}, "semantic tag 40"),
        (EVENT, {"payload": EVENT.payload.replace(b"camera_back", b"camera_gone")}, "camera_gone"),
        (SNAPSHOT, {"payload": b"\x89PNG"}, "no JPEG: begins with 8950"),
        (SNAPSHOT, {"payload": b""}, "no JPEG: begins with nothing"),
        (SNAPSHOT, {"user_properties": (("v", "1"), ("seq", "7"))}, "user property t_us"),
        (WITHDRAWN, {"retain": False}, "not retained"),
        (PING, {"retain": True}, "a retained command"),
        (PING, {"payload": b'{"force":true}'}, "'force' was unexpected"),
        (PING, {"topic": TOPICS.command("dance")}, "no such topic"),
        (SET, {"payload": b""}, "'values' is a required property"),
        (REPLY, {"payload": json.dumps({"v": 1, "ok": True, "t_us": 1}).encode()}, "'verb' is a required property"),
    ],
)
def test_what_is_wrong_is_found(message: Received, change: dict[str, Any], problem: str) -> None:
    found = problems([dataclasses.replace(message, **change)], DOCUMENT)
    assert problem in "\n".join(found)
    assert all(len(each.splitlines()) == 1 for each in found)


def test_messages_are_counted_by_kind_of_topic() -> None:
    stranger = Received("pose/v1/hall-pi/mood", b"")
    assert counts([SUMMARY, SUMMARY, STATE, REPLY, stranger], DOCUMENT) == {
        "pose/v1/+/camera/+/summary": 2,
        "pose/v1/+/state": 1,
        "pose/v1/+/reply/#": 1,
        "(unknown)": 1,
    }


def publish(client: paho.Client, message: Received) -> None:
    properties: Any = Properties(PacketTypes.PUBLISH)
    if message.content_type:
        properties.ContentType = message.content_type
    for pair in message.user_properties:
        properties.UserProperty = pair
    if message.expiry_s:
        properties.MessageExpiryInterval = message.expiry_s
    if message.correlation:
        properties.CorrelationData = message.correlation
    client.publish(message.topic, message.payload, message.qos, message.retain, properties).wait_for_publish(5)


@pytest.mark.integration
def test_a_capture_has_messages_as_they_were_published(capsys: pytest.CaptureFixture[str]) -> None:
    with mosquitto() as broker:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.connect("127.0.0.1", broker.port)
        client.loop_start()
        publish(client, STATE)  # before the capture begins: it comes as a retained message
        with Capture(broker.url) as capture:
            for message in GOOD[1:]:
                publish(client, message)
            publish(client, Received("elsewhere/hall-pi/state", b"online"))
            eventually(lambda: len(capture.messages) == len(GOOD))
            assert {each.topic: each for each in capture.messages} == {each.topic: each for each in GOOD}
            assert capture.payloads(TOPICS.landmarks("front")) == [LANDMARKS.payload, BINARY.payload]
            assert problems(capture.messages, DOCUMENT) == []
        assert main(broker.url, "0.2") == 0  # what is retained
        assert "2 messages, 0 problems" in capsys.readouterr().out
        publish(client, dataclasses.replace(STATE, payload=b"on"))
        assert main(broker.url, "0.2") == 1
        assert "1  PROBLEM pose/v1/hall-pi/state: $: 'on' is not one of" in capsys.readouterr().out
        client.disconnect()
        client.loop_stop()
