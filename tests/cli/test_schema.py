"""`edge-pose schema`."""

from __future__ import annotations

import json

import pytest

from edge.config import Config
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
