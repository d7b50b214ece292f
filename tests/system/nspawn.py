"""A host to provision: a bare Debian with a systemd of its own, SSH and sudo, behind a cable of its own.

It reaches the test side and nothing else. What it installs from Debian comes through a proxy there, which writes down
whom it was asked for. Wants root, mmdebstrap and systemd-container.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from tests.conftest import eventually

USER = "admin"
"""Logs in with a key and has sudo without a password, as on a freshly flashed card."""

_PACKAGES = "ca-certificates,dbus,iproute2,libpam-systemd,openssh-server,python3,sudo,systemd-sysv,udev"
_PREPARE = (
    f"useradd --create-home --shell /bin/bash {USER}",
    f"echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}",
    "rm -f /etc/ssh/ssh_host_*",  # each host gets its own
    "mkdir -p /var/log/journal",
)
CACHE = Path(os.environ.get("EDGE_POSE_TEST_CACHE", ".venv/cache/system")).resolve()
"""What is slow to make and the same for every run."""
_PROXY_PORT = 3142
# The container's own view of control groups, pure version 2, whatever the machine has.
_CGROUP_V2 = 'umount -R -l /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"'


@dataclass(frozen=True)
class Host:
    """A running host.

    name: its host name. address: where it is reached from here. outside: the test side's address, where it reaches what
    listens here. root: its file system. key, known_hosts: files for SSH. asked: whom its apt asked the proxy for.
    """

    name: str
    address: str
    outside: str
    root: Path
    key: Path
    known_hosts: Path
    asked: set[str]

    def run(self, command: str, *, timeout_s: float = 60, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root. A failure is one of the test's unless `check` is False."""
        ssh = ["ssh", *self.ssh_options, f"{USER}@{self.address}", f"sudo sh -c {shlex.quote(command)}"]
        done = subprocess.run(ssh, check=False, capture_output=True, text=True, timeout=timeout_s)
        assert done.returncode == 0 or not check, f"{command}: {done.returncode}: {done.stdout}{done.stderr}"
        return done

    @property
    def ssh_options(self) -> list[str]:
        return [
            *("-i", str(self.key), "-o", "BatchMode=yes", "-o", "ConnectTimeout=5"),
            *("-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "StrictHostKeyChecking=yes"),
        ]


_HOSTS = itertools.count(os.getpid())
"""One name and network each: several may run at once, also in one process."""


@contextlib.contextmanager
def nspawn_host(*, suite: str = "trixie", name: str = "hall-pi") -> Iterator[Host]:
    """Boot a host that has never seen edge-pose. suite: a Debian release."""
    archive = _bare_system(suite)
    this = next(_HOSTS)
    number = this % 250 + 1
    link = f"edge{this}"
    outside, address = f"10.213.{number}.1", f"10.213.{number}.2"
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-pose-host-")))
        root, key, known_hosts = scratch / "root", scratch / "key", scratch / "known_hosts"
        root.mkdir()
        _run(f"tar --extract --file {archive} --directory {root} --numeric-owner --xattrs-include=*")
        _run(f"ssh-keygen -q -t ed25519 -N '' -f {key}")
        _run(f"ssh-keygen -A -f {root}")
        host_key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text()
        known_hosts.write_text(f"{address} {host_key}")
        _settle_in(root, name, key.with_suffix(".pub"), outside)

        _run(f"ip netns add {link}")
        stack.callback(_run, f"ip netns delete {link}")
        _run(f"ip link add {link} type veth peer name host0 netns {link}")
        _run(f"ip address add {outside}/30 dev {link}")
        _run(f"ip link set {link} up")
        for command in ("link set lo up", "link set host0 up", f"address add {address}/30 dev host0"):
            _run(f"ip -n {link} {command}")
        asked = stack.enter_context(_proxy(outside))
        stack.enter_context(_booted(root, name, link, scratch / "console.log"))
        host = Host(name, address, outside, root, key, known_hosts, asked)
        eventually(lambda: host.run("true", check=False).returncode == 0, 60)
        yield host


def _bare_system(suite: str) -> Path:
    """The archive of a system with what every image has; made once."""
    recipe = hashlib.sha256(repr((_PACKAGES, _PREPARE)).encode()).hexdigest()[:8]
    archive = CACHE / f"host-{suite}-{recipe}.tar"
    if not archive.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        partial = archive.with_suffix(f".{os.getpid()}.part")
        prepare = [f'--customize-hook=chroot "$1" sh -c {shlex.quote(line)}' for line in _PREPARE]
        command = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={_PACKAGES}", *prepare]
        subprocess.run([*command, suite, str(partial)], check=True, timeout=900)
        partial.replace(archive)
    return archive


def _settle_in(root: Path, name: str, public_key: Path, outside: str) -> None:
    (root / "etc/hostname").write_text(f"{name}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {name}\n")
    (root / "etc/machine-id").write_text("")
    (root / "etc/apt/apt.conf.d/proxy").write_text(f'Acquire::http::Proxy "http://{outside}:{_PROXY_PORT}";\n')
    authorized = root / f"home/{USER}/.ssh/authorized_keys"
    authorized.parent.mkdir(mode=0o700)
    authorized.write_text(public_key.read_text())
    home = (root / f"home/{USER}").stat()
    for path in (authorized.parent, authorized):
        os.chown(path, home.st_uid, home.st_gid)


@contextlib.contextmanager
def _booted(root: Path, name: str, netns: str, console: Path) -> Iterator[None]:
    nspawn = [
        *("systemd-nspawn", "--quiet", "--boot", f"--directory={root}", f"--machine={name}", "--register=no"),
        *("--keep-unit", f"--network-namespace-path=/run/netns/{netns}", "--capability=CAP_NET_ADMIN"),
        *("--resolv-conf=off", "--link-journal=no", "--console=pipe"),
        "--system-call-filter=@keyring bpf",  # for the host to be able to run containers
    ]
    unshare = ["unshare", "--mount", "--propagation=private", "bash", "-c", _CGROUP_V2, "_"]
    with console.open("wb") as log:
        environment = {**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"}  # for the same reason
        command = [*unshare, *nspawn]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
    try:
        yield
    except BaseException:
        if process.poll() is not None:
            print(f"the host is down: {console.read_text(errors='replace')[-2000:]}")
        raise
    finally:
        process.terminate()  # nspawn hands that on as an orderly shutdown
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _proxy(address: str) -> Iterator[set[str]]:
    """What apt on the host needs to reach Debian."""

    class Handler(_Forward):
        asked: ClassVar[set[str]] = set()

    server = http.server.ThreadingHTTPServer((address, _PROXY_PORT), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Handler.asked
    finally:
        server.shutdown()
        server.server_close()


class _Forward(http.server.BaseHTTPRequestHandler):
    asked: ClassVar[set[str]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.asked.add(urlsplit(self.path).hostname or self.path)
        passed_on = {"If-Modified-Since", "If-Range", "Range"}
        headers = {name: value for name, value in self.headers.items() if name in passed_on}
        try:
            answer = urllib.request.urlopen(urllib.request.Request(self.path, headers=headers), timeout=60)
        except urllib.error.HTTPError as error:
            answer = error
        except (OSError, ValueError) as error:
            self.send_error(502, str(error))
            return
        with answer:
            self.send_response(answer.status)
            for header in ("Content-Length", "Content-Range", "Content-Type", "Last-Modified"):
                if value := answer.headers.get(header):
                    self.send_header(header, value)
            if not answer.headers.get("Content-Length"):
                self.send_header("Connection", "close")
            self.end_headers()
            shutil.copyfileobj(answer, self.wfile)

    def log_message(self, *arguments: object) -> None:
        pass


def _run(command: str) -> None:
    done = subprocess.run(shlex.split(command), check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{command}: {done.stderr}"
