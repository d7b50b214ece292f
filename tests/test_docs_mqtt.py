"""What docs/mqtt.md shows, done for real: a device named hall-pi, a broker, and what the page tells people to type."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import jsonschema
import msgspec
import pytest

from edge.config import Verb, can_be_set_at_run_time
from edge.config_layers import load
from edge.mqtt.wire import v1
from tests.cli.command import COMMAND, edge_pose, run_settings
from tests.conftest import eventually
from tests.mqtt.test_sink import Subscriber, subscriber
from tests.servers import Server, mosquitto
from tests.test_docs import ROOT, blocks

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

PAGE = (ROOT / "docs" / "mqtt.md").read_text()
P = "pose/v1/hall-pi"
SAMPLES = [text for text in blocks(PAGE, "json") if not text.startswith("[")]


def lines(program: str) -> list[str]:
    return [line for block in blocks(PAGE, "sh") for line in block.splitlines() if line.startswith(f"{program} ")]


@pytest.fixture(scope="module")
def broker() -> Iterator[Server]:
    with mosquitto() as server:
        yield server


@pytest.fixture(scope="module")
def outside(broker: Server) -> Iterator[Subscriber]:
    with subscriber(broker.port) as client:
        yield client


@pytest.fixture(scope="module")
def device(broker: Server, outside: Subscriber, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    state = tmp_path_factory.mktemp("state")
    settings = run_settings(device="hall-pi", mqtt__url=broker.url, camera__front__loop=True, state_dir=state)
    with subprocess.Popen([*COMMAND, "run", *settings], stderr=subprocess.DEVNULL) as process:
        eventually(lambda: len(outside.payloads(f"{P}/camera/front/landmarks")) > 20, 60)
        yield
        process.terminate()


def test_there_is_something_to_test() -> None:
    assert len(SAMPLES) >= 6
    assert len(lines("edge-pose")) >= 6
    assert len(lines("mosquitto_sub")) == 3


@pytest.mark.parametrize("sample", SAMPLES)
def test_each_message_is_one_that_the_schema_allows(sample: str) -> None:
    message = json.loads(sample)
    kind = next(
        name
        for field, name in (
            ("verb", "Reply"),
            ("type", "CameraLost"),
            ("uptime_s", "Health"),
            ("count", "Summary"),
            ("people", "Landmarks"),
        )
        if field in message
    )
    document = json.loads(edge_pose("schema", "messages").stdout)
    jsonschema.validate(message, {"$ref": f"#/$defs/{kind}", "$defs": document["$defs"]})
    assert msgspec.json.encode(msgspec.json.decode(sample, type=getattr(v1, kind))) == sample.strip().encode()


def test_the_tables_name_what_there_is() -> None:
    verbs = re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`ping`.*?|`\w+`(?:, `\w+`)?) \|", PAGE, re.MULTILINE)))
    assert set(v1.REQUESTS) == set(Verb.__args__) <= set(verbs)  # type: ignore[attr-defined] # a Literal's
    codes = re.findall(r"^\| `(\w+)` \| ", PAGE, re.MULTILINE)
    assert {str(code) for code in v1.ErrorCode} <= set(codes)
    assert {state.value for state in v1.CameraState} <= set(re.findall(r"`(\w+)`", PAGE))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("line", [line for line in lines("mosquitto_sub") if "--remove" not in line])
def test_the_subscriptions_bring_something(line: str, broker: Server) -> None:
    command = [*shlex.split(line), "-p", str(broker.port), "-C", "3", "-W", "20"]
    heard = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert len(heard) >= 3
    assert all(entry.startswith(P) for entry in heard)


def test_what_a_device_has_left_can_be_taken_back() -> None:
    (line,) = [line for line in lines("mosquitto_sub") if "--remove" in line]
    with mosquitto() as broker:
        port = ["-p", str(broker.port)]
        subprocess.run(["mosquitto_pub", *port, "-r", "-t", f"{P}/state", "-m", "stopped"], check=True)
        subprocess.run([*shlex.split(line), *port], check=False, capture_output=True)
        with subscriber(broker.port) as late:
            late.send(f"{P}/end")
            eventually(lambda: late.payloads(f"{P}/end"))
            assert not late.payloads(f"{P}/state")


@pytest.mark.usefixtures("device")
def test_what_is_sent_is_answered(broker: Server, outside: Subscriber, tmp_path: Path) -> None:
    for line in lines("edge-pose send"):
        words = shlex.split(line.replace("hall.jpg", str(tmp_path / "hall.jpg")))[1:]
        if "snapshot" in words:  # the page paused the camera just before
            assert edge_pose("send", "hall-pi", "resume", "--keep", "--broker", broker.url).returncode == 0
            eventually(lambda: outside.payloads(f"{P}/camera/front/status")[-1] == b"online")
        sent = edge_pose(*words, "--broker", broker.url)
        assert sent.returncode == 0, sent.stderr
    assert (tmp_path / "hall.jpg").read_bytes().startswith(b"\xff\xd8")
    (line,) = lines("mosquitto_pub -h localhost")
    before = len(outside.payloads(f"{P}/reply/set"))
    subprocess.run([*shlex.split(line), "-p", str(broker.port)], check=True)
    eventually(lambda: len(outside.payloads(f"{P}/reply/set")) > before)
    reply = msgspec.json.decode(outside.payloads(f"{P}/reply/set")[-1], type=v1.Reply)
    assert (reply.ok, reply.id) == (True, "7")


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("line", lines("edge-pose watch"))
def test_the_fleet_is_shown(line: str, broker: Server) -> None:
    words = [word for word in shlex.split(line)[1:] if not word.startswith("mqtt.ca_file")]
    words = [broker.url if "://" in word else word for word in words if word != "--set"]
    watched = edge_pose(*words, "--seconds", "3")
    assert watched.returncode == 0, watched.stderr
    assert "hall-pi" in watched.stdout


@pytest.mark.usefixtures("device")
def test_the_python_program_prints_what_it_receives(broker: Server) -> None:
    (program,) = [text for text in blocks(PAGE, "python") if "loop_forever" in text]
    program = program.replace('connect("localhost")', f'connect("localhost", {broker.port})')
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            number, scores = process.stdout.readline().split(" ", 1)
        finally:
            process.kill()
    assert int(number) >= 0
    assert 0 < json.loads(scores)[0] <= 1


def test_the_configuration_is_one(tmp_path: Path) -> None:
    (text,) = [text for text in blocks(PAGE, "toml") if text.startswith("[mqtt]")]
    file = tmp_path / "config.toml"
    file.write_text(f'[camera.front]\nsource = "synthetic"\n{text}')
    assert len(load(file, environment={}, sets=[]).config.mqtt.url) == 2


def test_what_other_programs_read_is_where_the_device_says_it() -> None:
    (flow,) = [json.loads(text) for text in blocks(PAGE, "json") if text.startswith("[")]
    (source,) = [node for node in flow if node["type"] == "mqtt in"]
    assert source["topic"] == "pose/v1/+/camera/+/summary"
    assert {target for node in flow for wire in node.get("wires", []) for target in wire} <= {
        node["id"] for node in flow
    }
    (telegraf,) = [tomllib.loads(text) for text in blocks(PAGE, "toml") if "inputs" in text]
    (consumer,) = telegraf["inputs"]["mqtt_consumer"]
    assert consumer["topics"] == ["pose/v1/+/health"]
    assert consumer["json_time_key"] in v1.Health.__struct_fields__


def test_what_can_be_set_is_marked_in_the_list_of_keys() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    marked = re.findall(r"^\| `(\w+)` .*\*at run time\* \|$", page, re.MULTILINE)
    assert len(marked) >= 8
    keys = ("pose.model", "mqtt.landmarks_hz", "camera.front.paused", "rerun.record", "log_level")
    assert all(can_be_set_at_run_time(key) for key in keys)
    assert {key.rpartition(".")[2] for key in keys} <= set(marked)


@pytest.mark.parametrize("page", ["README.md", "docs/mqtt.md"])
def test_an_editor_takes_the_configurations_that_are_shown(page: str) -> None:
    schema = json.loads(edge_pose("schema", "config").stdout)
    shown = [tomllib.loads(text) for text in blocks((ROOT / page).read_text(), "toml")]
    configurations = [content for content in shown if "mqtt" in content]
    assert configurations
    for content in configurations:
        jsonschema.validate({"camera": {"front": {"source": "synthetic"}}, **content}, schema)
