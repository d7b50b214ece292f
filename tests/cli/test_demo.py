"""`edge-pose demo`, with the bundled clip and everything it brings along."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from edge.cli.local_server import why_taken
from tests.cli.command import COMMAND, edge_pose
from tests.conftest import eventually
from tests.rerun_log.reading import rows
from tests.servers import free_port

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]


@pytest.mark.parametrize("broker", ["mosquitto", "builtin"])
def test_it_needs_nothing_and_ends_with_a_verdict(broker: str, tmp_path: Path) -> None:
    demo = edge_pose("demo", "--seconds", "6", "--broker", broker, "--out", str(tmp_path))
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.splitlines()[-1].startswith("demo: OK")
    assert demo.stderr == ""
    assert "device is stopped" in demo.stdout
    received = re.search(r"(\d+) landmarks", demo.stdout)
    assert received is not None
    (recording,) = tmp_path.glob("*.rrd")
    assert str(recording) in demo.stdout
    assert len(rows(recording)["/camera/demo/video/pose/points"]) >= int(received[1]) > 20


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    demo = edge_pose("demo", "--source", "synthetic", "--seconds", "5", "--out", str(tmp_path))
    assert demo.returncode == 0, demo.stdout + demo.stderr


def test_with_the_viewer_the_stream_goes_to_its_server_too(tmp_path: Path) -> None:
    demo = edge_pose("demo", "--viewer", "--seconds", "6", "--out", str(tmp_path), BROWSER="true")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert re.search(r"viewer http://127\.0\.0\.1:\d+/\?url=rerun", demo.stdout)
    assert "rerun link" not in demo.stdout.split("dropped")[1].splitlines()[0]


def test_ctrl_c_in_the_terminal_ends_it_well(tmp_path: Path) -> None:
    command = [*COMMAND, "demo", "--seconds", "0", "--broker", "mosquitto", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "messages received" in line:
                break
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does: to everything in the foreground
        rest = demo.stdout.read()
        assert demo.wait(timeout=10) == 0, rest
    assert rest.splitlines()[-1].startswith("demo: OK")


def test_ctrl_c_twice_ends_at_once_and_leaves_no_broker_behind(tmp_path: Path) -> None:
    command = [*COMMAND, "demo", "--seconds", "0", "--broker", "mosquitto", "--out", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as demo:
        assert demo.stdout is not None
        port = 0
        for line in demo.stdout:
            if found := re.search(r"broker mosquitto, mqtt://127\.0\.0\.1:(\d+)", line):
                port = int(found[1])
            if "messages received" in line:
                break
        assert why_taken(port)
        for _ in range(2):
            demo.send_signal(signal.SIGINT)
        assert demo.wait(timeout=10) in {0, 130}, "130 unless it was at its end already"
    eventually(lambda: not why_taken(port), 5)


def test_settings_of_ones_own_and_of_the_shell_do_not_disturb_it(tmp_path: Path) -> None:
    demo = edge_pose(
        *("demo", "--seconds", "5", "--out", str(tmp_path), "--set", "mqtt.prefix=home/pose"),
        EDGE_POSE__MQTT__URL="mqtt://127.0.0.1:9",
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr


def test_nobody_in_the_picture_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    import cv2
    import numpy as np

    clip = tmp_path / "grey.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 30, (320, 240))
    for _ in range(30):
        writer.write(np.full((240, 320, 3), 128, np.uint8))
    writer.release()
    demo = edge_pose("demo", "--source", str(clip), "--seconds", "5", "--out", str(tmp_path))
    assert demo.returncode == 1
    assert demo.stdout.splitlines()[-1] == "demo: FAILED: nobody was found in the pictures"


def test_no_picture_at_all_is_another_failure_than_nobody_in_it(tmp_path: Path) -> None:
    source = f"rtsp://127.0.0.1:{free_port()}/1"
    demo = edge_pose("demo", "--source", source, "--seconds", "4", "--out", str(tmp_path))
    assert demo.returncode == 1
    last = demo.stdout.splitlines()[-1]
    assert last == "demo: FAILED: no picture came from the source; a warning above may say why"
    assert "Connection refused" in demo.stderr
    assert "To look further" not in demo.stdout


def test_a_broker_of_ones_own_is_not_taken_in_silence() -> None:
    demo = edge_pose("demo", "--set", "mqtt.url=mqtt://hub")
    assert demo.returncode == 78
    assert demo.stderr == "edge-pose: --set: mqtt.url: demo brings its own broker; use edge-pose run\n"


def test_no_room_for_a_recording_is_told_with_its_cure(tmp_path: Path) -> None:
    everything = shutil.disk_usage(tmp_path).total // 1_000_000
    demo = edge_pose("demo", "--seconds", "5", "--out", str(tmp_path), "--set", f"rerun.keep_free_mb={everything}")
    assert demo.returncode == 1
    assert demo.stdout.splitlines()[-1] == f"demo: FAILED: no room for a recording: make room for {tmp_path}"
    assert f"rerun.keep_free_mb wants {everything}; make room there" in demo.stderr
    assert not list(tmp_path.glob("*.rrd"))
