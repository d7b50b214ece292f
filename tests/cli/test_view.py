"""`edge-pose view`: a viewer on what a hub has, and what is said where there is none."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from edge.cli.hub_access import hub_access
from edge.cli.new_file import why_not
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
        begun, ended = view.log.splitlines()
        assert begun == f"writing what comes into {tmp_path}/seen.rrd, until Ctrl-C"
        assert ended == f"{tmp_path}/seen.rrd: {(tmp_path / 'seen.rrd').stat().st_size / 1e6:.1f} MB"


def test_a_viewer_that_is_closed_ends_it(hub: TlsHub, tmp_path: Path) -> None:
    with View(tmp_path, str(hub.address), *options(hub)) as view:
        eventually(lambda: view.has(0, 1), PATIENCE_S)
        os.kill(view.viewers[0], signal.SIGKILL)
        assert view.process.wait(PATIENCE_S) == 1
        assert view.log.splitlines()[-1] == "edge-pose: the viewer was ended by signal 9"


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
        assert view.log.count("is away") == view.log.count(f"the hub at {hub.address} is there") == 1
        assert view.log.count("the hub has Rerun 0.40.1 and this viewer is 0.41.0") == 1


def test_ctrl_c_ends_the_waiting(tmp_path: Path) -> None:
    with View(tmp_path, "127.0.0.1:1") as view:
        eventually(lambda: "is away" in view.log, PATIENCE_S)
        view.process.send_signal(signal.SIGINT)
        assert view.process.wait(PATIENCE_S) == 0


def test_a_frozen_hub_does_not_hold_up_ctrl_c(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as frozen,
        View(tmp_path, f"127.0.0.1:{frozen.getsockname()[1]}") as view,
    ):
        asking = frozen.accept()[0]
        with asking:
            view.process.send_signal(signal.SIGINT)
            assert view.process.wait(PATIENCE_S) == 0  # before it is said to be away
        assert view.log == ""


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


def test_who_leaves_tls_out_is_told_how_a_hub_is_called(hub: TlsHub, tmp_path: Path) -> None:
    ended = edge_pose("view", f"rerun+http://{hub.address}/proxy", "--save", str(tmp_path / "never.rrd"))
    told = f"what answers there is no Rerun server; a hub is rerun+https://{hub.address}/proxy"
    assert (ended.returncode, ended.stdout) == (69, "")
    assert ended.stderr == f"edge-pose: the hub at {hub.address}: {told}\n"
    assert not (tmp_path / "never.rrd").exists()


def test_a_file_that_is_there_stays_and_the_hub_is_not_even_asked(tmp_path: Path) -> None:
    (tmp_path / "there.rrd").write_text("mine")
    ended = edge_pose("view", "127.0.0.1:1", "--save", str(tmp_path / "there.rrd"))
    told = f"edge-pose: {tmp_path}/there.rrd: is there already: give another name behind --save\n"
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)
    assert (tmp_path / "there.rrd").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("there.rrd", "is there already: rename it"),
        ("", "is a directory, and a file is wanted"),
        ("not/new.rrd", "can't be written: there is no directory {}/not"),
        ("there.rrd/new.rrd", "can't be written: Not a directory"),
        ("n" * 300, "can't be written: File name too long"),
        ("new.rrd", None),
    ],
)
def test_a_new_file_has_a_place(name: str, told: str | None, tmp_path: Path) -> None:
    (tmp_path / "there.rrd").write_text("mine")
    assert why_not(tmp_path / name, "rename it") == (told and told.format(tmp_path))


def test_a_hub_that_refuses_is_told_in_a_line(hub: TlsHub) -> None:
    ended = edge_pose("view", str(hub.address), *options(hub, "device"), "--save", "never.rrd")
    assert (ended.returncode, ended.stdout) == (69, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"edge-pose: the hub at {hub.address}: it ")
    assert "does not let this certificate read (403)" in line


def test_a_hub_that_nobody_signed_for_is_told_in_a_line(hub: TlsHub) -> None:
    ended = edge_pose("view", str(hub.address), "--save", "never.rrd")
    assert ended.returncode == 69
    assert re.fullmatch(r"edge-pose: .*its certificate is refused .*; see --ca and the name in HUB\n", ended.stderr)


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
        "edge-pose: view: --ca = '/dev/null': is no regular file",
        "edge-pose: view: --cert = '/not/here.pem': no such file",
        "edge-pose: view: --key = '': is required beside --cert: a certificate and its key",
    ]


@pytest.mark.parametrize(
    ("hub", "told"),
    [
        ("", "view: HUB = '': expected NAME, "),
        ("a b", "view: HUB = 'a b': expected NAME, .*, without a space"),
        ("hub\n", r"view: HUB = 'hub\\n': expected NAME, .*, without a space"),
        ("http://hub", r"view: HUB = 'http://hub': expected NAME, NAME:PORT or rerun\+https://NAME:PORT/proxy"),
        (None, "no hub to go to: give its name"),
    ],
)
def test_a_hub_has_a_name(hub: str | None, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_POSE_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=told):
        hub_access(None, None, hub, {})
