"""A server of the device's own, as a child process."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from edge.pacing import Deadline
from edge.reports import LinkState
from edge.rerun_log.channel import Address
from edge.rerun_log.forwarder import Forwarder
from edge.rerun_log.log import SceneLog
from edge.rerun_log.server import Served, ViewerServer
from edge.stats import Stats
from tests.conftest import eventually
from tests.rerun_log.reading import received
from tests.rerun_log.scenes import scene, video_parcel
from tests.servers import free_port, rerun_server

pytestmark = pytest.mark.integration

VIDEO = "/camera/front/video"


def served(port: int, host: str = "127.0.0.1") -> tuple[Served, ViewerServer, Forwarder, SceneLog]:
    scene_log = SceneLog(Stats([]))
    scene_log.memory_bytes = 8_000_000
    scene_log.describe(scene())
    server = ViewerServer(host, port, memory_mb=64, scene=scene())
    here = Address(host, port, None)
    forwarder = Forwarder("serve", here, scene_log, key="", gap_bytes_s=1e7, is_up=lambda: server.is_up)
    return Served(server, forwarder), server, forwarder, scene_log


def test_viewers_get_all_also_after_the_server_was_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    stage, server, forwarder, scene_log = served(port)
    stage.start()
    for number in range(4):
        scene_log.put(video_parcel(number))
    eventually(lambda: forwarder.state is LinkState.LIVE and not forwarder.behind)
    first = server.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    scene_log.put(video_parcel(4))
    eventually(lambda: server.pid != first and forwarder.state is LinkState.LIVE and not forwarder.behind)
    found = received(f"rerun+http://127.0.0.1:{port}/proxy", tmp_path / "seen.rrd", expect={VIDEO: 40})
    assert sorted(set(found[VIDEO])) == list(range(40))
    assert "ended: exit code -9" in caplog.text
    last = server.pid
    stage.close(Deadline(5.0))
    assert stage.join()
    assert last is not None
    with pytest.raises(ProcessLookupError):
        os.kill(last, 0)
    scene_log.close()


def test_a_port_that_is_taken_is_told_with_the_servers_own_reason(caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        stage, *_ = served(taken.getsockname()[1])
        stage.start()
        eventually(lambda: "the server for viewers at 127.0.0.1" in caplog.text)
        stage.close(Deadline(2.0))
        assert stage.join()
    assert "ended: exit code 1, Address already in use" in caplog.text


def test_what_somebody_else_serves_at_that_port_gets_nothing() -> None:
    with rerun_server() as other:
        stage, _, forwarder, scene_log = served(other.port)
        stage.start()
        scene_log.put(video_parcel(0))
        stage.close(Deadline(3.0))
        assert stage.join()
        assert forwarder.behind == 1
        scene_log.close()


def test_it_serves_at_an_address_of_ipv6_too() -> None:
    stage, _, forwarder, scene_log = served(free_port(), "::1")
    stage.start()
    scene_log.put(video_parcel(0))
    eventually(lambda: forwarder.state is LinkState.LIVE and not forwarder.behind)
    stage.close(Deadline(3.0))
    assert stage.join()
    scene_log.close()
