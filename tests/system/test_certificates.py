"""A device that gets its certificate from the site's authorities, and a broker that lets in nobody without one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import CLIP, eventually
from tests.mqtt.test_sink import subscriber
from tests.servers import mosquitto
from tests.system.device import NAME, SUITE, Device
from tests.system.nspawn import CACHE, nspawn_host
from tests.system.site import Controller
from tests.test_pki import Site

pytestmark = [pytest.mark.machine, pytest.mark.timeout(1200)]

_PORT = 8883
_CREDENTIALS = "/etc/edge-pose/credentials"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site") / "pki", tmp_path_factory.mktemp("others"))
    made.ok("init")
    return made


@pytest.fixture(scope="module")
def device(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Device]:
    with nspawn_host(name=NAME, suite=SUITE) as host:
        shutil.copy(CLIP, host.root / "srv/clip.mp4")
        certificate = site.broker("hub", host.outside)
        tls = (
            f"listener {_PORT} {host.outside}",
            f"cafile {site.pki}/devices/ca.pem",
            f"crlfile {site.pki}/devices/crl.pem",
            f"certfile {certificate}",
            f"keyfile {certificate.with_suffix('.key')}",
            "require_certificate true",
            "use_identity_as_username true",
            "tls_version tlsv1.3",
        )
        with mosquitto(settings="\n".join(tls)) as broker, subscriber(broker.port) as outside:
            yield Device(host, Controller(host, tmp_path_factory.mktemp("controller"), CACHE), outside)


def config(device: Device) -> str:
    return device.config(broker=f"mqtts://{device.host.outside}:{_PORT}")


def fingerprint(device: Device) -> str:
    return device.host.run(f"openssl x509 -noout -fingerprint -in {_CREDENTIALS}/mqtt.cert").stdout


def test_it_is_online_with_a_key_that_nobody_else_has(device: Device, site: Site) -> None:
    first = device.site("-v", config=config(device), pki=str(site.pki))
    assert not first.failed, first.output
    assert "PRIVATE KEY" not in first.output
    assert device.states()[-1] == b"online"
    eventually(lambda: len(device.landmarks()) > 30, 20)
    listed = device.host.run(f"stat --format=%U:%a:%n {_CREDENTIALS} {_CREDENTIALS}/*").stdout.split()
    files = [f"root:600:{_CREDENTIALS}/{name}" for name in ("mqtt.ca", "mqtt.cert", "mqtt.key")]
    assert listed == [f"root:700:{_CREDENTIALS}", *files]
    (row,) = (row for row in site.listed() if row["authority"] == "devices")
    assert row["name"] == NAME


def test_a_second_run_changes_nothing(device: Device, site: Site) -> None:
    run, certificate = device.show("InvocationID"), fingerprint(device)
    for arguments in ((), ("--check",)):
        again = device.site(*arguments, config=config(device), pki=str(site.pki))
        assert (again.changed, again.failed) == (0, 0), again.output
    assert (device.show("InvocationID"), fingerprint(device)) == (run, certificate)


def test_what_is_renewed_is_taken_up_by_the_service(device: Device, site: Site) -> None:
    run, certificate = device.show("InvocationID"), fingerprint(device)
    key = device.host.run(f"sha256sum {_CREDENTIALS}/mqtt.key").stdout
    csr = device.host.run(f"openssl req -new -key {_CREDENTIALS}/mqtt.key -subj /CN={NAME}").stdout
    short = site.ok("sign", "devices", NAME, "-", "--days", "60", given=csr)
    (device.host.root / f"{_CREDENTIALS[1:]}/mqtt.cert").write_text(short)
    renewed = device.site(config=config(device), pki=str(site.pki))
    assert not renewed.failed, renewed.output
    assert device.states()[-1] == b"online"
    assert device.show("InvocationID") != run
    assert fingerprint(device) != certificate
    assert device.host.run(f"sha256sum {_CREDENTIALS}/mqtt.key").stdout != key


def test_what_was_revoked_stops_the_run_and_nothing_else(device: Device, site: Site) -> None:
    run = device.show("InvocationID")
    site.ok("revoke", "devices", NAME)
    stopped = device.site(config=config(device), pki=str(site.pki))
    assert stopped.failed
    assert re.search(rf"{NAME}: devices {NAME}: the certificate \w+ was revoked on 20", stopped.output), stopped.output
    assert device.show("InvocationID") == run


def test_remove_takes_the_key_away(device: Device) -> None:
    removed = device.controller.play("remove")
    assert not removed.failed, removed.output
    assert not Path(device.host.root / "etc/edge-pose").exists()
