"""`edge-pose schema`."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator

from edge.config import Config
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1
from tests.cli.command import edge_pose

pytestmark = pytest.mark.system


def test_the_configuration_as_json_schema() -> None:
    schema = json.loads(edge_pose("schema", "config").stdout)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["properties"].keys() == Config.model_fields.keys()
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["camera"]
    keep = schema["$defs"]["RerunConfig"]["properties"]["keep_mb"]
    assert (keep["title"], keep["unit"], keep["default"], keep["exclusiveMinimum"]) == (
        "Room for recordings",
        "MB",
        512,
        0,
    )


def test_the_configuration_as_a_page() -> None:
    page = edge_pose("schema", "config", "--format", "markdown").stdout
    assert "| `fps` | number in frames/s, 0.1 to 240 | `30.0` |" in page
    assert '| `landmarks_hz` | number in Hz, 0.01 to 1000 or `"unlimited"` | `30.0` |' in page
    assert "| `source` | text | **needed** |" in page
    assert "| `url` | text or list of text |  | Broker: " in page
    assert '| `commands` | list of `"ping"`, ' in page


def test_the_messages_as_json_schema() -> None:
    schema = json.loads(edge_pose("schema", "messages").stdout)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"pose/v1/hall-pi/state": "online"})
    assert not validator.is_valid({"pose/v1/hall-pi/state": "on"})
    summary = v1.Summary(seq=1, t_us=2, frames=1, window_s=0.0, count=0, most=0, away=[], people=[])
    assert validator.is_valid({"pose/v1/hall-pi/camera/front/summary": json.loads(v1.encode(summary))})


def test_the_messages_below_another_prefix() -> None:
    schema = json.loads(edge_pose("schema", "messages", "--prefix", "site/a").stdout)
    assert Draft202012Validator(schema).is_valid({"site/a/hall-pi/state": "online"})
    assert not Draft202012Validator(schema).is_valid({"pose/v1/hall-pi/state": "online"})


def test_topics_and_commands_as_asyncapi() -> None:
    document = json.loads(edge_pose("schema", "asyncapi", "--prefix", "site/a").stdout)
    assert document["asyncapi"] == "3.0.0"
    topics = Topics("site/a", "{device}")
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert {topics.state, topics.landmarks("{camera}"), topics.discovery} < addresses
    assert {topics.command(verb) for verb in v1.REQUESTS} < addresses


@pytest.mark.parametrize("prefix", ["", "a/#", "+", "a//b", "{x}"])
@pytest.mark.parametrize("document", ["messages", "asyncapi"])
def test_a_prefix_that_can_t_be_is_refused(document: str, prefix: str) -> None:
    done = edge_pose("schema", document, "--prefix", prefix)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--prefix" in done.stderr
    assert "a topic without" in done.stderr
