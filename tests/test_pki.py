"""The certificates of a site, judged by OpenSSL: its command line, and Python's ssl as broker and client."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.util
import io
import json
import re
import shutil
import signal
import ssl
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import config

PROGRAM = Path(__file__).parents[1] / "deploy/pki/pki.py"
AUTHORITIES = ("servers", "devices", "people")
BOOT = "86400"
"""What the clock shows, in Unix seconds, where it has been set by nobody: 1970-01-02."""

_spec = importlib.util.spec_from_file_location("pki", PROGRAM)
assert _spec
assert _spec.loader
pki = importlib.util.module_from_spec(_spec)
sys.modules["pki"] = pki
_spec.loader.exec_module(pki)
KINDS = pki.KINDS


def openssl(*arguments: str | Path, given: str = "", check: bool = True) -> str:
    """What it prints, on either stream."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)], check=False, input=given, text=True, stdout=-1, stderr=subprocess.STDOUT
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def request(folder: Path, name: str, *, curve: str = "P-256", subject: str = "/CN=root/O=somebody else") -> Path:
    """A new key, NAME.key, and the request for a certificate that was made with it."""
    key = ("-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{curve}", "-nodes", "-keyout", folder / f"{name}.key")
    openssl("req", "-new", *key, "-subj", subject, "-out", folder / f"{name}.csr")
    return folder / f"{name}.csr"


@dataclass(frozen=True)
class Site:
    """A directory with authorities, and beside it what others have."""

    pki: Path
    others: Path

    def run(self, command: str, *arguments: str | Path, given: str = "") -> subprocess.CompletedProcess[str]:
        line = [sys.executable, PROGRAM, command, self.pki, *arguments]
        return subprocess.run([*map(str, line)], check=False, input=given, capture_output=True, text=True)

    def ok(self, command: str, *arguments: str | Path, given: str = "") -> str:
        done = self.run(command, *arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, command: str, *arguments: str | Path, given: str = "") -> str:
        """The one line that it says. Nothing has changed then."""
        before = self.contents()
        done = self.run(command, *arguments, given=given)
        assert done.returncode != 0, done.stdout
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1, done.stderr
        assert self.contents() == before
        return done.stderr.strip()

    def issue(self, authority: str, name: str, *arguments: str) -> Path:
        """A certificate for NAME, whose key is beside it."""
        file = self.others / f"{name}.pem"
        file.write_text(self.ok("sign", authority, name, request(self.others, name), *arguments))
        return file

    def device(self, name: str = "hall-pi", *arguments: str) -> Path:
        return self.issue("devices", name, *arguments)

    def person(self, name: str = "anna", role: str = "operator") -> Path:
        return self.issue("people", name, "--role", role)

    def broker(self, name: str = "hub", *addresses: str) -> Path:
        return self.issue("servers", name, "--address", *(addresses or ("hub.local",)))

    def verify(self, authority: str, certificate: Path, purpose: str, *more: str) -> str:
        """The verdict of OpenSSL, at its strictest: OK, or the error."""
        folder = self.pki / authority
        trusted = ("-CAfile", folder / "ca.pem", "-CRLfile", folder / "crl.pem", "-crl_check", "-x509_strict")
        said = openssl("verify", *trusted, "-purpose", purpose, *more, certificate, check=False)
        return "OK" if said.endswith(": OK\n") else said

    def listed(self, *arguments: str) -> list[dict[str, object]]:
        return json.loads(self.ok("list", "--json", *arguments))

    def contents(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.pki.rglob("*")) if path.is_file()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path / "pki", tmp_path)
    made.ok("init")
    return made


def handshake(site: Site, broker: Path, client: Path, *, authority: str = "devices", at: str = "hub.local") -> str:
    """The name that the broker sees after a TLS 1.3 handshake. Raises ssl.SSLError as whoever is not content does."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.minimum_version = ssl.TLSVersion.TLSv1_3
    server.load_cert_chain(broker, broker.with_suffix(".key"))
    server.load_verify_locations(site.pki / authority / "ca.pem")
    server.load_verify_locations(site.pki / authority / "crl.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF | ssl.VerifyFlags.VERIFY_X509_STRICT
    own = ssl.create_default_context(cafile=str(site.pki / "servers/ca.pem"))
    own.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    own.load_cert_chain(client, client.with_suffix(".key"))

    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [own.wrap_bio(down, up, server_hostname=at), server.wrap_bio(up, down, server_side=True)]
    for _ in range(3):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[1].version() == "TLSv1.3"
    return ends[1].getpeercert()["subject"][0][0][1]


def test_names_are_what_the_daemon_takes() -> None:
    assert pki.NAME.pattern == config.NAME.pattern


def test_three_authorities_are_made_once(site: Site) -> None:
    made = site.contents()
    files = ("ca.key", "ca.pem", "crl.pem")
    assert {*made} == {
        str(site.pki / ".lock"),
        *(str(site.pki / each / file) for each in AUTHORITIES for file in files),
    }
    assert site.ok("init") == ""
    assert site.contents() == made
    assert {path.stat().st_mode & 0o077 for path in (site.pki, *site.pki.rglob("*"))} == {0}
    subjects = {openssl("x509", "-noout", "-subject", "-in", site.pki / each / "ca.pem") for each in AUTHORITIES}
    assert len(subjects) == 3


@pytest.mark.parametrize("authority", AUTHORITIES)
def test_an_authority_is_one_in_every_respect(site: Site, authority: str) -> None:
    text = openssl("x509", "-noout", "-text", "-in", site.pki / authority / "ca.pem")
    for expected in (
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign\n",
        "prime256v1",
        "Not Before: Jan  1 00:00:00 1970",
    ):
        assert expected in text
    crl = openssl("crl", "-noout", "-text", "-in", site.pki / authority / "crl.pem")
    end = re.search(r"Not After : (.+)", text)
    assert end
    assert f"Next Update: {end[1]}" in crl
    assert "Last Update: Jan  1 00:00:00 1970" in crl
    assert "verify OK" in openssl(
        "crl", "-noout", "-in", site.pki / authority / "crl.pem", "-CAfile", site.pki / authority / "ca.pem"
    )


def test_a_device_is_named_by_who_signs_and_not_by_its_request(site: Site) -> None:
    text = openssl("x509", "-noout", "-text", "-nameopt", "RFC2253", "-in", site.device())
    assert "Subject: CN=hall-pi\n" in text
    assert re.search(r"Key Usage: critical\n +Digital Signature\n", text)
    assert re.search(r"Extended Key Usage: *\n +TLS Web Client Authentication\n", text)
    assert "CA:FALSE" in text
    assert "Subject Alternative Name" not in text
    assert "somebody else" not in text


def test_a_person_is_named_by_role_and_name(site: Site) -> None:
    subject = openssl("x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", site.person("anna", "reader"))
    assert subject == "subject=UID=anna,CN=reader\n"


def test_a_broker_has_its_addresses(site: Site) -> None:
    certificate = site.broker("hub", "Hub.local", "192.168.1.2", "fd00::2", "hub.local")
    text = openssl("x509", "-noout", "-text", "-in", certificate)
    assert "DNS:hub.local, IP Address:192.168.1.2, IP Address:FD00:0:0:0:0:0:0:2\n" in text
    assert re.search(r"Extended Key Usage: *\n +TLS Web Server Authentication\n", text)
    assert site.verify("servers", certificate, "sslserver", "-verify_hostname", "hub.local") == "OK"
    assert site.verify("servers", certificate, "sslserver", "-verify_ip", "192.168.1.2") == "OK"
    assert "ostname mismatch" in site.verify("servers", certificate, "sslserver", "-verify_hostname", "other.local")


@pytest.mark.parametrize("when", [(), ("-attime", BOOT)], ids=["now", "1970"])
def test_each_is_good_for_its_purpose_and_for_no_other(site: Site, when: tuple[str, ...]) -> None:
    made = {"servers": site.broker(), "devices": site.device(), "people": site.person()}
    for authority, certificate in made.items():
        right, wrong = ("sslserver", "sslclient") if authority == "servers" else ("sslclient", "sslserver")
        assert site.verify(authority, certificate, right, *when) == "OK"
        assert "error 26" in site.verify(authority, certificate, wrong, *when)  # unsuitable certificate purpose
        for other in {*AUTHORITIES} - {authority}:
            assert "error 20" in site.verify(other, certificate, right, *when)  # unable to get local issuer certificate


def test_it_ends_when_it_was_to(site: Site) -> None:
    now_s = int(dt.datetime.now(dt.UTC).timestamp())
    for certificate, days in ((site.device("a"), 730), (site.device("b", "--days", "3"), 3)):
        for offset_days, expected in ((-1, "OK"), (1, "certificate has expired")):
            time = str(now_s + (days + offset_days) * 86400)
            assert expected in site.verify("devices", certificate, "sslclient", "-attime", time)


def test_none_outlives_its_authority(site: Site) -> None:
    ends = [
        openssl("x509", "-noout", "-enddate", "-in", file)
        for file in (site.device("a", "--days", "7300"), site.pki / "devices/ca.pem")
    ]
    assert ends[0] == ends[1]


def test_broker_and_device_believe_each_other(site: Site) -> None:
    broker = site.broker()
    assert handshake(site, broker, site.device()) == "hall-pi"
    assert handshake(site, broker, site.person(), authority="people") == "operator"


def test_who_is_of_another_authority_is_not_let_in(site: Site, tmp_path: Path) -> None:
    broker, device = site.broker(), site.device()
    with pytest.raises(ssl.SSLError, match=r"unable to get local issuer"):
        handshake(site, broker, site.person())
    with pytest.raises(ssl.SSLError, match=r"unable to get local issuer"):
        handshake(site, broker, device, authority="people")
    with pytest.raises(ssl.SSLError, match=r"self-signed|unable to get local issuer"):
        handshake(site, site.device("false-hub"), device)
    with pytest.raises(ssl.SSLError, match=r"(?i)hostname mismatch"):
        handshake(site, broker, device, at="other.local")


def test_who_was_revoked_is_not_let_in_and_others_are(site: Site) -> None:
    broker, lost, kept = site.broker(), site.device("lost"), site.device("kept")
    assert handshake(site, broker, lost) == "lost"
    done = site.run("revoke", "devices", "lost")
    assert re.fullmatch(
        rf"revoked devices lost \w+: bring {site.pki}/devices/crl.pem to brokers and hubs\n", done.stderr
    )
    for _ in range(2):
        with pytest.raises(ssl.SSLError, match="certificate revoked"):
            handshake(site, broker, lost)
        assert handshake(site, broker, kept) == "kept"
        assert site.run("revoke", "devices", "lost").stderr == "devices lost: revoked already\n"
    assert "certificate revoked" in site.verify("devices", lost, "sslclient", "-attime", BOOT)


def test_old_and_new_authorities_are_trusted_at_once_while_devices_move_over(site: Site, tmp_path: Path) -> None:
    following, both = Site(tmp_path / "following", tmp_path), Site(tmp_path / "both", tmp_path)
    following.ok("init")
    devices = {"old": site.device("old"), "new": following.device("new")}
    gone = {"old-gone": site.device("old-gone"), "new-gone": following.device("new-gone")}
    site.ok("revoke", "devices", "old-gone")
    following.ok("revoke", "devices", "new-gone")
    shutil.copytree(site.pki, both.pki)
    for file in ("ca.pem", "crl.pem"):
        with (both.pki / "devices" / file).open("ab") as together:
            together.write((following.pki / "devices" / file).read_bytes())
    broker = site.broker()
    for name, certificate in devices.items():
        assert handshake(both, broker, certificate) == name
    for certificate in gone.values():
        with pytest.raises(ssl.SSLError, match="certificate revoked"):
            handshake(both, broker, certificate)


def test_each_list_of_revoked_has_the_next_number(site: Site) -> None:
    numbers = []
    for name in ("a", "b", "c"):
        site.device(name)
        site.ok("revoke", "devices", name)
        crl = openssl("crl", "-noout", "-text", "-in", site.pki / "devices/crl.pem")
        numbers.append(int(re.findall(r"X509v3 CRL Number: *\n +(\d+)", crl)[0]))
        assert crl.count("Serial Number:") == len(numbers)
    assert numbers == [2, 3, 4]


def test_a_renewed_one_is_valid_beside_the_old_until_that_is_replaced(site: Site) -> None:
    first = site.device().rename(site.others / "first.pem")
    second = site.device().rename(site.others / "second.pem")
    assert [site.verify("devices", each, "sslclient") for each in (first, second)] == ["OK", "OK"]
    third = site.device("hall-pi", "--replace")
    assert "revoked" in site.verify("devices", first, "sslclient")
    assert "revoked" in site.verify("devices", second, "sslclient")
    assert site.verify("devices", third, "sslclient") == "OK"
    assert sorted(str(row["state"]) for row in site.listed()) == ["revoked", "revoked", "valid"]


def test_one_of_two_is_revoked_by_its_serial(site: Site) -> None:
    site.device()
    (first,) = (row["serial"] for row in site.listed())
    site.device()
    shown = ":".join(re.findall("..", str(first).zfill(40))).upper()  # as openssl x509 -text has it
    site.ok("revoke", "devices", "hall-pi", "--serial", shown)
    assert {row["state"] for row in site.listed() if row["serial"] == first} == {"revoked"}
    assert {row["state"] for row in site.listed() if row["serial"] != first} == {"valid"}
    assert "no certificate with the serial 123 for 'hall-pi'" in site.refused(
        "revoke", "devices", "hall-pi", "--serial", "123"
    )


def test_the_key_of_a_revoked_one_is_not_signed_again(site: Site) -> None:
    site.device()
    site.ok("revoke", "devices", "hall-pi")
    assert "its key is that of" in site.refused("sign", "devices", "yard-pi", site.others / "hall-pi.csr")


def test_what_was_issued_is_listed(site: Site) -> None:
    site.broker(), site.device(), site.person()
    head, *rows = (line.split() for line in site.ok("list").splitlines())
    assert head == ["AUTHORITY", "NAME", "ROLE", "UNTIL", "STATE", "SERIAL"]
    assert [row[:2] for row in rows] == [["servers", "hub"], ["devices", "hall-pi"], ["people", "anna"]]
    assert rows[2][2] == "operator"
    for row, days in zip(site.listed(), (730, 730, 365), strict=True):
        assert row["days_left"] in {days - 1, days}
    issued = {path.name for path in site.pki.glob("*/issued/*")}
    assert issued == {f"{row['name']}-{row['serial']}.pem" for row in site.listed()}


def test_what_has_to_be_renewed_soon_is_listed(site: Site) -> None:
    site.device("renewed", "--days", "10")
    site.device("renewed")
    site.device("due", "--days", "10")
    site.device("revoked", "--days", "10")
    site.ok("revoke", "devices", "revoked")
    site.device("later")
    assert [row["name"] for row in site.listed("--expiring", "30")] == ["due"]
    assert site.listed("--expiring", "5") == []


def test_what_a_device_has_is_kept_renewed_or_refused(site: Site) -> None:
    device = site.device("hall-pi", "--days", "100")
    assert re.fullmatch(r"keep: until \d{4}-\d\d-\d\d\n", site.ok("check", "devices", "hall-pi", device))
    assert re.fullmatch(
        r"renew: (99|100) days are left, fewer than 101\n",
        site.ok("check", "devices", "hall-pi", device, "--days", "101"),
    )
    assert site.ok("check", "devices", "hall-pi", "-") == "renew: there is none\n"
    assert site.ok("check", "devices", "hall-pi", "-", given="PEM?") == "renew: what is there is no certificate\n"
    assert site.ok("check", "devices", "yard-pi", device) == "renew: it is for hall-pi\n"
    assert site.ok("check", "devices", "hall-pi", site.person()) == "renew: it is of another authority\n"
    site.device("hall-pi")
    site.ok("revoke", "devices", "hall-pi", "--serial", openssl("x509", "-in", device, "-noout", "-serial").strip()[7:])
    assert re.search(
        r": devices hall-pi: the certificate \w+ was revoked on 20", site.refused("check", "devices", "hall-pi", device)
    )


def test_who_was_shut_out_gets_in_again_only_when_somebody_says_so(site: Site) -> None:
    """Also when the device has deleted what it had, or only says so."""
    device = site.device("hall-pi")
    site.ok("revoke", "devices", "hall-pi")
    new = request(site.others, "new")
    for shown in (device, "-"):
        assert "all its certificates were revoked" in site.refused("check", "devices", "hall-pi", shown)
    assert "all its certificates were revoked" in site.refused("sign", "devices", "hall-pi", new)
    readmitted = site.ok("check", "devices", "hall-pi", device, "--readmit")
    assert readmitted == "renew: it was revoked, and is let in again\n"
    assert "BEGIN CERTIFICATE" in site.ok("sign", "devices", "hall-pi", new, "--readmit")
    assert "BEGIN CERTIFICATE" in site.ok("sign", "devices", "hall-pi", new), "it is let in"


BAD_NAMES = ["", "hall pi", "../hall-pi", "a/b", "hall.pi", "hall-pi\n", "ö", "a" * 65, "*", "+", "a\0b"]


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if "\0" not in name])
def test_a_name_that_is_none_is_refused(site: Site, name: str) -> None:
    csr = request(site.others, "csr")
    assert f"NAME = {name!r}: expected [A-Za-z0-9_-]{{1,64}}" in site.refused("sign", "devices", name, csr)
    assert f"NAME = {name!r}" in site.refused("sign", "people", name, csr, "--role", "reader")
    assert f"no certificate for {name!r}" in site.refused("revoke", "devices", name)


@pytest.mark.parametrize("role", ["operator", "reader"])
def test_no_device_is_named_as_a_role(site: Site, role: str) -> None:
    """The broker tells both by the common name alone."""
    csr = request(site.others, "csr")
    assert f"NAME = {role!r}: that is a role of people" in site.refused("sign", "devices", role, csr)
    site.ok("sign", "people", role, csr, "--role", "reader")  # of a person the common name is the role anyway


@pytest.mark.parametrize(
    "address", ["", "hub local", "*.local", "192.168.1.300", "http://hub", "hub:8883", "-a.b", "hüb"]
)
def test_an_address_that_is_none_is_refused(site: Site, address: str) -> None:
    said = site.refused("sign", "servers", "hub", request(site.others, "csr"), f"--address={address}")
    assert f"--address {address!r}: expected a host's name or an IP address" in said


def test_arguments_that_are_none_are_refused_in_one_line(site: Site) -> None:
    csr = request(site.others, "csr")
    for expected, arguments in {
        "--role": ("sign", "people", "anna", csr),
        "'admin'": ("sign", "people", "anna", csr, "--role", "admin"),
        "--address": ("sign", "servers", "hub", csr),
        "unrecognized arguments: --role": ("sign", "devices", "hall-pi", csr, "--role=operator"),
        "'robots'": ("sign", "robots", "r2", csr),
        "'0': expected 1 to 7300 days": ("sign", "devices", "hall-pi", csr, "--days", "0"),
        "'x': expected 1 to 7300 days": ("list", "--expiring", "x"),
    }.items():
        assert expected in site.refused(*arguments)


def test_a_request_that_is_none_is_refused(site: Site) -> None:
    def refused(content: str) -> str:
        return site.refused("sign", "devices", "hall-pi", "-", given=content)

    good = request(site.others, "good").read_text()
    for content in ("", "hello", good[:200], site.device().read_text(), "\0" * 100_000):
        assert "CSR: expected PEM, -----BEGIN CERTIFICATE REQUEST-----" in refused(content)
    der = openssl("req", "-in", site.others / "good.csr", "-outform", "DER", "-out", site.others / "der")
    assert der == ""
    forged = bytearray((site.others / "der").read_bytes())
    forged[-1] ^= 1
    (site.others / "der").write_bytes(forged)
    openssl("req", "-inform", "DER", "-in", site.others / "der", "-out", site.others / "forged.csr")
    assert "its signature is wrong" in refused((site.others / "forged.csr").read_text())
    assert "expected a key on P-256" in refused(request(site.others, "other", curve="P-384").read_text())
    assert f"{site.others}/none.csr: No such file" in site.refused(
        "sign", "devices", "hall-pi", site.others / "none.csr"
    )


@pytest.mark.parametrize("file", ["ca.pem", "ca.key", "crl.pem"])
@pytest.mark.parametrize("damage", ["gone", "empty", "cut", "foreign"])
def test_a_damaged_authority_issues_nothing(site: Site, tmp_path: Path, file: str, damage: str) -> None:
    site.device()
    other = Site(tmp_path / "other", tmp_path)
    other.ok("init")
    target = site.pki / "devices" / file
    match damage:
        case "gone":
            target.unlink()
        case "foreign":
            target.write_bytes((other.pki / "devices" / file).read_bytes())
        case _:
            target.write_bytes(target.read_bytes()[: {"empty": 0, "cut": 100}[damage]])
    csr = request(tmp_path, "new")
    for command in (("sign", "devices", "new", csr), ("revoke", "devices", "hall-pi"), ("init",)):
        said = site.refused(*command)
        assert f"{site.pki}/devices/" in said
        assert (
            "No such file" in said if damage == "gone" and file != "ca.key" else "restore it from the back-up" in said
        )
    site.ok("sign", "people", "anna", csr, "--role", "reader")  # the others are not in need of it


def test_a_stranger_s_file_among_the_issued_is_named(site: Site) -> None:
    alien = site.pki / "devices/issued/alien.pem"
    alien.write_bytes(site.person().read_bytes())
    assert f"{alien}: not issued by" in site.refused("list")
    alien.write_bytes(b"nothing")
    assert f"{alien}: not the PEM" in site.refused("revoke", "devices", "hall-pi")


def test_what_others_can_read_is_refused(site: Site) -> None:
    csr = request(site.others, "csr")
    for path, mode in ((site.pki, 0o750), (site.pki / "devices/ca.key", 0o640)):
        before = path.stat().st_mode
        path.chmod(mode)
        said = site.refused("sign", "devices", "hall-pi", csr)
        assert f"{path}: mode {mode:04o}, others can read or change it; chmod u=rwX,go= {path}" in said
        subprocess.run(["chmod", "u=rwX,go=", path], check=True)
        assert path.stat().st_mode == before
    site.ok("sign", "devices", "hall-pi", csr)


def test_without_a_directory_it_says_how_to_make_one(tmp_path: Path) -> None:
    missing = Site(tmp_path / "none", tmp_path)
    for command in (("list",), ("revoke", "devices", "a"), ("check", "devices", "a", "-")):
        assert missing.refused(*command).endswith(f"make it with: pki.py init {missing.pki}")
    missing.pki.write_text("a file")
    assert missing.refused("init") == f"pki.py: {missing.pki}: File exists"


def test_many_at_once_wait_for_each_other(site: Site) -> None:
    names = [f"d{number}" for number in range(6)]
    for name in names:
        site.device(name)
    commands = [["revoke", str(site.pki), "devices", name] for name in names]
    sign = ["sign", str(site.pki), "devices", "--readmit"]  # for either may come first
    commands += [[*sign, name, str(request(site.others, f"{name}-new"))] for name in names]
    running = [
        subprocess.Popen([sys.executable, str(PROGRAM), *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for command in commands
    ]
    assert {process.wait(60) for process in running} == {0}
    states = {name: sorted(str(row["state"]) for row in site.listed() if row["name"] == name) for name in names}
    assert {tuple(of) for of in states.values()} <= {("revoked", "valid"), ("revoked", "revoked")}
    assert site.run("list").returncode == 0


# Ends the program, as a power failure would, before its n-th step that changes a file.
_KILLED = """
import os, runpy, signal, sys
left = int(sys.argv.pop(1))
def hook(event, arguments):
    global left
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    if writes or event in {"os.rename", "os.mkdir", "os.remove", "os.rmdir"}:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.argv.pop(0)
sys.dont_write_bytecode = True
sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def killed_at(step: int, *command: str | Path) -> bool:
    """Run the program, to be killed at its n-th step. False when it had fewer."""
    line = [sys.executable, "-c", _KILLED, str(step), str(PROGRAM), *map(str, command)]
    code = subprocess.run(line, check=False, capture_output=True).returncode
    assert code in {0, -signal.SIGKILL}
    return code != 0


def test_a_directory_that_was_killed_in_the_making_is_completed(tmp_path: Path) -> None:
    half = Site(tmp_path / "pki", tmp_path)
    step = 1
    while killed_at(step, "init", half.pki):
        step += 1
    assert step > 12
    assert half.verify("devices", half.device(), "sslclient") == "OK"
    assert not [*half.pki.rglob("*.new")]


def test_who_is_killed_while_replacing_leaves_what_is_valid(site: Site) -> None:
    site.device()
    step = 0
    killed = True
    while killed:
        step += 1
        csr = request(site.others, f"hall-pi-{step}")
        killed = killed_at(step, "sign", site.pki, "devices", "hall-pi", csr, "--replace")
        valid = [row["serial"] for row in site.listed() if row["state"] == "valid"]
        assert valid
        for serial in valid:
            issued = site.pki / f"devices/issued/hall-pi-{serial}.pem"
            assert site.verify("devices", issued, "sslclient") == "OK"
    assert step > 4
    assert len(valid) == 1
    assert not [*site.pki.rglob("*.new")]


def test_a_full_disk_is_one_line(site: Site) -> None:
    csr = request(site.others, "csr")
    limit = f"ulimit -f 0; exec {sys.executable} {PROGRAM} sign {site.pki} devices hall-pi {csr}"
    before = site.contents()
    done = subprocess.run(["sh", "-c", f"trap '' XFSZ; {limit}"], check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "File too large" in done.stderr
    assert site.listed() == []
    site.ok("sign", "devices", "hall-pi", csr)
    assert before.items() <= site.contents().items()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Site:
    made = Site(tmp_path_factory.mktemp("site") / "pki", tmp_path_factory.mktemp("others"))
    made.ok("init")
    request(made.others, "csr")
    return made


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.one_of(st.text(max_size=70), st.from_regex(config.NAME, fullmatch=True)))
def test_any_name_is_signed_as_it_is_or_refused(shared: Site, name: str) -> None:
    printed = io.StringIO()
    csr = (shared.others / "csr.csr").read_bytes()
    before = {*shared.pki.rglob("*")}
    options = {"days": 10, "role": "", "addresses": [], "replace": False, "readmit": False}
    if not config.NAME.fullmatch(name) or name in pki.ROLES:
        with pytest.raises(pki.Refused), contextlib.redirect_stdout(printed):
            pki.sign(shared.pki, "devices", name, csr, **options)
        assert (printed.getvalue(), {*shared.pki.rglob("*")}) == ("", before)
        return
    with contextlib.redirect_stdout(printed):
        pki.sign(shared.pki, "devices", name, csr, **options)
    (new,) = {*shared.pki.rglob("*")} - before
    assert new.parent == shared.pki / "devices/issued"
    assert new.read_text() == printed.getvalue()
    authority = pki.Authority.open(shared.pki, "devices")
    assert authority.name_of(pki.x509.load_pem_x509_certificate(new.read_bytes())) == name


@settings(deadline=None, max_examples=200)
@given(content=st.binary(max_size=400))
def test_any_bytes_are_a_request_or_refused(content: bytes) -> None:
    begin, end = b"-----BEGIN CERTIFICATE REQUEST-----\n", b"\n-----END CERTIFICATE REQUEST-----\n"
    for request_bytes in (content, begin + content + end):
        with pytest.raises(pki.Refused):
            pki._requested_key(request_bytes)


@settings(deadline=None, max_examples=300)
@given(address=st.one_of(st.text(max_size=30), st.ip_addresses().map(str)))
def test_any_address_is_one_or_refused(address: str) -> None:
    with contextlib.suppress(pki.Refused):
        (name,) = pki._names([address])
        assert str(name.value).lower() == str(name.value)
