"""The command where only the base set is installed, as on an operator's laptop."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge.cli import COMMANDS
from tests.cli.test_send import fake_device
from tests.servers import mosquitto

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DEVICE_PACKAGES = ["amqtt", "av", "cv2", "flatbuffers", "mediapipe", "numpy", "rerun"]

DECODE = """
import cbor2
from edge.mqtt.wire.v1 import decode_landmarks, encode_binary
assert decode_landmarks(b'{"v":1,"seq":3,"t_us":0,"people":[]}').seq == 3
(person,) = decode_landmarks(encode_binary(4, 0, [(1, 0.5, bytes(33 * 16), None)], 33)).people
assert len(person.image) == 33
"""


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    # Elsewhere than in the tree, which Python would take in the place of what is installed.
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("EDGE_POSE", "PYTHON"))}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=100, cwd="/", env={**kept, **environment}
    )


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin directory of an environment with requirements/client.txt and the project, and nothing else."""
    folder = tmp_path_factory.mktemp("thin")
    venv = folder / "venv"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    began_s = time.monotonic()
    # The build backend is part of this environment and need not be of that one.
    wheel = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, ROOT]
    install = ["--python", venv / "bin" / "python", "install", "--quiet", "--no-deps"]
    for command in (
        [sys.executable, "-m", "venv", "--without-pip", venv],
        [*pip, *wheel],
        [*pip, *install, "--require-hashes", "-r", ROOT / "requirements" / "client.txt"],
        [*pip, *install, "--no-index", "--find-links", folder, "edge-pose"],
    ):
        # Not the environment that native code has: once MediaPipe was loaded here, that points to a proxy that is none.
        made = subprocess.run(command, check=False, capture_output=True, text=True, env={**os.environ})
        assert made.returncode == 0, made.stderr
    size = sum(path.stat().st_size for path in venv.rglob("*") if path.is_file() and not path.is_symlink())
    print(f"the thin environment: {size / 1e6:.1f} MB, made in {time.monotonic() - began_s:.0f} s")
    assert size < 60e6
    return venv / "bin"


def test_the_thin_environment_has_nothing_of_a_device(thin: Path) -> None:
    found = run(
        thin / "python", "-c", f"import importlib.util as u; print([m for m in {DEVICE_PACKAGES} if u.find_spec(m)])"
    )
    assert found.stdout == "[]\n", found.stderr


def test_what_is_listed_of_a_group_is_what_it_says_itself() -> None:
    for name, short in COMMANDS.items():
        group = getattr(importlib.import_module(f"edge.cli.{name}"), "app", None)
        assert group is None or group.info.help == short


def test_help_lists_every_command(thin: Path) -> None:
    listed = run(thin / "edge-pose", "--help")
    assert listed.returncode == 0, listed.stderr
    for name, short in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(short)}$", listed.stdout, re.MULTILINE), listed.stdout
    assert run(thin / "python", "-m", "edge", "--version").stdout.startswith("edge-pose ")


@pytest.mark.parametrize("command", ["watch", "send", "check", "schema", "schema config", "recordings list"])
def test_what_needs_no_device_works(thin: Path, command: str) -> None:
    shown = run(thin / "edge-pose", *command.split(), "--help")
    assert (shown.returncode, shown.stderr) == (0, "")


def test_the_configuration_can_be_checked(thin: Path) -> None:
    checked = run(thin / "edge-pose", "check", "--set", "camera.front.source=synthetic")
    assert checked.returncode == 0, checked.stderr
    schema = run(thin / "edge-pose", "schema", "config")
    assert (schema.returncode, schema.stderr) == (0, "")


@pytest.mark.parametrize("command", ["run", "demo", "doctor", "bench", "models list"])
def test_what_needs_a_device_says_so_in_a_line(thin: Path, command: str) -> None:
    ended = run(thin / "edge-pose", *command.split())
    assert (ended.returncode, ended.stdout) == (69, "")
    missing = re.fullmatch(
        r"edge-pose: this command needs the package (\S+), which is not installed: "
        r"install requirements/device.txt as requirements/README.md says\n",
        ended.stderr,
    )
    assert missing, ended.stderr
    assert missing[1] in {"flatbuffers", "numpy"}  # whichever is imported first


def test_what_needs_a_viewer_says_so_in_a_line(thin: Path) -> None:
    ended = run(thin / "edge-pose", "view", "hub.local")
    missing = "this command needs the package h2, which is not installed"
    remedy = "install requirements/viewer.txt as requirements/README.md says"
    assert (ended.returncode, ended.stdout, ended.stderr) == (69, "", f"edge-pose: {missing}: {remedy}\n")


def test_a_fleet_is_watched_and_told_what_to_do(thin: Path) -> None:
    with mosquitto() as broker, fake_device(broker.port, lambda *_: {"session": "run-1"}) as device:
        device.publish("state", b"online", retain=True)
        watched = run(thin / "edge-pose", "watch", broker.url, "--seconds", "1.5")
        sent = run(thin / "edge-pose", "send", "hall", "ping", EDGE_POSE__MQTT__URL=broker.url)
    assert watched.returncode == 0, watched.stderr
    assert watched.stdout.splitlines()[1].split()[:3] == ["hall", "-", "online"]
    assert (sent.returncode, sent.stdout) == (0, "hall: ping done\n  session: run-1\n"), sent.stderr


def test_messages_can_be_read(thin: Path) -> None:
    decoded = run(thin / "python", "-c", DECODE)
    assert decoded.returncode == 0, decoded.stderr


def test_listing_and_listening_import_little() -> None:
    slow = {"pydantic", "rich", "paho", "msgspec", "numpy", "mediapipe"}

    def imported(what: str) -> list[str]:
        probe = f"import sys; from edge.{what}; print(*sorted({slow} & {{*sys.modules}}))"
        found = run(sys.executable, "-c", probe, PYTHONPATH=str(ROOT))
        assert found.returncode == 0, found.stderr
        return found.stdout.split()

    assert imported("cli import app") == []
    assert imported("mqtt.wire import v1") == ["msgspec"]
    for command in ("watch", "send", "recordings"):
        assert "numpy" not in imported(f"cli import {command}")
    assert "mediapipe" not in imported("bench.rounds import run")
