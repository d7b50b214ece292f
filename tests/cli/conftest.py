"""What tests of the running daemon share: the process, its broker, its configuration, and an outside client."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import COMMAND
from tests.conftest import CLIP, eventually
from tests.mqtt.test_sink import Subscriber, subscriber
from tests.servers import Server, mosquitto

PREFIX = "pose/v1/hall"

Configure = Callable[..., None]


class Daemon:
    """`edge-pose run` in the background."""

    def __init__(self, *settings: str, log: Path) -> None:
        self._log = log
        with log.open("w") as out:
            self.process = subprocess.Popen([*COMMAND, "run", *settings], stdout=out, stderr=out)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code. Raises TimeoutExpired when it takes longer than promised."""
        self.process.send_signal(number)
        return self.process.wait(timeout=5.0)


def landmarks(outside: Subscriber, camera: str = "front") -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in outside.payloads(f"{PREFIX}/camera/{camera}/landmarks")]


def states(outside: Subscriber) -> list[bytes]:
    return outside.payloads(f"{PREFIX}/state")


def statuses(outside: Subscriber, camera: str = "front") -> list[bytes]:
    return outside.payloads(f"{PREFIX}/camera/{camera}/status")


@pytest.fixture
def broker() -> Iterator[Server]:
    with mosquitto() as server:
        yield server


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    started: list[Daemon] = []
    yield started
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.fixture
def outside(broker: Server) -> Iterator[Subscriber]:
    with subscriber(broker.port) as client:
        yield client


@pytest.fixture
def configure(tmp_path: Path, broker: Server) -> Configure:
    """Writes the configuration: two tables that are always there, the given lines before and after them."""

    def write(
        *,
        top: str = "",
        mqtt: str = "landmarks_hz = 10",
        more: str = "",
        camera: str = "front",
        source: object = CLIP,
    ) -> None:
        (tmp_path / "config.toml").write_text(
            f'device = "hall"\n{top}\n[mqtt]\nurl = "{broker.url}"\n{mqtt}\n'
            f'[camera.{camera}]\nsource = "{source}"\nloop = true\n{more}'
        )

    return write


@pytest.fixture
def start(tmp_path: Path, outside: Subscriber, daemons: list[Daemon]) -> Callable[..., Daemon]:
    """Starts the daemon with that configuration, and any arguments behind it, and waits until it publishes."""

    def begin(*arguments: str) -> Daemon:
        seen = len(landmarks(outside))
        log = tmp_path / f"log-{len(daemons)}"
        daemons.append(daemon := Daemon("-c", str(tmp_path / "config.toml"), *arguments, log=log))
        eventually(lambda: len(landmarks(outside)) > seen + 3, 30)
        return daemon

    return begin
