"""The contract with whoever is at the other end of the broker, as JSON Schema and as AsyncAPI.

Both are made from the types that are published (`wire/v1`) and from `topics`, so that they say what the code does. Like
`wire/v1` it takes no more than msgspec.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec

from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1

DEFAULT_PREFIX = "pose/v1"

_NAME = "[^/+#]+"
_STAND_INS = {"device": _NAME, "camera": _NAME, "verb": ".+"}  # a response topic may have several levels
_BINDING = {"bindingVersion": "0.2.0"}

Json = dict[str, Any]


class Sender(StrEnum):
    DEVICE = "device"
    OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of topic.

    address: the topic, with {device}, {camera} and {verb} in place of names. schema: the payload's definition.
    retain: an empty payload, without properties, takes the message back when what it speaks of is gone. expiry_s: how
    long the broker keeps it for a slow reader; None: as long as it likes. user_properties: those beside `v`, numbers.
    """

    name: str
    address: str
    schema: str
    summary: str
    sender: Sender = Sender.DEVICE
    qos: int = 0
    retain: bool = False
    content_types: tuple[str, ...] = (v1.JSON,)
    expiry_s: int | None = None
    user_properties: tuple[str, ...] = ()

    @property
    def filter(self) -> str:
        """What to subscribe to for all of its topics."""
        return re.sub(r"\{\w+\}", "+", self.address.replace("{verb}", "#"))

    @property
    def pattern(self) -> str:
        """Matches its topics; in the dialect that JSON Schema has, which refuses to escape what needs no escape."""
        parts = re.split(r"\{(\w+)\}", self.address)
        literal = [re.sub(r"[\\^$.*+?()\[\]{}|]", r"\\\g<0>", part) for part in parts[::2]]
        names = [_STAND_INS[name] for name in parts[1::2]]
        return "^" + "".join(text for pair in zip(literal, [*names, ""], strict=True) for text in pair) + "$"


def channels(prefix: str = DEFAULT_PREFIX) -> tuple[Channel, ...]:
    """All topics there are, below a prefix and for Home Assistant."""
    topics = Topics(prefix, "{device}")
    camera = "{camera}"
    return (
        Channel(
            "state",
            topics.state,
            "DeviceState",
            "Whether the device is there; `offline` is its last will.",
            qos=1,
            retain=True,
            content_types=(v1.TEXT,),
        ),
        Channel("info", topics.info, "Info", "What the device is and how it is set.", qos=1, retain=True),
        Channel("health", topics.health, "Health", "How it is doing, every ten seconds.", expiry_s=v1.STREAM_EXPIRY_S),
        Channel(
            "cameraStatus",
            topics.status(camera),
            "CameraState",
            "Whether a camera gives frames.",
            qos=1,
            retain=True,
            content_types=(v1.TEXT,),
        ),
        Channel(
            "landmarks",
            topics.landmarks(camera),
            "Landmarks",
            "Every frame, or mqtt.landmarks_hz of them a second, also those without people.",
            content_types=(v1.JSON, v1.CBOR),
            expiry_s=v1.STREAM_EXPIRY_S,
        ),
        Channel(
            "summary",
            topics.summary(camera),
            "Summary",
            "A frame in brief, a few times a second.",
            expiry_s=v1.STREAM_EXPIRY_S,
        ),
        Channel("event", topics.event(camera), "Event", "What happened to a camera.", qos=1),
        Channel(
            "snapshot",
            topics.snapshot(camera),
            "Jpeg",
            "A picture, on the command `snapshot` only.",
            content_types=(v1.JPEG,),
            expiry_s=v1.ANSWER_EXPIRY_S,
            user_properties=("seq", "t_us"),
        ),
        *(
            Channel(
                f"{verb}Command",
                topics.command(verb),
                kind.__name__,
                f"{_first_sentence(kind)} The reply comes on {topics.reply(verb)} or the response topic.",
                sender=Sender.OTHERS,
                qos=1,
            )
            for verb, kind in v1.REQUESTS.items()
        ),
        Channel(
            "reply",
            topics.reply("{verb}"),
            "Reply",
            "What became of a command; every command has one.",
            qos=1,
            expiry_s=v1.ANSWER_EXPIRY_S,
        ),
        Channel(
            "homeAssistant",
            topics.discovery,
            "HomeAssistant",
            "With mqtt.home_assistant: what Home Assistant makes entities of.",
            qos=1,
            retain=True,
        ),
    )


# --- JSON Schema


def json_schema(prefix: str = DEFAULT_PREFIX) -> Json:
    """The messages as one JSON Schema, draft 2020-12. It validates an object of topics and their payloads."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edge-pose: messages, version 1",
        "description": f"An object of topics and the payloads that came on them. {_READING} What a topic's messages "
        "are besides their payload stands in x-mqtt; expiry_s is the message expiry interval they are published with.",
        "type": "object",
        "patternProperties": {
            channel.pattern: {
                "$ref": f"#/$defs/{channel.schema}",
                "description": channel.summary,
                "x-mqtt": _facts(channel),
            }
            for channel in channels(prefix)
        },
        "additionalProperties": False,
        "$defs": _definitions("#/$defs/{name}"),
    }


_READING = (
    "P is <prefix>/<device>. Fields may be added to what a device sends: ignore what you don't know. A field that is "
    "absent does not exist. An empty payload on a topic with retained messages takes the message back: what it spoke "
    "of is gone."
)

_OTHER_DEFINITIONS: Json = {
    "Jpeg": {
        "title": "Jpeg",
        "description": "P/camera/<name>/snapshot: the bytes of a JPEG; here, where there are only texts, in base64. "
        "The user properties `seq` and `t_us` say which frame it is.",
        "type": "string",
        "contentMediaType": v1.JPEG,
        "contentEncoding": "base64",
        "pattern": "^/9j/",
    },
    "HomeAssistant": {
        "title": "HomeAssistant",
        "description": "homeassistant/device/<device>/config: see device discovery in Home Assistant's documentation.",
        "type": "object",
        "properties": {
            "dev": {"type": "object", "description": "the device"},
            "o": {"type": "object", "description": "what makes this message", "required": ["name"]},
            "cmps": {
                "type": "object",
                "description": "entities by name; one of `p` alone takes an earlier one away",
                "additionalProperties": {"type": "object", "required": ["p"]},
            },
        },
        "required": ["dev", "o", "cmps"],
        "additionalProperties": True,
    },
}

_TYPES: Sequence[Any] = (
    v1.DeviceState,
    v1.Info,
    v1.Health,
    v1.CameraState,
    v1.Landmarks,
    v1.Summary,
    v1.Event,
    *v1.REQUESTS.values(),
    v1.Reply,
)


def _definitions(ref_template: str) -> Json:
    """Name -> schema of every message and its parts."""
    tops, parts = msgspec.json.schema_components(_TYPES, ref_template=ref_template)
    definitions = {name: _tidy(part) for name, part in parts.items()}
    for part in definitions.values():
        if "v" in part.get("properties", {}):
            # It has a default for those who read, and those who write always send it.
            part["required"] = ["v", *part["required"]]
    events: Json = tops[_TYPES.index(v1.Event)]
    definitions["Event"] = {
        "title": "Event",
        "description": "P/camera/<name>/event: told apart by `type`",
        "oneOf": events["anyOf"],
    }
    return dict(sorted({**definitions, **_OTHER_DEFINITIONS}.items()))


def _tidy(node: Any) -> Any:
    """A schema of msgspec's in the words that the draft has, and without those that say nothing."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy = {
        key: _tidy(value) for key, value in node.items() if key != "discriminator" and (key, value) != ("required", [])
    }
    match tidy.get("enum"):
        case [only]:
            tidy = {key: value for key, value in tidy.items() if key not in {"enum", "default"}} | {"const": only}
        case [*values] if all(isinstance(value, str) for value in values):
            tidy = {"type": "string", **tidy}
    return tidy


def _facts(channel: Channel) -> Json:
    """What a topic's messages are besides their payload."""
    facts: Json = {
        "filter": channel.filter,
        "sender": channel.sender.value,
        "qos": channel.qos,
        "retain": channel.retain,
        "content_types": list(channel.content_types),
    }
    if channel.expiry_s is not None:
        facts["expiry_s"] = channel.expiry_s
    if channel.user_properties:
        facts["user_properties"] = list(channel.user_properties)
    return facts


# --- AsyncAPI


@dataclass(frozen=True, slots=True)
class _Sample:
    """payload: None for what has no place in JSON."""

    summary: str
    payload: object | None = None
    user_properties: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Message:
    """What a channel carries: one of these for each content type and each kind of event."""

    name: str
    schema: str
    content_type: str
    summary: str
    samples: Sequence[_Sample]


def asyncapi(version: str, prefix: str = DEFAULT_PREFIX) -> Json:
    """An AsyncAPI 3.0.0 document from the device's point of view: it sends what it publishes.

    version: of edge-pose.
    """
    all_channels = channels(prefix)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "edge-pose",
            "version": version,
            "description": "What a device publishes, and the commands that it takes. It speaks MQTT 5; with a broker "
            "that has no 5 it speaks 3.1.1, where there are no properties: the payloads are the same, replies come on "
            f"P/reply/<verb>, and a command's `id` comes back in its reply. {_READING}",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "tags": [{"name": name} for name in ("device", "camera", "command")],
        },
        "defaultContentType": v1.JSON,
        "servers": _servers(prefix),
        "channels": {channel.name: _channel(channel) for channel in all_channels},
        "operations": {name: operation for channel in all_channels for name, operation in _operations(channel)},
        "components": {
            "messages": {
                message.name: _message(channel, message, prefix)
                for channel in all_channels
                for message in _messages(channel)
            },
            "schemas": _as_draft_7(_definitions("#/components/schemas/{name}") | _USER_PROPERTIES),
            "correlationIds": {
                "id": {
                    "description": "With MQTT 5 the correlation data comes back as well, with or without it.",
                    "location": "$message.payload#/id",
                }
            },
        },
    }


_V: Json = {"type": "string", "const": str(v1.VERSION), "description": "version of the message's layout"}
_DIGITS: Json = {"type": "string", "pattern": "^[0-9]+$"}
_USER_PROPERTIES: Json = {
    "UserProperties": {
        "title": "UserProperties",
        "description": "MQTT 5's user properties of what a device sends",
        "type": "object",
        "properties": {"v": _V},
        "required": ["v"],
    },
    "SnapshotUserProperties": {
        "title": "SnapshotUserProperties",
        "description": "MQTT 5's user properties of a picture",
        "type": "object",
        "properties": {
            "v": _V,
            "seq": {**_DIGITS, "description": "the frame's number, as in its landmarks"},
            "t_us": {**_DIGITS, "description": "when it was captured, microseconds since the Unix epoch, UTC"},
        },
        "required": ["v", "seq", "t_us"],
    },
}
_PARAMETERS: Json = {
    "device": {"description": "the device's name: `device` in its configuration", "examples": ["hall-pi"]},
    "camera": {"description": "the camera's name: NAME of [camera.NAME]", "examples": ["front"]},
    "verb": {
        "description": f"the command's; `{v1.UNKNOWN_VERB}` where there is none of that name",
        "enum": [*v1.REQUESTS, v1.UNKNOWN_VERB],
    },
}


def _servers(prefix: str) -> Json:
    will = {
        "topic": Topics(prefix, "{device}").state,
        "qos": 1,
        "retain": True,
        "message": v1.DeviceState.OFFLINE.value,
    }
    binding = {"lastWill": will, "maximumPacketSize": v1.MOST_PACKET_BYTES, **_BINDING}
    kinds = {
        "mqtt": ("1883", "A broker"),
        "mqtts": ("8883", "A broker, with TLS"),
        "ws": ("80", "A broker behind WebSockets"),
        "wss": ("443", "A broker behind WebSockets, with TLS"),
    }
    servers: Json = {}
    for scheme, (port, description) in kinds.items():
        server: Json = {
            "host": "{host}:{port}",
            "protocol": scheme,
            "protocolVersion": "5",
            "description": f"{description}: an entry of mqtt.url.",
            "variables": {
                "host": {"description": "where the broker is", "default": "localhost"},
                "port": {"description": "where it listens", "default": port},
            },
            "bindings": {"mqtt": binding},
        }
        if scheme in {"ws", "wss"}:
            server["pathname"] = "/{path}"
            server["variables"]["path"] = {"description": "where it takes WebSockets", "default": "mqtt"}
        servers[scheme] = server
    return servers


def _channel(channel: Channel) -> Json:
    names = re.findall(r"\{(\w+)\}", channel.address)
    return {
        "address": channel.address,
        "summary": channel.summary,
        "parameters": {name: _PARAMETERS[name] for name in names},
        "messages": {message.name: {"$ref": f"#/components/messages/{message.name}"} for message in _messages(channel)},
        "tags": [{"name": _tag(channel)}],
        "x-mqtt": _facts(channel),
    }


def _operations(channel: Channel) -> Iterable[tuple[str, Json]]:
    """Replies have none of their own: they are part of the commands'."""
    binding: Json = {"qos": channel.qos, "retain": channel.retain, **_BINDING}
    if channel.expiry_s is not None:
        binding["messageExpiryInterval"] = channel.expiry_s
    operation: Json = {
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.summary,
        "messages": _references(channel.name, _messages(channel)),
        "tags": [{"name": _tag(channel)}],
        "bindings": {"mqtt": binding},
    }
    if channel.sender is Sender.OTHERS:
        reply = {"channel": {"$ref": "#/channels/reply"}, "messages": [{"$ref": "#/channels/reply/messages/reply"}]}
        yield f"take{channel.name[:1].upper()}{channel.name[1:]}", {"action": "receive", **operation, "reply": reply}
    elif channel.name != "reply":
        yield f"publish{channel.name[:1].upper()}{channel.name[1:]}", {"action": "send", **operation}


def _references(channel: str, messages: Iterable[_Message]) -> list[Json]:
    return [{"$ref": f"#/channels/{channel}/messages/{message.name}"} for message in messages]


def _tag(channel: Channel) -> str:
    if "{camera}" in channel.address:
        return "camera"
    return "command" if channel.sender is Sender.OTHERS or channel.name == "reply" else "device"


def _messages(channel: Channel) -> list[_Message]:
    match channel.name:
        case "landmarks":
            return [
                _Message("landmarksJson", "Landmarks", v1.JSON, "As JSON, numbers with four decimals.", _LANDMARKS),
                _Message("landmarksCbor", "Landmarks", v1.CBOR, _CBOR, _LANDMARKS),
            ]
        case "event":
            return [
                _Message(
                    _lower_first(kind.__name__), kind.__name__, v1.JSON, _first_sentence(kind), [_Sample(text, event)]
                )
                for kind, text, event in _EVENTS
            ]
        case name:
            return [_Message(name, channel.schema, channel.content_types[0], channel.summary, _SAMPLES[name])]


_CBOR = (
    'As CBOR (RFC 8949), with mqtt.landmarks_format = "cbor": the same map with the same keys. `image` and `world` are '
    "arrays of RFC 8746: tag 40 over [[rows, columns], elements], row by row, elements being tag 85 over a byte string "
    "of little-endian binary32. The schema and the examples show them as they are once decoded."
)


def _message(channel: Channel, message: _Message, prefix: str) -> Json:
    from_device = channel.sender is Sender.DEVICE
    binding: Json = {"contentType": message.content_type, **_BINDING}
    described: Json = {
        "name": message.name,
        "title": message.schema,
        "summary": message.summary,
        "contentType": message.content_type,
        "payload": {"$ref": f"#/components/schemas/{message.schema}"},
    }
    if from_device:
        kind = "SnapshotUserProperties" if channel.name == "snapshot" else "UserProperties"
        described["headers"] = {"$ref": f"#/components/schemas/{kind}"}
    if not from_device or channel.name == "reply":
        described["correlationId"] = {"$ref": "#/components/correlationIds/id"}
        binding["correlationData"] = {
            "type": "string",
            "description": "any bytes: those of the command are in its reply",
        }
    if not from_device:
        described["description"] = "An empty payload is an object without fields. Never retained."
        binding["responseTopic"] = {
            "type": "string",
            "pattern": next(each.pattern for each in channels(prefix) if each.name == "reply"),
            "description": "where the reply shall come instead of P/reply/<verb>: below P/reply/ of the same device",
        }
    described["bindings"] = {"mqtt": binding}
    described["examples"] = [_example(sample, from_device=from_device) for sample in message.samples]
    return described


def _example(sample: _Sample, *, from_device: bool) -> Json:
    example: Json = {"summary": sample.summary}
    if from_device:
        example["headers"] = {"v": str(v1.VERSION), **(sample.user_properties or {})}
    match sample.payload:
        case None:
            pass
        case msgspec.Struct() as message:
            example["payload"] = json.loads(v1.encode(message))
        case other:
            example["payload"] = other
    return example


def _as_draft_7(node: Any) -> Any:
    """A schema of draft 2020-12 in draft 7's words, which AsyncAPI's schemas are an extension of."""
    if isinstance(node, list):
        return [_as_draft_7(item) for item in node]
    if not isinstance(node, dict):
        return node
    older = {key: _as_draft_7(value) for key, value in node.items()}
    if "prefixItems" in older:
        older["additionalItems"] = older.pop("items", True)
        older["items"] = older.pop("prefixItems")
    if "$ref" in older and len(older) > 1:  # what stands beside a reference there is ignored
        older["allOf"] = [{"$ref": older.pop("$ref")}]
    return older


def _first_sentence(kind: type) -> str:
    return (kind.__doc__ or "").partition(". ")[0].rstrip(".") + "."


def _lower_first(name: str) -> str:
    return name[:1].lower() + name[1:]


# --- examples: of the types themselves, so that they are what the code sends

_SESSION = "20260801T120000Z-0badcafe"
_T_US = 1_785_585_600_000_000
_TWO_KEYPOINTS = "cut down to two of its keypoints"


def _landmarks() -> v1.Landmarks:
    """As a reader has it, by way of the bytes of CBOR and with JSON's four decimals."""
    image = struct.pack("<8f", 0.4811, 0.2034, -0.4127, 0.9998, 0.4893, 0.1911, -0.3885, 0.9997)
    world = struct.pack("<6f", 0.0213, -0.6021, -0.2214, 0.0248, -0.6389, -0.2067)
    read = v1.decode_landmarks(v1.encode_binary(5423, _T_US + 180_766_667, [(1, 0.9123, image, world)], 2))

    def rounded(rows: Iterable[Sequence[float]]) -> list[Any]:
        return [[round(number, 4) for number in row] for row in rows]

    (person,) = read.people
    world_rows = rounded(person.world or ())
    person = msgspec.structs.replace(person, image=rounded(person.image), world=world_rows)
    return msgspec.structs.replace(read, people=[person])


_LANDMARKS = [
    _Sample(f"One person, {_TWO_KEYPOINTS}", _landmarks()),
    _Sample("Nobody", v1.Landmarks(seq=5424, t_us=_T_US + 180_800_000, people=[])),
]
_TIMES = v1.Times(p50_ms=21.4, p95_ms=24.9, p99_ms=31.02)
_EVENTS = (
    (
        v1.CameraLost,
        "The cable was pulled",
        v1.CameraLost(id=f"{_SESSION}-1", t_us=_T_US + 61_000_000, camera="front", reason="no frame for 5 s"),
    ),
    (
        v1.CameraBack,
        "And plugged in again",
        v1.CameraBack(id=f"{_SESSION}-2", t_us=_T_US + 73_250_000, camera="front", away_s=12.25, of=f"{_SESSION}-1"),
    ),
    (
        v1.CameraEnded,
        "A file was played to its end",
        v1.CameraEnded(id=f"{_SESSION}-3", t_us=_T_US + 120_000_000, camera="door", reason="end of file"),
    ),
    (
        v1.Interrupted,
        "The daemon crashed while a camera was away, and started again",
        v1.Interrupted(
            id=f"{_SESSION}-4",
            t_us=_T_US + 121_000_000,
            camera="front",
            reason="the daemon had ended without a word",
            of="20261123T080000Z-0badcafe-17",
        ),
    ),
    (
        v1.EventsLost,
        "The broker was away for weeks",
        v1.EventsLost(
            id=f"{_SESSION}-5",
            t_us=_T_US + 122_000_000,
            camera="front",
            count=16,
            since_us=_T_US - 2_000_000_000,
            until_us=_T_US - 1_000_000_000,
        ),
    ),
    (
        v1.PersonEntered,
        "Somebody has come",
        v1.PersonEntered(
            id=f"{_SESSION}-6",
            t_us=_T_US + 130100000,
            camera="front",
            seq=3900,
            person=3,
            since_us=_T_US + 130_000_000,
            box=(0.0213, 0.2101, 0.1744, 0.9312),
        ),
    ),
    (
        v1.PersonLeft,
        "And gone",
        v1.PersonLeft(
            id=f"{_SESSION}-7",
            t_us=_T_US + 152000000,
            camera="front",
            seq=4560,
            person=3,
            until_us=_T_US + 150_000_000,
            stayed_s=20.0,
            of=f"{_SESSION}-6",
        ),
    ),
    (
        v1.PostureChanged,
        "Somebody has sat down",
        v1.PostureChanged(
            id=f"{_SESSION}-8",
            t_us=_T_US + 160000000,
            camera="front",
            seq=4800,
            person=4,
            since_us=_T_US + 159_500_000,
            before=v1.Posture.STANDING,
            posture=v1.Posture.SITTING,
            before_s=41.2,
            confidence=0.93,
        ),
    ),
    (
        v1.HandsRaised,
        "Somebody waves",
        v1.HandsRaised(
            id=f"{_SESSION}-9",
            t_us=_T_US + 161000000,
            camera="front",
            seq=4830,
            person=4,
            since_us=_T_US + 160_700_000,
            hands="left",
        ),
    ),
    (
        v1.HandsLowered,
        "And stops",
        v1.HandsLowered(
            id=f"{_SESSION}-10",
            t_us=_T_US + 163300000,
            camera="front",
            seq=4899,
            person=4,
            raised_s=2.3,
            of=f"{_SESSION}-9",
        ),
    ),
    (
        v1.FallSuspected,
        "Somebody may have fallen",
        v1.FallSuspected(
            id=f"{_SESSION}-11",
            t_us=_T_US + 170000000,
            camera="front",
            seq=5100,
            person=4,
            evidence=v1.FallEvidence(
                speed_bl_s=1.31,
                drop_bl=0.52,
                tilt_before_deg=6.2,
                tilt_deg=81.5,
                took_s=0.7,
                down_s=1.0,
                confidence=0.89,
            ),
        ),
    ),
    (
        v1.FallCleared,
        "And is up again",
        v1.FallCleared(
            id=f"{_SESSION}-12",
            t_us=_T_US + 181000000,
            camera="front",
            seq=5430,
            person=4,
            why="up",
            down_s=11.0,
            of=f"{_SESSION}-11",
        ),
    ),
    (
        v1.ZoneEntered,
        "Somebody is in a zone",
        v1.ZoneEntered(
            id=f"{_SESSION}-13",
            t_us=_T_US + 182000000,
            camera="front",
            seq=5460,
            person=4,
            zone="door",
            since_us=_T_US + 181_700_000,
        ),
    ),
    (
        v1.ZoneLeft,
        "And out of it",
        v1.ZoneLeft(
            id=f"{_SESSION}-14",
            t_us=_T_US + 186000000,
            camera="front",
            seq=5580,
            person=4,
            zone="door",
            stayed_s=4.0,
            of=f"{_SESSION}-13",
        ),
    ),
    (
        v1.LineCrossed,
        "Somebody has crossed a line",
        v1.LineCrossed(
            id=f"{_SESSION}-15",
            t_us=_T_US + 187000000,
            camera="front",
            seq=5610,
            person=4,
            line="entrance",
            to="right",
            at=(0.4411, 0.8720),
        ),
    ),
    (
        v1.CountChanged,
        "There are two now",
        v1.CountChanged(
            id=f"{_SESSION}-16",
            t_us=_T_US + 188000000,
            camera="front",
            seq=5640,
            since_us=_T_US + 187_500_000,
            before=1,
            count=2,
        ),
    ),
)
_SAMPLES: Mapping[str, Sequence[_Sample]] = {
    "state": [_Sample(f"`{state}`", state.value) for state in v1.DeviceState],
    "cameraStatus": [_Sample(f"`{state}`", state.value) for state in v1.CameraState],
    "info": [
        _Sample(
            f"A Raspberry Pi with one camera; its skeleton {_TWO_KEYPOINTS}",
            v1.Info(
                device="hall-pi",
                session=_SESSION,
                started_us=_T_US,
                versions={"edge-pose": "0.1.0", "mediapipe": "1.2.2"},
                board="Raspberry Pi 5 Model B Rev 1.0",
                model=v1.ModelInfo(
                    name="full", sha256="4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad"
                ),
                max_people=1,
                segmentation=True,
                skeleton=v1.SkeletonInfo(
                    name="mediapipe_pose_33", keypoints=["nose", "left_eye_inner"], connections=[(0, 1)]
                ),
                cameras={"front": v1.CameraInfo(source="rtsp")},
                landmarks=v1.StreamInfo(content_type=v1.JSON, hz=30.0),
                summary=v1.StreamInfo(content_type=v1.JSON, hz=2.0),
                commands=list(v1.REQUESTS),
                settings={"pose.model": "full"},
            ),
        )
    ],
    "health": [
        _Sample(
            "Three minutes after the start",
            v1.Health(
                session=_SESSION,
                t_us=_T_US + 180_000_000,
                uptime_s=180.0,
                cameras={
                    "front": v1.CameraHealth(
                        status=v1.CameraState.ONLINE,
                        fps=29.9,
                        captured=5401,
                        estimated=5397,
                        with_people=4012,
                        people=1,
                        inference=_TIMES,
                        latency=v1.Times(p50_ms=23.6, p95_ms=29.1, p99_ms=38.75),
                        age=v1.Times(p50_ms=41.2, p95_ms=48.8, p99_ms=63.1),
                    )
                },
                drops={"front": {"newer_frame": 4}, "mqtt landmarks": {"disconnected": 31}},
                sent={"mqtt landmarks": 5366, "mqtt summary": 360},
                outbox=v1.OutboxHealth(waiting=0, lost=0, durable=True),
                rerun=v1.LinkState.LIVE,
                cpu_percent=87.5,
                memory_mb=402.1,
                memory_available_mb=6911.4,
                disk_free_mb=20480.0,
                temperature_celsius=58.2,
                throttled=False,
                clock_synchronised=True,
                clock_error_ms=12.4,
                clock_steps=1,
            ),
        )
    ],
    "summary": [
        _Sample(
            "One person",
            v1.Summary(
                seq=5423,
                t_us=_T_US + 180_766_667,
                frames=6,
                window_s=0.167,
                count=1,
                most=1,
                away=[],
                people=[
                    v1.PersonSummary(
                        id=1,
                        frames=6,
                        age_s=12.43,
                        score=0.9123,
                        box=(0.3984, 0.1502, 0.5921, 0.9416),
                        centre=(0.4953, 0.5459),
                        posture=v1.Posture.STANDING,
                        posture_confidence=0.97,
                        posture_s=11.9,
                        postures={"standing": 1.0},
                        angles={"left_elbow": 148.2, "left_knee": 176.4, "right_knee": 133.9},
                        angle_ranges={
                            "left_elbow": (146.0, 150.3),
                            "left_knee": (175.1, 177.2),
                            "right_knee": (121.7, 147.8),
                        },
                        tilt_image=(4.1, 3.2, 5.0),
                        facing=-12.5,
                        left_hand=(0.241, -0.602, 0.113),
                        speed=(0.412, 0.383, 0.441),
                        activity=(0.871, 0.752, 0.993),
                    )
                ],
            ),
        ),
        _Sample(
            "Nobody",
            v1.Summary(
                seq=5429, t_us=_T_US + 180_966_667, frames=6, window_s=0.167, count=0, most=0, away=[], people=[]
            ),
        ),
    ],
    "snapshot": [
        _Sample(
            "Its user properties; a picture has no place in here",
            user_properties={"seq": "5423", "t_us": str(_T_US + 180_766_667)},
        )
    ],
    "pingCommand": [_Sample("Is it there?", v1.Ping(id="7"))],
    "snapshotCommand": [_Sample("A picture of one camera", v1.Snapshot(id="8", camera="front"))],
    "pauseCommand": [_Sample("All cameras, also after a restart", v1.Pause(keep=True))],
    "resumeCommand": [_Sample("One of them", v1.Resume(camera="front"))],
    "setCommand": [
        _Sample("Another model and fewer messages", v1.Set(values={"pose.model": "lite", "mqtt.landmarks_hz": 10})),
        _Sample("What the configuration says again", v1.Set(values={"mqtt.landmarks_hz": None})),
    ],
    "recordCommand": [_Sample("Begin", v1.Record(on=True))],
    "reloadCommand": [_Sample("The configuration has changed", v1.Reload())],
    "restartCommand": [_Sample("Begin anew", v1.Restart(id="9"))],
    "reply": [
        _Sample(
            "To `ping`",
            v1.Reply(
                verb="ping",
                ok=True,
                t_us=_T_US + 181_000_000,
                id="7",
                result={"session": _SESSION, "uptime_s": 181.0},
            ),
        ),
        _Sample(
            "To a camera's name that there is not",
            v1.Reply(
                verb="pause",
                ok=False,
                t_us=_T_US + 182_000_000,
                error=v1.CommandError(code=v1.ErrorCode.INVALID, text="there is no camera `back`; there is: front"),
            ),
        ),
    ],
    "homeAssistant": [
        _Sample(
            "Cut down to one entity",
            {
                "dev": {"identifiers": ["edge-pose/hall-pi"], "name": "hall-pi"},
                "o": {"name": "edge-pose"},
                "cmps": {
                    "front_people": {
                        "p": "sensor",
                        "name": "People",
                        "unique_id": "edge-pose/hall-pi/front/people",
                        "state_topic": "pose/v1/hall-pi/camera/front/summary",
                        "value_template": "{{ value_json.count }}",
                    }
                },
            },
        )
    ],
}
