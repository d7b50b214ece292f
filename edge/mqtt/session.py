"""The connection to the broker: made, lost and made again without ever holding up its caller."""

from __future__ import annotations

import functools
import logging
import select
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.errors import ConfigError, ConfigProblem
from edge.logs import FaultLog
from edge.pacing import Backoff, Deadline

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 20

_STABLE_S = 10.0

_GREETING_TO_END_S = 0.5

Version = Literal["auto", "5", "3.1.1"]

_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_UNSUPPORTED_VERSION = 132  # MQTT 5, table 2-6; paho gives the same number for 3.1.1's return code 1


@dataclass(frozen=True, slots=True)
class Credentials:
    """How this device shows who it is, and how it knows the broker."""

    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """Something to publish. expiry_s: a broker drops it undelivered after so long (MQTT 5 only)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    expiry_s: int | None = None
    content_type: str = ""


class Delivery(Enum):
    """What became of a message."""

    TAKEN = auto()  # on its way
    DISCONNECTED = auto()  # there is no connection
    SLOW = auto()  # the broker does not read what it already has


class _Phase(Enum):
    WAITING = auto()  # until the next attempt
    CONNECTING = auto()  # a helper thread resolves, connects and does the TLS handshake
    GREETING = auto()  # CONNECT is sent, CONNACK is awaited
    ONLINE = auto()


class Session:
    """One client of one broker, driven by its caller: whoever owns it calls `service` several times a second.

    It speaks MQTT 5, and 3.1.1 with a broker that has no 5. Nothing is queued: a message finds a connection that
    takes it, or its sender is told at once. Not thread-safe; only the connecting itself runs on a thread of its own,
    since name resolution and TLS can't be done without blocking.
    """

    def __init__(
        self,
        url: str,
        *,
        client_id: str,
        version: Version,
        credentials: Credentials,
        will: Message | None,
        on_online: Callable[[], None],
    ) -> None:
        """url: mqtt://HOST[:PORT] or mqtts://HOST[:PORT]. version: "auto" is 5, or 3.1.1 with a broker that does not
        answer 5. will: what the broker says when this client vanishes; None: nothing. on_online: called after each
        connect, from `service`.

        Raises ConfigError when the CA file can't be used.
        """
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        self._tls = _tls_context(credentials.ca_file) if parts.scheme == "mqtts" else None
        self._client_id = client_id
        self._credentials = credentials
        self._will = will
        self._on_online = on_online
        self._candidates = [_PROTOCOLS[version]] if version in _PROTOCOLS else list(_PROTOCOLS.values())
        self._backoff = Backoff(first_s=0.5, most_s=30.0)
        self._faults = FaultLog(log)
        self._phase = _Phase.WAITING
        self._next_attempt_s = 0.0
        self._greeting_until_s = 0.0
        self._connector: threading.Thread | None = None
        self._connect_error = ""
        self._client = self._new_client()
        self._unacknowledged: set[int] = set()
        self._greeted = False
        self._known_version = False
        self._online_s = 0.0
        self._trouble = ""
        self._failures = 0
        self._closed = False

    @property
    def online(self) -> bool:
        return self._phase is _Phase.ONLINE

    @property
    def failures(self) -> int:
        """How often connecting has failed, or the connection was lost."""
        return self._failures

    @property
    def trouble(self) -> str:
        """Why the last attempt to connect failed or the connection was lost; empty before the first time."""
        return self._trouble

    @property
    def protocol(self) -> str:
        """The version in use, or next to be tried: 5 or 3.1.1."""
        return "5" if self._version_5 else "3.1.1"

    @property
    def _version_5(self) -> bool:
        return self._candidates[0] is MQTTProtocolVersion.MQTTv5

    def service(self) -> None:
        """Do what the connection needs now: connect, read, write, ping. Takes no longer than a system call."""
        match self._phase:
            case _Phase.WAITING if time.monotonic() >= self._next_attempt_s:
                self._start_connecting()
            case _Phase.CONNECTING if self._connector is not None and not self._connector.is_alive():
                if self._connect_error:
                    self._lost(self._connect_error)
                else:
                    self._phase = _Phase.GREETING
                    self._greeting_until_s = time.monotonic() + CONNECT_TIMEOUT_S
            case _Phase.GREETING:
                self._exchange()
                if self._phase is _Phase.GREETING and time.monotonic() > self._greeting_until_s:
                    self._lost_unheard("the broker accepts the connection and says nothing")
            case _Phase.ONLINE:
                self._exchange()
            case _:
                pass
        if self._greeted and self._phase is _Phase.ONLINE:
            self._greeted = False
            self._on_online()

    def publish(self, message: Message) -> Delivery:
        """Hand a message to the connection."""
        if self._phase is not _Phase.ONLINE:
            return Delivery.DISCONNECTED
        if not message.qos and self._client.want_write():
            # What was published before is still here: the socket's buffer is full.
            return Delivery.SLOW
        sent = self._client.publish(
            message.topic,
            message.payload,
            qos=message.qos,
            retain=message.retain,
            properties=_publish_properties(message.expiry_s, message.content_type) if self._version_5 else None,
        )
        if sent.rc not in (paho.MQTT_ERR_SUCCESS, paho.MQTT_ERR_AGAIN):
            return Delivery.DISCONNECTED
        if message.qos:
            self._unacknowledged.add(sent.mid)
        return Delivery.TAKEN

    def close(self, last: Message | None, timeout_s: float) -> None:
        """Publish `last`, see it acknowledged if the broker is quick enough, and say goodbye."""
        deadline = Deadline(timeout_s)
        # Half a connection can't be left in order: the broker would take its end for a failure, and announce the will.
        self._on_online = lambda: None
        patience = Deadline(min(timeout_s, _GREETING_TO_END_S))
        while self._phase in (_Phase.CONNECTING, _Phase.GREETING) and patience.left_s():
            self.service()
            time.sleep(0.01)
        if self._phase is _Phase.ONLINE:
            if last is not None:
                self.publish(last)
            while self._phase is _Phase.ONLINE and self._unacknowledged and deadline.left_s():
                self._exchange(wait_s=min(0.05, deadline.left_s()))
            if self._unacknowledged:
                log.warning("the broker did not acknowledge the last message within %.1f s", timeout_s)
        self._closed = True
        _leave(self._client)  # also before it is accepted: it would go on under this client's name
        self._phase = _Phase.WAITING
        self._next_attempt_s = float("inf")

    def _new_client(self) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._client_id, protocol=self._candidates[0])
        client.connect_timeout = CONNECT_TIMEOUT_S
        if self._will is not None:
            client.will_set(self._will.topic, self._will.payload, self._will.qos, self._will.retain)
        if self._credentials.username:
            client.username_pw_set(self._credentials.username, self._credentials.password or None)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._acknowledged
        return client

    def _start_connecting(self) -> None:
        client = self._client = self._new_client()
        self._unacknowledged.clear()
        self._connect_error = ""

        def connect() -> None:
            try:
                client.connect(self._host, self._port, keepalive=KEEPALIVE_S)
                if self._closed:
                    _leave(client)
            except Exception as error:  # noqa: BLE001 - whatever goes wrong here is why there is no connection
                # Only its text: its traceback would keep the socket open.
                self._connect_error = _why_not_connected(error)

        self._connector = threading.Thread(target=connect, name="mqtt-connect", daemon=True)
        self._phase = _Phase.CONNECTING
        self._connector.start()

    def _exchange(self, wait_s: float = 0.0) -> None:
        """Read and write what the socket has and takes right now."""
        client = self._client
        socket = client.socket()
        if socket is None:
            self._lost("the connection is closed")
            return
        pending = isinstance(socket, ssl.SSLSocket) and socket.pending() > 0
        wants_write = [socket] if client.want_write() else []
        readable, writable, _ = select.select([socket], wants_write, [], 0.0 if pending else wait_s)
        if readable or pending:
            client.loop_read()
        if writable:
            client.loop_write()
        client.loop_misc()

    def _connected(
        self, client: paho.Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if not reason.is_failure:
            self._phase = _Phase.ONLINE
            self._faults.worked("broker %s:%d is back", self._host, self._port)
            log.info("connected to broker %s:%d with MQTT %s", self._host, self._port, self.protocol)
            self._greeted = True  # paho writes nothing from within its callbacks, so `service` goes on
            self._known_version = self._known_version or self._version_5
            self._online_s = time.monotonic()
        elif reason.value == _UNSUPPORTED_VERSION:
            self._known_version = True
            self._lost(f"the broker does not speak MQTT {self.protocol}", other_version=True)
        else:
            self._lost(f"the broker refuses this client: {reason}; see mqtt.username and mqtt.password_file")

    def _disconnected(
        self, client: paho.Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if self._phase is _Phase.ONLINE:
            self._lost(f"connection lost ({reason})", other_version=not (self._known_version or self._version_5))
        elif self._phase is _Phase.GREETING:
            hint = "" if self._tls else "; a broker with TLS wants mqtts:// in mqtt.url"
            self._lost_unheard(f"connection closed before it was accepted ({reason}){hint}")

    def _acknowledged(
        self, client: paho.Client, userdata: Any, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if mid in self._unacknowledged:
            self._unacknowledged.discard(mid)
            if reason.is_failure:
                log.error("the broker refuses a message: %s; see its access control list", reason)

    def _lost_unheard(self, why: str) -> None:
        # Some brokers without MQTT 5 say so, others choke on the packet and say nothing. As long as this broker has
        # not accepted either version, they take turns.
        self._lost(why, other_version=not self._known_version)

    def _lost(self, why: str, *, other_version: bool = False) -> None:
        if self._phase is _Phase.ONLINE and time.monotonic() - self._online_s > _STABLE_S:
            self._backoff.reset()  # not on connecting: two devices of one name would throw each other out without end
        if other_version:
            self._candidates.reverse()
        wait_s = self._backoff.next_s()
        self._trouble = why
        self._failures += 1
        self._phase = _Phase.WAITING
        self._next_attempt_s = time.monotonic() + wait_s
        self._unacknowledged.clear()
        self._faults.failed("broker %s:%d: %s; next try in %.1f s", self._host, self._port, why, wait_s)
        if (socket := self._client.socket()) is not None:
            socket.close()


def _leave(client: paho.Client) -> None:
    """Say goodbye, so that the broker does not announce the will, and let go of the connection."""
    client.on_disconnect = None
    client.disconnect()
    if (socket := client.socket()) is not None:
        socket.close()


@functools.cache  # a handful of combinations, one for each message
def _publish_properties(expiry_s: int | None, content_type: str) -> Properties:
    properties: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call] # paho has no types there
    if expiry_s is not None:
        properties.MessageExpiryInterval = expiry_s
    if content_type:
        properties.ContentType = content_type
        properties.UserProperty = ("v", "1")
    return properties  # type: ignore[no-any-return] # paho's Properties sets its attributes dynamically


def _why_not_connected(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError(verify_message=str(reason)):
            return f"its certificate is refused ({reason.rstrip('.')}); see mqtt.ca_file and the name in mqtt.url"
        case ssl.SSLError():
            reason = (error.reason or str(error)).lower().replace("_", " ")
            return f"no TLS with what is there ({reason}); see mqtt.url, mqtt:// is without TLS"
        case OSError(strerror=str(reason)) if reason:
            return reason
        case _:
            return str(error) or type(error).__name__


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        problem = f"can't be used as CA certificates: {getattr(error, 'strerror', None) or error}"
        raise ConfigError([ConfigProblem("config", "mqtt.ca_file", str(ca_file), problem)]) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
