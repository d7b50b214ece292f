"""How this device shows a server who it is, knows the server, and why one is not believed. For MQTT and Rerun."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from edge.errors import ConfigError, ConfigProblem

# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED: of OpenSSL's x509_vfy.h.
_BY_THE_CLOCK = (9, 10)


@dataclass(frozen=True, slots=True)
class Identity:
    """Certificates, and which of the configuration's tables names them, for messages: "mqtt", "rerun".

    ca_file: what the server's certificate is checked against, None for the system's authorities. cert_file, key_file:
    this device's certificate and the key to it, PEM; without key_file the key is in cert_file too.
    """

    table: str
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class _PassphraseWanted(Exception):
    pass


def client_context(identity: Identity) -> ssl.SSLContext:
    """Raises ConfigError when a file can't be used."""
    table, ca_file, cert_file = identity.table, identity.ca_file, identity.cert_file
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        problem = f"can't be used as CA certificates: {getattr(error, 'strerror', None) or error}"
        raise _config_error(f"{table}.ca_file", ca_file, problem) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        _load_client_certificate(context, table, cert_file, identity.key_file)
    elif identity.key_file is not None:
        problem = f"{table}.key_file is of no use without it: name both, or none"
        raise _config_error(f"{table}.cert_file", None, problem)
    return context


def contents(identity: Identity) -> list[bytes | None]:
    """What the files hold: a certificate that is another one under the same name is a change as well."""
    return [content(file) for file in (identity.ca_file, identity.cert_file, identity.key_file)]


def content(file: Path | None) -> bytes | None:
    """What it holds; None where there is none, or it can't be read."""
    try:
        return None if file is None else file.read_bytes()
    except OSError:
        return None


def why_no_tls(error: ssl.SSLError, table: str) -> str:
    """Why there is no connection, in one line with the key to look at; `error` came while it was made."""
    match error:
        case ssl.SSLCertVerificationError(verify_message=str(reason)):
            if error.verify_code in _BY_THE_CLOCK:
                now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
                return f"its certificate is refused ({reason}): this device's clock says {now} UTC, is that right?"
            return f"its certificate is refused ({reason.rstrip('.')}); see {table}.ca_file and the name in {table}.url"
        case _ if "alert" not in (reason := _reason(error)):
            return f"no TLS with what is there ({reason}); see {table}.url and whether TLS is spoken there"
        case _:
            return why_broken(error, table)


def why_broken(error: ssl.SSLError, table: str) -> str:
    """Why a connection ended, in one line; with TLS 1.3 a server refuses a client only after the handshake."""
    reason = _reason(error)
    if "certificate required" in reason:
        return f"the other end wants a client certificate; see {table}.cert_file and {table}.key_file"
    if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
        return f"the other end refuses this client's certificate ({reason}); see {table}.cert_file"
    return reason


def _reason(error: ssl.SSLError) -> str:
    """In OpenSSL's words, such as "tlsv13 alert certificate required"."""
    if isinstance(error, ssl.SSLEOFError):
        return "the other end closed it"
    return (error.reason or str(error)).lower().replace("_", " ")


def _load_client_certificate(context: ssl.SSLContext, table: str, cert_file: Path, key_file: Path | None) -> None:
    for key, file in ((f"{table}.cert_file", cert_file), (f"{table}.key_file", key_file)):
        try:
            if file is not None:
                file.read_bytes()  # the error of load_cert_chain does not tell which one it is about
        except OSError as error:
            raise _config_error(key, file, f"can't be read: {error.strerror or error}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(cert_file))
    except (OSError, ssl.SSLError):
        problem = "is no certificate: it takes PEM, a file with -----BEGIN CERTIFICATE-----"
        raise _config_error(f"{table}.cert_file", cert_file, problem) from None

    def passphrase() -> str:  # without one, OpenSSL asks on the terminal
        raise _PassphraseWanted

    try:
        context.load_cert_chain(cert_file, key_file, password=passphrase)
    except _PassphraseWanted:
        problem = "needs a passphrase, which nobody is there to type: openssl pkey -in FILE -out NEW takes it off"
    except (OSError, ssl.SSLError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            problem = f"does not belong to the certificate {cert_file}"
        else:
            problem = "holds no key: it takes PEM, a file with -----BEGIN PRIVATE KEY-----"
    else:
        return
    raise _config_error(f"{table}.key_file", key_file or cert_file, problem)


def _config_error(key: str, file: Path | None, problem: str) -> ConfigError:
    return ConfigError([ConfigProblem("config", key, "" if file is None else str(file), problem)])
