"""The site's broker under Ansible, on a real systemd: from a bare system to who is revoked being out."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from edge.mqtt.topics import Topics
from tests.conftest import eventually
from tests.secured_broker import Authorities
from tests.system.device import SUITE
from tests.system.nspawn import CACHE, Host, nspawn_host
from tests.system.site import Controller, Play
from tests.test_broker import Client

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

HALL = Topics("pose/v1", "hall")
DEVICES, PEOPLE = 8883, 8884
_DEVICES = ("hall", "yard", "gate")


@dataclass(frozen=True)
class Hub:
    host: Host
    controller: Controller
    authorities: Authorities

    def play(self, *arguments: str, **variables: object) -> Play:
        return self.controller.play(
            "broker", *arguments, pki=str(self.authorities.pki), addresses=[self.host.address, "hub.local"], **variables
        )

    def client(self, name: str, **options: object) -> Client:
        port = DEVICES if name in _DEVICES else PEOPLE
        return Client(self.authorities, name, port, host=self.host.address, **options)

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.host.run(f"systemctl show mosquitto.service --property={name} --value").stdout.strip()


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    scratch = tmp_path_factory.mktemp("controller")
    authorities = Authorities(scratch)
    for name in _DEVICES:
        authorities.device(name)
    authorities.person("olga", "operator")
    with nspawn_host(name="hub", suite=SUITE) as host:
        hub = Hub(host, Controller(host, scratch, CACHE, group="brokers", role="broker"), authorities)
        began_s = time.monotonic()
        first = hub.play()
        assert not first.failed, first.output
        print(f"broker.yml, from nothing: {time.monotonic() - began_s:.0f} s")
        yield hub


def test_it_runs_in_its_sandbox_and_its_key_never_left(hub: Hub) -> None:
    assert hub.show("ActiveState") == "active"
    assert hub.show("User") == "mosquitto"
    listening = hub.host.run("cat /proc/net/tcp /proc/net/tcp6").stdout
    ports = {int(port, 16) for port in re.findall(r":([0-9A-F]{4}) [0-9A-F]+:0000 0A", listening)}
    assert ports == {22, DEVICES, PEOPLE}
    modes = hub.host.run("stat --format=%n:%U:%G:%a /etc/mosquitto/edge-pose/*.key").stdout.split()
    assert modes == ["/etc/mosquitto/edge-pose/broker.key:root:mosquitto:640"]
    assert not list(hub.controller.scratch.rglob("broker.key"))
    rated = hub.host.run("systemd-analyze security mosquitto.service --no-pager").stdout
    assert float(re.findall(r"exposure level for mosquitto.service: ([\d.]+)", rated)[0]) < 2
    with hub.client("hall") as hall, hub.client("olga") as olga:
        olga.subscribe(HALL.event("front"))
        assert hall.publish(HALL.event("front")) == 0
        eventually(lambda: olga.messages)


def test_a_second_run_changes_nothing(hub: Hub) -> None:
    run = hub.show("InvocationID")
    for arguments in ((), ("--check",)):
        again = hub.play(*arguments)
        assert (again.changed, again.failed) == (0, 0), again.output
    assert hub.show("InvocationID") == run


def test_it_comes_back_after_a_kill_with_what_waited(hub: Hub) -> None:
    with hub.client("olga", session_s=3600) as olga:
        olga.subscribe(HALL.event("+"))
    with hub.client("hall") as hall:
        assert hall.publish(HALL.event("front"), b"before") == 0
        hall.publish(HALL.info)
        run = hub.show("InvocationID")
        hub.host.run(f"kill -{signal.SIGKILL:d} {hub.show('MainPID')}")
    eventually(lambda: hub.show("InvocationID") != run and hub.show("ActiveState") == "active", 20)
    with hub.client("olga", session_s=3600) as olga:
        eventually(lambda: olga.payloads(HALL.event("front")) == [b"before"])


def test_who_is_revoked_is_out_within_seconds_of_the_new_list(hub: Hub) -> None:
    with hub.client("yard") as yard:
        hub.authorities.revoke("devices", "yard")
        revoked = (hub.authorities.pki / "devices/crl.pem").read_text()
        place = "/etc/mosquitto/edge-pose/crl-devices.pem"
        began_s = time.monotonic()
        hub.host.run(
            f"cp --preserve=all {place} {place}.new && cat > {place}.new <<'END'\n{revoked}END\nmv {place}.new {place}"
        )
        eventually(lambda: yard.closed, 20)
        print(f"revoked and out after {time.monotonic() - began_s:.1f} s")
    eventually(lambda: hub.show("ActiveState") == "active", 20)
    with pytest.raises(ConnectionRefusedError):
        hub.client("yard")
    with hub.client("hall"):
        pass


def test_a_broken_list_changes_nothing(hub: Hub) -> None:
    run, place = hub.show("InvocationID"), "/etc/mosquitto/edge-pose/crl-people.pem"
    hub.host.run(f"cp --preserve=all {place} /root/good && echo nonsense > {place}")
    failed = "systemctl is-failed edge-pose-broker-revoked.service"
    eventually(lambda: hub.host.run(failed, check=False).stdout.strip() == "failed", 20)
    assert hub.show("InvocationID") == run
    hub.host.run(f"mv /root/good {place}")
    eventually(lambda: hub.show("InvocationID") != run and hub.show("ActiveState") == "active", 20)


def test_another_run_revokes_and_renews(hub: Hub) -> None:
    before = hub.host.run("cat /etc/mosquitto/edge-pose/broker.key").stdout
    with hub.client("gate") as gate:
        hub.authorities.revoke("devices", "gate")
        again = hub.play(renew_days=1000)
        assert not again.failed, again.output
        assert gate.closed
    assert hub.host.run("cat /etc/mosquitto/edge-pose/broker.key").stdout != before
    with pytest.raises(ConnectionRefusedError):
        hub.client("gate")
    with hub.client("hall"):
        pass
