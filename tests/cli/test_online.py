"""The gate of site.yml, ansible/roles/edge_pose/files/host/online.py, and the daemon that it asks."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Configure, Daemon, states
from tests.conftest import eventually
from tests.mqtt.test_sink import Subscriber
from tests.servers import free_port

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

GATE = Path(__file__).parents[2] / "ansible/roles/edge_pose/files/host/online.py"

Start = Callable[..., Daemon]


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "run"
    directory.mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(directory))
    return directory


def status(runtime: Path) -> dict[str, Any]:
    """What the daemon says; empty when there is nothing."""
    try:
        told: dict[str, Any] = json.loads((runtime / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return told


def broker_state(runtime: Path) -> str:
    return str(status(runtime).get("broker", {}).get("state"))


def gate(runtime: Path, timeout_s: float) -> str:
    """Empty when it says that the daemon is online; else what it says."""
    # As the role runs it: from standard input, by a Python that has no packages of ours.
    command = [sys.executable, "-I", "-S", "-", str(runtime), str(timeout_s)]
    done = subprocess.run(command, check=False, input=GATE.read_text(), capture_output=True, text=True, timeout=90)
    assert done.returncode == bool(done.stderr), done.stderr
    return done.stderr.strip()


def test_it_lets_through_what_the_broker_has_and_connects_to_nobody(
    runtime: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure()
    daemon = start()
    assert gate(runtime, 30) == ""
    assert states(outside) == [b"online"]
    told = status(runtime)
    assert (told["ready"], told["summary"]) == (True, "device hall, cameras front")
    assert told["broker"] == {"state": "online", "connection": 1}
    assert f"session {told['session']} of device hall begins" in daemon.log
    assert daemon.stop() == 0
    assert not (runtime / "status.json").exists()


def test_it_says_what_the_daemon_says_of_a_broker_that_is_away(
    runtime: Path, configure: Configure, start: Start, tmp_path: Path, daemons: list[Daemon]
) -> None:
    configure()
    file = tmp_path / "config.toml"
    nobody = f"127.0.0.1:{free_port()}"
    daemons.append(Daemon("-c", str(file), "--set", f"mqtt.url=mqtt://{nobody}", log=tmp_path / "log"))
    eventually(lambda: status(runtime).get("ready") and nobody in status(runtime)["broker"]["state"], 30)
    why = gate(runtime, 1)
    assert why.startswith(f"edge-pose is not online after 1 s: broker {nobody}: ")
    assert "refused" in why


def test_no_broker_by_configuration_is_nothing_to_wait_for(
    runtime: Path, configure: Configure, tmp_path: Path, daemons: list[Daemon]
) -> None:
    configure()
    file = tmp_path / "config.toml"
    file.write_text(file.read_text().replace("[mqtt]\nurl", "[mqtt]\n#"))
    daemons.append(Daemon("-c", str(file), log=tmp_path / "log"))
    assert gate(runtime, 40) == ""
    assert status(runtime)["broker"] == {"state": "off", "connection": 0}


def test_a_reload_that_is_refused_shows_and_one_to_another_broker_too(
    runtime: Path, configure: Configure, start: Start, tmp_path: Path
) -> None:
    configure()
    daemon = start()
    eventually(lambda: broker_state(runtime) == "online")
    configure(mqtt="x = 1")
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: status(runtime)["summary"].startswith("not reloaded: "))
    assert "x: unknown key" in gate(runtime, 1)
    configure()
    file = tmp_path / "config.toml"
    nobody = f"127.0.0.1:{free_port()}"
    good = file.read_text()
    file.write_text(good.replace(good.split('url = "')[1].split('"')[0], f"mqtt://{nobody}"))
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: broker_state(runtime).startswith(f"{nobody}: "))
    assert gate(runtime, 1).startswith(f"edge-pose is not online after 1 s: broker {nobody}: ")


def test_what_was_killed_or_hangs_is_not_online_whatever_its_file_says(
    runtime: Path, configure: Configure, start: Start
) -> None:
    configure()
    daemon = start()
    eventually(lambda: broker_state(runtime) == "online")
    daemon.process.kill()
    daemon.process.wait()
    assert broker_state(runtime) == "online"
    assert "signs of life" in gate(runtime, 9.5)
    configure()
    start()
    eventually(lambda: broker_state(runtime) == "online")


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"ready": true}', '{"ready": true, "broker": "x"}'])
def test_what_is_no_status_is_told(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "status.json").write_text(content)
        (tmp_path / "alive").touch()
    why = gate(tmp_path, 0.1)
    assert "older than this playbook" in why or "another version" in why
    assert len(why.splitlines()) == 1
