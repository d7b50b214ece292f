"""What Rerun's viewer gets through the relay, and who else gets nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import h2.config
import h2.connection
import h2.events
import pytest

from edge.cli.local_viewer import rerun_program, without_analytics
from edge.reports import LinkState
from edge.rerun_log.channel import Address
from edge.rerun_log.hub import READ_MESSAGES
from edge.rerun_log.relay import Relay, user_of
from edge.tls import Identity
from tests.conftest import eventually
from tests.rerun_log.reading import rows
from tests.rerun_log.tls_hub import TlsHub, log_points, tls_hub
from tests.secured_broker import HOST
from tests.secured_hub import secured_hub
from tests.servers import certificates, free_port

pytestmark = pytest.mark.integration

POINTS = "/points"
PATIENCE_S = 15.0


@pytest.fixture
def hub() -> Iterator[TlsHub]:
    with tls_hub() as started:
        yield started


def relay(hub: TlsHub, who: str | None = "reader", *, silent_s: float = 5.0, viewer: str = "") -> Relay:
    return Relay(hub.seen_by(who), viewer=viewer, silent_s=silent_s, retry_s=0.2)


class Viewer:
    """Rerun's own program, which keeps in a file what it gets."""

    def __init__(self, url: str, folder: Path) -> None:
        self._file = folder / "got.rrd"
        command = [str(rerun_program()), "--bind", "127.0.0.1", "--port", str(free_port())]
        environment = {**os.environ, **without_analytics(folder / "settings")}
        self._process = subprocess.Popen(
            [*command, url, "--save", str(self._file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def has(self, *frames: int) -> bool:
        with contextlib.suppress(OSError, ValueError, subprocess.CalledProcessError):  # it has just begun
            return set(frames) <= set(rows(self._file).get(POINTS, ()))
        return False


def test_a_viewer_gets_what_the_hub_has_and_what_comes(hub: TlsHub, tmp_path: Path) -> None:
    hub.push(0, 1, 2)
    with relay(hub) as way, Viewer(way.url, tmp_path) as viewer:
        eventually(lambda: viewer.has(0, 1, 2), PATIENCE_S)
        assert way.state is LinkState.LIVE
        hub.push(3)
        eventually(lambda: viewer.has(3), PATIENCE_S)
    assert way.state is LinkState.OFF


def test_a_hub_that_is_killed_is_called_again_and_the_viewer_goes_on(
    hub: TlsHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge")
    hub.push(0)
    with relay(hub) as way, Viewer(way.url, tmp_path) as viewer:
        eventually(lambda: viewer.has(0), PATIENCE_S)
        hub.kill()
        eventually(lambda: way.state is LinkState.AWAY, PATIENCE_S)
        hub.push(1)
        hub.start()
        eventually(lambda: viewer.has(0, 1), PATIENCE_S)
        assert way.state is LinkState.LIVE
    told = [(record.levelname, record.message.partition(": ")[0]) for record in caplog.records]
    address = hub.address
    assert told == [("WARNING", f"the hub at {address} is away"), ("INFO", f"the hub at {address} is there")]


def test_a_hub_that_freezes_is_noticed_and_does_not_hold_up_the_end(
    hub: TlsHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge")
    hub.push(0)
    with relay(hub, silent_s=0.5) as way, Viewer(way.url, tmp_path) as viewer:
        eventually(lambda: viewer.has(0), PATIENCE_S)
        hub.freeze()
        eventually(lambda: way.state is LinkState.AWAY, PATIENCE_S)
        hub.thaw()
        hub.push(1)
        eventually(lambda: viewer.has(1), PATIENCE_S)
        eventually(lambda: caplog.messages[-1] == f"the hub at {hub.address} is there", PATIENCE_S)
        hub.freeze()
    assert "hub relay" not in {thread.name for thread in threading.enumerate()}
    assert caplog.messages[0] == f"nothing comes from the hub at {hub.address}: it does not answer"
    hub.thaw()


def test_a_server_that_is_frozen_behind_a_hub_is_told_and_so_is_its_end(
    hub: TlsHub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge")
    hub.push(0)
    hub.rerun.process.send_signal(signal.SIGSTOP)
    with relay(hub, silent_s=0.5) as way, Viewer(way.url, tmp_path) as viewer:
        eventually(lambda: caplog.messages, PATIENCE_S)
        hub.rerun.process.send_signal(signal.SIGCONT)
        eventually(lambda: viewer.has(0), PATIENCE_S)
    assert caplog.messages == [
        f"nothing comes from the hub at {hub.address}: it does not answer",
        f"the hub at {hub.address} is there",
    ]


def test_a_quiet_hub_is_not_a_silent_one(caplog: pytest.LogCaptureFixture) -> None:
    with (
        OwnHub() as quiet,
        Relay(quiet.address, silent_s=0.4) as way,
        Caller(way.port) as caller,
    ):
        caller.call()
        eventually(lambda: quiet.pings >= 3, PATIENCE_S)
        assert way.state is LinkState.LIVE
    assert not caplog.records


@pytest.mark.parametrize(("who", "told"), [("device", "does not let this certificate read"), (None, "wants a")])
def test_who_may_not_read_is_told_so_once_and_so_is_the_viewer(
    hub: TlsHub, who: str | None, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    with relay(hub, who) as way, Caller(way.port) as caller:
        ended = caller.call().outcome()
    assert ended["grpc-status"] == "7"
    assert told in ended["grpc-message"]
    (line,) = caplog.messages
    assert told in line


def test_nothing_but_reading_is_passed_on(hub: TlsHub) -> None:
    with relay(hub) as way, Caller(way.port) as caller:
        ended = caller.call(READ_MESSAGES.replace("Read", "Write")).outcome()
    assert ended["grpc-status"] == "12"


def test_another_version_of_rerun_is_told(hub: TlsHub, caplog: pytest.LogCaptureFixture) -> None:
    hub.push(0)  # without anything to send, nginx would keep the answer's beginning to itself
    with relay(hub, viewer="0.40.0") as way, Caller(way.port) as caller:
        caller.call()
        eventually(lambda: way.state is LinkState.LIVE, PATIENCE_S)
    (line,) = caplog.messages
    assert "the hub has Rerun 0.41.0 and this viewer is 0.40.0" in line


def test_a_viewer_that_takes_nothing_costs_no_memory() -> None:
    with OwnHub(bytes([0]) + (60_000).to_bytes(4) + bytes(60_000), times=4000) as endless:
        with Relay(endless.address) as way, Caller(way.port) as caller:
            caller.call()
            assert endless.is_held_up.wait(PATIENCE_S)
            # The windows and the system's own buffers, of 256 MB that were to be had.
            assert endless.sent_bytes < 32 * 2**20
        assert "hub relay" not in {thread.name for thread in threading.enumerate()}


def test_a_viewer_that_asks_for_too_much_is_turned_away(hub: TlsHub) -> None:
    with relay(hub) as way, Caller(way.port) as caller:
        assert caller.call(request=bytes(20_000)).outcome() == {"reset": "11"}


def test_a_message_that_is_larger_than_any_should_be_is_refused() -> None:
    with (
        OwnHub(bytes([0]) + (2**30).to_bytes(4)) as strange,
        Relay(strange.address) as way,
        Caller(way.port) as caller,
    ):
        ended = caller.call().outcome()
    assert ended["grpc-message"] == "it sends a message of 1024 MiB, 128 are taken"


def test_what_is_no_http2_is_hung_up_on(hub: TlsHub) -> None:
    with relay(hub) as way, socket.create_connection(("127.0.0.1", way.port), timeout=PATIENCE_S) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n" * 2)
        while received := plain.recv(4096):
            assert b"HTTP/1.1" not in received


def test_a_new_list_of_the_revoked_ends_no_view_but_theirs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The hub that is shipped cuts every connection then, so that each client has to show anew who it is."""
    with secured_hub() as (hub, authorities):
        authorities.person("anna", "reader")
        identity = Identity("rerun", authorities.servers_ca, *authorities.certificate("anna"))
        address = Address.of(f"rerun+https://{HOST}:{hub.port}/proxy", identity)
        log_points(f"rerun+http://127.0.0.1:{hub.grpc_port}/proxy", 0)
        with Relay(address, retry_s=0.2) as way, Viewer(way.url, tmp_path) as viewer:
            eventually(lambda: viewer.has(0), PATIENCE_S)
            hub.reload()
            eventually(lambda: "the connection was cut" in caplog.text, PATIENCE_S)
            log_points(f"rerun+http://127.0.0.1:{hub.grpc_port}/proxy", 1)
            eventually(lambda: viewer.has(0, 1), PATIENCE_S)
            authorities.revoke("people", "anna")
            hub.bring_crls()
            hub.reload()
            eventually(lambda: "this one expired, was revoked" in caplog.text, PATIENCE_S)
            eventually(lambda: way.state is LinkState.OFF, PATIENCE_S)


CONNECT = """
import encodings.idna, os, socket, sys  # the first for the address: that user may not read this Python
os.setuid(int(sys.argv[2]))
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10) as plain:
    try:
        plain.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        print(len(plain.recv(9)))
    except ConnectionError:
        print(0)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_of_this_machine_is_refused(hub: TlsHub, caplog: pytest.LogCaptureFixture) -> None:
    def connect(port: int, user: int) -> str:
        command = [sys.executable, "-I", "-c", CONNECT, str(port), str(user)]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    with relay(hub) as way:
        assert connect(way.port, 0) == "9"
        assert connect(way.port, 65534) == "0"
        assert connect(way.port, 65534) == "0"
    assert caplog.messages == ["refused a connection of another user (65534) on this machine"]


def test_who_is_at_the_other_end_stands_in_the_systems_tables(tmp_path: Path) -> None:
    head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    ends = "0100007F:1234 0100007F:2694"
    mapped = "0000000000000000FFFF00000100007F:1235 0000000000000000FFFF00000100007F:2694"
    (tmp_path / "tcp").write_text(
        f"{head}   0: 0100007F:2694 0100007F:1234 01 00000000:00000000 00:00000000 00000000     0        0 77 1 0\n"
        f"   1: {ends} 01 00000000:00000000 00:00000000 00000000  1000        0 78 1 0\n"
        f"   2: {ends.replace('1234', '1236')} 04 00000000:00000000 00:00000000 00000000     0        0 0 1 0\n"
    )
    assert user_of(0x1234, 9876, tmp_path) == 1000
    assert user_of(0x1235, 9876, tmp_path) is None
    (tmp_path / "tcp6").write_text(f"{head}   0: {mapped} 01 0:0 00:00000000 00000000  1001        0 79 1 0\n")
    assert user_of(0x1235, 9876, tmp_path) == 1001
    assert user_of(0x1236, 9876, tmp_path) is None, "it has been closed, and root stands there for nobody"
    with pytest.raises(FileNotFoundError):
        user_of(0x1234, 9876, tmp_path / "elsewhere")


class Caller:
    """A gRPC client that reads only when it is told to."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, path: str = READ_MESSAGES, request: bytes = bytes(5)) -> Self:
        headers = {":method": "POST", ":scheme": "http", ":authority": "relay", ":path": path, "te": "trailers"}
        self._h2.send_headers(1, list(headers.items()))
        for at in range(0, len(request), 16_384):
            self._h2.send_data(1, request[at : at + 16_384])
        self._h2.end_stream(1)
        self._socket.sendall(self._h2.data_to_send())
        return self

    def outcome(self) -> dict[str, str]:
        """The trailers, or the code of a reset."""
        while received := self._socket.recv(65_536):
            for event in self._h2.receive_data(received):
                match event:
                    case h2.events.TrailersReceived():
                        return dict(event.headers)
                    case h2.events.StreamReset():
                        return {"reset": str(int(event.error_code))}
            self._socket.sendall(self._h2.data_to_send())
        raise AssertionError("it hung up")


class OwnHub:
    """Sends a message so many times, as fast as it is taken, and is quiet from then on."""

    def __init__(self, message: bytes = b"", *, times: int = 1) -> None:
        self.sent_bytes = 0
        self.pings = 0
        self.is_held_up = threading.Event()
        self._message = message
        self._left = times

    def __enter__(self) -> Self:
        self._scratch = tempfile.TemporaryDirectory()
        folder = Path(self._scratch.name)
        certificates(folder)
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._tls.set_alpn_protocols(["h2"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(PATIENCE_S)
        url = f"rerun+https://localhost:{self._listener.getsockname()[1]}/proxy"
        self.address = Address.of(url, Identity("rerun", folder / "ca.crt"))
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()
        self._scratch.cleanup()

    def _serve(self) -> None:
        plain = self._listener.accept()[0]
        with contextlib.suppress(OSError), self._tls.wrap_socket(plain, server_side=True) as client:
            connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
            connection.initiate_connection()
            is_called = False
            while True:
                try:
                    client.settimeout(PATIENCE_S)
                    client.sendall(connection.data_to_send())
                    if is_called and self._left and connection.local_flow_control_window(1) >= len(self._message):
                        self._send(connection)
                        client.settimeout(1.0)
                        client.sendall(connection.data_to_send())
                        continue
                    client.settimeout(1.0 if self._left else PATIENCE_S)
                    received = client.recv(65_536)
                except TimeoutError:
                    self.is_held_up.set()
                    return
                if not received:
                    return
                for event in connection.receive_data(received):
                    match event:
                        case h2.events.RequestReceived():
                            is_called = True
                            connection.send_headers(1, [(":status", "200")])
                        case h2.events.PingReceived():
                            self.pings += 1

    def _send(self, connection: h2.connection.H2Connection) -> None:
        for at in range(0, len(self._message), 16_384):
            connection.send_data(1, self._message[at : at + 16_384])
        self.sent_bytes += len(self._message)
        self._left -= 1
