"""A hub for tests of those who read from it: nginx with client certificates in front of Rerun's server.

What is shipped as a hub has tests of its own; this is the least that is one, in a single process that can be killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import rerun as rr

from edge.cli.local_server import wait_until_listening
from edge.rerun_log.channel import Address
from edge.tls import Identity
from tests.servers import Server, certificates, client_certificate, free_port, rerun_server

CONFIGURATION = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    map $ssl_client_s_dn $may_read {{ default 0; "CN=reader" 1; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {folder}/server.crt;
        ssl_certificate_key {folder}/server.key;
        ssl_client_certificate {folder}/ca.crt;
        ssl_verify_client on;
        add_header edge-pose-rerun {version} always;
        if ($may_read = 0) {{ return 403; }}
        location /rerun. {{ grpc_read_timeout 1h; grpc_pass grpc://127.0.0.1:{rerun}; }}
        location / {{ return 200 "a page"; }}
    }}
}}
"""


class TlsHub:
    """rerun: the server behind it. Clients: reader, who may read; device, who may not; somebody, whom nobody knows."""

    def __init__(self, folder: Path, rerun: Server) -> None:
        self.rerun = rerun
        self.folder = folder
        self.address = Address("localhost", free_port(), None)
        certificates(folder)
        for name in ("reader", "device"):
            client_certificate(folder, name)
        client_certificate(folder, "somebody", authority="stranger")
        self.start()

    def start(self, *, version: str = rr.__version__) -> None:
        text = CONFIGURATION.format(folder=self.folder, port=self.address.port, rerun=self.rerun.port, version=version)
        (self.folder / "nginx.conf").write_text(text)
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "nginx is missing: requirements/system-packages.sh dev installs it"
        self._nginx = subprocess.Popen([program, "-e", "stderr", "-c", self.folder / "nginx.conf"])
        wait_until_listening(self.address.port, self._nginx)

    def kill(self) -> None:
        self._nginx.kill()
        self._nginx.wait()

    def freeze(self) -> None:
        self._nginx.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._nginx.send_signal(signal.SIGCONT)

    def seen_by(self, name: str | None) -> Address:
        """Its address, for who has that certificate."""
        return Address.of(f"rerun+https://{self.address}/proxy", self.identity(name))

    def identity(self, name: str | None = "reader") -> Identity:
        own = (None, None) if name is None else (self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return Identity("rerun", self.folder / "ca.crt", *own)

    def push(self, *frames: int) -> None:
        """Log points at these frames, as a device without a certificate could from inside the hub."""
        log_points(self.rerun.url, *frames)


def log_points(url: str, *frames: int) -> None:
    recording = rr.RecordingStream("edge-pose-hall", recording_id="hall-20260101T000000Z-0000abcd")
    recording.connect_grpc(url)
    for frame in frames:
        recording.set_time("frame_idx", sequence=frame)
        recording.log("/points", rr.Points2D([[frame, 1.0]]))
    recording.flush(timeout_sec=5.0)
    recording.disconnect()


@contextlib.contextmanager
def tls_hub() -> Iterator[TlsHub]:
    with tempfile.TemporaryDirectory() as folder, rerun_server() as rerun:
        hub = TlsHub(Path(folder), rerun)
        try:
            yield hub
        finally:
            hub.kill()
