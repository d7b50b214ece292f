"""The unit on a real systemd: readiness, watchdog, reload, restarts, the end, the sandbox and the journal."""

from __future__ import annotations

import json
import re
import shlex
import time

import pytest

from edge.errors import ExitCode
from tests.conftest import eventually
from tests.system.device import Device

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]

_CONFIG = "/etc/edge-pose/config.toml"


def configure(device: Device, text: str) -> None:
    device.host.run(f"printf %s {shlex.quote(text)} > {_CONFIG}")


def running_anew(device: Device, run: str) -> bool:
    return device.show("InvocationID") != run and device.show("SubState") == "running"


def test_a_process_that_does_not_get_on_is_restarted(device: Device) -> None:
    run, restarts, before = device.show("InvocationID"), int(device.show("NRestarts")), len(device.states())
    began_s = time.monotonic()
    device.host.run("systemctl kill --signal=STOP --kill-whom=main edge-pose.service")
    eventually(lambda: device.show("NRestarts") == str(restarts + 1), 90)
    eventually(lambda: running_anew(device, run), 30)
    # The unit waits 5 s before it starts again, and the broker as long before it tells of who has vanished.
    eventually(lambda: device.states()[before:] in ([b"offline", b"online"], [b"online"]), 20)
    print(f"watchdog: online again {time.monotonic() - began_s:.0f} s after SIGSTOP")
    journal = device.host.run(f"journalctl --output=cat _SYSTEMD_INVOCATION_ID={run} + INVOCATION_ID={run}").stdout
    assert "Watchdog timeout" in journal
    assert 'File "' in journal, "where each thread stood"


def test_a_crash_is_followed_by_a_restart(device: Device) -> None:
    run = device.show("InvocationID")
    device.host.run("systemctl kill --signal=KILL --kill-whom=main edge-pose.service")
    eventually(lambda: running_anew(device, run), 40)
    eventually(lambda: device.states()[-1] == b"online", 20)


def test_a_reload_takes_up_what_is_good_and_refuses_what_is_not(device: Device) -> None:
    process = device.show("MainPID")
    configure(device, device.config(mqtt="landmarks_hz = 2\n"))
    assert device.host.run("systemctl reload edge-pose.service").returncode == 0
    eventually(lambda: "reloaded: mqtt" in device.journal())
    eventually(lambda: 1 <= device.landmarks_hz() <= 3, 30)

    configure(device, device.config(mqtt="landmarks_hz = 'often'\n"))
    refused = device.host.run("systemctl reload edge-pose.service", check=False)
    assert refused.returncode != 0
    assert f"{_CONFIG}: mqtt.landmarks_hz = 'often': expected a number from 0.01 to 1000" in device.journal()
    assert (device.show("ActiveState"), device.show("MainPID")) == ("active", process)
    assert device.landmarks_hz() > 0

    # Past the check: the daemon itself refuses, too.
    refusals = device.journal().count("not reloaded, the configuration in force stays")
    device.host.run("systemctl kill --signal=HUP --kill-whom=main edge-pose.service")
    eventually(lambda: device.journal().count("not reloaded, the configuration in force stays") > refusals)
    assert device.landmarks_hz() > 0

    configure(device, device.config())
    device.host.run("systemctl reload edge-pose.service")
    eventually(lambda: device.landmarks_hz() > 5, 30)
    assert device.show("MainPID") == process


def test_where_no_picture_may_leave_the_service_does_all_it_did_and_a_crash_leaves_no_core(device: Device) -> None:
    run, process = device.show("InvocationID"), device.show("MainPID")
    configure(device, device.config() + '[privacy]\nmode = "landmarks"\n')
    assert device.host.run("systemctl reload edge-pose.service").returncode == 0
    eventually(lambda: "reloaded: privacy" in device.journal())
    assert device.show("MainPID") == process
    eventually(lambda: device.landmarks_hz() > 5, 30)
    device.host.run("systemctl kill --signal=ABRT --kill-whom=main edge-pose.service")
    eventually(lambda: running_anew(device, run), 40)
    eventually(lambda: device.states()[-1] == b"online", 20)
    journal = device.host.run(f"journalctl --output=cat _SYSTEMD_INVOCATION_ID={run} + INVOCATION_ID={run}").stdout
    assert "Fatal Python error: Aborted" in journal
    assert "code=killed, status=6/ABRT" in journal, "and not code=dumped"
    configure(device, device.config())
    device.host.run("systemctl reload edge-pose.service")


def test_a_secret_reaches_the_daemon_and_is_no_obstacle_to_a_reload(device: Device) -> None:
    place = "/etc/edge-pose/credentials/mqtt.password"
    device.host.run(f"printf secret > {place} && chmod 600 {place} && systemctl restart edge-pose.service")
    configure(device, device.config(mqtt='username = "hall-pi"\n'))
    connections = device.journal().count("connected to broker")
    device.host.run("systemctl reload edge-pose.service")
    eventually(lambda: device.journal().count("connected to broker") > connections)
    environ = device.host.run(f"tr '\\0' '\\n' < /proc/{device.show('MainPID')}/environ").stdout
    assert "CREDENTIALS_DIRECTORY=/run/credentials/edge-pose.service" in environ.splitlines()
    configure(device, device.config())
    device.host.run(f"rm {place} && systemctl restart edge-pose.service")
    eventually(lambda: device.states()[-1] == b"online", 20)


def test_it_ends_by_itself_within_its_deadline(device: Device) -> None:
    began_s = time.monotonic()
    device.host.run("systemctl stop edge-pose.service")
    print(f"systemctl stop: {time.monotonic() - began_s:.1f} s")
    assert (device.show("Result"), device.show("ExecMainStatus")) == ("success", "0")
    eventually(lambda: device.states()[-1] == b"stopped", 5)
    device.host.run("systemctl start edge-pose.service")
    eventually(lambda: device.states()[-1] == b"online", 20)


def test_a_wrong_configuration_is_not_tried_again(device: Device) -> None:
    configure(device, "nonsense = 1")
    assert device.host.run("systemctl restart edge-pose.service", check=False).returncode != 0
    assert device.show("ExecMainStatus") == str(int(ExitCode.CONFIG))
    assert (device.show("ActiveState"), device.show("NRestarts")) == ("failed", "0")
    configure(device, device.config())
    device.host.run("systemctl start edge-pose.service")
    eventually(lambda: device.states()[-1] == b"online", 20)


def test_the_journal_has_fields(device: Device) -> None:
    entries = device.host.run("journalctl --unit=edge-pose.service --output=json --lines=200").stdout.splitlines()
    ours = [entry for entry in map(json.loads, entries) if entry.get("SYSLOG_IDENTIFIER") == "edge-pose"]
    (begin, *_) = [entry for entry in reversed(ours) if "EDGE_POSE_SESSION" in entry]
    assert begin["EDGE_POSE_SESSION"] in begin["MESSAGE"]
    assert (begin["PRIORITY"], begin["LOGGER"]) == ("6", "edge.run")


def test_the_sandbox_holds(device: Device) -> None:
    verdict = device.host.run("systemd-analyze security --no-pager edge-pose.service").stdout.splitlines()[-1]
    print(verdict)
    (exposure,) = re.findall(r"Overall exposure level for edge-pose.service: ([\d.]+)", verdict)
    assert float(exposure) <= 3.0
    inside = f"nsenter --target {device.show('MainPID')} --mount --"
    as_service = "setpriv --reuid edge-pose --regid edge-pose --clear-groups --no-new-privs"
    for path in ("/etc", "/opt/edge-pose", "/usr/share/edge-pose", "/root", "/home"):
        assert device.host.run(f"{inside} touch {path}/x", check=False).returncode != 0, path
    assert device.host.run(f"{inside} {as_service} touch /var/lib/edge-pose/x").returncode == 0
    device.host.run("rm /var/lib/edge-pose/x")
