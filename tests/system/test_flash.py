"""An image that flash.yml made boots to SSH with the key it was given.

Wants what tests/system/images.py wants, root above all, and qemu-system-x86, openssh-client, xz-utils and
ansible-playbook (on PATH, or in the directory EDGE_POSE_ANSIBLE).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import secrets
import stat
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from tests.system.images import DebianImage, like_raspberry_pi_os
from tests.system.qemu import booted

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]

ANSIBLE = Path("ansible").resolve()
HOST = "hall-pi"
FILES = ("user-data", "network-config", "meta-data")


@dataclass(frozen=True)
class Workshop:
    """What an operator has: an image, keys, a Wi-Fi, an inventory; and what comes of it."""

    folder: Path
    base: DebianImage
    wifi_password: str
    first_output: str = ""

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def image(self) -> Path:
        return self.folder / "images" / f"{HOST}.img"

    def flash(self, **variables: object) -> subprocess.CompletedProcess[str]:
        """Run the playbook, with what the inventory would say unless `variables` say otherwise."""
        values: dict[str, object] = {
            "flash_image": str(self.base.path),
            "flash_image_sha256": hashlib.sha256(self.base.path.read_bytes()).hexdigest(),
            "flash_out_dir": str(self.folder / "images"),
            "flash_ssh_keys": [self.key.with_suffix(".pub").read_text()],
            "flash_timezone": "Europe/Berlin",
            "flash_wifi_ssid": 'Büro "1"',
            "flash_wifi_password": self.wifi_password,
            "flash_wifi_country": "DE",
            **variables,
        }
        given, inventory = self.folder / "given.json", self.folder / "inventory.json"
        given.write_text(json.dumps(values))
        # The address, the user and sudo are those of the device that is yet to be.
        there = {"ansible_host": "192.0.2.1", "ansible_user": "admin", "ansible_become": True}
        inventory.write_text(json.dumps({"devices": {"hosts": {HOST: there}}}))
        folders = os.pathsep.join((os.environ.get("EDGE_POSE_ANSIBLE", ""), os.environ["PATH"]))
        return subprocess.run(
            ["ansible-playbook", "-vvv", "--diff", "-i", str(inventory), "-e", f"@{given}", "flash.yml"],
            cwd=ANSIBLE,
            env={**os.environ, "PATH": folders.lstrip(os.pathsep), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def read(self, name: str) -> bytes:
        """A file of the image's boot partition."""
        table = json.loads(_output("/usr/sbin/sfdisk", "--json", str(self.image)))["partitiontable"]
        offset = table["partitions"][0]["start"] * 512
        return _output("mcopy", "-i", f"{self.image}@@{offset}", f"::{name}", "-")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """One with an image made from the base image."""
    made = Workshop(tmp_path_factory.mktemp("flash"), like_raspberry_pi_os(), f"{secrets.token_hex(8)} \"$'")
    _output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(made.key))
    first = made.flash()
    assert first.returncode == 0, first.stdout + first.stderr
    assert changed(first) > 0
    return replace(made, first_output=first.stdout + first.stderr)


def test_boot_partition_holds_the_files(workshop: Workshop) -> None:
    seed = {name: yaml.safe_load(workshop.read(name)) for name in FILES}
    user = seed["user-data"]["user"]
    assert workshop.read("user-data").startswith(b"#cloud-config\n")
    assert user["ssh_authorized_keys"] == [workshop.key.with_suffix(".pub").read_text().strip()]
    assert user["lock_passwd"] is True
    assert seed["user-data"]["ssh_pwauth"] is False
    wifi = seed["network-config"]["network"]["wifis"]["wlan0"]
    assert wifi["access-points"] == {'Büro "1"': {"password": workshop.wifi_password}}
    assert wifi["regulatory-domain"] == "DE"
    assert workshop.read("cmdline.txt").endswith(b"rootwait\n"), "what else is there stays as it is"


def test_secrets_stay_with_their_owner(workshop: Workshop) -> None:
    assert workshop.wifi_password not in workshop.first_output
    assert stat.S_IMODE(workshop.image.stat().st_mode) == 0o600
    assert stat.S_IMODE(workshop.image.parent.stat().st_mode) == 0o700
    beside = [path for path in workshop.image.parent.rglob("*") if path.is_file() and path != workshop.image]
    assert not [path for path in beside if workshop.wifi_password.encode() in path.read_bytes()]


def test_second_run_changes_nothing(workshop: Workshop) -> None:
    assert changed(workshop.flash()) == 0


def test_new_instance_whenever_anything_is_new(workshop: Workshop) -> None:
    before = [workshop.read(name) for name in FILES]
    assert changed(workshop.flash(flash_wifi_password="another one")) == 1
    assert yaml.safe_load(workshop.read("meta-data"))["instance-id"] not in before[2].decode()
    assert changed(workshop.flash()) == 1
    assert [workshop.read(name) for name in FILES] == before


def test_a_touched_image_is_put_right(workshop: Workshop) -> None:
    """Also a stamp of another image means: made anew."""
    workshop.image.with_suffix(".img.sha256").write_text("of another one\n")
    assert changed(workshop.flash()) == 3, "the copy, the stamp, the files"
    assert changed(workshop.flash()) == 0


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"flash_image_sha256": "0" * 64}, "fetch the image again, or correct the sum"),
        ({"flash_image": "/nowhere.img"}, "is not there"),
        ({"flash_image": "http://127.0.0.1/pi.img.xz"}, "https address"),
        ({"flash_ssh_keys": ["PRIVATE"]}, "holds a private key, which must not leave its owner"),
        ({"flash_ssh_keys": []}, "at least one line"),
        ({"flash_ssh_keys": ["ssh-ed25519 AAAA"]}, "at least one line"),
        ({"flash_wifi_password": "short"}, "8 to 63 characters"),
        ({"flash_wifi_country": ""}, "two capital letters"),
        ({"flash_user": "root"}, "not root"),
        ({"flash_hostname": "Hall Pi"}, "flash_hostname=Hall Pi"),
        ({"flash_device": "/dev/nowhere"}, "is no disk of this machine"),
        ({"flash_device": "SYSTEM", "flash_confirm": "SYSTEM"}, "is in use"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused(workshop: Workshop, variables: dict[str, object], told: str) -> None:
    private = workshop.key.read_text()
    known = {"PRIVATE": private, "SYSTEM": _system_disk()}
    given = {
        name: [known.get(each, each) for each in value] if isinstance(value, list) else known.get(value, value)
        for name, value in variables.items()
    }
    refused = workshop.flash(**given)
    assert refused.returncode != 0
    assert told in refused.stdout.replace("\n", " "), refused.stdout
    assert changed(refused) == 0
    assert private.splitlines()[1] not in refused.stdout + refused.stderr


CARD = {"path": "/dev/sdb", "type": "disk", "size": 32e9, "ro": False, "rm": True, "hotplug": True, "tran": "usb"}


@pytest.mark.parametrize(
    ("differing", "told"),
    [
        ({}, ""),
        ({"children": [{"path": "/dev/sdb1", "type": "part", "mountpoints": [None]}]}, ""),
        ({"path": "/dev/mmcblk0", "rm": False, "hotplug": False, "tran": "mmc"}, ""),
        ({"rm": False, "hotplug": False, "tran": "nvme"}, "neither removable nor"),
        ({"type": "part"}, "no whole disk"),
        ({"type": "loop"}, "no whole disk"),
        ({"ro": True}, "write-protected"),
        ({"size": 0}, "no medium"),
        ({"size": 1e9}, "take a larger card"),
        ({"mountpoints": ["/mnt"]}, "/dev/sdb as /mnt"),
        ({"children": [{"path": "/dev/sdb2", "type": "part", "mountpoints": ["[SWAP]"]}]}, "/dev/sdb2 as [SWAP]"),
        (
            {
                "children": [
                    {
                        "path": "/dev/sdb3",
                        "type": "part",
                        "mountpoints": [None],
                        "children": [
                            {
                                "path": "/dev/mapper/crypt",
                                "type": "crypt",
                                "mountpoints": [None],
                                "children": [{"path": "/dev/mapper/vg-root", "type": "lvm", "mountpoints": ["/"]}],
                            }
                        ],
                    }
                ]
            },
            "is in use",
        ),
        ({"children": [{"path": "/dev/md0", "type": "raid1", "mountpoints": [None]}]}, "/dev/md0 (raid1) is on it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_only_a_free_card_is_erased(differing: dict[str, object], told: str) -> None:
    spec = importlib.util.spec_from_file_location("card", ANSIBLE / "roles/flash/filter_plugins/card.py")
    assert spec
    assert spec.loader
    card = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(card)
    refusal = card.card_refusal({"mountpoints": [None], **CARD, **differing}, size=3_000_000_000)
    assert told in refusal
    assert bool(told) == bool(refusal)


def test_it_boots_to_ssh(workshop: Workshop, tmp_path: Path) -> None:
    base = workshop.base
    with booted(
        workshop.image, kernel=base.kernel, initrd=base.initrd, root=base.root, console=tmp_path / "console"
    ) as machine:
        machine.wait_for_ssh("admin", workshop.key, timeout_s=600)

        def run(command: str) -> str:
            done = machine.ssh("admin", workshop.key, command, timeout_s=300)
            assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
            return done.stdout.strip()

        status = json.loads(run("cloud-init status --wait --format json"))
        assert (status["status"], status["errors"]) == ("done", []), status
        assert status["recoverable_errors"] == {}, run("cat /var/log/cloud-init.log")
        assert status["detail"].startswith("DataSourceNoCloud [seed=ds_config_seedfrom,file:///boot/firmware")
        assert run("hostname") == HOST
        assert run("readlink /etc/localtime") == "/usr/share/zoneinfo/Europe/Berlin"
        assert {"sudo", "video"} <= set(run("id --name --groups").split())
        assert run("sudo --non-interactive id --user --name") == "root"

        # Nobody has a password, and none is asked for.
        assert run("sudo getent shadow | cut -d: -f2 | grep -v '^[!*]' || true") == ""
        effective = run("sudo sshd -T").splitlines()
        assert "passwordauthentication no" in effective
        denied = machine.ssh("admin", None, "true")
        assert denied.returncode != 0
        assert "Permission denied (publickey)" in denied.stderr

        # What a Raspberry Pi would wait for, and what it would lack.
        assert run("systemctl is-enabled userconfig ssh || true").split() == ["masked", "enabled"]
        assert "WirelessEnabled=true" in run("sudo cat /var/lib/NetworkManager/NetworkManager.state")
        profiles = run("sudo grep -h -e ^ssid= -e ^psk= -r /run/NetworkManager/system-connections").splitlines()
        assert f"psk={workshop.wifi_password}" in profiles
        for name, schema in (("user-data", "cloud-config"), ("network-config", "network-config")):
            judged = run(f"cloud-init schema --schema-type {schema} --config-file /boot/firmware/{name}")
            assert judged.startswith("Valid schema"), judged


def changed(run: subprocess.CompletedProcess[str]) -> int:
    return int(re.findall(rf"^{HOST} +: .*changed=(\d+)", run.stdout, re.MULTILINE)[-1])


def _system_disk() -> str:
    """The disk that / of this machine is on."""
    source = _output("findmnt", "--noheadings", "--output", "SOURCE", "--target", "/").decode().split("[")[0].strip()
    disks = _output("lsblk", "--inverse", "--noheadings", "--list", "--output", "PATH,TYPE", source).decode()
    return next(line.split()[0] for line in disks.splitlines() if line.split()[1] == "disk")


def _output(*command: str) -> bytes:
    done = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.decode()}"
    return done.stdout
