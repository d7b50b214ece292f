"""Everything that is published below a prefix, recorded by an outside client and held against the contract.

usage: python -m tests.mqtt.capture URL SECONDS [PREFIX]     counts by topic, and what is wrong; exits with 1 if so
"""

from __future__ import annotations

import base64
import json
import re
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Self
from urllib.parse import unquote, urlsplit

import cbor2
import paho.mqtt.client as paho
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.cli.command import COMMAND

HOME_ASSISTANT = "homeassistant/device/+/config"


@dataclass(frozen=True, slots=True)
class Received:
    """A message with its MQTT 5 properties. retain: as it was published. expiry_s: what was left of it."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    content_type: str | None = None
    user_properties: tuple[tuple[str, str], ...] = ()
    expiry_s: int | None = None
    response_topic: str | None = None
    correlation: bytes | None = None


class Capture:
    """An outside client, MQTT 5, that keeps whatever comes below `prefix` and for Home Assistant until it is closed."""

    def __init__(self, url: str, prefix: str = "pose/v1") -> None:
        """url: mqtt://[USER:PASSWORD@]HOST[:PORT]. Returns once it is subscribed."""
        parts = urlsplit(url)
        assert parts.scheme == "mqtt", f"{url}: mqtt:// only"
        self._messages: list[Received] = []
        self._subscribed = threading.Event()
        self._filters = [f"{prefix}/#", HOME_ASSISTANT]
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        if parts.username:
            self._client.username_pw_set(unquote(parts.username), unquote(parts.password or ""))
        self._client.on_connect = self._subscribe
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda client, userdata, message: self._messages.append(_received(message))
        self._client.connect(parts.hostname or "", parts.port or 1883)
        self._client.loop_start()
        if not self._subscribed.wait(10):
            self.close()
            raise TimeoutError(f"{parts.hostname}: not subscribed within 10 s")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def messages(self) -> list[Received]:
        """What has come so far, oldest first."""
        return list(self._messages)

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in self.messages if message.topic == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _subscribe(self, client: paho.Client, *_: object) -> None:
        options = SubscribeOptions(qos=2, retainAsPublished=True)
        client.subscribe([(topic, options) for topic in self._filters])


def _received(message: paho.MQTTMessage) -> Received:
    properties = message.properties
    return Received(
        topic=message.topic,
        payload=message.payload,
        qos=message.qos,
        retain=message.retain,
        content_type=getattr(properties, "ContentType", None),
        user_properties=tuple(getattr(properties, "UserProperty", ())),
        expiry_s=getattr(properties, "MessageExpiryInterval", None),
        response_topic=getattr(properties, "ResponseTopic", None),
        correlation=getattr(properties, "CorrelationData", None),
    )


def problems(messages: Iterable[Received], document: Mapping[str, Any], *, properties: bool = True) -> list[str]:
    """What `document`, which `edge-pose schema messages` printed, does not allow; one line each.

    Stricter than the document in one way: a field of a device's that it does not describe is a problem too.
    properties: whether to look at MQTT 5's properties; not for a device that speaks 3.1.1.
    """
    contract = _Contract(document)
    return [
        f"{message.topic}: {what}" for message in messages for what in contract.problems(message, properties=properties)
    ]


def counts(messages: Iterable[Received], document: Mapping[str, Any]) -> Counter[str]:
    """Topic filter -> how many messages."""
    contract = _Contract(document)
    return Counter(
        channel["x-mqtt"]["filter"] if (channel := contract.channel(message.topic)) else "(unknown)"
        for message in messages
    )


class _Contract:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self._definitions = {name: _closed(part) for name, part in document["$defs"].items()}
        self._channels = [(re.compile(text), channel) for text, channel in document["patternProperties"].items()]
        self._validators: dict[str, Draft202012Validator] = {}

    def channel(self, topic: str) -> Any:
        return next((channel for pattern, channel in self._channels if pattern.search(topic)), None)

    def problems(self, message: Received, *, properties: bool) -> Iterator[str]:
        if (channel := self.channel(message.topic)) is None:
            yield "no such topic"
            return
        facts = channel["x-mqtt"]
        from_device = facts["sender"] == "device"
        if not message.payload and facts["retain"]:
            yield from _delivery_problems(message, facts)  # it takes a retained message back
            return
        if not from_device and message.retain:
            yield "a retained command"
        if from_device:
            yield from _delivery_problems(message, facts)
        if from_device and properties:
            yield from _property_problems(message, facts)
        try:
            content = _content(message, facts["content_types"]) if message.payload or from_device else {}
        except ValueError as refused:
            yield f"{refused}"
            return
        if error := best_match(self._validator(channel["$ref"]).iter_errors(content)):
            yield f"{error.json_path}: {error.message[:200]}"

    def _validator(self, reference: str) -> Draft202012Validator:
        if reference not in self._validators:
            self._validators[reference] = Draft202012Validator({"$ref": reference, "$defs": self._definitions})
        return self._validators[reference]


def _closed(definition: dict[str, Any]) -> dict[str, Any]:
    return {"additionalProperties": False, **definition} if "properties" in definition else definition


def _delivery_problems(message: Received, facts: Mapping[str, Any]) -> Iterator[str]:
    if message.qos != facts["qos"]:
        yield f"QoS {message.qos}, not {facts['qos']}"
    if message.retain != facts["retain"]:
        yield "retained" if message.retain else "not retained"


def _property_problems(message: Received, facts: Mapping[str, Any]) -> Iterator[str]:
    if message.content_type not in facts["content_types"]:
        yield f"content type {message.content_type}, not {' or '.join(facts['content_types'])}"
    if (versions := [value for key, value in message.user_properties if key == "v"]) != ["1"]:
        yield f"user property v is {versions}, not ['1']"
    for name in facts.get("user_properties", ()):
        if not any(key == name and value.isdecimal() for key, value in message.user_properties):
            yield f"user property {name} is no number or not there"
    most_s = facts.get("expiry_s")
    if (message.expiry_s is None) != (most_s is None) or (most_s is not None and (message.expiry_s or 0) > most_s):
        yield f"message expiry {message.expiry_s}, not {most_s}"


def _content(message: Received, content_types: Iterable[str]) -> Any:
    """The payload as the schema sees it. ValueError for what is not of its content type."""
    payload = message.payload
    of_it = [message.content_type] if message.content_type else list(content_types)
    if of_it == ["application/json", "application/cbor"]:  # MQTT 3.1.1 does not say which
        of_it = [of_it[0 if payload[:1] == b"{" else 1]]
    match of_it[0]:
        case "image/jpeg":
            if not payload.startswith(b"\xff\xd8"):
                raise ValueError(f"no JPEG: begins with {payload[:2].hex() or 'nothing'}")
            return base64.b64encode(payload).decode()
        case "text/plain":
            return payload.decode()
        case "application/cbor":
            return _of_cbor(payload)
        case _:
            return json.loads(payload.decode(), parse_constant=_refuse)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON")


def _of_cbor(payload: bytes) -> Any:
    """Read by the letter of RFC 8746, apart from our own reader."""

    def table(tag: cbor2.CBORTag, immutable: bool) -> Any:  # noqa: FBT001 - cbor2 calls it so
        match tag:
            case cbor2.CBORTag(tag=85, value=bytes(values)):
                return list(struct.unpack(f"<{len(values) // 4}f", values))
            case cbor2.CBORTag(tag=40, value=[[rows, columns], list(numbers)]) if rows * columns == len(numbers):
                return [numbers[row * columns : (row + 1) * columns] for row in range(rows)]
        raise ValueError(f"tag {tag.tag} is no array of float32")

    try:
        return cbor2.loads(payload, tag_hook=table)
    except (cbor2.CBORError, struct.error) as error:
        raise ValueError(f"no CBOR: {error}") from None


def main(url: str, seconds: str, prefix: str = "pose/v1") -> int:
    schema = subprocess.run(
        [*COMMAND, "schema", "messages", "--prefix", prefix], check=True, capture_output=True, timeout=60
    )
    document = json.loads(schema.stdout)
    with Capture(url, prefix) as capture:
        time.sleep(float(seconds))
    for topics, number in sorted(counts(capture.messages, document).items()):
        print(f"{number:8}  {topics}")
    wrong = Counter(problems(capture.messages, document))
    for line, number in wrong.most_common():
        print(f"{number:8}  PROBLEM {line}")
    print(f"{len(capture.messages)} messages, {wrong.total()} problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
