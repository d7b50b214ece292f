"""A hub that can be killed, frozen and started again: nginx with client certificates in front of Rerun's server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import rerun as rr

from edge import tls
from edge.cli.local_server import wait_until_listening
from edge.rerun_log import rrd
from edge.rerun_log.channel import Address
from edge.rerun_log.program import rerun_program, without_analytics
from tests.servers import certificates, client_certificate, free_port

DEVICE = "hall"
STRANGER = "stranger"
"""Whose certificates there are: of the hub's authority, and of one that it does not know."""

CONFIGURATION = """
daemon off;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream rerun {{
        server 127.0.0.1:{server_port};
        keepalive 16;
    }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
        ssl_client_certificate {folder}/ca.crt;
        ssl_verify_client on;
        add_header edge-pose-rerun "{version}" always;
        http2_body_preread_size 1m;
        client_max_body_size 0;
        {lines}
        location = {write_messages} {{
            {location}
            grpc_pass grpc://rerun;
        }}
    }}
}}
"""


class Program:
    """A process that can be killed, frozen and started again, with all that it has started itself."""

    def __init__(self, command: list[str], port: int, log: Path, environment: Mapping[str, str]) -> None:
        self._command, self._port, self._log = command, port, log
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    def start(self) -> None:
        """Returns when it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                process_group=0,
            )
        wait_until_listening(self._port, self._process)

    def kill(self) -> None:
        """With SIGKILL, if it runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)


class Hub:
    """Both programs, not started yet. lines, location: further ones of nginx's server and of what devices call.
    version: of Rerun, that it says it has."""

    def __init__(self, folder: Path, *, lines: str = "", location: str = "", version: str = rr.__version__) -> None:
        self.folder = folder
        self.port, self.server_port = free_port(), free_port()
        certificates(folder)
        client_certificate(folder, DEVICE)
        values = {"port": self.port, "server_port": self.server_port, "write_messages": rrd.WRITE_MESSAGES}
        text = CONFIGURATION.format(folder=folder, version=version, lines=lines, location=location, **values)
        (folder / "nginx.conf").write_text(text)
        self.rerun = rerun(folder, self.server_port)
        self.nginx = nginx(folder, self.port)

    @property
    def address(self) -> Address:
        return self.seen_by(DEVICE)

    @property
    def server_url(self) -> str:
        """Where Rerun's server is, past nginx."""
        return f"rerun+http://127.0.0.1:{self.server_port}/proxy"

    def seen_by(self, name: str | None, authority: str = "ca") -> Address:
        """The address, for one with the certificate of that name, or with none, who trusts that authority."""
        certificate = (None, None) if name is None else (self.folder / f"{name}.crt", self.folder / f"{name}.key")
        identity = tls.Identity("rerun", self.folder / f"{authority}.crt", *certificate)
        return Address.of(f"rerun+https://localhost:{self.port}/proxy", identity)

    def start(self) -> None:
        self.rerun.start()
        self.nginx.start()


def rerun(folder: Path, port: int) -> Program:
    """Rerun's server, with room for all that it gets."""
    command = [str(rerun_program()), "--serve-grpc", "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--server-memory-limit", "4GB"]
    return Program(command, port, folder / "rerun.log", without_analytics(folder / "rerun"))


def nginx(folder: Path, port: int) -> Program:
    """nginx on `folder`/nginx.conf."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "nginx is missing: requirements/system-packages.sh dev installs it"
    command = [program, "-e", "stderr", "-c", str(folder / "nginx.conf")]
    return Program(command, port, folder / "nginx.log", {})


@contextlib.contextmanager
def ended(*programs: Program) -> Iterator[None]:
    """Whatever happens, none of them is left."""
    try:
        yield
    finally:
        for program in programs:
            program.kill()


def remade(hub: Hub, change: Callable[[str], str]) -> None:
    """Start nginx anew with another configuration."""
    path = hub.folder / "nginx.conf"
    path.write_text(change(path.read_text()))
    hub.nginx.kill()
    hub.nginx.start()
