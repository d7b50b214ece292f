"""A device's certificate by Ansible: the role's own tasks, this machine as the host and a directory as its /etc."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli.command import COMMAND
from tests.system.site import ansible_playbook
from tests.test_pki import Site, handshake, openssl

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]

ROOT = Path(__file__).parents[1]
HOST_SCRIPT = ROOT / "ansible/roles/edge_pose/files/host/certificate.py"
PLAY = """
- hosts: localhost
  gather_subset: [min]
  tasks:
    - ansible.builtin.include_role:
        name: edge_pose
        tasks_from: config
"""


@dataclass(frozen=True)
class Host:
    """etc: what is /etc/edge-pose elsewhere. scratch: a directory for files."""

    etc: Path
    scratch: Path
    variables: dict[str, Any] = field(default_factory=dict)

    def changes(self, *arguments: str, **variables: Any) -> int:
        """Run the play, and say how many tasks changed something. variables: the role's, without edge_pose_."""
        output, changed, failed = self._play(*arguments, **variables)
        assert not failed, output
        return changed

    def fails(self, **variables: Any) -> str:
        """What it prints when it does."""
        output, changed, failed = self._play(**variables)
        assert (changed, failed) == (0, 1), output
        return output

    def certificate(self) -> Path:
        """A copy, with the key beside it."""
        copy = self.scratch / "device.pem"
        shutil.copy(self.etc / "credentials/mqtt.cert", copy)
        shutil.copy(self.etc / "credentials/mqtt.key", copy.with_suffix(".key"))
        return copy

    def _play(self, *arguments: str, device: str = "hall-pi", **variables: Any) -> tuple[str, int, int]:
        """What it printed; how many tasks changed something, and failed."""
        named = f'device = "{device}"\n' if device else ""
        own = {
            "config": f'{named}[camera.front]\nsource = "synthetic"\n',
            "command": COMMAND,
            "etc": str(self.etc),
            "group": str(os.getgid()),
            "keeper": str(os.getuid()),
        }
        extra = {f"edge_pose_{name}": value for name, value in {**own, **self.variables, **variables}.items()}
        extra["ansible_python_interpreter"] = sys.executable
        (self.scratch / "variables.json").write_text(json.dumps(extra))
        (self.scratch / "play.yml").write_text(PLAY)
        environment = {
            **os.environ,
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_HOME": str(self.scratch / "ansible"),
            "ANSIBLE_ROLES_PATH": str(ROOT / "ansible/roles"),
        }
        command = [ansible_playbook(), "-i", "localhost,", "-c", "local", "-e", f"@{self.scratch}/variables.json"]
        done = subprocess.run(
            [*command, f"{self.scratch}/play.yml", *arguments],
            check=False,
            cwd=self.scratch,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        recap = re.search(r"^localhost .*changed=(\d+) +unreachable=0 +failed=(\d+)", done.stdout, re.MULTILINE)
        assert recap, done.stdout
        assert "PRIVATE KEY" not in done.stdout
        return done.stdout, int(recap[1]), int(recap[2])

    @property
    def credentials(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.etc / "credentials").iterdir()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site") / "pki", tmp_path_factory.mktemp("others"))
    made.ok("init")
    return made


@pytest.fixture(scope="module")  # a play takes five seconds: what one test leaves behind, the next one begins with
def host(tmp_path_factory: pytest.TempPathFactory, site: Site) -> Host:
    scratch = tmp_path_factory.mktemp("host")
    (scratch / "etc/credentials").mkdir(parents=True, mode=0o700)
    return Host(scratch / "etc", scratch, {"pki": str(site.pki)})


def test_what_cannot_work_stops_the_play_before_anything_changes(site: Site, host: Host) -> None:
    for said, expected in {
        host.fails(credentials={"mqtt.key": "x"}, certificate_renew_days=701, device=""): (
            "edge_pose_credentials names mqtt.key, which edge_pose_pki makes; leave one out",
            "edge_pose_certificate_renew_days = 701: expected 1 to 700",
            "edge_pose_config does not set device",
        ),
        host.fails(pki=f"{site.pki}/none"): (f"localhost: {site.pki}/none: is not there; make it with: pki.py init",),
    }.items():
        for line in expected:
            assert line in re.sub(r"\s+", " ", said), said
    assert (host.credentials, site.listed()) == ({}, [])


def test_a_device_gets_a_certificate_and_keeps_it(site: Site, host: Host) -> None:
    assert host.changes("--check") > 0
    assert (host.credentials, site.listed()) == ({}, [])

    assert host.changes("-v") > 0
    assert host.credentials.keys() == {"mqtt.ca", "mqtt.cert", "mqtt.key"}
    assert {path.stat().st_mode & 0o777 for path in host.etc.glob("credentials/*")} == {0o600}
    assert not (host.etc / "certificate").exists()
    (row,) = site.listed()
    assert (row["authority"], row["name"]) == ("devices", "hall-pi")
    assert host.credentials["mqtt.ca"] == (site.pki / "servers/ca.pem").read_bytes()
    assert handshake(site, site.broker(), host.certificate()) == "hall-pi"

    before = host.credentials
    assert host.changes() == 0
    assert host.changes("--check") == 0
    assert host.credentials == before


def test_it_is_made_anew_with_another_key_when_it_is_due(site: Site, host: Host) -> None:
    before = host.credentials
    own = ("-key", host.etc / "credentials/mqtt.key")
    csr = openssl("req", "-new", *own, "-subj", "/CN=hall-pi")
    (host.etc / "credentials/mqtt.cert").write_text(
        site.ok("sign", "devices", "hall-pi", "-", "--days", "80", given=csr)
    )
    assert host.changes() > 0
    assert host.credentials["mqtt.key"] != before["mqtt.key"]
    assert handshake(site, site.broker(), host.certificate()) == "hall-pi"


def test_what_was_revoked_stops_the_play(site: Site, host: Host) -> None:
    site.ok("revoke", "devices", "hall-pi")
    before = host.credentials
    shut_out = (
        "localhost: devices hall-pi: all its certificates were revoked; to let it in again, -e edge_pose_readmit=true"
    )
    assert shut_out in host.fails()
    assert host.credentials == before
    (host.etc / "credentials/mqtt.cert").unlink()
    assert shut_out in host.fails(), "whatever it has deleted"
    # As it says; and after a power failure between key and certificate all is made anew just the same.
    assert host.changes(readmit=True) > 0
    assert [row["state"] for row in site.listed() if row["authority"] == "devices"].count("valid") == 1
    assert handshake(site, site.broker(), host.certificate()) == "hall-pi"


def test_other_authorities_make_it_anew(host: Host, tmp_path: Path) -> None:
    other = Site(tmp_path / "other", tmp_path)
    other.ok("init")
    assert host.changes(pki=str(other.pki)) > 0
    assert host.credentials["mqtt.ca"] == (other.pki / "servers/ca.pem").read_bytes()
    assert handshake(other, other.broker(), host.certificate()) == "hall-pi"


def test_without_authorities_they_are_removed_as_what_is_no_longer_named(host: Host) -> None:
    assert host.changes(pki="", credentials={"mqtt.password": "an example"}) > 0
    assert host.credentials == {"mqtt.password": b"an example"}


def test_a_certificate_for_another_key_is_not_put_into_use(site: Site, tmp_path: Path) -> None:
    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/usr/bin/python3", HOST_SCRIPT, *arguments], check=False, capture_output=True, text=True
        )

    (tmp_path / "credentials").mkdir()
    new = tmp_path / "new"
    first = run("ask", new, "hall-pi").stdout
    second = run("ask", new, "hall-pi").stdout  # the first run was cut short
    assert first != second
    (new / "mqtt.cert").write_text(site.ok("sign", "devices", "hall-pi", "-", given=first))
    done = run("put", new, tmp_path / "credentials", str(os.getuid()))
    assert (done.returncode, done.stderr) == (1, f"{new}: mqtt.cert is not for mqtt.key; run the play again\n")
    assert [*(tmp_path / "credentials").iterdir()] == []
    assert run("show", tmp_path / "credentials").stdout == ""
    (new / "mqtt.cert").write_text(site.ok("sign", "devices", "hall-pi", "-", given=second))
    assert run("put", new, tmp_path / "credentials", str(os.getuid())).returncode == 0
    assert run("show", tmp_path / "credentials").stdout.startswith("-----BEGIN CERTIFICATE-----")
    assert not new.exists()
