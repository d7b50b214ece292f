"""`edge-pose run` as a process: real model, real broker, real Rerun server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.command import COMMAND, edge_pose, run_settings
from tests.cli.conftest import PREFIX, Daemon, landmarks
from tests.conftest import eventually
from tests.mqtt.test_sink import subscriber
from tests.rerun_log.reading import received, rows, static
from tests.servers import Server, free_port, rerun_server

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

ENTITIES = {
    "/camera/front/video",
    "/camera/front/video/mask",
    "/camera/front/video/pose/points",
    "/camera/front/person/pose/points",
    "/camera/front/angles",
}


def test_a_clip_from_end_to_end(broker: Server, tmp_path: Path) -> None:
    with rerun_server() as viewer, subscriber(broker.port) as outside:
        settings = run_settings(
            device="hall",
            mqtt__url=broker.url,
            mqtt__landmarks_hz="unlimited",
            rerun__url=viewer.url,
            rerun__record_dir=tmp_path,
        )
        run = edge_pose("run", *settings)
        assert run.returncode == 0, run.stderr
        eventually(lambda: outside.payloads(f"{PREFIX}/state") == [b"online", b"stopped"], 5)
        messages = landmarks(outside)
        (recording,) = tmp_path.glob("hall-*.rrd")
        recorded = {entity: found for entity, found in rows(recording).items() if entity in ENTITIES}
        streamed = received(viewer.url, tmp_path / "seen", expect=dict.fromkeys(ENTITIES, 60))
    frames = list(range(60))
    assert [message["seq"] for message in messages] == frames
    assert recorded == dict.fromkeys(ENTITIES, frames)
    assert {entity: sorted(streamed[entity]) for entity in ENTITIES} == recorded
    assert static(recording).keys() == static(tmp_path / "seen").keys()
    info = json.loads(outside.payloads(f"{PREFIX}/info")[0])
    assert recording.name == f"hall-{info['session']}.0001.rrd"
    assert len(outside.payloads(f"{PREFIX}/camera/front/summary")) == 10
    assert "dropped" not in run.stderr
    assert "Traceback" not in run.stderr


def test_frames_without_people_have_their_message_too(broker: Server, tmp_path: Path) -> None:
    import cv2

    empty = tmp_path / "empty.avi"
    writer = cv2.VideoWriter(str(empty), cv2.VideoWriter.fourcc(*"MJPG"), 30, (320, 240))
    for _ in range(20):
        writer.write(cv2.UMat(240, 320, cv2.CV_8UC3).get() * 0)
    writer.release()
    with subscriber(broker.port) as outside:
        settings = run_settings(source=empty, device="hall", mqtt__url=broker.url, mqtt__landmarks_hz="unlimited")
        assert edge_pose("run", *settings).returncode == 0
        eventually(lambda: b"stopped" in outside.payloads(f"{PREFIX}/state"), 5)
        assert [(message["seq"], message["people"]) for message in landmarks(outside)] == [(n, []) for n in range(20)]


def test_two_cameras_in_one_daemon(broker: Server, tmp_path: Path, daemons: list[Daemon]) -> None:
    with subscriber(broker.port) as outside:
        settings = run_settings(device="hall", mqtt__url=broker.url, mqtt__landmarks_hz="unlimited")
        settings += ["--set", "camera.drawn.source=synthetic", "--set", "camera.drawn.fps=5"]
        settings += ["--set", f"rerun.record_dir={tmp_path}"]
        daemons.append(daemon := Daemon(*settings, log=tmp_path / "log"))
        eventually(lambda: len(landmarks(outside)) == 60, 60)
        eventually(lambda: sum(bool(message["people"]) for message in landmarks(outside, "drawn")) > 5, 30)
        assert daemon.stop() == 0
        eventually(lambda: b"stopped" in outside.payloads(f"{PREFIX}/state"), 5)
        assert [message["seq"] for message in landmarks(outside)] == list(range(60))
    (recording,) = tmp_path.glob("*.rrd")
    assert {entity.split("/")[2] for entity in rows(recording) if entity.startswith("/camera/")} == {"front", "drawn"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(number: signal.Signals, broker: Server, tmp_path: Path, daemons: list[Daemon]) -> None:
    with rerun_server() as viewer, subscriber(broker.port) as outside:
        settings = run_settings(
            device="hall",
            camera__front__loop=True,
            mqtt__url=broker.url,
            rerun__url=viewer.url,
            rerun__record_dir=tmp_path,
        )
        daemons.append(daemon := Daemon(*settings, log=tmp_path / "log"))
        eventually(lambda: len(landmarks(outside)) > 10, 30)
        assert daemon.stop(number) == 0
        eventually(lambda: outside.payloads(f"{PREFIX}/state") == [b"online", b"stopped"], 5)
    (recording,) = tmp_path.glob("*.rrd")
    assert len(rows(recording)["/camera/front/video/pose/points"]) > 10


def test_with_everybody_absent_it_runs_and_ends(tmp_path: Path, daemons: list[Daemon]) -> None:
    settings = run_settings(
        camera__front__loop=True,
        camera__front__pace="unlimited",
        mqtt__url=f"mqtt://127.0.0.1:{free_port()}",
        rerun__url=f"rerun+http://127.0.0.1:{free_port()}/proxy",
        rerun__record_dir=tmp_path,
    )
    daemons.append(daemon := Daemon(*settings, log=tmp_path / "log"))
    eventually(lambda: _points(tmp_path) > 20, 30)
    assert daemon.stop() == 0
    assert "rerun link" not in daemon.log.split("dropped:")[1], "it is recorded, and noted for the next run"
    assert list(tmp_path.glob(".unshipped.*.json"))
    assert "mqtt landmarks" in daemon.log.split("dropped:")[1]


def test_with_everybody_frozen_it_ends_in_time_and_keeps_its_recording(
    broker: Server, tmp_path: Path, daemons: list[Daemon]
) -> None:
    with rerun_server() as viewer, subscriber(broker.port) as outside:
        settings = run_settings(
            device="hall",
            camera__front__loop=True,
            camera__front__pace="unlimited",
            mqtt__url=broker.url,
            mqtt__landmarks_hz="unlimited",
            rerun__url=viewer.url,
            # A broker that wakes up acknowledges events to a connection that is gone, takes that for a failure, and
            # announces the will behind what was said last.
            people__events="[]",
            rerun__record_dir=tmp_path,
        )
        daemons.append(daemon := Daemon(*settings, log=tmp_path / "log"))
        eventually(lambda: len(landmarks(outside)) > 10, 30)
        for server in (broker, viewer):
            server.process.send_signal(signal.SIGSTOP)
        before = _points(tmp_path)
        eventually(lambda: "it has taken nothing for" in daemon.log and _points(tmp_path) > before + 60, 60)
        assert daemon.stop() == 0
        assert _points(tmp_path) > before + 60
        for server in (broker, viewer):
            server.process.send_signal(signal.SIGCONT)
        eventually(lambda: outside.payloads(f"{PREFIX}/state")[-1] == b"stopped", 10)


def _points(directory: Path) -> int:
    try:
        (recording,) = directory.glob("*.rrd")
        return len(rows(recording).get("/camera/front/video/pose/points", ()))
    except ValueError:  # not there yet, or nothing in it yet
        return 0


def test_killed_it_leaves_its_last_will_and_a_readable_recording(
    broker: Server, tmp_path: Path, daemons: list[Daemon]
) -> None:
    with subscriber(broker.port) as outside:
        settings = run_settings(
            device="hall", camera__front__loop=True, mqtt__url=broker.url, rerun__record_dir=tmp_path
        )
        daemons.append(daemon := Daemon(*settings, log=tmp_path / "log"))
        eventually(lambda: len(landmarks(outside)) > 60, 30)
        daemon.process.kill()
        eventually(
            lambda: outside.payloads(f"{PREFIX}/state") == [b"online", b"offline"], 15
        )  # the will waits a little
    assert _points(tmp_path) > 20


def test_a_second_signal_does_not_wait(broker: Server, tmp_path: Path, daemons: list[Daemon]) -> None:
    with subscriber(broker.port) as outside:
        settings = run_settings(device="hall", camera__front__loop=True, mqtt__url=broker.url)
        daemons.append(daemon := Daemon(*settings, log=tmp_path / "log"))
        eventually(lambda: len(landmarks(outside)) > 0, 30)
        broker.process.send_signal(signal.SIGSTOP)  # the orderly end now waits for an acknowledgement
        daemon.process.send_signal(signal.SIGINT)
        eventually(lambda: "stopping" in daemon.log, 5)

        def ends_now() -> bool:  # once it is no longer taken for the same request
            daemon.process.send_signal(signal.SIGINT)
            return daemon.process.poll() is not None

        eventually(ends_now, 5)
        assert daemon.process.returncode == 130
        broker.process.send_signal(signal.SIGCONT)


def test_before_there_is_anything_to_end_in_order_it_ends_at_once(tmp_path: Path, daemons: list[Daemon]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = f"http://127.0.0.1:{silent.getsockname()[1]}"
        settings = run_settings(pose__model_dir=tmp_path, pose__model_source=source)
        daemons.append(daemon := Daemon(*settings, log=tmp_path / "log"))
        asking, _ = silent.accept()  # the model is being fetched
        with asking:
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.stop() == 130


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("edge-pose: ")]


def test_an_impossible_configuration_is_told_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[camera.front]\nsource = "nowhere.mp4"\nfsp = 5\n[mqtt]\nurl = "http://x"\n')
    run = edge_pose("run", "--config", str(file))
    address = "an address such as mqtts://HOST:PORT, the scheme one of mqtts, mqtt, wss, ws"
    assert run.returncode == 78
    assert lines(run.stderr) == [
        f"edge-pose: {file}: camera.front.fsp: unknown key; did you mean fps?",
        f"edge-pose: {file}: mqtt.url = 'http://x': expected {address}",
    ]


def test_native_libraries_stay_quiet(tmp_path: Path) -> None:
    run = edge_pose("run", *run_settings(rerun__record_dir=tmp_path))
    assert run.returncode == 0
    assert all(" edge." in line for line in run.stderr.splitlines()), run.stderr


def test_nothing_is_printed_about_secrets(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("topsecret\n")
    settings = run_settings(
        source="rtsp://user:topsecret@127.0.0.1:1/stream", mqtt__password_file=password, mqtt__username="x"
    )
    broker = f"mqtt://127.0.0.1:{free_port()}"
    run = edge_pose("run", *settings, "--set", f"mqtt.url={broker}", "--seconds", "3", "--set", "log_level=debug")
    assert run.returncode == 0
    assert "***@127.0.0.1" in run.stderr
    assert "topsecret" not in run.stderr + run.stdout


@pytest.mark.parametrize(
    ("exceptions", "native"),
    [
        ("", None),
        ("*", None),
        ("localhost,.googleapis.com,camera.local", "localhost,camera.local"),
        ("com, .com,192.168.1.9", "192.168.1.9"),
    ],
)
def test_mediapipes_own_client_is_sent_nowhere_and_nobody_elses(
    model: Path, exceptions: str, native: str | None
) -> None:
    names = ("https_proxy", "no_proxy", "http_proxy")
    script = (
        "import ctypes, os, sys; from pathlib import Path; from edge.estimators.mediapipe import MediaPipeEstimator;"
        "MediaPipeEstimator(Path(sys.argv[1])).__enter__();"
        "libc = ctypes.CDLL(None); libc.getenv.restype = ctypes.c_char_p;"
        f"print([libc.getenv(name.encode()) for name in {names}], [os.environ[name] for name in {names}])"
    )
    proxy = "http://proxy.example:3128"
    surroundings = {**os.environ, "https_proxy": proxy, "http_proxy": proxy, "no_proxy": exceptions}
    command = [COMMAND[0], "-c", script, str(model)]
    seen = subprocess.run(command, check=True, capture_output=True, text=True, env=surroundings).stdout
    # What native code sees: MediaPipe's https client goes nowhere, FFmpeg goes its way, as http cameras need it.
    nowhere, rest = b"http://255.255.255.255:9", None if exceptions == "*" else proxy.encode()
    assert seen.strip() == f"{[nowhere, native.encode() if native else None, rest]} {[proxy, exceptions, proxy]}"
