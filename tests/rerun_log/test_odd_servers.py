"""Servers that speak HTTP/2 and do what none should: the link tells it, tries again at its pace, and ends in time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings
import pytest

from edge.pacing import Deadline
from edge.rerun_log.channel import Address
from edge.rerun_log.forwarder import Forwarder
from edge.rerun_log.log import SceneLog
from edge.stats import Stats
from tests.conftest import eventually
from tests.rerun_log.scenes import scene, video_parcel

OK = [(":status", "200"), ("content-type", "application/grpc")]


class Oddity:
    """One connection to an odd server, which answers the first call, the scene's description, and no other."""

    def __init__(self, connection: socket.socket, nth: int) -> None:
        config = h2.config.H2Configuration(client_side=False, header_encoding=None, validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.socket = connection
        self.nth = nth
        self.ended: list[int] = []
        self.h2.initiate_connection()
        self.send()

    def send(self) -> None:
        self.socket.sendall(self.h2.data_to_send())

    def answer(self, call: int, *, headers: list[tuple[str, str]] | None = None, status: str = "0") -> None:
        self.h2.send_headers(call, headers or OK)
        self.h2.send_headers(call, [("grpc-status", status)], end_stream=True)
        self.send()

    def call_ended(self, call: int) -> None:
        if call == 1:
            self.answer(call)

    def begun(self) -> None:
        """The client has said its first word."""

    def serve(self) -> None:
        began = False
        while content := self.socket.recv(65_536):
            for event in self.h2.receive_data(content):
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                if isinstance(event, h2.events.StreamEnded):
                    self.ended.append(event.stream_id)
                    self.call_ended(event.stream_id)
            self.send()
            if not began:
                began = True
                self.begun()


class Odd:
    """A server whose connections are `kind`, and a forwarder that has something for it."""

    def __init__(self, kind: type[Oddity]) -> None:
        self._kind = kind
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.connections: list[Oddity] = []
        threading.Thread(target=self._accept, daemon=True).start()
        self.stats = Stats([])
        self.log = SceneLog(self.stats)
        self.log.memory_bytes = 8_000_000
        self.log.describe(scene())
        address = Address("127.0.0.1", self._listener.getsockname()[1], None)
        self.forwarder = Forwarder("rerun link", address, self.log, key="", gap_bytes_s=1e7)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections.append(self._kind(connection, len(self.connections)))
                threading.Thread(target=self._serve, args=[self.connections[-1]], daemon=True).start()

    def _serve(self, connection: Oddity) -> None:
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            connection.serve()

    def close(self) -> None:
        self._listener.close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
            connection.socket.close()


@contextlib.contextmanager
def odd(kind: type[Oddity]) -> Iterator[Odd]:
    server = Odd(kind)
    server.forwarder.start()
    try:
        yield server
    finally:
        begun_s = time.monotonic()
        server.forwarder.close(Deadline(3.0))
        assert server.forwarder.join(), time.monotonic() - begun_s
        server.log.close()
        server.close()


def feed(server: Odd, until: Callable[[], object], timeout_s: float = 20.0) -> None:
    """Go on as a camera does, four parcels a second, until that."""
    end_s = time.monotonic() + timeout_s
    number = 0
    while not until():
        assert time.monotonic() < end_s
        server.log.put(video_parcel(number, nbytes=100))
        number += 1
        time.sleep(0.25)


class Talker(Oddity):
    """Says that it is alive, and nothing else."""

    def call_ended(self, call: int) -> None:
        pass

    def begun(self) -> None:
        threading.Thread(target=self._talk, daemon=True).start()

    def _talk(self) -> None:
        with contextlib.suppress(OSError, h2.exceptions.ProtocolError):
            while True:
                self.h2.ping(b"12345678")
                self.send()
                time.sleep(0.05)


def test_who_only_says_that_he_is_alive_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    with odd(Talker) as server:
        eventually(lambda: len(server.connections) > 1, 15)
    assert "it does not answer" in caplog.text


class Flood(Oddity):
    """Answers, and talks without end: a ping, and much of a kind that RFC 9113 has the other end ignore."""

    CHATTER = b"\0\0\x08\x06\0\0\0\0\0abcdefgh" + b"\0\x02\0\xee\0\0\0\0\0" + bytes(0x200)

    def __init__(self, connection: socket.socket, nth: int) -> None:
        self._between = threading.Lock()  # answers go between two lots of it, and not into the middle of one
        super().__init__(connection, nth)

    def send(self) -> None:
        with self._between:
            super().send()

    def begun(self) -> None:
        threading.Thread(target=self._flood, daemon=True).start()

    def _flood(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                with self._between:
                    self.socket.sendall(self.CHATTER * 1000)
                time.sleep(0)  # a lock that is taken again at once is never another's


def test_who_talks_without_end_does_not_keep_it_from_its_own_end() -> None:
    with odd(Flood) as server:
        eventually(lambda: server.connections)
        feed(server, lambda: server.connections[0].ended)


class Forgetful(Oddity):
    """Leaves one call out for ever."""

    def call_ended(self, call: int) -> None:
        if call != 3:
            self.answer(call)


def test_a_call_that_is_left_out_while_others_are_answered_is_sent_again() -> None:
    with odd(Forgetful) as server:
        feed(server, lambda: len(server.connections) > 1)
        assert max(server.connections[0].ended) > 3
    assert not server.stats.drops().keys() - {("rerun link", "stopped")}


class Leaver(Oddity):
    """Lets everybody in and says goodbye."""

    def call_ended(self, call: int) -> None:
        super().call_ended(call)
        self.h2.close_connection(last_stream_id=call)
        self.send()


def test_who_lets_in_only_to_leave_is_not_asked_all_the_time() -> None:
    with odd(Leaver) as server:
        eventually(lambda: len(server.connections) > 3)
        begun_s, before = time.monotonic(), len(server.connections)
        feed(server, lambda: time.monotonic() - begun_s > 2.0)
        assert len(server.connections) - before < 10


class Full(Oddity):
    """Takes one call at a time, and keeps it."""

    def __init__(self, connection: socket.socket, nth: int) -> None:
        super().__init__(connection, nth)
        self.h2.update_settings({h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: 1})
        self.send()

    def call_ended(self, call: int) -> None:
        self.answer(call)


def test_one_call_at_a_time_is_enough(caplog: pytest.LogCaptureFixture) -> None:
    with odd(Full) as server:
        feed(server, lambda: server.stats.sends().get("rerun link rows", 0) > 16)
        assert len(server.connections) == 1
    assert "nobody foresaw" not in caplog.text


@pytest.mark.parametrize(
    "headers",
    [
        [(":status", "none")],
        [(":status", "200"), ("content-type", "\xff")],
        [(":status", "302"), ("location", "https://elsewhere")],
        [(":status", "204")],
    ],
    ids=["no number", "no text", "elsewhere", "nothing"],
)
def test_what_is_no_server_of_rerun_is_told_in_one_line(
    headers: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    class Other(Oddity):
        def call_ended(self, call: int) -> None:
            self.h2.send_headers(call, [(name, value.encode("latin-1")) for name, value in headers], end_stream=True)
            self.send()

    with odd(Other) as server:
        eventually(lambda: len(server.connections) > 1, 15)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(lines) == 1
    assert "what answers there is no Rerun server" in lines[0]
