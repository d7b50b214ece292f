"""The live link against the real server, which is absent, killed and frozen."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import pytest

from edge.cli.local_server import free_port
from edge.rerun_log.link import LinkSink
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.scene import observation_parcel
from edge.rerun_log.video import VideoSink
from edge.stats import DropCause, Stats
from edge.vision.observation import observe
from tests.conftest import eventually, frame, pose
from tests.rerun_log.reading import received, static
from tests.rerun_log.scenes import scene
from tests.servers import rerun_server

pytestmark = pytest.mark.integration

POINTS = "/camera/front/video/pose/points"
VIDEO = "/camera/front/video"


def parcel(seq: int) -> Parcel:
    return observation_parcel("front", [observe(frame(seq=seq), [pose(mask=(48, 64))])], mask=True)


def online(sink: LinkSink) -> Callable[[], bool]:
    def look() -> bool:
        sink.write([])
        return sink.online

    return look


def test_every_row_arrives_with_what_describes_it(tmp_path: Path) -> None:
    stats = Stats([])
    with rerun_server() as server:
        sink = LinkSink(server.url, scene=scene(), stats=stats)
        for seq in range(40):
            sink.write([parcel(seq)])
        sink.close(5.0)
        found = received(server.url, tmp_path / "seen.rrd", expect={POINTS: 40})
    assert found[POINTS] == list(range(40))
    assert {"/", VIDEO, "/camera/front/video/mask"} <= static(tmp_path / "seen.rrd").keys()
    assert not stats.drops()


def test_a_server_that_comes_late_gets_what_comes_from_then_on(tmp_path: Path) -> None:
    stats = Stats([])
    port = free_port()
    sink = LinkSink(f"rerun+http://127.0.0.1:{port}/proxy", scene=scene(), stats=stats)
    sink.write([parcel(0), parcel(1)])
    assert stats.drops() == {("rerun link", DropCause.DISCONNECTED): 2}
    with rerun_server(port=port) as server:
        eventually(online(sink), 15)
        sink.write([parcel(2)])
        sink.close(5.0)
        assert received(server.url, tmp_path / "seen.rrd", expect={POINTS: 1})[POINTS] == [2]


def test_after_a_restart_the_server_is_told_everything_again_beginning_with_a_keyframe(tmp_path: Path) -> None:
    stats = Stats([])
    parcels: list[Parcel] = []
    encoder = VideoSink("h264", [parcels.append])
    for seq in range(100):
        encoder.write([frame(seq=seq)])
    with rerun_server() as server:
        sink = LinkSink(server.url, scene=scene(), stats=stats)
        sink.write(parcels[:10])
    eventually(lambda: not online(sink)(), 10)
    sink.write(parcels[10:40])
    with rerun_server(port=server.port) as server:
        eventually(online(sink), 15)
        sink.write(parcels[40:])
        sink.close(5.0)
        found = received(server.url, tmp_path / "seen.rrd", expect={VIDEO: 40})
    assert found[VIDEO] == list(range(60, 100))  # 60 is the first keyframe after 40
    assert "VideoStream:codec" in static(tmp_path / "seen.rrd")[VIDEO]
    drops = stats.drops()
    assert drops["rerun link", DropCause.DISCONNECTED] == 30
    assert drops["rerun link", DropCause.BROKEN_GROUP] == 20


class Child:
    """A process with a link of its own, for with a frozen server a process can't end like others."""

    PROLOGUE = """
import os, sys
from edge.rerun_log.link import LinkSink
from edge.stats import Stats
from tests.rerun_log.scenes import scene
from tests.rerun_log.test_link import parcel

stats = Stats([])
sink = LinkSink(sys.argv[1], scene=scene(), stats=stats)
sink.write([parcel(0)])
print("online", flush=True)
sys.stdin.readline()
"""

    def __init__(self, script: str, url: str) -> None:
        command = [sys.executable, "-c", self.PROLOGUE + script, url]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.hears() == "online"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def goes_on(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


def test_a_frozen_server_holds_up_nothing_and_gets_the_rest_when_it_wakes(tmp_path: Path) -> None:
    script = """
seq = 1
while not sink.stuck:
    sink.write([parcel(seq + n) for n in range(16)])
    seq += 16
for _ in range(8):
    sink.write([parcel(seq)])
    seq += 1
print(sum(stats.drops().values()), flush=True)
sys.stdin.readline()
while sink.stuck:
    sink.write([])
sink.write([parcel(seq)])
sink.close(2.0)
print(seq, flush=True)
"""
    with rerun_server() as server:
        with Child(script, server.url) as child:
            server.process.send_signal(signal.SIGSTOP)
            child.goes_on()
            dropped = int(child.hears())
            assert dropped >= 8
            server.process.send_signal(signal.SIGCONT)
            child.goes_on()
            last = int(child.hears())
            assert child.process.wait(timeout=10) == 0
        found = received(server.url, tmp_path / "seen.rrd", expect={POINTS: last + 1 - dropped})
    assert len(found[POINTS]) == last + 1 - dropped
    assert found[POINTS][-1] == last


def test_closing_beside_a_frozen_server_ends_in_time() -> None:
    script = """
sink.write([parcel(seq) for seq in range(1, 600)])
sink.close(1.0)
print("closed", flush=True)
os._exit(0)
"""
    with rerun_server() as server, Child(script, server.url) as child:
        server.process.send_signal(signal.SIGSTOP)
        child.goes_on()
        assert child.hears() == "closed"
        assert child.process.wait(timeout=5) == 0


def test_waiting_for_an_absent_server_backs_off(caplog: pytest.LogCaptureFixture) -> None:
    sink = LinkSink(f"rerun+http://127.0.0.1:{free_port()}/proxy", scene=scene(), stats=Stats([]))
    end_s = time.monotonic() + 1.0
    writes = 0
    while time.monotonic() < end_s:
        sink.write([])
        writes += 1
    assert writes > 100
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1
