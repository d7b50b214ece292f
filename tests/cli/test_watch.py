"""`edge-pose watch`, against a real broker."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from rich.console import Console

from edge.cli.watch import page
from edge.mqtt.fleet import Fleet
from tests.cli.command import COMMAND, edge_pose
from tests.conftest import eventually
from tests.mqtt.test_fleet import HALL, NOW_S, PREFIX, fleet_of, summary
from tests.servers import free_port, mosquitto


def shown(fleet: Fleet, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    with console.capture() as text:
        console.print(page("connected to hub:8883, MQTT 5", fleet, NOW_S, width))
    return [" ".join(line.split()) for line in text.get().splitlines()]


def test_the_page_has_a_line_for_each_camera() -> None:
    fleet = fleet_of(*HALL, ("hall/camera/rear/status", "paused"), ("yard/state", "offline"), ("yard/state", "x"))
    assert shown(fleet, 170) == [
        "connected to hub:8883, MQTT 5; devices: 2; messages not understood: 1",
        "device camera state frames/s p50 ms p99 ms people °C last event hub model session heard",
        "hall front online 29.9 20.5 31.0 1 0 - live lite run-1 0 s",
        "rear paused - - - - 0 - live lite run-1 0 s",
        "yard - offline - - - - - - - - - -",
    ]


def test_a_narrow_terminal_shows_what_matters_most() -> None:
    for width in (60, 79, 100, 119):
        lines = shown(fleet_of(*HALL), width)
        assert lines[1].startswith("device camera state frames/s")
        assert "…" not in "".join(lines)


def test_nothing_that_somebody_sent_moves_the_cursor() -> None:
    event = json.dumps({"type": "\x1b[2J[red]gone", "t_us": int(NOW_S * 1e6)})
    lines = shown(fleet_of(*HALL, ("hall/camera/front/event", event)), 170)
    assert "\ufffd[2J[red]gone, 0 s ago" in lines[2]
    assert "\x1b" not in "".join(lines)


class Publisher:
    """An outside client that speaks for devices."""

    def __init__(self, port: int) -> None:
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def publish(self, topic: str, payload: bytes | str) -> None:
        retain = topic.rsplit("/", 1)[-1] in {"state", "info", "status"}
        self._client.publish(f"{PREFIX}/{topic}", payload, 1, retain).wait_for_publish(5)


@contextlib.contextmanager
def publisher(port: int) -> Iterator[Publisher]:
    client = Publisher(port)
    try:
        yield client
    finally:
        client.close()


class Watching:
    """The command at work, what it prints kept line by line, or only the first `lines` of it."""

    def __init__(self, *arguments: str, lines: int | None = None) -> None:
        pipe = subprocess.PIPE
        self.lines: list[str] = []
        self.process = subprocess.Popen([*COMMAND, "watch", *arguments], stdout=pipe, stderr=pipe, text=True)
        self._reader = threading.Thread(target=self._read, args=[lines])
        self._reader.start()

    def _read(self, lines: int | None) -> None:
        assert self.process.stdout is not None
        for line in itertools.islice(self.process.stdout, lines):
            self.lines.append(line)
        self.process.stdout.close()

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(self.lines)]

    def end(self) -> int:
        """By Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(10)
        self._reader.join()
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.mark.system
def test_tables_where_there_is_no_terminal() -> None:
    with mosquitto() as broker, publisher(broker.port) as devices:
        for topic, payload in HALL:
            devices.publish(topic, payload)
        watched = edge_pose("watch", "--seconds", "1.5", EDGE_POSE__MQTT__URL=broker.url)
    assert watched.returncode == 0, watched.stderr
    lines = watched.stdout.splitlines()
    assert lines[0].split()[:3] == ["device", "camera", "state"]
    assert lines[1].split()[:3] == ["hall", "front", "online"]
    assert "\x1b" not in watched.stdout
    assert f"connected to broker 127.0.0.1:{broker.port} with MQTT 5" in watched.stderr


@pytest.mark.system
def test_a_line_of_json_for_what_changes_and_when_it_is_gone() -> None:
    with mosquitto() as broker, publisher(broker.port) as devices, Watching(broker.url, "--json") as watching:
        devices.publish("hall/state", "online")
        eventually(watching.rows)  # who is not there yet misses what is not retained
        for topic, payload in HALL:
            devices.publish(topic, payload)
        eventually(lambda: watching.rows()[-1].get("fps") == 29.9)
        assert {(row["device"], row["camera"]) for row in watching.rows()} == {("hall", ""), ("hall", "front")}
        before = len(watching.lines)
        for count in range(40):
            devices.publish("hall/camera/front/summary", summary(count))
        eventually(lambda: watching.rows()[-1]["people"] == 39)
        assert len(watching.lines) - before <= 3  # 40 changes within the second
        for topic, _ in HALL[:3]:
            devices.publish(topic, "")
        eventually(lambda: watching.rows()[-1]["state"] == "gone")
        assert watching.end() == 0


@pytest.mark.system
def test_a_broker_that_comes_back_without_what_it_kept() -> None:
    with Watching(f"mqtt://127.0.0.1:{(port := free_port())}", "--json") as watching:
        with mosquitto(port=port), publisher(port) as devices:
            devices.publish("hall/state", "online")
            devices.publish("yard/state", "online")
            eventually(lambda: len({row["device"] for row in watching.rows()}) == 2)
        with mosquitto(port=port), publisher(port) as devices:
            devices.publish("yard/state", "stopped")
            eventually(lambda: watching.rows()[-1] == {"device": "hall", "camera": "", "state": "gone"}, 20)
        assert [row["state"] for row in watching.rows() if row["device"] == "yard"] == ["online", "stopped"]
        assert watching.end() == 0


@pytest.mark.system
@pytest.mark.parametrize("arguments", [["--json"], []], ids=" ".join)
def test_whoever_reads_may_stop_reading(arguments: list[str]) -> None:
    with (
        mosquitto() as broker,
        publisher(broker.port) as devices,
        Watching(broker.url, *arguments, lines=1) as watching,
    ):
        devices.publish("hall/state", "online")
        assert watching.process.wait(10) == 0  # though nothing more happens that it could print
        assert watching.process.stderr is not None
        said = watching.process.stderr.read().splitlines()
    assert len(watching.lines) == 1
    assert [line for line in said if " INFO " not in line] == []


@pytest.mark.system
def test_a_live_table_on_a_terminal() -> None:
    ours, theirs = pty.openpty()
    with mosquitto() as broker, publisher(broker.port) as devices:
        for topic, payload in HALL:
            devices.publish(topic, payload)
        surroundings = {**os.environ, "TERM": "xterm", "COLUMNS": "170", "LINES": "20"}
        command = [*COMMAND, "watch", broker.url]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings)
        os.close(theirs)
        screen = b""
        try:
            while b"lite" not in screen:
                screen += os.read(ours, 4096)
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):  # the other side is closed
                while chunk := os.read(ours, 4096):
                    screen += chunk
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
    assert b"connected to" in screen
    assert b"hall" in screen[screen.rindex(b"\x1b[?1049l") :]  # the terminal is as it was, but for the last table
    assert b"\x1b[?25h" in screen  # the cursor is back


@pytest.mark.system
def test_nobody_seen_is_a_failure_that_says_why() -> None:
    port = free_port()
    alone = edge_pose("watch", f"mqtt://127.0.0.1:{port}", "--seconds", "1", "--json")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr.splitlines()[-1] == (
        f"edge-pose: no device seen within 1 s: no connection to a broker (Connection refused); trying 127.0.0.1:{port}"
    )
    with mosquitto() as broker:
        empty = edge_pose("watch", broker.url, "--seconds", "1", "--json")
    assert empty.returncode == 1
    assert empty.stderr.endswith(", MQTT 5; below pose/v1 there is nothing\n")


@pytest.mark.system
def test_it_reads_the_configuration_and_only_its_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[camera.front]\nsource = "/gone.mp4"\n[mqtt]\npassword_file = "/gone"\n')
    watched = edge_pose("watch", "mqtt://127.0.0.1:1", "--config", str(file), "--seconds", "1")
    assert watched.returncode == 78
    assert watched.stderr == f"edge-pose: {file}: mqtt.password_file = '/gone': no such file\n"
    nowhere = edge_pose("watch", "--config", "/dev/null", "--seconds", "1")
    assert nowhere.returncode == 78
    assert "mqtt.url" in nowhere.stderr
