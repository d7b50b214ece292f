"""`edge-pose doctor`."""

from __future__ import annotations

import json
import re
import socket
import threading
from pathlib import Path

import pytest

from tests.cli.command import edge_pose, run_settings
from tests.cli.conftest import PREFIX, Daemon, states
from tests.conftest import CLIP, eventually
from tests.mqtt.test_sink import subscriber
from tests.rerun_log.reading import received
from tests.servers import free_port, mosquitto, one_session_a_user_settings, rerun_server

pytestmark = pytest.mark.system

MACHINE = {"cameras", "clock", "temperature", "disk", "memory"}


def findings(*settings: str, exit_code: int, **environment: str) -> dict[str, dict[str, str]]:
    doctor = edge_pose("doctor", "--json", *settings, **environment)
    assert doctor.stderr == ""
    listed = json.loads(doctor.stdout)
    assert all(list(finding) == ["name", "verdict", "detail", "remedy"] for finding in listed)
    assert all(finding["remedy"] for finding in listed if finding["verdict"] in {"failed", "warning"})
    assert doctor.returncode == exit_code, doctor.stdout
    return {finding["name"]: finding for finding in listed}


@pytest.mark.usefixtures("model")
def test_where_all_is_well_each_part_was_tried_and_nobody_notices(tmp_path: Path) -> None:
    with mosquitto() as broker, rerun_server() as hub, subscriber(broker.port) as outside:
        settings = run_settings(mqtt__url=broker.url, rerun__url=hub.url, rerun__record_dir=tmp_path / "recordings")
        found = findings(*settings, exit_code=0)
        assert outside.messages == []
        with pytest.raises(ValueError, match="No recording store"):
            received(hub.url, tmp_path / "seen", expect={})
    assert not (tmp_path / "recordings").exists()
    verdicts = {name: finding["verdict"] for name, finding in found.items()}
    parts = {"config", "cpu", "model", "estimator", "camera.front", "broker", "hub", "serve", "privacy"}
    assert verdicts.keys() == parts | MACHINE
    assert {verdicts[name] for name in parts - {"serve"}} == {"ok"}
    assert verdicts["serve"] == "off"
    assert "finds a drawn figure in" in found["estimator"]["detail"]
    assert found["camera.front"]["detail"] == "file, 640x480"
    assert found["broker"]["detail"] == f"{broker.url} speaks MQTT 5"


@pytest.mark.usefixtures("model")
def test_a_picture_of_each_camera_is_kept_on_request(tmp_path: Path) -> None:
    found = findings("--save", str(tmp_path / "pictures"), *run_settings(), exit_code=0)
    assert found["camera.front"]["detail"].endswith(f"{tmp_path}/pictures/front.jpg")
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["front.jpg"]


def test_a_picture_of_no_camera_is_refused(tmp_path: Path) -> None:
    doctor = edge_pose("doctor", "--save", str(tmp_path / "pictures"))
    assert (doctor.returncode, doctor.stdout) == (2, "")
    assert "no camera is configured, give one with --set camera.front.source=..." in doctor.stderr


@pytest.mark.parametrize("mode", ["mask", "landmarks"])
def test_nobody_sees_a_picture_where_privacy_forbids_it(mode: str, tmp_path: Path) -> None:
    doctor = edge_pose("doctor", "--save", str(tmp_path / "pictures"), *run_settings(privacy__mode=mode))
    assert (doctor.returncode, doctor.stdout) == (78, "")
    assert doctor.stderr == (
        f"edge-pose: --save {tmp_path}/pictures: nobody may see pictures while privacy.mode is {mode}\n"
    )
    assert not (tmp_path / "pictures").exists()


@pytest.mark.usefixtures("model")
def test_people_get_lines_and_a_verdict() -> None:
    doctor = edge_pose("doctor", *run_settings(source="synthetic"))
    lines = doctor.stdout.splitlines()
    assert "- broker       mqtt.url is empty: nothing is published" in lines
    assert any(re.fullmatch(r"✓ camera.front synthetic, 640x480 at \d+/s", line) for line in lines)
    assert lines[-1] == "doctor: OK: the main job can run"
    assert doctor.returncode == 0


@pytest.mark.usefixtures("model")
def test_without_a_usable_configuration_the_machine_is_examined_all_the_same(tmp_path: Path) -> None:
    found = findings(exit_code=0)
    assert found["config"]["verdict"] == "off", "none yet is no mistake"
    assert found["estimator"]["verdict"] == "ok"
    assert found.keys() >= MACHINE

    doctor = edge_pose("doctor", *run_settings(source=tmp_path, mqtt__url="nonsense", pose__modle="full"))
    told = [line for line in doctor.stdout.splitlines() if line.startswith("✗ config")]
    assert len(told) == 2, "each mistake in a line of its own"
    assert doctor.stdout.splitlines()[-1] == "doctor: FAILED: config"


@pytest.mark.usefixtures("model")
def test_an_absent_or_strange_broker_and_hub_are_told() -> None:
    nobody = free_port()
    with socket.create_server(("127.0.0.1", 0)) as silent, mosquitto() as broker:
        silent.listen()
        port = silent.getsockname()[1]
        for mqtt, hub, broker_reason, hub_reason in (
            (f"mqtt://127.0.0.1:{nobody}", nobody, "Connection refused", "Connection refused"),
            (f"mqtt://127.0.0.1:{port}", broker.port, "the broker accepts the connection and says nothing", "no Rerun"),
        ):
            url = f"rerun+http://127.0.0.1:{hub}/proxy"
            found = findings(*run_settings(source="synthetic", mqtt__url=mqtt, rerun__url=url), exit_code=1)
            assert (found["broker"]["verdict"], found["hub"]["verdict"]) == ("failed", "failed")
            assert broker_reason in found["broker"]["detail"]
            assert hub_reason in found["hub"]["detail"]


def test_the_exit_code_is_the_one_that_run_would_end_with(tmp_path: Path, model: Path) -> None:
    text = tmp_path / "clip.mp4"
    text.write_text("not a film")
    damaged = tmp_path / "models"
    damaged.mkdir()
    (damaged / model.name).write_bytes(b"damaged")
    for settings, exit_code, name in (
        (run_settings(source=text), 66, "camera.front"),
        (run_settings(pose__model_dir=damaged), 69, "model"),
        (run_settings(pose__model_dir=tmp_path, pose__model_source="off"), 69, "model"),
        (run_settings(source=CLIP.with_name("nowhere.mp4")), 78, "config"),
    ):
        assert findings(*settings, exit_code=exit_code)[name]["verdict"] == "failed"
        assert edge_pose("run", *settings).returncode == exit_code


def test_a_model_that_run_would_fetch_is_a_warning(tmp_path: Path) -> None:
    found = findings(*run_settings(source="synthetic", pose__model_dir=tmp_path), exit_code=0)
    assert found["model"]["verdict"] == "warning"
    assert found["estimator"]["verdict"] == "off"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("model")
def test_beside_a_daemon_whose_session_it_gets_nothing_is_announced_and_no_command_lost(
    tmp_path: Path, daemons: list[Daemon]
) -> None:
    with mosquitto(settings=one_session_a_user_settings(port := free_port())) as broker, subscriber(port) as outside:
        settings = run_settings(device="hall", mqtt__url=broker.url, mqtt__username="hall")
        daemons.append(daemon := Daemon(*settings, "--set", "camera.front.loop=true", log=tmp_path / "log"))
        eventually(lambda: states(outside) == [b"online"], 30)
        done = threading.Event()
        sent = []

        def send() -> None:
            while not done.wait(0.1):
                outside.send(f"{PREFIX}/cmd/ping", json.dumps({"id": f"p{len(sent)}"}))
                sent.append(f"p{len(sent)}")

        sender = threading.Thread(target=send)
        sender.start()
        try:
            found = findings(*settings, exit_code=0)["broker"]
        finally:
            done.set()
            sender.join()
        assert found["detail"].startswith(f"{broker.url} speaks MQTT 5; it has one session")

        def answered() -> set[str]:
            return {json.loads(payload)["id"] for payload in outside.payloads(f"{PREFIX}/reply/ping")}

        eventually(lambda: sent[-1] in answered(), 10)
        assert daemon.log.count("connection lost") == 1
        assert daemon.stop() == 0
        # Answers go with the connection, sent or dropped; that they were given shows in the summary, in a line each.
        given = sum(map(int, re.findall(r"mqtt reply (\d+)", daemon.log)))
        assert given >= len(sent), daemon.log
        eventually(lambda: {*states(outside)} == {b"online", b"stopped"})
