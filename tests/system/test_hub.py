"""The site's hub under Ansible, on a real systemd: from a bare system to who is revoked being out."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import rerun as rr

from tests.conftest import eventually
from tests.secured_broker import Authorities
from tests.secured_hub import Answer, Call, written
from tests.system.device import SUITE
from tests.system.nspawn import CACHE, Host, nspawn_host
from tests.system.site import Controller, Play
from tests.test_hub import NOTHING, READ, WRITE, recording

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]

PORT = 9876
_SERVER, _GATE = "edge-pose-hub.service", "edge-pose-hub-gate.service"


@dataclass(frozen=True)
class Hub:
    host: Host
    controller: Controller
    authorities: Authorities

    def play(self, *arguments: str, **variables: object) -> Play:
        wheelhouse = {"wheelhouse_dir": str(CACHE / "wheelhouse")}
        return self.controller.play(
            "hub",
            *arguments,
            pki=str(self.authorities.pki),
            addresses=[self.host.address, "hub.local"],
            memory_mb=256,
            **wheelhouse,
            **variables,
        )

    def call(self, name: str | None, path: str, *, method: str = "POST") -> Call:
        return Call(self.authorities, name, PORT, path, host=self.host.address, method=method)

    def page(self, name: str | None) -> Answer:
        with self.call(name, "/", method="GET") as call:
            return call.answer()

    def write(self, name: str, content: bytes) -> Answer:
        with self.call(name, WRITE) as call:
            call.send(b"".join(written(content)))
            call.finish()
            return call.answer()

    def reading(self, name: str) -> Call:
        call = self.call(name, READ)
        call.send(NOTHING)
        call.finish()
        return call

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.host.run(f"systemctl show {unit} --property={name} --value").stdout.strip()

    def exposure(self, unit: str) -> float:
        rated = self.host.run(f"systemd-analyze security {unit} --no-pager").stdout
        return float(re.findall(rf"exposure level for {unit}: ([\d.]+)", rated)[0])


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    scratch = tmp_path_factory.mktemp("controller")
    authorities = Authorities(scratch)
    for name in ("hall", "yard"):
        authorities.device(name)
    for name in ("olga", "rita"):
        authorities.person(name, "reader")
    with nspawn_host(name="hub", suite=SUITE) as host:
        hub = Hub(host, Controller(host, scratch, CACHE, group="hubs", role="hub"), authorities)
        began_s = time.monotonic()
        first = hub.play()
        assert not first.failed, first.output
        print(f"hub.yml, from nothing: {time.monotonic() - began_s:.0f} s")
        yield hub


def test_it_runs_in_its_sandbox_and_its_key_never_left(hub: Hub) -> None:
    assert [hub.show(unit, "ActiveState") for unit in (_SERVER, _GATE)] == ["active", "active"]
    listening = hub.host.run("cat /proc/net/tcp /proc/net/tcp6").stdout
    ports = {int(port, 16) for port in re.findall(r":([0-9A-F]{4}) [0-9A-F]+:0000 0A", listening)}
    assert ports == {22, PORT}, "not even on the loopback interface"
    modes = hub.host.run("stat --format=%n:%U:%G:%a /etc/edge-pose-hub/*.key").stdout.split()
    assert modes == ["/etc/edge-pose-hub/hub.key:root:edge-pose-hub-gate:640"]
    assert not list(hub.controller.scratch.rglob("hub.key"))
    users = [hub.show(unit, "User") for unit in (_SERVER, _GATE)]
    assert users == ["edge-pose-hub", "edge-pose-hub-gate"], "the server could read the key"
    assert hub.show(_SERVER, "DynamicUser") == "yes"
    exposures = [hub.exposure(unit) for unit in (_SERVER, _GATE)]
    print(f"systemd-analyze security: {exposures}")
    assert max(exposures) < 2
    assert "--server-memory-limit 256MiB" in hub.show(_SERVER, "ExecStart")
    assert hub.show(_SERVER, "MemoryMax") == str(768 << 20)


def test_devices_write_and_people_read(hub: Hub) -> None:
    answer = hub.write("hall", recording("hall-1"))
    assert (answer.grpc_status, answer.rerun) == ("0", rr.__version__)
    with hub.reading("olga") as olga:
        olga.read_until(b"hall-1")
    assert hub.page("olga").status == 200
    assert [hub.page("hall").status, hub.write("olga", recording("olga-1")).status] == [403, 403]
    refused = hub.page(None)
    assert (refused.status, refused.rerun) == (400, rr.__version__)
    eventually(lambda: "NONE: 400 GET /" in hub.host.run("journalctl --boot --output=cat --identifier=hub").stdout)


def test_its_server_reaches_nobody(hub: Hub) -> None:
    pid = hub.show(_SERVER, "MainPID")
    assert re.findall(r"^\d+: (\w+)", hub.host.run(f"nsenter -t {pid} -n ip link").stdout, re.MULTILINE) == ["lo"]
    said = hub.host.run(f"journalctl --unit={_SERVER} --boot --output=cat").stdout
    assert "anonymous usage data" not in said, "it has not found that analytics are off"


def test_a_second_run_changes_nothing(hub: Hub) -> None:
    before = [hub.show(unit, "InvocationID") for unit in (_SERVER, _GATE)]
    for arguments in ((), ("--check",)):
        again = hub.play(*arguments)
        assert (again.changed, again.failed) == (0, 0), again.output
    assert [hub.show(unit, "InvocationID") for unit in (_SERVER, _GATE)] == before


@pytest.mark.parametrize("unit", [_SERVER, _GATE])
def test_it_comes_back_after_a_kill(hub: Hub, unit: str) -> None:
    run, told = hub.show(unit, "InvocationID"), hub.page("olga").headers["edge-pose-run"]
    assert told == hub.show(_SERVER, "InvocationID")
    hub.host.run(f"kill -{signal.SIGKILL:d} {hub.show(unit, 'MainPID')}")
    eventually(lambda: hub.show(unit, "InvocationID") != run and hub.show(unit, "ActiveState") == "active", 20)
    eventually(lambda: hub.write("hall", recording("hall-2")).grpc_status == "0", 20)
    # Whoever has sent something sees whether that is forgotten.
    assert (hub.page(None).headers["edge-pose-run"] != told) == (unit == _SERVER)


def test_who_is_revoked_is_out_within_seconds_of_the_new_list(hub: Hub) -> None:
    hub.write("hall", recording("hall-3"))
    run = hub.show(_GATE, "InvocationID")
    with hub.reading("rita") as rita:
        rita.read_until(b"hall-3")
        hub.authorities.revoke("people", "rita")
        lists = "".join((hub.authorities.pki / name / "crl.pem").read_text() for name in ("devices", "people"))
        place = "/etc/edge-pose-hub/crl.pem"
        began_s = time.monotonic()
        hub.host.run(
            f"cp --preserve=all {place} {place}.new && cat > {place}.new <<'END'\n{lists}END\nmv {place}.new {place}"
        )
        rita.answer()
        print(f"revoked and out after {time.monotonic() - began_s:.1f} s")
    eventually(lambda: hub.page("rita").status == 400)
    assert hub.page("olga").status == 200
    assert hub.show(_GATE, "InvocationID") == run, "a reload is enough"
    with hub.reading("olga") as olga:
        olga.read_until(b"hall-3")


def test_a_broken_list_changes_nothing(hub: Hub) -> None:
    place = "/etc/edge-pose-hub/crl.pem"
    hub.host.run(f"cp --preserve=all {place} /root/good && echo nonsense > {place}")
    failed = "systemctl is-failed edge-pose-hub-revoked.service"
    eventually(lambda: hub.host.run(failed, check=False).stdout.strip() == "failed", 20)
    assert [hub.page("olga").status, hub.page("rita").status] == [200, 400]
    hub.host.run(f"mv /root/good {place}")
    eventually(lambda: hub.host.run(failed, check=False).stdout.strip() == "inactive", 20)


def test_another_run_revokes_and_renews(hub: Hub) -> None:
    key = "cat /etc/edge-pose-hub/hub.key"
    before = hub.host.run(key).stdout
    hub.authorities.revoke("devices", "yard")
    again = hub.play(renew_days=1000)
    assert not again.failed, again.output
    assert hub.host.run(key).stdout != before
    assert hub.write("yard", recording("yard-1")).status == 400
    assert hub.write("hall", recording("hall-4")).grpc_status == "0"
