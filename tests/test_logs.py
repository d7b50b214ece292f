from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from edge.logs import FaultLog

WATCH = """
import logging, os, sys, threading
from edge import logs

class Watch(logging.Handler):
    def __init__(self, text):
        super().__init__()
        self.text, self.seen = text, threading.Event()
    def emit(self, record):
        if self.text in record.getMessage():
            self.seen.set()

logs.divert_native_output()
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WATCH + program], capture_output=True, text=True, timeout=60, check=False
    )


def test_a_fault_that_somebody_has_to_mend_is_told_after_one_that_goes_by_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    faults = FaultLog(logging.getLogger("edge.test"))
    for kind in ("", "", "refused", "", "refused"):
        faults.failed("broker: %s", kind or "away", kind=kind)
    faults.worked("broker is back")
    faults.failed("broker: %s", "refused", kind="refused")
    faults.failed("broker: %s", "away")

    told = ["broker: away", "broker: refused", "broker is back", "broker: refused"]
    assert [record.getMessage() for record in caplog.records] == told


def test_a_fault_is_a_warning_once_then_quiet_and_its_end_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    faults = FaultLog(logging.getLogger("edge.test"))

    faults.worked("all is well")
    for attempt in (1, 2, 3):
        faults.failed("broker away, try %d", attempt)
    faults.worked("broker is back")
    faults.worked("broker is back")
    faults.failed("broker away again")

    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "broker away, try 1"),
        ("DEBUG", "broker away, try 2"),
        ("DEBUG", "broker away, try 3"),
        ("INFO", "broker is back"),
        ("WARNING", "broker away again"),
    ]


def test_what_native_libraries_print_becomes_debug_lines_whatever_bytes_they_print() -> None:
    done = run(r"""
logs.setup("debug")
watch = Watch("the last line")
logging.getLogger("edge.native").addHandler(watch)
os.write(2, b"W0000 a native line\n\n  \n\xff\xfe no text\n")
os.write(2, b"can't open rtsp://anna:geheim@door/1\nthe last line\n")
assert watch.seen.wait(30)
print("python's own", file=sys.stderr)
""")

    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert [line.partition(" edge.native: ")[2] for line in lines if " DEBUG   edge.native: " in line] == [
        "W0000 a native line",
        "\ufffd\ufffd no text",
        "can't open rtsp://***@door/1",
        "the last line",
    ]
    assert lines[-1] == "python's own"


def test_what_native_libraries_print_stays_out_of_the_journal_and_never_blocks_them() -> None:
    done = run(r"""
logs.setup("info")
for _ in range(64):
    os.write(2, b"chatter\n" * 8192)
logging.getLogger("edge.run").info("ready")
""")

    assert done.returncode == 0, done.stderr
    assert "chatter" not in done.stderr
    assert done.stderr.endswith("INFO    edge.run: ready\n")


@pytest.mark.parametrize(
    ("ending", "shown"),
    [
        ("raise ValueError('boom')", "ValueError: boom"),
        ("import ctypes; ctypes.string_at(0)", "Fatal Python error: Segmentation fault"),
    ],
)
def test_a_crash_still_says_why(ending: str, shown: str) -> None:
    done = run(f"logs.setup('info')\n{ending}\n")

    assert done.returncode != 0
    assert shown in done.stderr


def test_libraries_speak_from_warning_up_and_we_from_the_level_asked_for() -> None:
    done = run("""
logs.setup("error")
for name in ("edge.mqtt", "paho"):
    for level in ("info", "warning", "error"):
        getattr(logging.getLogger(name), level)("%s %s", name, level)
""")

    said = [line.partition(": ")[2] for line in done.stderr.splitlines()]
    assert said == ["edge.mqtt error", "paho warning", "paho error"]


@pytest.mark.parametrize(("inode", "shown"), [("its", "<4>edge.test: away\n"), ("0", "WARNING edge.test: away\n")])
def test_lines_for_the_journal_begin_with_their_priority(inode: str, shown: str) -> None:
    read_end, write_end = os.pipe()
    status = os.fstat(write_end)
    stream = f"{status.st_dev}:{status.st_ino if inode == 'its' else inode}"
    program = (
        'from edge import logs; logs.setup("info"); import logging; logging.getLogger("edge.test").warning("away")'
    )
    # A None in sys.modules is a module that can't be imported.
    program = 'import sys; sys.modules["systemd"] = None; ' + program
    environment = {**os.environ, "JOURNAL_STREAM": stream}
    subprocess.run([sys.executable, "-c", program], stderr=write_end, env=environment, timeout=60, check=True)
    os.close(write_end)
    with os.fdopen(read_end) as lines:
        assert lines.read().endswith(shown)
