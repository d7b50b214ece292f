"""`edge-pose check`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import edge_pose

pytestmark = pytest.mark.system


def test_it_prints_every_key_with_its_value_and_origin(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('device = "hall"\n[camera.front]\nsource = "rtsp://user:secret@cam/1"\n')
    check = edge_pose("check", "-c", str(file), "--set", "mqtt.summary_hz=2", EDGE_POSE__MQTT__URL="mqtt://broker:1883")
    assert check.returncode == 0
    table = {
        key.strip(): (value.strip(), origin.strip())
        for key, rest in (line.split(" = ", 1) for line in check.stdout.splitlines())
        for value, origin in [rest.rsplit("# ", 1)]
    }
    assert table["device"] == ('"hall"', str(file))
    assert table["camera.front.source"] == ('"rtsp://***@cam/1"', str(file))
    assert table["mqtt.url"] == ('["mqtt://broker:1883"]', "environment EDGE_POSE__MQTT__URL")
    assert table["mqtt.summary_hz"] == ("2.0", "--set")
    assert table["pose.model"] == ('"full"', "default")
    assert table["rerun.url"] == ('""', "default")
    assert "secret" not in check.stdout


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[camera.front]\nsource = "synthetic"\nwidth_px = 641\n[pose]\nmodle = "full"\n')
    check = edge_pose("check", "-c", str(file), "--set", "mqtt.landmarks_hz=often", EDGE_POSE__RERUN__VIDEO="gif")
    assert check.returncode == 78
    assert check.stderr.splitlines() == [
        f"edge-pose: {file}: camera.front.width_px = 641: expected a multiple of 2",
        f"edge-pose: {file}: pose.modle: unknown key; did you mean model?",
        "edge-pose: --set: mqtt.landmarks_hz = 'often': expected a number from 0.01 to 1000, or 'unlimited'",
        "edge-pose: environment EDGE_POSE__RERUN__VIDEO: rerun.video = 'gif': expected 'h264', 'jpeg' or 'off'",
    ]


def test_without_any_configuration_it_says_what_to_add() -> None:
    check = edge_pose("check")
    assert check.returncode == 78
    assert "add one, e.g. [camera.front]" in check.stderr


def test_a_file_that_is_not_there_is_one_line() -> None:
    check = edge_pose("check", "--config", "/nowhere/config.toml")
    assert check.returncode == 78
    assert check.stderr == "edge-pose: /nowhere/config.toml: file: can't be read: No such file or directory\n"
