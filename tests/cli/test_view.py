"""`edge-pose view`: a viewer on what a hub has, and what is said where there is none."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from edge.cli.hub_access import hub_access
from edge.errors import ConfigError
from tests.cli.command import COMMAND, edge_pose
from tests.conftest import eventually
from tests.rerun_log.reading import rows
from tests.rerun_log.tls_hub import TlsHub, tls_hub
from tests.servers import rerun_server

pytestmark = pytest.mark.system

PATIENCE_S = 20.0
NO_SCREEN = {"DISPLAY": "", "WAYLAND_DISPLAY": ""}


@pytest.fixture(scope="module")
def hub() -> Iterator[TlsHub]:
    with tls_hub() as started:
        started.push(0, 1)
        yield started


def options(hub: TlsHub, who: str = "reader") -> list[str]:
    files = {"ca": "ca.crt", "cert": f"{who}.crt", "key": f"{who}.key"}
    return [part for name, file in files.items() for part in (f"--{name}", str(hub.folder / file))]


class View:
    """The command in the background, which writes into a file."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._file = folder / "seen.rrd"
        self._log = folder / "log"
        with self._log.open("w") as out:
            command = [*COMMAND, "view", *arguments, "--save", str(self._file)]
            self.process = subprocess.Popen(command, stdout=out, stderr=out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def has(self, *frames: int) -> bool:
        with contextlib.suppress(OSError, ValueError, subprocess.CalledProcessError):  # it has just begun
            return set(frames) <= set(rows(self._file).get("/points", ()))
        return False

    @property
    def viewers(self) -> list[int]:
        """The process that it has started, if it has."""
        return [
            int(child)
            for child in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    @property
    def viewer_arguments(self) -> list[str]:
        with contextlib.suppress(OSError):
            return [word for child in self.viewers for word in Path(f"/proc/{child}/cmdline").read_text().split("\0")]
        return []


def test_it_shows_what_the_hub_has_until_it_is_ended_and_leaves_no_viewer(hub: TlsHub, tmp_path: Path) -> None:
    with View(tmp_path, str(hub.address), *options(hub)) as view:
        eventually(lambda: view.has(0, 1), PATIENCE_S)
        (viewer,) = view.viewers
        view.process.send_signal(signal.SIGTERM)
        assert view.process.wait(PATIENCE_S) == 0
        assert not Path(f"/proc/{viewer}").exists()
        assert view.log == ""


def test_a_viewer_that_is_closed_ends_it(hub: TlsHub, tmp_path: Path) -> None:
    with View(tmp_path, str(hub.address), *options(hub)) as view:
        eventually(lambda: view.has(0, 1), PATIENCE_S)
        os.kill(view.viewers[0], signal.SIGKILL)
        assert view.process.wait(PATIENCE_S) == 1
        assert view.log == "edge-pose: the viewer was ended by signal 9\n"


def test_a_hub_that_is_away_is_waited_for(tmp_path: Path) -> None:
    with tls_hub() as hub:
        hub.push(0)
        hub.kill()
        with View(tmp_path, str(hub.address), *options(hub)) as view:
            away = f"the hub at {hub.address} is away: Connection refused; it is tried again"
            eventually(lambda: away in view.log, PATIENCE_S)
            hub.start(version="0.40.1")
            eventually(lambda: view.has(0), PATIENCE_S)
            view.process.send_signal(signal.SIGINT)
            assert view.process.wait(PATIENCE_S) == 0
        assert view.log.count("is away") == 1
        assert view.log.count("the hub has Rerun 0.40.1 and this viewer is 0.41.0") == 1


def test_ctrl_c_ends_the_waiting(tmp_path: Path) -> None:
    with View(tmp_path, "127.0.0.1:1") as view:
        eventually(lambda: "is away" in view.log, PATIENCE_S)
        view.process.send_signal(signal.SIGINT)
        assert view.process.wait(PATIENCE_S) == 0


def test_the_configuration_may_say_it_all(hub: TlsHub, tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    files = "\n".join(
        f'{key}_file = "{hub.folder}/{name}"'
        for key, name in (("ca", "ca.crt"), ("cert", "reader.crt"), ("key", "reader.key"))
    )
    file.write_text(f'[rerun]\nurl = "rerun+https://{hub.address}/proxy"\n{files}\n[mqtt]\nca_file = "/not/here"\n')
    with View(tmp_path, "--config", str(file)) as view:
        eventually(lambda: view.has(0, 1), PATIENCE_S)


def test_a_server_without_tls_is_for_the_viewer_itself(tmp_path: Path) -> None:
    with rerun_server() as server, View(tmp_path, server.url) as view:
        eventually(lambda: server.url in view.viewer_arguments, PATIENCE_S)


def test_a_hub_that_refuses_is_told_in_a_line(hub: TlsHub) -> None:
    ended = edge_pose("view", str(hub.address), *options(hub, "device"), "--save", "never.rrd")
    assert (ended.returncode, ended.stdout) == (69, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"edge-pose: the hub at {hub.address}: it ")
    assert "does not let this certificate read (403)" in line


def test_a_hub_that_nobody_signed_for_is_told_in_a_line(hub: TlsHub) -> None:
    ended = edge_pose("view", str(hub.address), "--save", "never.rrd")
    assert ended.returncode == 69
    assert re.fullmatch(r"edge-pose: .*its certificate is refused .*; see rerun.ca_file.*\n", ended.stderr)


def test_where_there_is_no_screen_that_is_said() -> None:
    ended = edge_pose("view", "hub.local", **NO_SCREEN)
    assert ended.returncode == 69
    assert re.fullmatch(r"edge-pose: no screen: .* docs/hub.md\n", ended.stderr)


def test_a_screen_that_is_not_there_is_told_by_the_viewer(hub: TlsHub, tmp_path: Path) -> None:
    ended = edge_pose("view", str(hub.address), *options(hub), DISPLAY=":4711", WAYLAND_DISPLAY="", PATH=str(tmp_path))
    assert ended.returncode == 1
    without_ffmpeg, ended_line = ended.stderr.splitlines()
    assert "sudo apt install ffmpeg" in without_ffmpeg
    assert ended_line.startswith("edge-pose: the viewer ended with code 1: ")


def test_what_is_wrong_is_told_before_anything_starts() -> None:
    ended = edge_pose("view", "hub", "--cert", "/not/here.pem", "--ca", "/dev/null")
    assert ended.returncode == 78
    assert ended.stderr.splitlines() == [
        "edge-pose: --set: rerun.ca_file = '/dev/null': is no regular file",
        "edge-pose: --set: rerun.cert_file = '/not/here.pem': no such file",
        "edge-pose: default: rerun.key_file = '': is required beside rerun.cert_file: a certificate and its key",
    ]


@pytest.mark.parametrize(
    ("hub", "told"),
    [
        ("http://hub", r"view: HUB = 'http://hub': expected NAME, NAME:PORT or rerun\+https://NAME:PORT/proxy"),
        (None, "no hub to go to: give its name"),
    ],
)
def test_a_hub_has_a_name(hub: str | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_POSE_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=told):
        hub_access(None, None, hub, {})
