from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from edge.device.holders import hidden_children, holders
from tests.conftest import eventually


def holding(path: Path, *more: str) -> subprocess.Popen[bytes]:
    program = f"held = open({str(path)!r}); import sys; sys.stdin.read()"
    return subprocess.Popen([sys.executable, "-c", program, *more], stdin=subprocess.PIPE)


def test_who_has_it_open_is_told_by_name_and_number(tmp_path: Path) -> None:
    device = tmp_path / "video0"
    device.touch()
    (tmp_path / "by-id").symlink_to(device)
    with device.open(), holding(device) as other, holding(device, "edge_pose_children") as ours:
        eventually(lambda: len(holders(device)) == 2)
        found = {holder.pid: holder for holder in holders(tmp_path / "by-id")}
        assert found.keys() == {other.pid, ours.pid}, "this process does not count"
        assert str(found[other.pid]) == f"{Path('/proc', str(other.pid), 'comm').read_text().strip()} (pid {other.pid})"
        assert str(found[ours.pid]) == f"edge-pose (pid {ours.pid})"
        assert (found[other.pid].ours, found[ours.pid].ours) == (False, True)
        other.communicate()
        ours.communicate()
    assert holders(device) == []


def test_what_is_not_there_nobody_has(tmp_path: Path) -> None:
    assert holders(tmp_path / "none") == []


def test_processes_that_can_not_be_looked_at_are_left_out(tmp_path: Path) -> None:
    (tmp_path / str(os.getpid() + 1)).mkdir()
    assert holders(tmp_path / "none", proc=tmp_path) == []


def test_our_own_that_only_root_can_look_into_are_known_by_their_command(tmp_path: Path) -> None:
    for pid, command in {"71": b"python\0-c\0edge_pose_children", "72": b"cheese", "73": b"edge_pose_children"}.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "cmdline").write_bytes(command)
        (tmp_path / pid / "comm").write_text("python3\n")
    (tmp_path / "73" / "fd").mkdir()  # whose descriptors can be seen
    assert [str(holder) for holder in hidden_children(tmp_path)] == ["edge-pose (pid 71)"]
