"""How this device shows a broker who it is, and why a connection does not come about."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as paho

from edge import tls
from edge.config import MqttConfig
from edge.secret_files import password


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

    @property
    def identity(self) -> tls.Identity:
        return tls.Identity("mqtt", self.ca_file, self.cert_file, self.key_file)


def why_not_connected(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            return tls.why_no_tls(error, "mqtt")
        case paho.WebsocketConnectionError():
            return f"no websocket with what is there ({error}); see the path in mqtt.url"
        case _:
            return why_broken(error)


def why_broken(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            return tls.why_broken(error, "mqtt")
        case OSError(strerror=str(reason)) if reason:
            return reason
        case _:
            return str(error) or type(error).__name__
