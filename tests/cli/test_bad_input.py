"""What people get wrong, and what breaks: each ends as one clear line and the documented exit code, or just works."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edge.config import SOURCES
from tests.cli.command import COMMAND, edge_pose, run_settings
from tests.conftest import CLIP, eventually
from tests.mqtt.test_sink import subscriber
from tests.rerun_log.reading import rows
from tests.servers import Server, certificates, free_port, mosquitto, tls_settings

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

CAMERA = "--set: camera.front.source"
REMEDY = f"give {SOURCES}"


def reported(run: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in run.stdout + run.stderr
    return [line.removeprefix("edge-pose: ") for line in run.stderr.splitlines() if line.startswith("edge-pose: ")]


def warnings(run: subprocess.CompletedProcess[str]) -> list[str]:
    assert "Traceback" not in run.stdout + run.stderr
    return [line.partition(": ")[2] for line in run.stderr.splitlines() if " WARNING " in line]


def content(name: str) -> bytes:
    clip = CLIP.read_bytes()
    return {"empty.mp4": b"", "text.mp4": b"this is not a film\n" * 100, "half.mp4": clip[: len(clip) // 2]}[name]


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "half.mp4"])
def test_a_file_that_is_no_film(tmp_path: Path, name: str) -> None:
    clip = tmp_path / name
    clip.write_bytes(content(name))
    run = edge_pose("run", *run_settings(source=clip))
    reason = "Invalid data found when processing input"
    assert reported(run) == [f"{clip}: can't be read as video ({reason}); give a file that ffplay shows"]
    assert run.returncode == 66


def test_files_that_are_not_there(tmp_path: Path) -> None:
    settings = run_settings(
        source="nowhere.mp4",
        pose__model="nowhere.task",
        mqtt__password_file="nowhere.txt",
        mqtt__ca_file=tmp_path,
        rerun__record_dir=CLIP / "recordings",
    )
    for command in ("check", "run"):
        run = edge_pose(command, *settings)
        assert reported(run) == [
            f"{CAMERA} = 'nowhere.mp4': no such file; {REMEDY}",
            "--set: pose.model = 'nowhere.task': no such file; give lite, full, heavy or the path of a .task file",
            "--set: mqtt.password_file = 'nowhere.txt': no such file",
            f"--set: mqtt.ca_file = '{tmp_path}': is a directory",
            f"--set: rerun.record_dir = '{CLIP}/recordings': can't be written: {CLIP} is no directory",
        ]
        assert run.returncode == 78


def raw_film(path: Path, sizes: list[tuple[int, int]], frames: int = 10) -> Path:
    """H.264 whose pictures' size changes, as cameras do when somebody changes their settings."""
    parts = []
    for width_px, height_px in sizes:
        with av.open(str(path), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
            for number in range(frames):
                grey = np.full((height_px, width_px, 3), 10 * number, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            container.mux(stream.encode(None))
        parts.append(path.read_bytes())
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("video", ["h264", "jpeg"])
def test_a_film_whose_size_changes_just_works(tmp_path: Path, video: str) -> None:
    clip = raw_film(tmp_path / "clip.h264", [(320, 240), (640, 480), (160, 120)])
    run = edge_pose("run", *run_settings(source=clip, rerun__record_dir=tmp_path, rerun__video=video))
    assert run.returncode == 0, run.stderr
    assert warnings(run) == []
    (recording,) = tmp_path.glob("*.rrd")
    found = rows(recording)
    assert found["/camera/front/video"] == found["/camera/front/video/pose/points"] == list(range(30))


def test_a_film_with_damaged_packets_goes_on_and_says_so_once(tmp_path: Path) -> None:
    with av.open(str(CLIP)) as film:
        places = [packet.pos for packet in film.demux(video=0) if packet.pos]
    damaged = bytearray(CLIP.read_bytes())
    for place in places[20:30]:
        damaged[place : place + 4] = b"\xff\xff\xff\xff"  # more bytes than there are
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(damaged)
    run = edge_pose("run", *run_settings(source=clip, rerun__record_dir=tmp_path))
    assert run.returncode == 0, run.stderr
    assert [line.startswith("camera front: a packet can't be decoded, going on") for line in warnings(run)] == [True]
    (recording,) = tmp_path.glob("*.rrd")
    assert 20 < len(rows(recording)["/camera/front/video/pose/points"]) < 60


def test_a_picture_without_people_is_one_frame_with_nobody_in_it(tmp_path: Path) -> None:
    picture = tmp_path / "nobody: a photo.jpg"
    cv2.imwrite(str(picture), np.full((480, 640, 3), 128, np.uint8))
    with mosquitto() as broker, subscriber(broker.port) as outside:
        run = edge_pose("run", *run_settings(source=picture, device="hall", mqtt__url=broker.url))
        eventually(lambda: outside.payloads("pose/v1/hall/state") == [b"online", b"stopped"], 5)
        (message,) = outside.payloads("pose/v1/hall/camera/front/landmarks")
    assert run.returncode == 0, run.stderr
    assert message.endswith(b'"people":[]}')


def test_a_truncated_model(tmp_path: Path, model: Path) -> None:
    own = tmp_path / "mine.task"
    own.write_bytes(model.read_bytes()[:3_000_000])
    run = edge_pose("run", *run_settings(pose__model=own))
    (line,) = reported(run)
    assert line.startswith(f"model {own}: MediaPipe can't load it (")
    assert line.endswith("); use lite, full or heavy")
    assert run.returncode == 69

    (tmp_path / "pose_landmarker_full.task").write_bytes(own.read_bytes())
    run = edge_pose("run", *run_settings(pose__model_dir=tmp_path))
    (line,) = reported(run)
    assert line.endswith("'edge-pose models fetch full' replaces it")
    assert run.returncode == 69


def without_roots_powers(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command so that permissions count for root too."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"] if os.getuid() == 0 else []
    return subprocess.run(
        [*drop, *COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


@pytest.fixture
def sealed(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "sealed"
    directory.mkdir(mode=0o555)
    yield directory
    directory.chmod(0o755)


def test_a_state_directory_that_cannot_be_written(sealed: Path) -> None:
    run = without_roots_powers("run", *run_settings(), STATE_DIRECTORY=str(sealed))
    assert reported(run) == [f"model full: {sealed}/models can't be written: Permission denied; see pose.model_dir"]
    assert run.returncode == 69

    run = without_roots_powers("run", *run_settings(rerun__record_dir=sealed / "recordings"))
    reason = f"can't be written: no permission for {sealed}, or it is read-only"
    assert reported(run) == [f"--set: rerun.record_dir = '{sealed}/recordings': {reason}"]
    assert run.returncode == 78


@pytest.mark.parametrize("broker", ["mosquitto", "builtin"])
def test_a_port_that_is_taken(broker: str) -> None:
    with mosquitto() as other:
        run = edge_pose("demo", "--broker", broker, "--port", str(other.port), "--seconds", "5")
    (line,) = reported(run)
    assert line.startswith(f"demo's options: --port = {other.port}: another program listens there; see 'ss ")
    assert run.returncode == 78


@dataclass(frozen=True)
class SecureBroker:
    server: Server
    ca_file: Path
    other_ca_file: Path
    password_file: Path


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """A broker with TLS and a password, whose certificate is for localhost."""
    folder = tmp_path_factory.mktemp("pki")

    certificates(folder)
    (folder / "password").write_text("right\n")
    subprocess.run(["mosquitto_passwd", "-b", "-c", folder / "passwords", "anna", "right"], check=True)
    settings = f"{tls_settings(folder)}\npassword_file {folder}/passwords\nallow_anonymous false"
    with mosquitto(settings=settings) as server:
        yield SecureBroker(server, folder / "ca.crt", folder / "stranger.crt", folder / "password")


def broker_settings(secure: SecureBroker, **keys: object) -> list[str]:
    keys = {
        "url": f"mqtts://localhost:{secure.server.port}",
        "ca_file": secure.ca_file,
        "username": "anna",
        "password_file": secure.password_file,
        **keys,
    }
    mqtt = {f"mqtt__{key}": value for key, value in keys.items()}
    return run_settings(source="synthetic", camera__front__fps=5, **mqtt)


def test_the_right_ca_and_password_are_let_in(secure: SecureBroker) -> None:
    run = edge_pose("run", *broker_settings(secure), "--seconds", "5")
    assert run.returncode == 0, run.stderr
    assert warnings(run) == []
    assert "connected to broker localhost" in run.stderr
    doctor = edge_pose("doctor", *broker_settings(secure))
    assert f"✓ broker       mqtts://localhost:{secure.server.port} speaks MQTT 5" in doctor.stdout.splitlines()
    assert doctor.returncode == 0, doctor.stdout


def test_the_wrong_ca_name_password_or_scheme_is_one_line_and_the_rest_goes_on(
    secure: SecureBroker, tmp_path: Path
) -> None:
    wrong_password = tmp_path / "password"
    wrong_password.write_text("wrong\n")
    port = secure.server.port
    cases: dict[str, dict[str, object]] = {
        "its certificate is refused (self-signed certificate in certificate chain); see mqtt.ca_file": {
            "ca_file": secure.other_ca_file
        },
        "its certificate is refused (IP address mismatch, certificate is not valid for '127.0.0.1')": {
            "url": f"mqtts://127.0.0.1:{port}"
        },
        "the broker refuses this client: Not authorized; see mqtt.username and mqtt.password_file": {
            "password_file": wrong_password
        },
        "; a broker with TLS wants mqtts:// in mqtt.url": {"url": f"mqtt://localhost:{port}"},
        "Connection refused": {"url": f"mqtts://localhost:{free_port()}"},
        "nowhere.invalid": {"url": "mqtts://nowhere.invalid"},  # unknown, or there is no network to ask
    }
    for number, (expected, keys) in enumerate(cases.items()):
        directory = tmp_path / str(number)
        settings = [*broker_settings(secure, **keys), "--set", f"rerun.record_dir={directory}"]
        settings += ["--set", "people.events=[]"]  # that they are lost at the end would be another line
        run = edge_pose("run", *settings, "--seconds", "4")
        assert run.returncode == 0, run.stderr
        assert len(warnings(run)) == 1, run.stderr
        (line,) = warnings(run)
        assert expected in line
        assert "right" not in run.stderr.replace("copyright", "")
        (recording,) = directory.glob("*.rrd")
        assert rows(recording), "a broker is not needed to record"
        doctor = edge_pose("doctor", *settings)
        (finding,) = [line for line in doctor.stdout.splitlines() if line.startswith("✗ broker ")]
        assert expected in finding
        assert doctor.returncode == 1
