"""The real servers that tests talk to, each on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.cli.local_server import free_port, wait_until_listening
from edge.cli.local_viewer import rerun_program, without_analytics


@dataclass(frozen=True)
class Server:
    port: int
    url: str
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def _running(command: list[str], port: int, url: str, **environment: str) -> Iterator[Server]:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, env={**os.environ, **environment})
    try:
        wait_until_listening(port)
        yield Server(port, url, process)
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def mosquitto(*, port: int | None = None, settings: str = "") -> Iterator[Server]:
    """A broker that lets anybody in unless `settings`, lines of mosquitto.conf, say otherwise."""
    program = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program, "mosquitto is missing: requirements/system-packages.sh dev installs it"
    port = port or free_port()
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "mosquitto.conf"
        anonymous = "" if "allow_anonymous" in settings else "allow_anonymous true\n"
        config.write_text(f"listener {port} 127.0.0.1\nuser root\npersistence false\n{anonymous}{settings}\n")
        with _running([program, "-c", str(config)], port, f"mqtt://127.0.0.1:{port}") as server:
            yield server


@contextlib.contextmanager
def rerun_server(*, port: int | None = None) -> Iterator[Server]:
    """A server that devices push to and viewers read from, as on a hub."""
    port = port or free_port()
    with tempfile.TemporaryDirectory() as scratch:
        command = [str(rerun_program()), "--serve-grpc", "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--memory-limit", "500MB", "--server-memory-limit", "500MB"]
        url = f"rerun+http://127.0.0.1:{port}/proxy"
        with _running(command, port, url, **without_analytics(Path(scratch))) as server:
            yield server


def certificates(folder: Path) -> None:
    """Make an authority, ca.crt, a server.crt and server.key that it signed for localhost, and a stranger.crt."""

    def openssl(command: str) -> None:
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True, cwd=folder)

    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    for name in ("ca", "stranger"):
        usage = "-addext keyUsage=critical,keyCertSign,cRLSign"  # Python 3.13 insists on it
        openssl(f"req -x509 {key} {usage} -subj /CN={name} -keyout {name}.key -out {name}.crt")
    openssl(f"req {key} -subj /CN=localhost -keyout server.key -out server.csr")
    extensions = ("subjectAltName=DNS:localhost", "authorityKeyIdentifier=keyid", "subjectKeyIdentifier=hash")
    (folder / "extensions").write_text("\n".join(extensions))
    openssl("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -extfile extensions -out server.crt")


def tls_settings(folder: Path) -> str:
    """Lines of mosquitto.conf for a broker with the server's certificate."""
    return f"cafile {folder}/ca.crt\ncertfile {folder}/server.crt\nkeyfile {folder}/server.key"
