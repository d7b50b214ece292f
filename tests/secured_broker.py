"""mosquitto on deploy/broker, as a site has it, with certificates of the site's own authorities.

Of the shipped configuration only paths and ports are others. It can be killed and started again on the same data.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edge.cli.local_server import wait_until_listening
from tests.servers import free_port

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "deploy/broker"
CONFIGURED_IN = "/etc/mosquitto/edge-pose"
DATA_IN = "/var/lib/mosquitto/edge-pose"
HOST = "localhost"
"""What the broker's certificate is for."""


class Authorities:
    """The site's, as deploy/pki/pki.py makes them; and what others have: NAME.key and NAME.pem."""

    def __init__(self, folder: Path) -> None:
        self.pki, self.keys = folder / "pki", folder / "keys"
        self.keys.mkdir()
        self._pki("init", str(self.pki))

    @property
    def servers_ca(self) -> Path:
        return self.pki / "servers/ca.pem"

    def device(self, name: str, *options: str) -> None:
        self._issue("devices", name, *options)

    def person(self, name: str, role: str) -> None:
        self._issue("people", name, "--role", role)

    def server(self, name: str, *addresses: str) -> None:
        self._issue("servers", name, "--address", *addresses)

    def certificate(self, name: str) -> tuple[Path, Path]:
        """The certificate's file and the key's."""
        return self.keys / f"{name}.pem", self.keys / f"{name}.key"

    def expired_device(self, name: str) -> None:
        """One with a certificate that was good until yesterday; pki.py makes none."""
        certificate, _ = self.certificate(name)
        self.device(name)
        signer = (
            "-CA",
            str(self.pki / "devices/ca.pem"),
            "-CAkey",
            str(self.pki / "devices/ca.key"),
            "-CAcreateserial",
        )
        request = ("-in", str(self.keys / f"{name}.csr"), "-out", str(certificate), "-subj", f"/CN={name}")
        subprocess.run(["openssl", "x509", "-req", "-days", "-1", *request, *signer], check=True, capture_output=True)

    def revoke(self, authority: str, name: str) -> None:
        self._pki("revoke", str(self.pki), authority, name)

    def _issue(self, authority: str, name: str, *options: str) -> None:
        certificate, key = self.certificate(name)
        request = self.keys / f"{name}.csr"
        make = ("openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        subject = ("-subj", "/CN=whoever", "-keyout", str(key), "-out", str(request))
        subprocess.run([*make, *subject], check=True, capture_output=True)
        certificate.write_text(self._pki("sign", str(self.pki), authority, name, str(request), *options))

    @staticmethod
    def _pki(*arguments: str) -> str:
        """What it prints. It runs as a controller runs it, by the Python that Ansible has."""
        python = ROOT / ".venv/ansible/bin/python"
        assert python.exists(), "the controller's Python is missing: 'make ansible' installs it"
        done = subprocess.run(
            [python, ROOT / "deploy/pki/pki.py", *arguments], check=False, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


class SecuredBroker:
    """A broker at two free ports. replaced: texts of the shipped configuration, and what stands there instead."""

    def __init__(
        self, folder: Path, authorities: Authorities, *, program: str = "", replaced: dict[str, str] | None = None
    ) -> None:
        self._folder = folder
        self._authorities = authorities
        self._program = program or shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin") or ""
        assert self._program, "mosquitto is missing: requirements/system-packages.sh dev installs it"
        self.devices_port, self.people_port = free_port(), free_port()
        self.data = folder / "data"
        self.data.mkdir()
        authorities.server("broker", HOST, "127.0.0.1")
        certificate, key = authorities.certificate("broker")
        shutil.copy(certificate, folder / "broker.pem")
        shutil.copy(key, folder / "broker.key")
        for name in ("devices", "people"):
            shutil.copy(authorities.pki / name / "ca.pem", folder / f"ca-{name}.pem")
        shutil.copy(SHIPPED / "acl", folder)
        self.bring_crls()
        (folder / "mosquitto.conf").write_text(self._configuration(replaced or {}))
        if os.geteuid() == 0:  # mosquitto then becomes this user, as it is under systemd
            user = pwd.getpwnam("mosquitto")
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.pw_uid, user.pw_gid)
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def devices_url(self) -> str:
        return f"mqtts://{HOST}:{self.devices_port}"

    @property
    def people_url(self) -> str:
        return f"mqtts://{HOST}:{self.people_port}"

    def start(self) -> None:
        """On the data that there is; returns when it listens."""
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [self._program, "-c", str(self._folder / "mosquitto.conf")],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        for port in (self.devices_port, self.people_port):
            wait_until_listening(port)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """With SIGKILL: what is not on the disk is lost."""
        self.process.send_signal(number)
        self.process.wait(10)

    def restart(self) -> None:
        """As edge-pose-broker-revoked.service has it done."""
        self.end()
        self.start()

    def bring_crls(self) -> None:
        """Put the authorities' lists in place of those here, as a whole."""
        for name in ("devices", "people"):
            arriving = self._folder / f"crl-{name}.new"
            shutil.copy(self._authorities.pki / name / "crl.pem", arriving)
            if os.geteuid() == 0:
                os.chown(arriving, pwd.getpwnam("mosquitto").pw_uid, -1)
            arriving.replace(self._folder / f"crl-{name}.pem")

    def listening(self) -> set[int]:
        """The TCP ports that its process listens at, on any address."""
        found: set[int] = set()
        own = set()
        for entry in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                own.add(str(entry.readlink()))
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self.process.pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in own:
                    found.add(int(fields[1].rpartition(":")[2], 16))
        return found

    def _configuration(self, replaced: dict[str, str]) -> str:
        text = (SHIPPED / "mosquitto.conf").read_text()
        changes = {
            CONFIGURED_IN: str(self._folder),
            DATA_IN: str(self.data),
            "listener 8883": f"listener {self.devices_port}",
            "listener 8884": f"listener {self.people_port}",
            **replaced,
        }
        for before, after in changes.items():
            assert before in text, before
            text = text.replace(before, after)
        return text


@contextlib.contextmanager
def secured_broker(
    *, program: str = "", replaced: dict[str, str] | None = None
) -> Iterator[tuple[SecuredBroker, Authorities]]:
    """A broker and its site's authorities. replaced: texts of the configuration that are others, for comparisons."""
    with tempfile.TemporaryDirectory(prefix="edge-pose-site-") as scratch, tempfile.TemporaryDirectory() as place:
        authorities = Authorities(Path(scratch))
        broker = SecuredBroker(Path(place), authorities, program=program, replaced=replaced)
        try:
            yield broker, authorities
        finally:
            if broker.process.poll() is None:
                broker.end(signal.SIGKILL)
