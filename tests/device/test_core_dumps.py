"""What a crash leaves behind, and what of a process goes on though it leaves nothing."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.device import core_dumps
from edge.device.core_dumps import CoreDumps

pytestmark = pytest.mark.system

_PR_SET_DUMPABLE = 4
PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()

CRASH = """
import faulthandler, os, signal, sys
from edge.device.core_dumps import CoreDumps
faulthandler.enable()
CoreDumps().require(sys.argv[1])
kept = bytearray(b"picture" * 1000)
"""


@pytest.fixture
def dumpable() -> Iterator[None]:
    """This process is so before and after."""
    assert core_dumps.are_possible()
    yield
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def child(code: str, mode: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, mode]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30, env=environment, **options)


@pytest.mark.usefixtures("dumpable")
def test_they_are_forbidden_while_no_picture_may_leave_and_allowed_again_after_that() -> None:
    dumps = CoreDumps()
    for mode, possible in (("full", True), ("mask", False), ("landmarks", False), ("full", True)):
        dumps.require(mode)
        if mode == "full":
            dumps.allow(mode)
        assert core_dumps.are_possible() is possible


@pytest.mark.usefixtures("dumpable")
def test_between_the_two_modes_of_a_reload_they_stay_forbidden() -> None:
    dumps = CoreDumps()
    dumps.require("mask")
    dumps.require("full")  # the reload begins, and may yet be taken back
    assert not core_dumps.are_possible()
    dumps.allow("mask")
    assert not core_dumps.are_possible()


@pytest.mark.usefixtures("dumpable")
def test_what_somebody_else_has_forbidden_stays_so() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    dumps = CoreDumps()
    dumps.require("landmarks")
    dumps.allow("full")
    assert not core_dumps.are_possible()


@pytest.mark.skipif(
    "/" in PATTERN or "|" in PATTERN, reason=f"cores go elsewhere here: kernel.core_pattern is {PATTERN}"
)
@pytest.mark.parametrize(("mode", "leaves"), [("full", True), ("mask", False), ("landmarks", False)])
@pytest.mark.parametrize("end", ["os.abort()", "os.kill(os.getpid(), signal.SIGSEGV)"], ids=["abort", "segv"])
def test_a_crash_leaves_a_core_only_where_pictures_may_leave(
    tmp_path: Path, mode: str, end: str, *, leaves: bool
) -> None:
    """The watchdog's end is by SIGABRT, and so is MediaPipe's."""

    def unlimited() -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    assert hard, "cores are limited to 0 bytes for this whole session: ulimit -H -c unlimited"
    ended = child(CRASH + end, mode, cwd=tmp_path, preexec_fn=unlimited)
    assert ended.returncode < 0
    assert "Fatal Python error" in ended.stderr, "faulthandler's traceback is there"
    assert bool(list(tmp_path.iterdir())) is leaves


LOOK_AT_ITSELF = """
import ctypes, faulthandler, os, subprocess, sys
from edge.device import cgroup, health
from edge.device.core_dumps import CoreDumps
if os.getuid() == 0:  # as a service's process, which was somebody else from its first instant
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
CoreDumps().require(sys.argv[1])
assert health.memory_resident_mb() > 5
assert health.memory_available_mb() is not None
cgroup.memory_room_mb()
cgroup.cores()
assert os.listdir("/proc/self/fd")
assert os.listdir("/proc/self/task")
for name in ("status", "maps", "cgroup", "statm", "stat"):
    assert open(f"/proc/self/{name}").read()
faulthandler.dump_traceback()
look = "(: < /proc/$0/mem) 2>&- && echo open || echo closed; stat -c %u /proc/self/environ"
subprocess.run(["sh", "-c", look, str(os.getpid())], check=True)
print(os.getuid())
"""


@pytest.mark.parametrize(("mode", "memory"), [("full", "open"), ("landmarks", "closed")])
def test_the_process_can_still_look_at_itself_and_another_of_its_user_no_longer_can(mode: str, memory: str) -> None:
    """By what `health` and limits are read from, and by what a debugger reads. Programs that it starts are as ever."""
    looked = child(LOOK_AT_ITSELF, mode)
    assert looked.returncode == 0, looked.stderr
    assert "Current thread" in looked.stderr
    seen, owner, user = looked.stdout.split()
    assert (seen, owner) == (memory, user)
