"""What several commands share: how signals end them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

pytestmark = pytest.mark.system

CHILD = """
import time
from edge.cli.options import requests_from_signals
from edge.control import Inbox
inbox = Inbox()
requests_from_signals(inbox, reload=False)
print("ready", flush=True)
inbox.next(20)
began_s = time.monotonic()
while time.monotonic() - began_s < 0.4:  # until a second signal is another request
    time.sleep(0.01)
print("still ending", flush=True)
time.sleep(20)
"""


@contextmanager
def child() -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_signal_that_comes_twice_at_once_is_one_request() -> None:
    """`timeout` signals its child, and then the group that its child is in."""
    with child() as process:
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "still ending\n"


def test_a_second_signal_ends_it_at_once_and_says_so() -> None:
    with child() as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "still ending\n"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
        assert (process.returncode, said) == (130, "edge-pose: a second signal: ended at once\n")
