"""Where the output goes: to full disks, closed pipes and terminals that know no tick mark."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cli.command import COMMAND, edge_pose

pytestmark = pytest.mark.system

COMMANDS = [["models", "list"], ["schema", "config"], ["check", "--set", "camera.front.source=synthetic"]]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_told_in_one_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([*COMMAND, *command], check=False, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 1
    assert ended.stderr == "edge-pose: standard output can't be written: No space left on device\n"


@pytest.mark.usefixtures("model")
def test_a_doctor_whom_nobody_hears_still_has_an_exit_code() -> None:
    settings = ["--set", "camera.front.source=synthetic"]
    doctor = ["sh", "-c", '"$@" >&-', "sh", *COMMAND, "doctor", *settings]
    ended = subprocess.run(doctor, check=False, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.usefixtures("model")
def test_a_terminal_without_tick_marks_shows_question_marks() -> None:
    doctor = edge_pose("doctor", "--set", "camera.front.source=synthetic", PYTHONIOENCODING="ascii")
    assert doctor.returncode == 0, doctor.stderr
    assert "? cpu" in doctor.stdout
