"""The schema and the AsyncAPI document: valid, complete, and of one mind with the code that they describe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from edge.config import MqttConfig
from edge.mqtt import contract
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1

SCHEMA = contract.json_schema()
ASYNCAPI = contract.asyncapi("0.1.0")
MESSAGES: dict[str, Any] = ASYNCAPI["components"]["messages"]
TOPICS = Topics("pose/v1", "hall-pi")
PUBLISHED = ("Info", "Health", "Landmarks", "Summary", "CameraLost", "CameraBack", "CameraEnded", "Reply")


def nodes(tree: object) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for branch in tree:
            yield from nodes(branch)


def allowed(topic: str, payload: object) -> bool:
    return Draft202012Validator(SCHEMA).is_valid({topic: payload})


def older(schema: str) -> Draft7Validator:
    """For a schema among the AsyncAPI document's."""
    return Draft7Validator({"$ref": f"#/components/schemas/{schema}", "components": ASYNCAPI["components"]})


def examples() -> Iterator[tuple[str, str, str, Any]]:
    """Channel, topic, schema and payload of every example that has one."""
    names = {"device": "hall-pi", "camera": "front", "verb": "ping"}
    for name, channel in ASYNCAPI["channels"].items():
        for message in channel["messages"]:
            schema = MESSAGES[message]["payload"]["$ref"].rpartition("/")[2]
            for example in MESSAGES[message]["examples"]:
                if "payload" in example:
                    yield name, channel["address"].format(**names), schema, example["payload"]


def test_both_documents_are_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for schema in ASYNCAPI["components"]["schemas"].values():
        Draft7Validator.check_schema(schema)


@pytest.mark.parametrize("document", [SCHEMA, ASYNCAPI], ids=["messages", "asyncapi"])
def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = [node["$ref"] for node in nodes(document) if "$ref" in node]
    assert references
    for reference in references:
        place: Any = document
        for step in reference.removeprefix("#/").split("/"):
            place = place[step]


def test_no_word_of_openapi_and_none_of_the_other_draft() -> None:
    assert not [node for node in nodes(SCHEMA) if "discriminator" in node or "additionalItems" in node]
    assert not [node for node in nodes(ASYNCAPI) if "discriminator" in node or "prefixItems" in node]
    assert not [node for node in nodes(ASYNCAPI["components"]["schemas"]) if "$ref" in node and len(node) > 1]


def test_what_is_published_has_its_version_and_every_field_a_description() -> None:
    for name in PUBLISHED:
        assert SCHEMA["$defs"][name]["properties"]["v"]["const"] == 1
        assert "v" in SCHEMA["$defs"][name]["required"]
    for name, schema in SCHEMA["$defs"].items():
        assert schema.get("description"), name
        for field, described in schema.get("properties", {}).items():
            is_tag = field == "type" and "const" in described  # its message is described
            assert described.get("description") or "$ref" in described or is_tag, f"{name}.{field}"


def test_no_message_is_forgotten() -> None:
    messages = {kind.__name__ for kind in v1.Message.__subclasses__()}
    messages |= {kind.__name__ for kind in v1.Event.__args__} | {kind.__name__ for kind in v1.REQUESTS.values()}
    described = {message["payload"]["$ref"].rpartition("/")[2] for message in MESSAGES.values()}
    assert described == messages | {"DeviceState", "CameraState", "Jpeg", "HomeAssistant"}
    assert len(v1.Request.__subclasses__()) == len(v1.REQUESTS)


@pytest.mark.parametrize(
    ("topic", "schema"),
    [
        (TOPICS.state, "DeviceState"),
        (TOPICS.info, "Info"),
        (TOPICS.health, "Health"),
        (TOPICS.status("front"), "CameraState"),
        (TOPICS.landmarks("front"), "Landmarks"),
        (TOPICS.summary("front"), "Summary"),
        (TOPICS.event("front"), "Event"),
        (TOPICS.snapshot("front"), "Jpeg"),
        (TOPICS.command("ping"), "Ping"),
        (TOPICS.reply("ping"), "Reply"),
        (TOPICS.reply("my-tool/7"), "Reply"),
        (TOPICS.discovery, "HomeAssistant"),
    ],
)
def test_every_topic_has_one_schema(topic: str, schema: str) -> None:
    found = [channel for pattern, channel in SCHEMA["patternProperties"].items() if re.search(pattern, topic)]
    assert [channel["$ref"] for channel in found] == [f"#/$defs/{schema}"]


@pytest.mark.parametrize(
    "topic",
    [
        "pose/v1/hall-pi",
        "pose/v1/hall-pi/states",
        "pose/v1/hall-pi/more/state",
        "pose/v1//state",
        "pose/v2/hall-pi/state",
        "x/pose/v1/hall-pi/state",
        "pose/v1/hall-pi/cmd/dance",
        "pose/v1/hall-pi/reply/",
        "pose/v1/hall-pi/camera/front",
    ],
)
def test_other_topics_have_none(topic: str) -> None:
    assert not allowed(topic, "online")


def test_another_prefix_is_taken_by_the_letter() -> None:
    schema = contract.json_schema("site.a/pose-(1)")
    assert Draft202012Validator(schema).is_valid({"site.a/pose-(1)/pi/state": "online"})
    assert not Draft202012Validator(schema).is_valid({"siteXa/pose-(1)/pi/state": "online"})
    filters = {channel["x-mqtt"]["filter"] for channel in schema["patternProperties"].values()}
    assert {"site.a/pose-(1)/+/camera/+/event", "site.a/pose-(1)/+/reply/#"} <= filters
    # JavaScript refuses to escape what needs no escape.
    assert not re.search(r"\\[^.^$*+?()\[\]{}|\\]", "".join(schema["patternProperties"]))


def test_the_prefix_is_the_configuration_s() -> None:
    assert MqttConfig().prefix == contract.DEFAULT_PREFIX


@pytest.mark.parametrize(("channel", "topic", "schema", "payload"), list(examples()))
def test_examples_are_valid_in_both_documents(channel: str, topic: str, schema: str, payload: Any) -> None:
    jsonschema.validate({topic: payload}, SCHEMA, Draft202012Validator)
    older(schema).validate(payload)


def test_every_message_has_an_example_and_those_of_types_are_read_back() -> None:
    for name, message in MESSAGES.items():
        assert message["examples"], name
        schema = message["payload"]["$ref"].rpartition("/")[2]
        kind = getattr(v1, schema, None)
        if kind is None or not issubclass(kind, msgspec.Struct):
            continue
        for example in message["examples"]:
            msgspec.json.decode(json.dumps(example["payload"]), type=kind)


@pytest.mark.parametrize(
    ("schema", "payload"),
    [
        ("Summary", {"seq": 1, "t_us": 1, "count": 0, "people": []}),
        ("Summary", {"v": 2, "seq": 1, "t_us": 1, "count": 0, "people": []}),
        ("Landmarks", {"v": 1, "seq": 1, "t_us": 1, "people": [{"id": 1, "score": 1, "image": [[0, 0, 0]]}]}),
        ("Landmarks", {"v": 1, "seq": 1, "t_us": 1, "people": [{"id": 1, "score": 1, "image": [[0, 0, 0, 1, 0]]}]}),
        ("Landmarks", {"v": 1, "seq": 1, "t_us": 1, "people": [{"id": 0, "score": 1, "image": []}]}),
        ("Event", {"v": 1, "type": "camera_stolen", "id": "s-1", "t_us": 1, "camera": "a"}),
        ("Event", {"v": 1, "type": "camera_back", "id": "s-1", "t_us": 1, "camera": "a", "reason": "r"}),
        ("CameraState", "gone"),
        ("Jpeg", "iVBORw0KGgo="),  # a PNG
        ("Pause", {"camera": "front", "force": True}),
        ("HomeAssistant", {"dev": {}, "o": {"name": "edge-pose"}}),
    ],
)
def test_what_is_wrong_is_wrong_in_both_documents(schema: str, payload: object) -> None:
    reference = {"$ref": f"#/$defs/{schema}", "$defs": SCHEMA["$defs"]}
    assert not Draft202012Validator(reference).is_valid(payload)
    assert not older(schema).is_valid(payload)


VALUES = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-1, 1) | st.text(max_size=66) | st.just([])
NAMES = st.sampled_from(["", "a", "front", "a b", "front\n", "x" * 64, "x" * 65, "é"])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "id": VALUES | NAMES,
    "camera": VALUES | NAMES,
    "keep": VALUES,
    "on": VALUES,
    "values": VALUES | st.dictionaries(st.text(max_size=3), VALUES, max_size=3),
    "more": VALUES,
}
ASKED = st.lists(st.sampled_from(sorted(FIELDS)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)


@given(st.sampled_from(sorted(v1.REQUESTS)), ASKED)
@settings(deadline=None, max_examples=300)
def test_the_schema_takes_the_commands_that_the_daemon_takes(verb: str, asked: dict[str, Any]) -> None:
    try:
        msgspec.json.decode(json.dumps(asked), type=v1.REQUESTS[verb])
        obeyed = True
    except ValueError:
        obeyed = False
    # A whole number may be written with a fraction of zero in JSON Schema; nothing here is a whole number only.
    assert allowed(TOPICS.command(verb), asked) == obeyed


def test_operations_are_the_device_s() -> None:
    operations = ASYNCAPI["operations"].values()
    received = [each["channel"]["$ref"] for each in operations if each["action"] == "receive"]
    assert sorted(received) == sorted(f"#/channels/{verb}Command" for verb in v1.REQUESTS)
    for each in operations:
        assert (each["action"] == "receive") == ("reply" in each)
    assert ASYNCAPI["channels"]["reply"]["address"] == "pose/v1/{device}/reply/{verb}"
    assert {*v1.REQUESTS} < {*ASYNCAPI["channels"]["reply"]["parameters"]["verb"]["enum"]}


def test_landmarks_come_in_two_content_types() -> None:
    messages = ASYNCAPI["channels"]["landmarks"]["messages"]
    assert [MESSAGES[name]["contentType"] for name in messages] == [v1.JSON, v1.CBOR]
    (json_example, _), (cbor_example, _) = (MESSAGES[name]["examples"] for name in messages)
    assert json_example == cbor_example


def test_no_document_names_a_host() -> None:
    assert {server["host"] for server in ASYNCAPI["servers"].values()} == {"{host}:{port}"}
    addresses = re.findall(r"https?://[^\"]+", json.dumps([SCHEMA, ASYNCAPI]))
    assert {*addresses} == {
        "https://json-schema.org/draft/2020-12/schema",
        "https://www.apache.org/licenses/LICENSE-2.0",
    }


def test_it_takes_no_more_than_msgspec() -> None:
    heavy = "numpy mediapipe rerun cv2 av paho pydantic typer"
    code = f"import sys, edge.mqtt.contract; sys.exit(', '.join(set('{heavy}'.split()) & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
