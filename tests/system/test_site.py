"""A device's life under Ansible, on a real systemd: from a bare system to poses on a broker, and back to nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.conftest import eventually
from tests.system.device import Device
from tests.system.site import REPOSITORY

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]

_NOBODY = "mqtt://127.0.0.1:1"


def test_from_a_bare_system_to_poses_on_the_broker(device: Device) -> None:
    eventually(lambda: device.states()[-1:] == [b"online"], 5)
    eventually(lambda: len(device.landmarks()) > 30, 20)
    assert [len(json.loads(payload)["people"]) for payload in device.landmarks()[10:30]] == [1] * 20
    print(f"site.yml, from nothing: {device.first_s:.0f} s")
    assert device.show("ActiveState") == "active"
    assert device.show("User") == "edge-pose"
    # Nothing but Debian's packages came from anywhere but the controller.
    mirrors = device.host.run("apt-get indextargets --format '$(REPO_URI)'").stdout.split()
    assert device.host.asked <= {urlsplit(mirror).hostname for mirror in mirrors}


def test_a_second_run_changes_nothing(device: Device) -> None:
    run = device.show("InvocationID")
    again = device.site()
    assert (again.changed, again.failed) == (0, 0), again.output
    rehearsed = device.site("--check")
    assert (rehearsed.changed, rehearsed.failed) == (0, 0), rehearsed.output
    assert device.show("InvocationID") == run


def test_another_configuration_is_taken_up_without_a_restart(device: Device) -> None:
    run = device.show("InvocationID")
    changed = device.site(config=device.config(mqtt="landmarks_hz = 2\n"))
    assert not changed.failed, changed.output
    assert device.show("InvocationID") == run
    assert 1 <= device.landmarks_hz() <= 3
    assert not device.site().failed
    assert device.landmarks_hz() > 5


def test_a_wrong_configuration_is_refused_and_the_old_one_stays(device: Device) -> None:
    refused = device.site(config=device.config(mqtt='landmarks_hz = "often"\n'))
    assert refused.failed
    assert "/etc/edge-pose/config.toml: mqtt.landmarks_hz = 'often': expected a number" in refused.output
    assert device.host.run("cat /etc/edge-pose/config.toml").stdout == device.config()
    assert device.states()[-1] == b"online"


def test_what_does_not_get_online_is_taken_back(device: Device) -> None:
    failed = device.site(config=device.config(broker=_NOBODY), health_timeout_s=10)
    assert failed.failed
    assert "edge-pose is not online after 10 s: broker 127.0.0.1:1: " in failed.output
    assert device.host.run("cat /etc/edge-pose/config.toml").stdout == device.config()
    eventually(lambda: device.states()[-1] == b"online", 20)
    again = device.site()
    assert (again.changed, again.failed) == (0, 0), again.output


def test_a_release_that_does_not_start_is_taken_back(device: Device, tmp_path: Path) -> None:
    release = device.host.run("readlink /opt/edge-pose/current").stdout
    for part in ("deploy", "edge", "requirements"):
        shutil.copytree(REPOSITORY / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copy(REPOSITORY / part, tmp_path)
    with (tmp_path / "deploy/systemd/edge-pose.service").open("a") as unit:
        unit.write("[Service]\nExecStartPre=false\n")
    failed = device.site(checkout=str(tmp_path))
    assert failed.failed
    assert f"It runs {release.strip().rpartition('/')[2]} with its configuration again." in failed.output
    assert device.host.run("readlink /opt/edge-pose/current").stdout == release
    eventually(lambda: device.states()[-1] == b"online", 20)
    again = device.site()
    assert (again.changed, again.failed) == (0, 0), again.output


def test_credentials_are_the_service_s_alone(device: Device) -> None:
    named = {"mqtt.password": "an example"}
    assert not device.site(credentials=named).failed
    place = "/etc/edge-pose/credentials"
    modes = device.host.run(f"stat --format=%U:%a {place} {place}/mqtt.password").stdout.split()
    assert modes == ["root:700", "root:600"]
    assert not device.site().failed
    assert device.host.run(f"ls -A {place}").stdout == ""


def test_an_interrupted_installation_is_made_anew(device: Device) -> None:
    release = device.host.run("readlink /opt/edge-pose/current").stdout.strip()
    device.host.run(f"rm {release}/.complete {release}/bin/edge-pose")
    repaired = device.site()
    assert not repaired.failed, repaired.output
    assert device.host.run(f"ls {release}/bin/edge-pose {release}/.complete {release}/config.toml").returncode == 0
    assert device.host.run("ls /opt/edge-pose").stdout.split() == ["current", "good", "releases"]


def test_remove_leaves_nothing(device: Device) -> None:
    removed = device.controller.play("remove")
    assert not removed.failed, removed.output
    assert device.states()[-1] == b"stopped"
    everywhere = r"find / \( -path /proc -o -path /sys \) -prune -o -iname '*edge?pose*' -print"
    assert device.host.run(everywhere).stdout == ""
    assert device.host.run("grep -rIl edge-pose /etc --exclude='*-'", check=False).stdout == ""
    assert device.show("LoadState") == "not-found"
    again = device.controller.play("remove")
    assert (again.changed, again.failed) == (0, 0), again.output
