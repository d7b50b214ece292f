"""How this device shows a broker who it is and knows the broker, and why it is not believed."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho

from edge.config import MqttConfig
from edge.errors import ConfigError, ConfigProblem
from edge.secret_files import password

# X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED: of OpenSSL's x509_vfy.h.
_BY_THE_CLOCK = (9, 10)


@dataclass(frozen=True, slots=True)
class Credentials:
    """How this device shows who it is, and how it knows the broker.

    cert_file, key_file: its certificate and the key to it, PEM; without key_file the key is in cert_file too.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def of(cls, mqtt: MqttConfig) -> Credentials:
        """As configured. Raises OSError when the password's file can't be read."""
        secret = "" if mqtt.password_file is None else password(mqtt.password_file)
        return cls(mqtt.username, secret, mqtt.ca_file, mqtt.cert_file, mqtt.key_file)


def why_not_connected(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_message=str(reason)):
            if error.verify_code in _BY_THE_CLOCK:
                now = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
                return f"its certificate is refused ({reason}): this device's clock says {now} UTC, is that right?"
            return f"its certificate is refused ({reason.rstrip('.')}); see mqtt.ca_file and the name in mqtt.url"
        case ssl.SSLError() if "alert" not in (reason := _tls_reason(error)):
            return f"no TLS with what is there ({reason}); see mqtt.url, mqtt:// and ws:// are without TLS"
        case paho.WebsocketConnectionError():
            return f"no websocket with what is there ({error}); see the path in mqtt.url"
        case _:
            return why_broken(error)


def why_broken(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            reason = _tls_reason(error)
            if "certificate required" in reason:
                return "the broker wants a client certificate; see mqtt.cert_file and mqtt.key_file"
            if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
                return f"the broker refuses this client's certificate ({reason}); see mqtt.cert_file"
            return reason
        case OSError(strerror=str(reason)) if reason:
            return reason
        case _:
            return str(error) or type(error).__name__


def _tls_reason(error: ssl.SSLError) -> str:
    """In OpenSSL's words, such as "tlsv13 alert certificate required"."""
    if isinstance(error, ssl.SSLEOFError):
        return "the other end closed it"
    return (error.reason or str(error)).lower().replace("_", " ")


class _PassphraseWanted(Exception):
    pass


def tls_context(credentials: Credentials) -> ssl.SSLContext:
    ca_file, cert_file, key_file = credentials.ca_file, credentials.cert_file, credentials.key_file
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        problem = f"can't be used as CA certificates: {getattr(error, 'strerror', None) or error}"
        raise _config_error("mqtt.ca_file", ca_file, problem) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file is not None:
        _load_client_certificate(context, cert_file, key_file)
    elif key_file is not None:
        raise _config_error("mqtt.cert_file", None, "mqtt.key_file is of no use without it: name both, or none")
    return context


def _load_client_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> None:
    for key, file in (("mqtt.cert_file", cert_file), ("mqtt.key_file", key_file)):
        try:
            if file is not None:
                file.read_bytes()  # the error of load_cert_chain does not tell which one it is about
        except OSError as error:
            raise _config_error(key, file, f"can't be read: {error.strerror or error}") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=str(cert_file))
    except (OSError, ssl.SSLError):
        problem = "is no certificate: it takes PEM, a file with -----BEGIN CERTIFICATE-----"
        raise _config_error("mqtt.cert_file", cert_file, problem) from None

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
    raise _config_error("mqtt.key_file", key_file or cert_file, problem)


def _config_error(key: str, file: Path | None, problem: str) -> ConfigError:
    return ConfigError([ConfigProblem("config", key, "" if file is None else str(file), problem)])
