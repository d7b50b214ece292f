"""A child process, and what becomes of it when its parent goes."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from edge.children import ending_with_us
from tests.conftest import eventually

PARENT = """
import subprocess, sys
from edge.children import ending_with_us
child = subprocess.Popen(ending_with_us(["sleep", "100"]), stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
sys.stdin.read()
"""


def test_a_child_ends_with_its_parent_however_that_went() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        eventually(lambda: child.name() == "sleep")
        parent.kill()
    eventually(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def test_it_is_the_command_itself_with_its_arguments() -> None:
    said = subprocess.run(
        ending_with_us(["sh", "-c", "echo $0 $1 $PPID", "a b", "-c"]), stdout=subprocess.PIPE, check=True
    )
    assert said.stdout.decode().split() == ["a", "b", "-c", str(os.getpid())]


def test_what_can_not_be_started_says_so() -> None:
    done = subprocess.run(ending_with_us(["/nowhere/a-program"]), stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (127, b"/nowhere/a-program: No such file or directory\n")


def test_a_parent_that_has_gone_already_has_no_children() -> None:
    command = ending_with_us(["echo", "still here"])
    command[command.index(str(os.getpid()))] = "1"
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (127, b"")
