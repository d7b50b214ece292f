"""nginx and Rerun's server on deploy/hub, as a site has them, and calls to them as devices, viewers and browsers make.

Of the shipped configuration only paths and ports are others.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import socket
import ssl
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from edge.cli.local_server import wait_until_listening
from edge.rerun_log import rrd
from edge.rerun_log.program import rerun_program, without_analytics
from tests.secured_broker import HOST, ROOT, Authorities
from tests.servers import free_port

SHIPPED = ROOT / "deploy/hub"
SERVICE = "/rerun.sdk_comms.v1alpha1.MessageProxyService"
_CONFIGURED_IN = "/etc/edge-pose-hub"
_RUNS_IN = "/run/edge-pose-hub"
_TIMEOUT_S = 30.0
_AS_SHIPPED: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Answer:
    """What came back. status: 0 when nothing did. headers: with trailers, names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def grpc_status(self) -> str:
        return self.headers.get("grpc-status", "")

    @property
    def rerun(self) -> str:
        """The version that the hub says it has."""
        return self.headers.get("edge-pose-rerun", "")


class SecuredHub:
    """A hub at a free port. server_options: of Rerun's server, with other values than the unit's."""

    def __init__(
        self, folder: Path, authorities: Authorities, *, server_options: Mapping[str, str] = _AS_SHIPPED
    ) -> None:
        self.folder = folder
        self._authorities = authorities
        self.port, self.grpc_port, self.page_port = free_port(), free_port(), free_port()
        authorities.server("hub", HOST, "127.0.0.1")
        certificate, key = authorities.certificate("hub")
        shutil.copy(certificate, folder / "hub.pem")
        shutil.copy(key, folder / "hub.key")
        signers = (authorities.pki / name / "ca.pem" for name in ("devices", "people"))
        (folder / "ca.pem").write_text("".join(signer.read_text() for signer in signers))
        self.bring_crls()
        (folder / "nginx.conf").write_text(self._configuration())
        self.log = folder / "log"
        self._start(server_options)

    @property
    def servers(self) -> tuple[subprocess.Popen[bytes], subprocess.Popen[bytes]]:
        """nginx and Rerun's."""
        return self._nginx, self._rerun

    def bring_crls(self) -> None:
        lists = (self._authorities.pki / name / "crl.pem" for name in ("devices", "people"))
        (self.folder / "crl.pem").write_text("".join(each.read_text() for each in lists))

    def reload(self) -> None:
        """As edge-pose-hub-revoked.service has it done."""
        subprocess.run([*_nginx(self.folder), "-s", "reload"], check=True, capture_output=True)

    def end(self) -> None:
        for server in self.servers:
            server.terminate()
            server.wait(10)

    def listening(self) -> dict[str, set[int]]:
        """The TCP ports that its processes listen at, by address: hexadecimal, as the kernel shows it."""
        own = set()
        workers = Path(f"/proc/{self._nginx.pid}/task/{self._nginx.pid}/children").read_text().split()
        for process in (self._nginx.pid, *workers, self._rerun.pid):
            for entry in Path(f"/proc/{process}/fd").iterdir():
                with contextlib.suppress(OSError):
                    own.add(str(entry.readlink()))
        found: dict[str, set[int]] = {}
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self._nginx.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                address, _, port = fields[1].rpartition(":")
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                    found.setdefault(address, set()).add(int(port, 16))
        return found

    def _configuration(self) -> str:
        text = (SHIPPED / "nginx.conf").read_text()
        changes = {
            _CONFIGURED_IN: str(self.folder),
            _RUNS_IN: str(self.folder),
            "syslog:server=unix:/dev/log,nohostname,tag=hub": str(self.folder / "refused"),
            "worker_processes auto": "worker_processes 1",
            "[::]:9876": f"[::]:{self.port}",
            "127.0.0.1:9875": f"127.0.0.1:{self.grpc_port}",
            "127.0.0.1:9874": f"127.0.0.1:{self.page_port}",
        }
        for before, after in changes.items():
            assert before in text, before
            text = text.replace(before, after)
        return text

    def _start(self, options: Mapping[str, str]) -> None:
        command = [str(rerun_program()), *served()]
        for before, after in (("9875", self.grpc_port), ("9874", self.page_port)):
            command[command.index(before)] = str(after)
        for option, value in options.items():
            command[command.index(option) + 1] = value
        environment = {**os.environ, **without_analytics(self.folder / "config")}
        with self.log.open("ab") as out:
            self._rerun = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment)
            self._nginx = subprocess.Popen(_nginx(self.folder), stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        for port in (self.grpc_port, self.page_port):
            wait_until_listening(port, self._rerun)
        wait_until_listening(self.port, self._nginx)


def served() -> list[str]:
    """The options of Rerun's server in the unit."""
    text = (SHIPPED / "edge-pose-hub.service").read_text().replace("\\\n", "")
    (line,) = (line for line in text.splitlines() if line.startswith("ExecStart="))
    return shlex.split(line)[1:]


def _nginx(folder: Path) -> list[str]:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: requirements/system-packages.sh dev installs it"
    return [program, "-e", "stderr", "-c", str(folder / "nginx.conf")]


@contextlib.contextmanager
def secured_hub(*, server_options: Mapping[str, str] = _AS_SHIPPED) -> Iterator[tuple[SecuredHub, Authorities]]:
    """A hub and its site's authorities."""
    with tempfile.TemporaryDirectory(prefix="edge-pose-site-") as scratch, tempfile.TemporaryDirectory() as place:
        authorities = Authorities(Path(scratch))
        hub = SecuredHub(Path(place), authorities, server_options=server_options)
        try:
            yield hub, authorities
        finally:
            hub.end()


# --- calls


class Call:
    """One call on a connection of its own, HTTP/2 as gRPC has it. name: whose certificate; None: none.

    The body ends with `finish`. Raises ssl.SSLError, or ConnectionError, where the handshake fails.
    """

    def __init__(
        self,
        authorities: Authorities,
        name: str | None,
        port: int,
        path: str,
        *,
        host: str = HOST,
        tls: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        method: str = "POST",
        content_type: str = "application/grpc",
    ) -> None:
        context = ssl.create_default_context(cafile=str(authorities.servers_ca))
        context.minimum_version = context.maximum_version = tls
        if tls < ssl.TLSVersion.TLSv1_2:
            context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself would not offer it
        context.set_alpn_protocols(["h2"])
        if name is not None:
            context.load_cert_chain(*authorities.certificate(name))
        plain = socket.create_connection((host, port), timeout=_TIMEOUT_S)
        try:
            self._socket = context.wrap_socket(plain, server_hostname=host)
        except BaseException:
            plain.close()
            raise
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self.ended = False
        self._stream = self._h2.get_next_available_stream_id()
        head = [(":method", method), (":scheme", "https"), (":authority", f"{host}:{port}"), (":path", path)]
        if method == "POST":
            head += [("content-type", content_type), ("te", "trailers")]
        self._h2.send_headers(self._stream, head, end_stream=method != "POST")
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._socket.close()

    def send(self, body: bytes) -> None:
        """Raises ConnectionError when nobody takes it any more."""
        while body and not self.ended:
            size = min(len(body), self._h2.local_flow_control_window(self._stream), self._h2.max_outbound_frame_size)
            if size:
                self._h2.send_data(self._stream, body[:size])
                body = body[size:]
                self._flush()
            else:
                self._receive()

    def finish(self) -> None:
        if not self.ended:
            self._h2.end_stream(self._stream)
            self._flush()

    def answer(self) -> Answer:
        """All of it, when it has ended."""
        while not self.ended:
            self._receive()
        return Answer(int(self._headers.get(":status", 0)), self._headers, bytes(self._body))

    def read_until(self, text: bytes) -> bytes:
        """What has come, as soon as `text` is in it. Raises ConnectionError when the end comes first."""
        while text not in self._body:
            if self.ended:
                raise ConnectionError(self._headers)
            self._receive()
        return bytes(self._body)

    def _receive(self) -> None:
        data = self._socket.recv(1 << 20)
        if not data:
            self.ended = True
            return
        for event in self._h2.receive_data(data):
            if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                self._headers |= dict(event.headers)  # type: ignore[arg-type]
            elif isinstance(event, h2.events.DataReceived):
                self._body += event.data
                self._h2.acknowledge_received_data(event.flow_controlled_length, self._stream)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset, h2.events.ConnectionTerminated)):
                self.ended = True
        self._flush()

    def _flush(self) -> None:
        if data := self._h2.data_to_send():
            self._socket.sendall(data)


def framed(message: bytes) -> bytes:
    """A message of gRPC, not compressed."""
    return struct.pack(">BI", 0, len(message)) + message


def written(recording: bytes) -> list[bytes]:
    """The messages of WriteMessages for what an .rrd holds, each framed."""
    _, framed_messages = rrd.split(recording)
    return [message.request for message in rrd.messages(framed_messages)]
