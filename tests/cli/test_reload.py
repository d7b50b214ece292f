"""SIGHUP: `edge-pose run` changes over to what the configuration says now, or stays with what it has."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.command import COMMAND
from tests.cli.conftest import PREFIX, Configure, Daemon, landmarks, states, statuses
from tests.conftest import eventually
from tests.mqtt.test_sink import Subscriber
from tests.rerun_log.reading import rows

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]


LANDMARKS = f"{PREFIX}/camera/front/landmarks"


def reload(daemon: Daemon, answer: str) -> None:
    times = daemon.log.count(answer)
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: daemon.log.count(answer) > times, 30)


def test_only_what_differs_is_exchanged(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Callable[[], Daemon]
) -> None:
    configure(more=f'[rerun]\nrecord_dir = "{tmp_path}"\n')
    daemon = start()
    reload(daemon, "reloaded: nothing that was read has changed")

    configure(mqtt='landmarks_hz = "unlimited"', more=f'[rerun]\nrecord_dir = "{tmp_path}"\n')
    reload(daemon, "reloaded: mqtt streams\n")
    seen = len(landmarks(outside))
    eventually(lambda: len(landmarks(outside)) > seen + 40, 30)
    seqs = [message["seq"] for message in landmarks(outside)[-40:]]
    assert seqs == list(range(seqs[0], seqs[0] + 40)), "every frame now, and the camera went on counting"
    assert seqs[0] > 10

    configure(mqtt='summary_hz = 1\nlandmarks_format = "cbor"', more=f'[rerun]\nrecord_dir = "{tmp_path}"\n')
    reload(daemon, "reloaded: mqtt streams\n")
    eventually(lambda: not outside.payloads(LANDMARKS)[-1].startswith(b"{"))

    def told() -> tuple[object, object]:  # the info comes after the first message of the new kind
        info = json.loads(outside.payloads(f"{PREFIX}/info")[-1])
        return info["landmarks"], info["summary"]["hz"]

    eventually(lambda: told() == ({"content_type": "application/cbor", "hz": 30.0}, 1.0))
    assert states(outside) == [b"online"], "the connection stayed"

    assert daemon.stop() == 0
    (recording,) = tmp_path.glob("*.rrd")
    indices = rows(recording)["/camera/front/video/pose/points"]
    assert indices == list(range(len(indices))), "the recording missed nothing"


def test_cameras_come_and_go_and_recordings_begin(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Callable[[], Daemon]
) -> None:
    configure()
    daemon = start()
    configure(more=f'[camera.drawn]\nsource = "synthetic"\n[rerun]\nrecord_dir = "{tmp_path}"\n')
    reload(daemon, "reloaded: rerun, camera drawn, pose of front\n")
    eventually(lambda: len(landmarks(outside, "drawn")) > 3, 30)

    configure(camera="drawn", source="synthetic", more=f'fps = 15\n[rerun]\nrecord_dir = "{tmp_path}"\n')
    reload(daemon, "reloaded: rerun, camera front, camera drawn\n")
    eventually(lambda: json.loads(outside.payloads(f"{PREFIX}/info")[-1])["cameras"].keys() == {"drawn"})
    seen = len(landmarks(outside, "drawn"))
    eventually(lambda: len(landmarks(outside, "drawn")) > seen + 5)
    seqs = [message["seq"] for message in landmarks(outside, "drawn")]
    assert seqs == sorted({*seqs}), "it goes on counting"
    last = landmarks(outside)[-1]["seq"]

    assert daemon.stop() == 0
    assert landmarks(outside)[-1]["seq"] == last, "the other camera is gone"
    assert statuses(outside)[-1] == b"", "and with it what was retained of it"
    assert statuses(outside, "drawn")[-1] == b"online"
    eventually(lambda: states(outside) == [b"online", b"stopped"])
    assert "nobody foresaw" not in daemon.log
    assert len(list(tmp_path.glob("*.rrd"))) == 2, "what was recorded before the cameras changed is a file of its own"


def test_a_configuration_that_can_not_be_used_changes_nothing(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Callable[[], Daemon]
) -> None:
    configure()
    daemon = start()
    refused = "not reloaded, the configuration in force stays: "
    before = states(outside)

    configure(mqtt="landmark_hz = 5\nsummary_hz = 'often'")
    reload(daemon, "mqtt.summary_hz = 'often'")
    assert f"{refused}{tmp_path}/config.toml: mqtt.landmark_hz: unknown key; did you mean landmarks_hz?" in daemon.log

    configure(more='[pose]\nmodel = "heavy"\n[camera.other]\nsource = "gone.mp4"\n')
    reload(daemon, "camera.other.source = 'gone.mp4': no such file")

    broken = tmp_path / "broken.task"
    broken.write_bytes(b"no model")
    configure(more=f'[pose]\nmodel = "{broken}"\n')
    reload(daemon, f"{refused}model {broken}: MediaPipe can't load it")

    assert states(outside) == before, "nothing was touched"
    seen = len(landmarks(outside))
    eventually(lambda: len(landmarks(outside)) > seen + 10, 30)
    seqs = [message["seq"] for message in landmarks(outside)]
    assert seqs == sorted({*seqs})
    assert seqs[-1] > 30
    assert daemon.stop() == 0


def test_a_camera_that_does_not_work_leaves_the_one_there_was(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Callable[[], Daemon]
) -> None:
    configure()
    daemon = start()
    text = tmp_path / "text.mp4"
    text.write_text("no film")
    configure(source=text)
    reload(daemon, f"stays: {text}: can't be read as video")
    seen = len(landmarks(outside))
    eventually(lambda: len(landmarks(outside)) > seen + 10, 30)

    (tmp_path / "config.toml").write_text("")
    reload(daemon, "camera: no camera: add one")
    assert daemon.stop() == 0
    assert daemon.log.count(" ERROR ") == 2


def test_the_service_manager_is_told_of_the_start_each_reload_and_the_end(
    tmp_path: Path, configure: Configure, start: Callable[[], Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert COMMAND
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    told: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)

        def hears(line: str) -> bool:
            try:
                while True:
                    told.extend(manager.recv(4096).decode().splitlines())
            except BlockingIOError:
                return line in told

        configure()
        daemon = start()
        eventually(lambda: hears("READY=1"))
        eventually(lambda: hears("STATUS=device hall, cameras front; broker online"))
        for config, answer in (({"mqtt": ""}, "reloaded: mqtt streams"), ({"mqtt": "x = 1"}, "not reloaded")):
            told.clear()
            configure(**config)
            reload(daemon, answer)
            eventually(lambda: hears("READY=1"))
            assert told.index("RELOADING=1") < told.index("READY=1")
            status = told[told.index("READY=1") + 1]
            assert status.startswith("STATUS=device hall" if answer.startswith("reloaded") else "STATUS=not reloaded: ")
        told.clear()
        eventually(lambda: hears("WATCHDOG=1"))
        assert daemon.stop() == 0
        assert hears("STOPPING=1")


def test_another_password_under_the_same_name_is_a_change(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Callable[[], Daemon]
) -> None:
    (tmp_path / "password").write_text("old")
    configure(mqtt=f'username = "hall"\npassword_file = "{tmp_path}/password"')
    daemon = start()
    (tmp_path / "password").write_text("new")
    reload(daemon, "reloaded: mqtt\n")
    assert daemon.stop() == 0


def test_the_end_does_not_wait_for_a_reload(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Callable[[], Daemon]
) -> None:
    configure()
    daemon = start()
    with contextlib.ExitStack() as silent:
        more, servers = "", []
        for name in ("a", "b", "c"):
            servers.append(silent.enter_context(socket.create_server(("127.0.0.1", 0))))
            more += f'[camera.{name}]\nsource = "rtsp://127.0.0.1:{servers[-1].getsockname()[1]}/"\n'
        configure(more=more)
        daemon.process.send_signal(signal.SIGHUP)
        servers[0].settimeout(20)
        silent.enter_context(servers[0].accept()[0])  # the first one is waited for, the others are next
        assert daemon.stop() == 0
    assert "not reloaded, the configuration in force stays: the daemon is asked to end" in daemon.log
    assert states(outside)[-1] == b"stopped"
