"""The certificates of a site: who the broker is, who a device is, who may give commands. See docs/certificates.md.

Three authorities, so that who signed a certificate says what it is for: `servers`, `devices`, `people`. On disk:

    <authority>/ca.pem  ca.key  crl.pem  issued/<name>-<serial>.pem

`ca.key` is the only secret, `crl.pem` the only record of what is revoked. Private keys of others never come here.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import fcntl
import ipaddress
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""Since when everything is valid: a board without a clock of its own boots in the past, and has to find the broker."""
CA_DAYS = 20 * 365
NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What a device, which is edge.config.NAME, and a person can be called."""
SERVER_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
ROLES = ("operator", "reader")
_HOST = re.compile(
    r"(?=.{1,253}$)([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
)
_LARGEST = 65536
"""Bytes of a CSR or certificate that somebody gives."""
_T = TypeVar("_T")


class Refused(Exception):
    """What somebody has to do something about, in one line."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What an authority issues. days: for how long, unless told otherwise. reserved: names that it gives to nobody."""

    usage: x509.ObjectIdentifier
    name: re.Pattern[str]
    days: int
    reserved: tuple[str, ...] = ()


KINDS = {
    "servers": Kind(ExtendedKeyUsageOID.SERVER_AUTH, SERVER_NAME, 730),
    # The broker knows both a device and a role by the CN: a device of that name would give commands.
    "devices": Kind(ExtendedKeyUsageOID.CLIENT_AUTH, NAME, 730, reserved=ROLES),
    "people": Kind(ExtendedKeyUsageOID.CLIENT_AUTH, NAME, 365),
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate. role: of a person, else empty. serial: hexadecimal. state: valid, expired or revoked."""

    authority: str
    name: str
    role: str
    serial: str
    until: dt.datetime
    state: str

    @property
    def days_left(self) -> int:
        """Whole days; negative when it has expired."""
        return (self.until - _now()) // dt.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Authority:
    """One that is there, with its certificate and its list of what is revoked as they are on disk."""

    name: str
    folder: Path
    certificate: x509.Certificate
    crl: x509.CertificateRevocationList

    @classmethod
    def open(cls, pki: Path, name: str) -> Authority:
        """Raises Refused when it is not there, or not as this program left it."""
        folder = pki / name
        if not folder.is_dir():
            raise Refused(f"{folder}: no such authority; make it with: pki.py init {pki}")
        ca_file, crl_file = folder / "ca.pem", folder / "crl.pem"
        certificate = _parsed(ca_file, x509.load_pem_x509_certificate)
        crl = _parsed(crl_file, x509.load_pem_x509_crl)
        if not crl.is_signature_valid(_p256(certificate.public_key(), ca_file)):
            raise Refused(f"{crl_file}: not signed by {ca_file}; {_RESTORE}")
        return cls(name, folder, certificate, crl)

    def key(self) -> ec.EllipticCurvePrivateKey:
        file = self.folder / "ca.key"
        _see_that_it_is_private(file)
        key = _parsed(file, lambda pem: serialization.load_pem_private_key(pem, password=None))
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise Refused(f"{file}: not the key to {self.folder / 'ca.pem'}; {_RESTORE}")
        return key

    def revoked(self, serial: int) -> x509.RevokedCertificate | None:
        return self.crl.get_revoked_certificate_by_serial_number(serial)

    def certificates(self) -> list[x509.Certificate]:
        """All that it has issued, by name and end. Raises Refused when a file is not one of them."""
        found = []
        for file in (self.folder / "issued").iterdir():
            if file.suffix == ".pem":
                certificate = _parsed(file, x509.load_pem_x509_certificate)
                if not self.has_issued(certificate):
                    raise Refused(f"{file}: not issued by {self.folder / 'ca.pem'}; take it out of this directory")
                found.append(certificate)
        return sorted(found, key=lambda each: (self.name_of(each), each.not_valid_after_utc))

    def has_issued(self, certificate: x509.Certificate) -> bool:
        try:
            certificate.verify_directly_issued_by(self.certificate)
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True

    def name_of(self, certificate: x509.Certificate) -> str:
        return _subject(certificate, NameOID.USER_ID if self.name == "people" else NameOID.COMMON_NAME)

    def has_shut_out(self, name: str) -> bool:
        """Whether all that `name` ever had was revoked: whoever comes under it now may be who was shut out."""
        had = [each for each in self.certificates() if self.name_of(each) == name]
        return bool(had) and all(self.revoked(each.serial_number) for each in had)

    def seen(self, certificate: x509.Certificate) -> Issued:
        """What there is to say about one of its certificates."""
        role = _subject(certificate, NameOID.COMMON_NAME) if self.name == "people" else ""
        until = certificate.not_valid_after_utc
        state = "expired" if until < _now() else "valid"
        if self.revoked(certificate.serial_number):
            state = "revoked"
        return Issued(self.name, self.name_of(certificate), role, f"{certificate.serial_number:x}", until, state)


_RESTORE = "restore it from the back-up"


# What the commands do


def init(pki: Path) -> None:
    """Make the authorities that are missing."""
    pki.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(pki):
        for name in KINDS:
            folder = pki / name
            if folder.exists():
                Authority.open(pki, name).key()
                continue
            # Made beside and put in place whole.
            new = folder.with_name(f".{name}.new")
            (new / "issued").mkdir(parents=True)
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = _ca_certificate(name, key)
            _write(new / "ca.key", _pem(key))
            _write(new / "ca.pem", _pem(certificate))
            _write(new / "crl.pem", _pem(_crl(certificate, key, revoked=[], number=1)))
            new.rename(folder)
            _sync(pki)
            print(f"made {folder}")


def sign(
    pki: Path,
    authority: str,
    name: str,
    request: bytes,
    *,
    days: int,
    role: str,
    addresses: list[str],
    replace: bool,
    readmit: bool,
) -> None:
    """Print a certificate for who has made the request. Of the request only the key counts."""
    pattern = KINDS[authority].name
    if not pattern.fullmatch(name):
        raise Refused(f"NAME = {name!r}: expected {pattern.pattern}")
    if name in KINDS[authority].reserved:
        raise Refused(f"NAME = {name!r}: that is a role of people; give the device another name")
    public_key = _requested_key(request)
    with _locked(pki):
        issuer = Authority.open(pki, authority)
        if not readmit and issuer.has_shut_out(name):
            raise Refused(_shut_out(authority, name))
        earlier = issuer.certificates()
        for each in earlier:
            if each.public_key() == public_key and issuer.revoked(each.serial_number):
                serial = f"{each.serial_number:x}"
                raise Refused(
                    f"CSR: its key is that of {serial}, which was revoked; make a new key, and a CSR with that"
                )
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, role or name)]
        if role:
            subject.append(x509.NameAttribute(NameOID.USER_ID, name))
        certificate = _certificate(
            issuer, subject=x509.Name(subject), public_key=public_key, days=days, names=_names(addresses)
        )
        _write(issuer.folder / "issued" / f"{name}-{certificate.serial_number:x}.pem", _pem(certificate))
        # After the new one is there: who is interrupted here has two that are valid, not none.
        if replace:
            _revoke(issuer, [each for each in earlier if issuer.name_of(each) == name])
    print(_pem(certificate).decode(), end="")


def revoke(pki: Path, authority: str, name: str, *, serial: str) -> None:
    """Revoke the certificates of that name, or the one with that serial. What is revoked already stays so."""
    with _locked(pki):
        issuer = Authority.open(pki, authority)
        found = [each for each in issuer.certificates() if issuer.name_of(each) == name]
        if serial:
            wanted = serial.lower().replace(":", "").lstrip("0")
            found = [each for each in found if f"{each.serial_number:x}" == wanted]
        if not found:
            which = f"with the serial {serial} " if serial else ""
            raise Refused(f"{issuer.folder}: no certificate {which}for {name!r}; pki.py list {pki} shows what there is")
        # What has expired as well: a broker without a clock might still take it.
        if not _revoke(issuer, found):
            print(f"{authority} {name}: revoked already", file=sys.stderr)


def table(pki: Path, *, expiring_days: int | None, as_json: bool) -> None:
    """Print what was issued, or only what somebody has to renew."""
    rows = []
    for name in KINDS:
        authority = Authority.open(pki, name)
        rows += [authority.seen(each) for each in authority.certificates()]
    if expiring_days is not None:
        last = {(row.authority, row.name, row.role): row for row in rows if row.state != "revoked"}  # they come by end
        rows = [row for row in last.values() if row.days_left < expiring_days]
    if as_json:
        print(json.dumps([_as_json(row) for row in rows], indent=1))
        return
    lines = [("AUTHORITY", "NAME", "ROLE", "UNTIL", "STATE", "SERIAL")]
    lines += [(row.authority, row.name, row.role, f"{row.until:%Y-%m-%d}", row.state, row.serial) for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def check(pki: Path, authority: str, name: str, certificate: bytes, *, days: int, readmit: bool) -> None:
    """Print whether what `name` has can stay: `keep: …` or `renew: …`, and why. Raises Refused when it was revoked, or
    all that it ever had was, whatever it shows now."""
    issuer = Authority.open(pki, authority)
    if not readmit and issuer.has_shut_out(name):
        raise Refused(_shut_out(authority, name))
    try:
        found = x509.load_pem_x509_certificate(certificate)
    except ValueError:
        print("renew: there is none" if not certificate.strip() else "renew: what is there is no certificate")
        return
    if not issuer.has_issued(found):
        print("renew: it is of another authority")
        return
    revoked = issuer.revoked(found.serial_number)
    if revoked and readmit:
        print("renew: it was revoked, and is let in again")
        return
    if revoked:
        when = f"{revoked.revocation_date_utc:%Y-%m-%d}"
        raise Refused(f"{authority} {name}: the certificate {found.serial_number:x} was revoked on {when}")
    seen = issuer.seen(found)
    if seen.name != name:
        print(f"renew: it is for {seen.name}")
    elif seen.days_left < days:
        print(f"renew: {seen.days_left} days are left, fewer than {days}")
    else:
        print(f"keep: until {seen.until:%Y-%m-%d}")


def _shut_out(authority: str, name: str) -> str:
    return f"{authority} {name}: all its certificates were revoked; to let it in again, add --readmit"


# What goes into certificates


def _ca_certificate(name: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    # The serial in it tells it from one that comes after it, to who trusts both.
    serial = x509.random_serial_number()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edge-pose {name} {serial:x}"[:64])])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(EPOCH)
        .not_valid_after(_now() + dt.timedelta(days=CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _certificate(
    issuer: Authority,
    *,
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    names: list[x509.GeneralName],
) -> x509.Certificate:
    ca = issuer.certificate
    # One that outlived its authority would be of no use.
    until = min(_now() + dt.timedelta(days=days), ca.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(EPOCH)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([KINDS[issuer.name].usage]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(_issuer_identifier(ca), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(issuer.key(), hashes.SHA256())


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _issuer_identifier(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _names(addresses: list[str]) -> list[x509.GeneralName]:
    """Raises Refused on what is neither a host's name nor an IP address."""
    names: list[x509.GeneralName] = []
    for address in dict.fromkeys(address.lower() for address in addresses):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(address)))
        except ValueError:
            if not _HOST.fullmatch(address):
                raise Refused(f"--address {address!r}: expected a host's name or an IP address") from None
            names.append(x509.DNSName(address))
    return names


def _crl(
    ca: x509.Certificate, key: ec.EllipticCurvePrivateKey, *, revoked: list[x509.RevokedCertificate], number: int
) -> x509.CertificateRevocationList:
    """A list that never expires before its authority: one that did would lock everybody out."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(EPOCH)
        .next_update(ca.not_valid_after_utc)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_issuer_identifier(ca), critical=False)
    )
    for each in revoked:
        builder = builder.add_revoked_certificate(each)
    return builder.sign(key, hashes.SHA256())


def _revoke(issuer: Authority, certificates: list[x509.Certificate]) -> int:
    """Put them into crl.pem. Returns how many were not in it."""
    new = [each for each in certificates if not issuer.revoked(each.serial_number)]
    if new:
        builder = x509.RevokedCertificateBuilder(revocation_date=_now())
        entries = [*issuer.crl, *(builder.serial_number(each.serial_number).build() for each in new)]
        number = issuer.crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number + 1
        file = issuer.folder / "crl.pem"
        _write(file, _pem(_crl(issuer.certificate, issuer.key(), revoked=entries, number=number)))
        for each in new:
            serial = f"{each.serial_number:x}"
            print(
                f"revoked {issuer.name} {issuer.name_of(each)} {serial}: bring {file} to brokers and hubs",
                file=sys.stderr,
            )
    return len(new)


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    """The key in a CSR that was made by who has the private one. Raises Refused."""
    try:
        csr = x509.load_pem_x509_csr(request)
        signed = csr.is_signature_valid
        key = csr.public_key()
    except Exception as error:  # noqa: BLE001 - what comes from outside may be anything
        raise Refused(
            f"CSR: expected PEM, -----BEGIN CERTIFICATE REQUEST-----, as of 'openssl req -new': {error}"
        ) from None
    if not signed:
        raise Refused("CSR: its signature is wrong; make it anew where the private key is")
    return _p256(key, "CSR")


def _p256(key: object, where: Path | str) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Refused(
            f"{where}: expected a key on P-256, as of 'openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256'"
        )
    return key


# Files


def _parsed(file: Path, parse: Callable[[bytes], _T]) -> _T:
    content = file.read_bytes()
    try:
        return parse(content)
    except (ValueError, TypeError):
        raise Refused(f"{file}: not the PEM that was written there; {_RESTORE}") from None


def _pem(thing: x509.Certificate | x509.CertificateRevocationList | ec.EllipticCurvePrivateKey) -> bytes:
    if isinstance(thing, ec.EllipticCurvePrivateKey):
        plain = serialization.NoEncryption()
        return thing.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return thing.public_bytes(serialization.Encoding.PEM)


def _write(file: Path, content: bytes) -> None:
    """All of it or nothing, also when the power fails. Readable to nobody else, as main() sets the umask."""
    new = file.with_name(f".{file.name}.new")
    with new.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    new.rename(file)
    _sync(file.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(pki: Path) -> Iterator[None]:
    """One at a time; others wait. What one that was killed has left half-written is cleared away."""
    _see_that_it_is_private(pki)
    with (pki / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in [*pki.glob("*/issued/.*.new"), *pki.glob("*/.*.new"), *pki.glob(".*.new")]:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield


def _see_that_it_is_private(path: Path) -> None:
    try:
        mode = path.stat().st_mode & 0o777
    except FileNotFoundError:
        remedy = _RESTORE if path.name == "ca.key" else f"make it with: pki.py init {path}"
        raise Refused(f"{path}: is not there; {remedy}") from None
    if mode & 0o077:
        wanted = "u=rwX,go="
        raise Refused(f"{path}: mode {mode:04o}, others can read or change it; chmod {wanted} {path}")


def _read(file: str) -> bytes:
    """A file, or standard input for "-"."""
    with contextlib.nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as stream:
        return stream.read(_LARGEST)


# The command line


def _subject(certificate: x509.Certificate, attribute: x509.ObjectIdentifier) -> str:
    return str(next(iter(certificate.subject.get_attributes_for_oid(attribute))).value)


def _as_json(row: Issued) -> dict[str, object]:
    return {
        "authority": row.authority,
        "name": row.name,
        "role": row.role,
        "serial": row.serial,
        "until": row.until.isoformat(),
        "days_left": row.days_left,
        "state": row.state,
    }


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC).replace(microsecond=0)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see --help\n")


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= CA_DAYS:
        raise argparse.ArgumentTypeError(f"{text!r}: expected 1 to {CA_DAYS} days")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="pki.py", description="The certificates of a site; see docs/certificates.md.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("pki", type=Path, metavar="PKI", help="the directory with the authorities, mode 0700")
        return added

    command("init", "make the directory and the authorities; what is there stays")

    readmit = "although all that NAME had was revoked"
    signing = command("sign", "print a certificate, PEM, for the key in a CSR")
    authorities = signing.add_subparsers(dest="authority", required=True, metavar="{servers,devices,people}")
    for authority, kind in KINDS.items():
        added = authorities.add_parser(authority)
        added.add_argument("name", metavar="NAME")
        added.add_argument("csr", metavar="CSR", help="file, PEM; - reads standard input")
        added.add_argument("--days", type=_days, default=kind.days, help="how long it is valid (default: %(default)s)")
        added.add_argument("--replace", action="store_true", help="revoke those that NAME had before")
        added.add_argument("--readmit", action="store_true", help=readmit)
        if authority == "servers":
            text = "what clients connect to: host names, IP addresses"
            added.add_argument(
                "--address",
                nargs="+",
                action="extend",
                required=True,
                metavar="HOST_OR_IP",
                help=text,
                dest="addresses",
            )
        if authority == "people":
            added.add_argument("--role", choices=ROLES, required=True, help="what they may do at the broker")

    revoking = command("revoke", "revoke what NAME has, and write crl.pem")
    revoking.add_argument("authority", choices=KINDS, metavar="AUTHORITY")
    revoking.add_argument("name", metavar="NAME")
    revoking.add_argument("--serial", default="", help="only this one, hexadecimal")

    listing = command("list", "show what was issued")
    listing.add_argument(
        "--expiring", type=_days, metavar="DAYS", help="only names whose last certificate has fewer days left, or none"
    )
    listing.add_argument("--json", action="store_true", help="as JSON")

    checking = command("check", "print whether a certificate can stay, 'keep: …' or 'renew: …'; 1 when it was revoked")
    checking.add_argument("authority", choices=KINDS, metavar="AUTHORITY")
    checking.add_argument("name", metavar="NAME")
    checking.add_argument("certificate", metavar="CERTIFICATE", help="file, PEM; - reads standard input")
    checking.add_argument("--readmit", action="store_true", help=readmit)
    checking.add_argument("--days", type=_days, default=90, help="how many have to be left (default: %(default)s)")
    return parser


def _run(given: argparse.Namespace) -> None:
    if given.command != "init":
        _see_that_it_is_private(given.pki)
    match given.command:
        case "init":
            init(given.pki)
        case "sign":
            sign(
                given.pki,
                given.authority,
                given.name,
                _read(given.csr),
                days=given.days,
                role=getattr(given, "role", ""),
                addresses=getattr(given, "addresses", []),
                replace=given.replace,
                readmit=given.readmit,
            )
        case "revoke":
            revoke(given.pki, given.authority, given.name, serial=given.serial)
        case "list":
            table(given.pki, expiring_days=given.expiring, as_json=given.json)
        case _:
            check(
                given.pki, given.authority, given.name, _read(given.certificate), days=given.days, readmit=given.readmit
            )


def main() -> int:
    os.umask(0o077)
    try:
        _run(_parser().parse_args())
    except Refused as refused:
        print(f"pki.py: {refused}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"pki.py: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
