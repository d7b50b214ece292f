"""The site's hub, deploy/hub: who writes, who reads, what everybody is told, and what a revocation does."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rerun as rr

from edge.rerun_log.channel import Address, Channel
from edge.rerun_log.hub import knock
from edge.tls import Identity
from tests.conftest import eventually
from tests.secured_broker import HOST, ROOT, Authorities
from tests.secured_hub import SERVICE, Answer, Call, SecuredHub, framed, secured_hub, written

pytestmark = pytest.mark.integration

WRITE, READ, READ_TABLES, WRITE_TABLE = (
    f"{SERVICE}/{method}" for method in ("WriteMessages", "ReadMessages", "ReadTables", "WriteTable")
)
CATALOGUE = "/rerun.cloud.v1alpha1.RerunCloudService/Version"
PAGES = ("/", "/re_viewer.js", "/re_viewer_bg.wasm")

NOTHING = framed(b"")

Site = tuple[SecuredHub, Authorities]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with secured_hub() as (hub, authorities):
        authorities.device("hall")
        authorities.person("olga", "operator")
        authorities.person("rita", "reader")
        yield hub, authorities


def recording(name: str) -> bytes:
    """An .rrd of a recording called `name`, with something static and one row."""
    stream = rr.RecordingStream("edge-pose", recording_id=name)
    memory = stream.binary_stream()
    stream.log("description", rr.TextDocument("what holds throughout"), static=True)
    stream.set_time("frame", sequence=0)
    stream.log("elbow", rr.Scalars(0.5))
    content = memory.read()
    assert content is not None
    return content


def get(site: Site, name: str | None, path: str, **options: ssl.TLSVersion) -> Answer:
    hub, authorities = site
    with Call(authorities, name, hub.port, path, method="GET", **options) as call:
        return call.answer()


def post(site: Site, name: str | None, path: str, body: bytes = NOTHING) -> Answer:
    hub, authorities = site
    with Call(authorities, name, hub.port, path) as call:
        call.send(body)
        call.finish()
        return call.answer()


def write(site: Site, name: str | None, content: bytes) -> Answer:
    return post(site, name, WRITE, b"".join(written(content)))


def reading(site: Site, name: str, *, content_type: str = "application/grpc") -> Call:
    """A viewer of that person's that has begun to read."""
    hub, authorities = site
    call = Call(authorities, name, hub.port, READ, content_type=content_type)
    call.send(NOTHING)
    call.finish()
    return call


# --- who may do what


def test_a_device_writes_and_has_it_acknowledged_and_people_read_it(site: Site) -> None:
    answer = write(site, "hall", recording("hall-1"))
    assert (answer.status, answer.grpc_status) == (200, "0")
    for name in ("olga", "rita"):
        for content_type in ("application/grpc", "application/grpc-web+proto"):
            with reading(site, name, content_type=content_type) as call:
                call.read_until(b"hall-1")


def test_what_is_written_later_arrives_in_what_is_read_already(site: Site) -> None:
    write(site, "hall", recording("hall-2"))
    with reading(site, "rita") as call:
        call.read_until(b"hall-2")
        write(site, "hall", recording("hall-3"))
        call.read_until(b"hall-3")


def test_who_may_do_what(site: Site) -> None:
    """The table of docs/hub.md, and of all answers what they say of Rerun's version."""
    allowed = {("hall", WRITE), *((name, page) for name in ("olga", "rita") for page in PAGES)}
    found, versions = {}, set()
    for name in ("hall", "olga", "rita"):
        for path in (*PAGES, "/nothing"):
            found[name, path] = answer = get(site, name, path)
            versions.add(answer.rerun)
        calls = [WRITE, WRITE_TABLE, CATALOGUE, "/rerun.else", "/browser" + READ, "/"]
        calls += [READ, READ_TABLES] if name == "hall" else []
        for path in calls:
            found[f"{name} POST", path] = answer = post(site, name, path)
            versions.add(answer.rerun)
    for (name, path), answer in found.items():
        print(f"{name:9} {path:65} {answer.status} {answer.grpc_status or '-':2} {len(answer.body)} bytes")
    assert versions == {rr.__version__}
    done = {(name.removesuffix(" POST"), path) for (name, path), answer in found.items() if answer.status == 200}
    assert done == allowed
    refused = {answer.status for (name, path), answer in found.items() if (name, path) != ("olga", "/nothing")}
    assert refused <= {200, 403, 404}


def test_who_has_no_certificate_of_the_site_gets_nothing(site: Site, tmp_path: Path) -> None:
    hub, authorities = site
    strangers = Authorities(tmp_path)
    for name in ("stranger", "nobody"):
        strangers.device(name)
    for extension in ("pem", "key"):
        (authorities.keys / f"stranger.{extension}").write_bytes(
            (strangers.keys / f"stranger.{extension}").read_bytes()
        )
    authorities.expired_device("old")
    for name, why in ((None, b"NONE"), ("stranger", b"FAILED"), ("old", b"expired"), ("hub", b"FAILED")):
        for answer in (get(site, name, "/"), write(site, name, recording("nobody-1")), post(site, name, READ)):
            print(f"{name or 'none':9} {answer.status} {answer.body.decode().strip()}")
            assert (answer.status, answer.rerun) == (400, rr.__version__)
            assert why in answer.body
    write(site, "hall", recording("hall-4"))
    with reading(site, "rita") as call:
        assert b"nobody-1" not in call.read_until(b"hall-4")
    assert "expired" in (hub.folder / "refused").read_text()


def test_an_authority_s_name_is_nobody_s_to_choose(site: Site) -> None:
    """A device that makes certificates itself is no authority, whatever it calls itself."""
    _, authorities = site
    ca = authorities.pki / "people/ca.pem"
    subject = subprocess.run(
        ["openssl", "x509", "-in", ca, "-noout", "-subject", "-nameopt", "RFC2253"], check=True, capture_output=True
    ).stdout.decode()
    name = subject.strip().removeprefix("subject=CN=")
    key, signer, own = authorities.keys / "mallory.key", authorities.keys / "mallory.ca", authorities.keys / "mallory"
    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    made = [
        ["req", "-x509", *new, "-subj", f"/CN={name}", "-keyout", f"{signer}.key", "-out", f"{signer}.pem"],
        ["req", *new, "-subj", "/CN=operator", "-keyout", key, "-out", f"{own}.csr"],
        ["x509", "-req", "-in", f"{own}.csr", "-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-out", f"{own}.pem"],
    ]
    for command in made:
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    assert get(site, "mallory", "/").status == 400


def test_tls_1_2_is_enough_and_1_1_is_not(site: Site) -> None:
    assert get(site, "olga", "/", tls=ssl.TLSVersion.TLSv1_2).status == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        get(site, "olga", "/", tls=ssl.TLSVersion.TLSv1_1)


def test_nothing_listens_to_the_network_but_its_port(site: Site) -> None:
    hub, _ = site
    listening = hub.listening()
    assert listening.pop("0100007F") == {hub.grpc_port, hub.page_port}
    assert list(listening.values()) == [{hub.port}]


def test_the_page_can_reach_nobody_but_the_hub(site: Site) -> None:
    policy = get(site, "rita", "/").headers["content-security-policy"]
    assert policy.startswith("default-src 'self'")
    assert "http" not in policy


# --- what a revocation does


def test_who_is_revoked_is_out_and_others_come_back() -> None:
    with secured_hub() as site:
        hub, authorities = site
        authorities.device("hall")
        authorities.device("yard")
        authorities.person("rita", "reader")
        authorities.person("olga", "operator")
        write(site, "hall", recording("hall-1"))
        with reading(site, "rita") as rita, Call(authorities, "yard", hub.port, WRITE) as yard:
            rita.read_until(b"hall-1")
            yard.send(written(recording("yard-1"))[0])
            authorities.revoke("people", "rita")
            authorities.revoke("devices", "yard")
            hub.bring_crls()
            hub.reload()
            rita.answer()  # ends, where it would have gone on for days
            yard.answer()
        eventually(lambda: get(site, "rita", "/").status == 400)
        for answer in (post(site, "rita", READ), write(site, "yard", recording("yard-2"))):
            print(f"revoked   {answer.status} {answer.body.decode().strip()}")
            assert answer.status == 400
            assert b"revoked" in answer.body
        assert write(site, "hall", recording("hall-2")).grpc_status == "0"
        with reading(site, "olga") as olga:
            assert b"hall-1" in olga.read_until(b"hall-2")


def test_a_hub_whose_server_is_away_says_so() -> None:
    with secured_hub() as site:
        hub, authorities = site
        authorities.device("hall")
        _, rerun = hub.servers
        rerun.kill()
        rerun.wait()
        answer = write(site, "hall", recording("hall-1"))
        assert (answer.status, answer.rerun) == (502, rr.__version__)


# --- what docs/hub.md tells people to type


def test_files_made_by_hand_are_those_that_the_hub_has(site: Site, tmp_path: Path) -> None:
    hub, authorities = site
    shutil.copytree(authorities.pki, tmp_path / "edge-pose-pki")  # more is signed there
    for extension in ("pem", "key"):
        (tmp_path / f"anna.{extension}").symlink_to(authorities.keys / f"olga.{extension}")
    page = (ROOT / "docs/hub.md").read_text()
    (export,) = re.findall(r"^openssl pkcs12 -export .*$", page, re.MULTILINE)
    made = re.findall(r"^(?:cat ~/|openssl req |\S+ deploy/pki/pki.py sign ).*$", page, re.MULTILINE)
    made = [line.replace(".venv/ansible/bin/python deploy", f"{sys.executable} {ROOT}/deploy") for line in made]
    typed = "\n".join([*made, f"{export} -passout pass:secret"])
    environment = {**os.environ, "HOME": str(tmp_path)}
    subprocess.run(["sh", "-ec", typed], check=True, cwd=tmp_path, env=environment, capture_output=True)
    for name in ("ca.pem", "crl.pem"):
        assert (tmp_path / name).read_text() == (hub.folder / name).read_text()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "hub.pem", tmp_path / "hub.key")
    shown = ["openssl", "pkcs12", "-in", tmp_path / "anna.p12", "-passin", "pass:secret", "-nokeys"]
    assert "olga" in subprocess.run(shown, check=True, capture_output=True, text=True).stdout


# --- edge-pose itself


def identity(site: Site, name: str | None) -> Identity:
    _, authorities = site
    certificate, key = authorities.certificate(name) if name else (None, None)
    return Identity("rerun", authorities.servers_ca, certificate, key)


@pytest.mark.parametrize(("name", "status"), [("olga", 200), ("hall", 403), (None, 400)])
def test_it_understands_what_the_hub_says(site: Site, name: str | None, status: int) -> None:
    own = identity(site, name)
    answer = knock(Address.of(f"rerun+https://{HOST}:{site[0].port}/proxy", own), own, 10)
    assert (answer.status, answer.rerun) == (status, rr.__version__)
    assert bool(answer.refusal) == (status != 200)
    assert str(status) in answer.refusal or status == 200


def test_its_channel_writes_and_is_acknowledged(site: Site) -> None:
    channel = Channel(Address.of(f"rerun+https://{HOST}:{site[0].port}/proxy", identity(site, "hall")), 10)
    waker, other_end = os.pipe()
    try:
        call = channel.begin()
        for message in written(recording("hall-5")):
            channel.send(call, memoryview(message))
        channel.end(call)
        acknowledged: list[int] = []
        eventually(lambda: acknowledged.extend(channel.turn(0.1, waker)) or acknowledged == [call])
        assert channel.rerun_version == rr.__version__
    finally:
        channel.close()
        os.close(waker)
        os.close(other_end)
    with reading(site, "rita") as rita:
        rita.read_until(b"hall-5")
