"""`edge-pose send`, against a real broker and a device that is an MQTT client of the tests."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.cli import send
from edge.mqtt.wire import v1
from tests.cli.command import edge_pose
from tests.conftest import eventually
from tests.servers import certificates, free_port, mosquitto, tls_settings

JPEG = b"\xff\xd8 as good as a picture \xff\xd9"
Answer = Callable[[str, v1.Request], dict[str, Any] | v1.CommandError | None]


class FakeDevice:
    """Answers commands on pose/v1/hall as `answer` has it: with a result, an error or not at all."""

    def __init__(self, port: int, answer: Answer) -> None:
        self.commands: list[tuple[str, dict[str, Any]]] = []
        self._answer = answer
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe("pose/v1/hall/cmd/+", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._obey
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(5)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, **user_properties: str) -> None:
        properties: Any = Properties(PacketTypes.PUBLISH)
        properties.UserProperty = [*user_properties.items()]
        self._client.publish(f"pose/v1/hall/{topic}", payload, 1, retain, properties)

    def reply(self, verb: str, answer: dict[str, Any] | v1.CommandError, **fields: Any) -> None:
        outcome = {"ok": True, "result": answer} if isinstance(answer, dict) else {"ok": False, "error": answer}
        self.publish(f"reply/{verb}", v1.encode(v1.Reply(verb=verb, t_us=0, **outcome, **fields)))

    def _obey(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        verb = message.topic.rsplit("/", 1)[-1]
        request = msgspec.json.decode(message.payload, type=v1.REQUESTS[verb])
        self.commands.append((verb, json.loads(message.payload)))
        answer = self._answer(verb, request)
        if answer is not None:
            self.reply(verb, answer, id=request.id)


@contextlib.contextmanager
def fake_device(port: int, answer: Answer = lambda verb, request: {}) -> Iterator[FakeDevice]:
    device = FakeDevice(port, answer)
    try:
        yield device
    finally:
        device.close()


# --- what is sent


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("2", 2),
        ("-0.5", -0.5),
        ("true", True),
        ("lite", "lite"),
        ('"2"', "2"),
        ("", None),
        ("True", "True"),
        ("2026-01-01", "2026-01-01"),
        ("nan", "nan"),  # JSON has none, and null would take the setting back
        ("inf", "inf"),
        ("rtsp://camera/1", "rtsp://camera/1"),
        ("a\nb = 1", "a\nb = 1"),
        ("[1, 2]", [1, 2]),
    ],
)
def test_a_value_is_toml_where_it_is(text: str, meant: object) -> None:
    assert send.value(text) == meant
    assert type(send.value(text)) is type(meant)


@given(st.text())
def test_every_text_is_some_value_that_json_can_hold(text: str) -> None:
    json.dumps(send.value(text), allow_nan=False)


def fields(request: v1.Request) -> dict[str, Any]:
    content = json.loads(v1.encode(request))
    assert len(content.pop("id")) == 16
    return content


def test_requests_have_the_fields_of_their_verb() -> None:
    assert fields(send.request("ping", [])) == {}
    assert fields(send.request("pause", [], camera="front", keep=True)) == {"camera": "front", "keep": True}
    assert fields(send.request("record", ["off"])) == {"on": False, "keep": False}
    changed = send.request("set", ["pose.max_people=2", "mqtt.landmarks_hz=", "pose.model=lite"], keep=True)
    values = {"pose.max_people": 2, "mqtt.landmarks_hz": None, "pose.model": "lite"}
    assert fields(changed) == {"values": values, "keep": True}
    assert fields(send.request("snapshot", ["camera=front"])) == {"camera": "front"}


@pytest.mark.parametrize(
    ("verb", "arguments", "options", "problem"),
    [
        ("pauze", [], {}, "unknown command 'pauze'; did you mean pause?"),
        ("fly", [], {}, "unknown command 'fly'; expected ping, snapshot, pause, resume, set, record, reload, restart"),
        ("ping", [], {"camera": "front"}, "ping takes no camera"),
        ("reload", [], {"keep": True}, "reload takes no keep"),
        ("ping", ["x=1"], {}, "ping takes no x"),
        ("set", [], {}, "set: what? expected KEY=VALUE, e.g. pose.max_people=2, or KEY= to take it back"),
        ("set", ["pose.model"], {}, "set: 'pose.model': expected KEY=VALUE, e.g. pose.max_people=2"),
        ("set", [f"pose.model={'x' * 8192}"], {}, "set: the command has 8257 bytes, a device takes 8192 at most"),
        ("record", [], {}, "record: expected on or off"),
        ("record", ["maybe"], {}, "record: 'maybe': expected on or off"),
        ("record", ["on=2"], {}, "record: Expected `bool`, got `int` at `on`"),
    ],
)
def test_what_can_be_no_command_is_told_in_a_line(
    verb: str, arguments: list[str], options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - compared below
        send.request(verb, arguments, **options)
    assert str(refused.value) == problem


def test_an_answer_is_a_few_lines_without_what_would_move_the_cursor() -> None:
    result = {
        "exchanged": ["pose", "mqtt"],
        "settings": {"pose.max_people": 2, "pose.model": "\x1b[2Jlite"},
        "t_us": 1_700_000_000_000_000,
        "note": "\x1b]0;mine\x07",
    }
    assert [*send.lines("hall", v1.Reply(verb="set", ok=True, t_us=0, result=result))] == [
        "hall: set done",
        "  changed: pose, mqtt",
        "  set at run time, in all:",
        "    pose.max_people = 2",
        '    pose.model = "\\u001b[2Jlite"',
        "  time: 2023-11-14 22:13:20.000000 UTC",
        "  note: \ufffd]0;mine\ufffd",
    ]


# --- over the wire


@pytest.mark.system
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_command_and_its_answer(version: str) -> None:
    with mosquitto() as broker, fake_device(broker.port, lambda *_: {"session": "run-1", "uptime_s": 12.5}) as device:
        sent = edge_pose("send", "hall", "ping", "--broker", broker.url, "--set", f"mqtt.version='{version}'")
    assert (sent.returncode, sent.stderr) == (0, "")
    assert sent.stdout == "hall: ping done\n  session: run-1\n  uptime_s: 12.5\n"
    assert [verb for verb, _ in device.commands] == ["ping"]


@pytest.mark.system
def test_settings_arrive_as_they_were_meant_and_the_answer_can_be_json() -> None:
    answer = {"exchanged": ["mqtt"], "settings": {"mqtt.landmarks_hz": 10}}
    arguments = ["set", "mqtt.landmarks_hz=10", "pose.model=", "--keep", "--json"]
    with mosquitto() as broker, fake_device(broker.port, lambda *_: answer) as device:
        sent = edge_pose("send", "hall", *arguments, EDGE_POSE__MQTT__URL=broker.url)
    assert sent.returncode == 0, sent.stderr
    ((verb, command),) = device.commands
    assert (verb, command["values"], command["keep"]) == ("set", {"mqtt.landmarks_hz": 10, "pose.model": None}, True)
    reply = json.loads(sent.stdout)
    assert (reply["ok"], reply["result"], reply["id"]) == (True, answer, command["id"])


@pytest.mark.system
def test_a_refusal_is_a_line_on_standard_error() -> None:
    error = v1.CommandError(code=v1.ErrorCode.INVALID, text="there is no camera rear; there is front\x1b[2J")
    with mosquitto() as broker, fake_device(broker.port, lambda *_: error):
        sent = edge_pose("send", "hall", "pause", "--camera", "rear", "--broker", broker.url)
        as_json = edge_pose("send", "hall", "pause", "--camera", "rear", "--broker", broker.url, "--json")
    assert (sent.returncode, sent.stdout) == (1, "")
    assert sent.stderr == "edge-pose: hall: there is no camera rear; there is front\ufffd[2J\n"
    assert (as_json.returncode, json.loads(as_json.stdout)["error"]["code"]) == (1, "invalid")


@pytest.mark.system
def test_only_the_answer_to_this_command_counts() -> None:
    def answer(verb: str, request: v1.Request) -> None:
        device.publish("reply/ping", b"\xff no reply at all")
        device.publish("reply/ping", b'{"a":' * 100_000)
        device.reply("ping", {"whose": "another's"}, id="another")
        device.reply("ping", {"whose": "nobody's"})
        device.reply("ping", {"whose": "ours"}, id=request.id)

    with mosquitto() as broker, fake_device(broker.port, answer) as device:
        sent = edge_pose("send", "hall", "ping", "--broker", broker.url)
    assert sent.stdout == "hall: ping done\n  whose: ours\n", sent.stderr


@pytest.mark.system
@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_snapshot_becomes_a_file(tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(verb: str, request: v1.Request) -> dict[str, Any]:
        device.publish("camera/rear/snapshot", JPEG, seq="7")
        device.publish("camera/front/snapshot", b"of another moment", seq="6")
        device.publish("camera/front/snapshot", JPEG, seq="7")
        return {"camera": "front", "seq": 7, "t_us": 0, "width_px": 640, "height_px": 480, "bytes": len(JPEG)}

    out = tmp_path / "out.jpg"
    with mosquitto() as broker, fake_device(broker.port, answer) as device:
        arguments = ["send", "hall", "snapshot", "--broker", broker.url, "--set", f"mqtt.version='{version}'"]
        named = edge_pose(*arguments, "--out", str(out))
        unwritable = edge_pose(*arguments, "--out", str(tmp_path / "nowhere" / "out.jpg"))
        monkeypatch.setenv("PYTHONPATH", str(Path.cwd()))
        monkeypatch.chdir(tmp_path)
        unnamed = edge_pose(*arguments)
    assert (named.returncode, named.stdout.splitlines()[-1]) == (0, f"  saved as {out}"), named.stderr
    assert out.read_bytes() == JPEG
    assert (unnamed.returncode, unnamed.stdout.splitlines()[-1]) == (0, "  saved as front-7.jpg"), unnamed.stderr
    assert (tmp_path / "front-7.jpg").read_bytes() == JPEG
    assert unwritable.returncode == 1
    assert unwritable.stderr.endswith("out.jpg can't be written: No such file or directory\n")


@pytest.mark.system
def test_a_picture_that_does_not_come_is_missed() -> None:
    answer = {"camera": "../../etc", "seq": 7, "bytes": 9}
    with mosquitto() as broker, fake_device(broker.port, lambda *_: answer):
        sent = edge_pose("send", "hall", "snapshot", "--broker", broker.url, "--timeout", "1")
    assert sent.returncode == 69
    assert sent.stderr == "edge-pose: hall says that it sent a picture, which did not arrive within 1 s\n"


@pytest.mark.system
def test_nobody_there_is_told_apart_from_nobody_answering() -> None:
    arguments = ["send", "hall", "ping", "--timeout", "1"]
    port = free_port()
    alone = edge_pose(*arguments, "--broker", f"mqtt://127.0.0.1:{port}")
    assert alone.returncode == 69
    assert alone.stderr == f"edge-pose: no connection to a broker (Connection refused); trying 127.0.0.1:{port}\n"
    with mosquitto() as broker:
        unknown = edge_pose(*arguments, "--broker", broker.url)
        with fake_device(broker.port, lambda *_: None) as device:
            device.publish("state", b"online", retain=True)
            silent = edge_pose(*arguments, "--broker", broker.url)
            eventually(lambda: device.commands)
    assert (unknown.returncode, silent.returncode) == (69, 69)
    assert unknown.stderr == "edge-pose: hall does not answer within 1 s; the broker knows of no such device\n"
    assert silent.stderr == "edge-pose: hall does not answer within 1 s; its state is online\n"


@pytest.mark.system
@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["hall", "pauze"], 2, "unknown command 'pauze'; did you mean pause?"),
        (["ha/ll", "ping"], 2, "DEVICE = 'ha/ll': expected 1 to 64 letters, digits, '-' or '_'"),
        (["hall", "ping", "--out", "x.jpg"], 2, "ping brings no picture for --out"),
        (["hall", "ping", "--config", "/dev/null"], 78, "no broker to go to: give its address"),
        (["hall", "ping", "--broker", "http://hub"], 78, "--set: mqtt.url = 'http://hub': expected an address"),
    ],
)
def test_what_is_wrong_with_the_command_line_is_one_line(arguments: list[str], code: int, line: str) -> None:
    sent = edge_pose("send", *arguments)
    assert (sent.returncode, sent.stdout) == (code, "")
    assert sent.stderr.startswith("edge-pose: ")
    assert sent.stderr.count("\n") == 1
    assert line in sent.stderr


@pytest.mark.system
def test_a_broker_with_tls_is_checked_against_the_ca_file_given(tmp_path: Path) -> None:
    certificates(tmp_path)
    with mosquitto(settings=tls_settings(tmp_path)) as broker:
        arguments = ["send", "hall", "ping", "--timeout", "2", "--broker", f"mqtts://localhost:{broker.port}"]
        trusted = edge_pose(*arguments, "--set", f"mqtt.ca_file={tmp_path}/ca.crt")
        strange = edge_pose(*arguments, "--set", f"mqtt.ca_file={tmp_path}/stranger.crt")
    assert trusted.stderr == "edge-pose: hall does not answer within 2 s; the broker knows of no such device\n"
    assert strange.returncode == 69
    assert "its certificate is refused" in strange.stderr
