"""The real servers that tests talk to, each on a free port of the loopback interface."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rerun.experimental import ViewerClient

from edge.cameras.driver import SYSTEM_PYTHON
from edge.cli.local_server import wait_until_listening
from edge.cli.local_viewer import rerun_program, without_analytics

# Below those that Linux gives away itself, so that nobody gets one between the choice and its use; to each process of
# pytest-xdist its own.
_FIRST_PORT, _PORTS = 10_000, 20_000
_SHARE = _PORTS // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_BEGIN = _FIRST_PORT + _SHARE * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
_TURNS = itertools.count(random.randrange(_SHARE))


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on, nor will: it is given once."""
    for turn in itertools.islice(_TURNS, _SHARE):
        port = _BEGIN + turn % _SHARE
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no port from {_BEGIN} to {_BEGIN + _SHARE - 1} is free")


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


@contextlib.contextmanager
def native_viewer(width_px: int, height_px: int) -> Iterator[ViewerClient]:
    """Rerun's viewer in a window that no screen shows; it takes mesa-vulkan-drivers, and ffmpeg for H.264."""
    port = free_port()
    with tempfile.TemporaryDirectory() as scratch:
        command = [str(rerun_program()), "--headless", "--bind", "127.0.0.1", "--port", str(port)]
        command += ["--window-size", f"{width_px}x{height_px}", "--hide-welcome-screen"]
        url = f"rerun+http://127.0.0.1:{port}/proxy"
        with _running(command, port, url, **without_analytics(Path(scratch))):
            yield ViewerClient.connect(url)


@contextlib.contextmanager
def rtsp_server(
    mounts: Mapping[str, str], *, user: str = "", password: str = "", port: int | None = None
) -> Iterator[Server]:
    """One that streams, at each path, what its pipeline gives: see rtsp_server.py."""
    port = port or free_port()
    program = Path(__file__).with_name("rtsp_server.py")
    command = [SYSTEM_PYTHON, str(program), str(port), "--user", user, "--password", password]
    for path, pipeline in mounts.items():
        command += ["--mount", path, pipeline]
    with _running(command, port, f"rtsp://127.0.0.1:{port}") as server:
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


def client_certificate(folder: Path, name: str, *, authority: str = "ca", passphrase: str = "") -> None:
    """Make NAME.crt and NAME.key for a client; call `certificates` first. passphrase: what the key is sealed with."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, cwd=folder)

    seal = ("-passout", f"pass:{passphrase}") if passphrase else ("-nodes",)
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", *seal, "-keyout", f"{name}.key")
    openssl("req", *key, "-subj", f"/CN={name}", "-out", f"{name}.csr")
    signer = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial")
    openssl("x509", "-req", "-in", f"{name}.csr", *signer, "-out", f"{name}.crt")


def websocket_settings(port: int | None = None) -> str:
    """Lines of mosquitto.conf that turn the listener into one for websockets, followed by a usual one on `port`.

    Without the second one mosquitto 2.0.11 does not start. Lines about TLS have to come before these.
    """
    return f"protocol websockets\nlistener {port or free_port()} 127.0.0.1"


def client_certificate_settings(folder: Path) -> str:
    """Lines of mosquitto.conf for a broker with TLS that lets in only who has a certificate of the authority."""
    return f"{tls_settings(folder)}\nrequire_certificate true"


def one_session_a_user_settings(port: int) -> str:
    """Lines of mosquitto.conf for a broker that names sessions after users, and at `port` after what clients say."""
    return f"use_username_as_clientid true\nlistener {port} 127.0.0.1"


def no_subscriptions_settings(folder: Path) -> str:
    """Lines of mosquitto.conf for a broker that refuses every subscription; its ACL file can't, it only drops."""
    access = {"publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
    roles = folder / "dynamic-security.json"
    roles.write_text(json.dumps({"defaultACLAccess": access, "clients": [], "groups": [], "roles": []}))
    places = (Path("/usr/lib"), Path("/usr/local/lib"))
    plugin = next(file for place in places for file in place.rglob("mosquitto_dynamic_security.so"))
    return f"plugin {plugin}\nplugin_opt_config_file {roles}"


class Relay:
    """Stands between clients and a server on the loopback interface, as the network does: it can be held and cut.

    listens: it notes what clients send. bytes_s: so much it lets through each way, None for all; a little more waits in
    buffers.
    """

    def __init__(self, server_port: int, *, port: int = 0, listens: bool = False, bytes_s: float | None = None) -> None:
        self._listens = listens
        self._notes: dict[socket.socket, bytearray] = {}
        self._server_port = server_port
        self._bytes_s = bytes_s
        self.to_server = 0
        """How many bytes went there."""
        self._listener = socket.create_server(("127.0.0.1", port))
        self._ends: list[tuple[socket.socket, socket.socket]] = []  # of all connections there were
        self._passes = threading.Event()
        self._passes.set()
        self.port = int(self._listener.getsockname()[1])
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def heard(self) -> list[bytes]:
        """Of each connection, what its client has sent."""
        return [bytes(notes) for notes in list(self._notes.values())]

    def hold(self) -> None:
        """Let nothing through. What comes meanwhile is lost at the next `cut`, or let through by `release`."""
        self._passes.clear()

    def release(self) -> None:
        self._passes.set()

    def cut(self, *, unnoticed: bool = False) -> None:
        """End the connections there are. unnoticed: the server is not told."""
        for client, server in self._ends:
            for end in (client,) if unnoticed else (client, server):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self.release()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in (end for ends in self._ends for end in ends):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.socket()
                self._ends.append((client, server))
                try:
                    server.connect(("127.0.0.1", self._server_port))
                except ConnectionError:  # it is away
                    client.shutdown(socket.SHUT_RDWR)
                    continue
                if self._listens:
                    self._notes[client] = bytearray()
                for source, sink in ((client, server), (server, client)):
                    thread = threading.Thread(
                        target=self._pass_on,
                        args=(source, sink),
                        kwargs={"to_server": sink is server},
                        daemon=True,
                    )
                    self._threads.append(thread)
                    thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, *, to_server: bool) -> None:
        notes = self._notes.get(source)
        if self._bytes_s is not None:
            source.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
        with contextlib.suppress(OSError):
            while data := source.recv(65536 if self._bytes_s is None else 4096):
                self._passes.wait()
                if notes is not None:
                    notes += data
                if self._bytes_s is not None:
                    time.sleep(len(data) / self._bytes_s)
                sink.sendall(data)
                self.to_server += len(data) if to_server else 0


@contextlib.contextmanager
def relay(server_port: int, *, port: int = 0, listens: bool = False, bytes_s: float | None = None) -> Iterator[Relay]:
    """A network to the server on that port that fails on request, and is as thin as `bytes_s` says. port: where it is
    reached, by default any."""
    network = Relay(server_port, port=port, listens=listens, bytes_s=bytes_s)
    try:
        yield network
    finally:
        network.close()
