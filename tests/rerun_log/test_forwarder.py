"""The link against real servers, with nginx in front and without, which are absent, killed, frozen and unwilling."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rerun as rr
from rerun.chunk import Chunk

from edge.config import RerunConfig
from edge.pacing import Deadline
from edge.privacy import Shows
from edge.reports import LinkState
from edge.rerun_log import rrd
from edge.rerun_log.channel import Address
from edge.rerun_log.entities import time_columns
from edge.rerun_log.forwarder import Forwarder
from edge.rerun_log.log import SceneLog
from edge.rerun_log.observations import observation_parcel
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.video import VideoSink
from edge.stats import DropCause, Stats
from edge.tls import Identity
from tests.conftest import eventually, frame, observe, pose
from tests.rerun_log.hubs import Hub, ended, remade, rerun
from tests.rerun_log.onlooker import Onlooker
from tests.rerun_log.reading import received, static
from tests.rerun_log.scenes import scene
from tests.servers import free_port, relay, rerun_server

pytestmark = pytest.mark.integration

POINTS = "/camera/front/video/pose/points"
VIDEO = "/camera/front/video"


def plain(port: int) -> Address:
    return Address.of(f"rerun+http://127.0.0.1:{port}/proxy", Identity("rerun"))


class Link:
    """A log and what ships it, filled as a daemon fills it: points one by one, or pictures that need the ones before.

    memory: of the log, in bytes. gap_bytes_s: of what follows later.
    """

    def __init__(self, address: Address, *, memory: int = 32_000_000, gap_bytes_s: float = 1e6) -> None:
        self.stats = Stats([])
        self.log = SceneLog(self.stats)
        self.log.memory_bytes = memory
        self.log.describe(scene())
        self.gap_bytes_s = gap_bytes_s
        self.forwarders: list[Forwarder] = []
        self.is_closed = False
        self.seq = 0
        self._encoder = VideoSink(RerunConfig(), self.log.put, self.stats)
        self.forwarder = self.also(address, "rerun link")

    def also(self, address: Address, name: str) -> Forwarder:
        """Ship it there as well."""
        forwarder = Forwarder(name, address, self.log, key=name, gap_bytes_s=self.gap_bytes_s)
        forwarder.start()
        self.forwarders.append(forwarder)
        return forwarder

    def points(self, count: int) -> None:
        for _ in range(count):
            seen = observe(frame(seq=self.seq), [pose(mask=(48, 64))])
            self.log.put(observation_parcel("front", [seen], mask="image"))
            self.seq += 1

    def pictures(self, count: int) -> None:
        """Of 30 a second; each 30th needs none before."""
        for _ in range(count):
            self._encoder.write([frame(seq=self.seq)])
            self.seq += 1

    def weighty(self, count: int, nbytes: int) -> None:
        """Pictures so large, each of which can be understood alone."""
        for _ in range(count):
            indexes = time_columns([self.seq], [1_700_000_000_000_000_000 + self.seq])
            blob = rr.ComponentColumn(rr.EncodedImage.descriptor_blob(), rr.components.BlobBatch([os.urandom(nbytes)]))
            chunk = Chunk.from_columns(VIDEO, indexes, [blob])
            self.log.put(Parcel(entity=VIDEO, chunks=(chunk,), rows=1, in_order=True))
            self.seq += 1

    def is_(self, state: LinkState) -> Callable[[], bool]:
        return lambda: self.forwarder.state is state

    def has_delivered(self) -> bool:
        return self.forwarder.state is LinkState.LIVE and self.forwarder.behind == 0

    def close(self, seconds: float = 3.0) -> bool:
        """Whether all ended in time."""
        deadline = Deadline(seconds)
        for forwarder in self.forwarders:
            forwarder.close(deadline)
        stuck = [forwarder for forwarder in self.forwarders if not forwarder.join()]
        self.log.close()
        self.is_closed = True
        return not stuck


@contextlib.contextmanager
def link(address: Address, **options: Any) -> Iterator[Link]:
    found = Link(address, **options)
    try:
        yield found
    finally:
        if not found.is_closed:
            found.close(0.0)


@contextlib.contextmanager
def hub(folder: Path, *, started: bool = True, **options: str) -> Iterator[Hub]:
    found = Hub(folder, **options)
    with ended(found.nginx, found.rerun):
        if started:
            found.start()
        yield found


@contextlib.contextmanager
def onlooker(port: int) -> Iterator[Onlooker]:
    with contextlib.closing(Onlooker(port)) as found:
        yield found


def has_rows(port: int, entity: str, seqs: list[int]) -> None:
    """A viewer that comes now gets these, in whatever order, and each once."""
    with onlooker(port) as viewer:
        eventually(lambda: len(viewer.rows(entity)) >= len(seqs))
        assert sorted(viewer.rows(entity)) == seqs


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- a server that is away


def test_a_server_that_comes_late_gets_everything_with_what_describes_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge")
    port = free_port()
    with link(plain(port)) as sender:
        sender.points(20)
        eventually(lambda: len(caplog.records) > 0)
        assert sender.forwarder.state is LinkState.AWAY
        with rerun_server(port=port) as server:
            eventually(sender.has_delivered)
            sender.points(20)
            assert sender.close()
            found = received(server.url, tmp_path / "seen.rrd", expect={POINTS: 40})
    assert sorted(found[POINTS]) == list(range(40))
    assert {"/", VIDEO, "/camera/front/video/mask"} <= static(tmp_path / "seen.rrd").keys()
    assert not sender.stats.drops()
    assert sender.stats.sends() == {"rerun link rows": 40}
    (away,) = warnings(caplog)
    assert away.startswith(f"Rerun at 127.0.0.1:{port}: Connection refused; it is tried again until ")
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert told == [f"Rerun at 127.0.0.1:{port} answers now", f"streaming to Rerun at 127.0.0.1:{port}"]


def test_a_server_that_was_restarted_has_forgotten_all_and_gets_it_again(tmp_path: Path) -> None:
    with rerun_server() as server, link(plain(server.port)) as sender:
        sender.pictures(40)
        eventually(sender.has_delivered)
        server.process.kill()
        server.process.wait()
        eventually(sender.is_(LinkState.AWAY))
        sender.pictures(40)
        with rerun_server(port=server.port) as again:
            eventually(sender.has_delivered)
            found = received(again.url, tmp_path / "seen.rrd", expect={VIDEO: 80})
    assert sorted(found[VIDEO]) == list(range(80))
    assert "VideoStream:codec" in static(tmp_path / "seen.rrd")[VIDEO]
    assert not sender.stats.drops()


def test_behind_nginx_as_well(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hub(tmp_path) as site, link(site.address) as sender:
        sender.pictures(40)
        eventually(sender.has_delivered)
        site.rerun.kill()
        sender.pictures(40)
        eventually(sender.is_(LinkState.AWAY))
        site.rerun.start()
        eventually(sender.has_delivered)
        has_rows(site.server_port, VIDEO, list(range(80)))
        (away,) = warnings(caplog)
        assert f"Rerun at localhost:{site.port}: the hub's Rerun is away (502); it is tried again until " in away


def test_when_nginx_is_killed_rerun_has_what_it_had(tmp_path: Path) -> None:
    with hub(tmp_path) as site, link(site.address) as sender:
        sender.points(20)
        eventually(sender.has_delivered)
        site.nginx.kill()
        eventually(sender.is_(LinkState.AWAY))
        sender.points(20)
        site.nginx.start()
        eventually(sender.has_delivered)
        has_rows(site.server_port, POINTS, list(range(40)))
        assert sender.stats.sends() == {"rerun link rows": 40}  # and none of them twice


def test_a_restart_between_two_messages_is_noticed(tmp_path: Path) -> None:
    """By nobody's saying so: nginx goes on, and no call is open meanwhile."""
    with hub(tmp_path) as site, link(site.address) as sender:
        sender.points(20)
        eventually(sender.has_delivered)
        site.rerun.kill()
        site.rerun.start()
        sender.points(20)
        eventually(sender.has_delivered)
        has_rows(site.server_port, POINTS, list(range(40)))


# --- one that is there and takes nothing


def test_a_frozen_server_is_stuck_and_then_away_and_gets_everything_when_it_wakes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with hub(tmp_path) as site, link(site.address) as sender:
        sender.points(1)
        eventually(sender.has_delivered)
        site.rerun.freeze()
        sender.points(50)
        eventually(sender.is_(LinkState.STUCK))
        sender.points(50)
        eventually(sender.is_(LinkState.AWAY))
        sender.points(50)
        site.rerun.thaw()
        eventually(sender.has_delivered)
        has_rows(site.server_port, POINTS, list(range(151)))
        (stuck,) = warnings(caplog)
        assert "it has taken nothing for 4 s" in stuck
    assert not sender.stats.drops()


def test_a_pause_is_none_and_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with rerun_server() as server, link(plain(server.port)) as sender:
        sender.points(1)
        eventually(sender.has_delivered)
        server.process.send_signal(signal.SIGSTOP)
        sender.points(50)
        eventually(sender.is_(LinkState.STUCK))
        server.process.send_signal(signal.SIGCONT)
        eventually(sender.has_delivered)
        has_rows(server.port, POINTS, list(range(51)))
    assert not warnings(caplog)
    assert sender.stats.sends() == {"rerun link rows": 51}


def test_a_slow_receiver_sees_the_newest_first_and_the_rest_later() -> None:
    with (
        rerun_server() as server,
        relay(server.port, bytes_s=400_000) as network,
        onlooker(server.port) as viewer,
        link(plain(network.port)) as sender,
    ):
        eventually(sender.is_(LinkState.LIVE))
        sender.weighty(120, 5_000)  # a second and a half of what the network takes
        newest = sender.seq - 1
        eventually(lambda: newest in viewer.rows(VIDEO))
        missing = {*range(newest)} - {*viewer.rows(VIDEO)}
        assert len(missing) > 20
        eventually(sender.has_delivered, 20)
        eventually(lambda: sorted(viewer.rows(VIDEO)) == list(range(120)))
    assert not sender.stats.drops()


# --- what a hub refuses, and what it says


NO_RIGHT = "the hub refuses (403): this certificate may not write there; see rerun.cert_file"
UNKNOWN = "the hub refuses (400): it wants a certificate it knows; see rerun.cert_file and rerun.key_file"


@pytest.mark.parametrize(
    ("options", "name", "authority", "told"),
    [
        ({"location": "return 403;"}, "hall", "ca", NO_RIGHT),
        ({}, None, "ca", UNKNOWN),
        ({"lines": "ssl_protocols TLSv1.2;"}, None, "ca", UNKNOWN),
        ({}, "stranger", "ca", UNKNOWN),
        ({}, "hall", "stranger", "see rerun.ca_file and the name in rerun.url"),
    ],
    ids=["no right", "no certificate", "no certificate, TLS 1.2", "a stranger's", "another authority's"],
)
def test_a_refusal_is_one_line_that_says_what_to_look_at(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    options: dict[str, Any],
    name: str | None,
    *,
    authority: str,
    told: str,
) -> None:
    caplog.set_level(logging.DEBUG, "edge")
    with hub(tmp_path, **options) as site, link(site.seen_by(name, authority)) as sender:
        eventually(lambda: len([record for record in caplog.records if "it is tried again" in record.getMessage()]) > 1)
        assert sender.forwarder.state is LinkState.AWAY
        (refused,) = warnings(caplog)
        assert refused.startswith(f"Rerun at localhost:{site.port}: ")
        assert told in refused


def test_who_gets_the_right_streams(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hub(tmp_path, location="return 403;") as site, link(site.address) as sender:
        sender.points(5)
        eventually(lambda: warnings(caplog))
        remade(site, lambda text: text.replace("return 403;", ""))
        eventually(sender.has_delivered)
        has_rows(site.server_port, POINTS, list(range(5)))


def test_another_version_of_rerun_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hub(tmp_path, version="0.1.0") as site, link(site.address) as sender:
        eventually(sender.is_(LinkState.LIVE))
        site.nginx.kill()
        eventually(sender.is_(LinkState.AWAY))
        site.nginx.start()
        eventually(sender.is_(LinkState.LIVE))
        told = [line for line in warnings(caplog) if "0.1.0" in line]
    which = f"the hub has Rerun 0.1.0 and this device is {rr.__version__}"
    remedy = "they may not understand each other; have the same edge-pose on both"
    assert told == [f"Rerun at localhost:{site.port}: {which}: {remedy}"]


def test_what_the_server_can_not_read_is_given_up_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with rerun_server() as server, link(plain(server.port)) as sender:
        sender.points(3)
        eventually(sender.has_delivered)
        garbage = rrd.Message(rrd.Kind.CHUNK, memoryview(b"no protobuf at all")).framed
        with sender.log._lock:
            sender.log._append(garbage, rows=1, entity="", keyframe=True, shows=Shows.NUMBERS)
        eventually(sender.stats.drops)
        sender.points(3)
        eventually(sender.has_delivered)
        assert sender.stats.drops() == {("rerun link", DropCause.REFUSED): 1}
        assert sender.stats.sends() == {"rerun link rows": 6}
    assert "the other end refuses: gRPC status" in caplog.text


# --- ends of a connection that are no faults


def test_a_connection_that_nginx_ends_after_so_many_calls_is_no_fault(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with hub(tmp_path, lines="keepalive_requests 3;") as site, link(site.address) as sender:
        for _ in range(3):
            sender.points(10)
            eventually(sender.has_delivered)
        has_rows(site.server_port, POINTS, list(range(30)))
        assert not warnings(caplog)
        assert sender.stats.sends() == {"rerun link rows": 30}


def test_nothing_to_say_is_no_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A call is open all the time: a connection without one would be idle for nginx."""
    with hub(tmp_path, lines="keepalive_timeout 1s;") as site, link(site.address) as sender:
        sender.points(1)
        eventually(sender.has_delivered)
        before = connections(site.port)
        assert not ended_within(2.0, lambda: connections(site.port) != before)
        assert not warnings(caplog)


def ended_within(seconds: float, condition: Callable[[], bool]) -> bool:
    with contextlib.suppress(AssertionError):
        eventually(condition, seconds)
        return True
    return False


def connections(port: int) -> set[str]:
    """Local addresses of connections to the loopback interface's `port`."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {fields[1] for fields in lines if fields[2].endswith(f":{port:04X}") and fields[3] == "01"}


def replaced(port: int, before: set[str]) -> bool:
    return connections(port).isdisjoint(before)


def test_a_reload_of_nginx_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hub(tmp_path) as site, link(site.address) as sender:
        for _ in range(3):
            before = connections(site.port)
            sender.points(10)
            os.kill(site.nginx.pid, signal.SIGHUP)
            sender.points(10)
            eventually(functools.partial(replaced, site.port, before))
        eventually(sender.has_delivered)
        has_rows(site.server_port, POINTS, list(range(60)))
        assert not warnings(caplog)


# --- more than there is room for


def test_a_backlog_beyond_memory_loses_the_oldest_and_begins_with_a_keyframe() -> None:
    port = free_port()
    with link(plain(port), memory=60_000) as sender:
        sender.pictures(200)
        lost = sum(sender.stats.drops().values())
        assert 30 < lost < 170
        assert sender.stats.drops() == {("rerun link", DropCause.DISCONNECTED): lost}
        with rerun_server(port=port), onlooker(port) as viewer:
            eventually(sender.has_delivered)
            drops = sender.stats.drops()
            broken = drops.get(("rerun link", DropCause.BROKEN_GROUP), 0)
            assert sender.stats.sends()["rerun link rows"] == 200 - lost - broken
            eventually(lambda: len(viewer.rows(VIDEO)) == 200 - lost - broken)
            first = min(viewer.rows(VIDEO))
            assert sorted(viewer.rows(VIDEO)) == list(range(first, 200))
            assert first % 30 == 0


def test_what_was_missed_follows_no_faster_than_it_may() -> None:
    port = free_port()
    with link(plain(port), gap_bytes_s=500_000) as sender:
        sender.weighty(100, 10_000)
        with rerun_server(port=port), onlooker(port) as viewer:
            eventually(sender.has_delivered, 20)
            eventually(lambda: len(viewer.rows(VIDEO)) == 100)
            late = [each for each in viewer.arrivals if each.entity == VIDEO and max(each.seqs) < 80]
    # The newest are not held back; of the rest a quarter of a second's worth may come at once.
    took_s = late[-1].at_s - late[0].at_s
    assert took_s > (len(late) * 10_000 / 500_000 - 0.25) * 0.9


# --- the end


def test_closing_delivers_what_is_there_also_what_would_have_followed_slowly(tmp_path: Path) -> None:
    """In few calls: nginx allows 128 at a time."""
    with hub(tmp_path, started=False) as site, link(site.address, gap_bytes_s=1000) as sender:
        sender.weighty(1000, 1000)
        site.start()
        eventually(sender.is_(LinkState.LIVE))
        assert sender.close()
        assert sender.stats.sends() == {"rerun link rows": 1000}
        assert not sender.stats.drops()
        has_rows(site.server_port, VIDEO, list(range(1000)))


@pytest.mark.parametrize("frozen", ["rerun", "nginx"])
def test_closing_beside_a_frozen_hub_ends_in_time_and_counts_what_is_left(tmp_path: Path, frozen: str) -> None:
    with hub(tmp_path) as site, link(site.address) as sender:
        eventually(sender.is_(LinkState.LIVE))
        (site.rerun if frozen == "rerun" else site.nginx).freeze()
        sender.points(100)
        eventually(sender.is_(LinkState.STUCK))
        assert sender.close(0.5)
        assert sender.stats.drops() == {("rerun link", DropCause.STOPPED): 100}


def test_closing_beside_a_hub_that_never_was_ends_in_time() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        link(plain(silent.getsockname()[1])) as to_silence,
        link(plain(free_port())) as to_nobody,
    ):
        for sender in (to_silence, to_nobody):
            sender.points(10)
            assert sender.close(1.0)
            assert sender.stats.drops() == {("rerun link", DropCause.STOPPED): 10}


# --- several


def test_one_of_two_servers_that_is_away_is_nothing_to_the_other() -> None:
    port = free_port()
    with rerun_server() as here, onlooker(here.port) as viewer, link(plain(here.port)) as sender:
        late = sender.also(plain(port), "rerun serve")
        sender.points(50)
        eventually(lambda: sorted(viewer.rows(POINTS)) == list(range(50)))
        eventually(lambda: sender.forwarder.behind == 0)
        assert late.behind == 50
        with rerun_server(port=port):
            eventually(lambda: late.behind == 0)
            has_rows(port, POINTS, list(range(50)))
            assert sender.close()
        assert sender.stats.sends() == {"rerun link rows": 50, "rerun serve rows": 50}


def test_whoever_puts_something_in_never_waits_for_a_frozen_server(tmp_path: Path) -> None:
    """A thread of its own puts in a hundred times what connections hold, and is through while nothing moves."""
    port = free_port()
    server = rerun(tmp_path, port)
    with ended(server):
        server.start()
        with link(plain(port), memory=5_000_000) as sender:
            eventually(sender.is_(LinkState.LIVE))
            server.freeze()
            filler = threading.Thread(target=sender.weighty, args=(300, 100_000))
            filler.start()
            filler.join(30)
            assert not filler.is_alive()
            assert sender.log.kept_bytes <= 5_000_000
            server.thaw()
