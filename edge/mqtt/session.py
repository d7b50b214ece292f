"""The connection to the broker: made, lost and made again without ever holding up its caller."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, Literal
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.logs import FaultLog
from edge.mqtt.client import (
    UNACKNOWLEDGED_MOST,
    Client,
    packet_bytes,
    properties_of,
    publish_properties,
    received,
    taken,
)
from edge.mqtt.message import Message, Received
from edge.mqtt.tls import Credentials, why_broken, why_not_connected
from edge.mqtt.wire import v1
from edge.pacing import Backoff, Deadline
from edge.tls import client_context

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
WILL_DELAY_S = 5
"""A client that is back within so long was never missed."""
KEEPALIVE_S = 20

_STABLE_S = 10.0

_BRIEF_MOST = 3
"""So many connections in a row that did not last are no chance."""

_GREETING_TO_END_S = 0.5

_TURNS = 32
_TOLD_MOST = 100

Version = Literal["auto", "5", "3.1.1"]

_PROTOCOLS = {"5": MQTTProtocolVersion.MQTTv5, "3.1.1": MQTTProtocolVersion.MQTTv311}
_PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}

# Reasons of MQTT 5, table 2-6; paho translates those of 3.1.1.
_UNSPECIFIED = 128
_UNSUPPORTED_VERSION = 132
_WRONG_LOGIN = (134, 135)
_TAKEN_OVER = 142


class Delivery(Enum):
    """What became of a message."""

    TAKEN = auto()  # on its way
    DISCONNECTED = auto()  # there is no connection
    SLOW = auto()  # the broker does not read what it already has
    TOO_LARGE = auto()  # the broker would end the connection over it


class _Phase(Enum):
    WAITING = auto()  # until the next attempt
    CONNECTING = auto()  # a helper thread resolves, connects and does the TLS and websocket handshakes
    GREETING = auto()  # CONNECT is sent, CONNACK is awaited
    ONLINE = auto()


class _Address:
    """One of the broker's addresses, and what is known about it."""

    def __init__(self, url: str, candidates: list[MQTTProtocolVersion]) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or _PORTS[parts.scheme]
        self.tls = parts.scheme in ("mqtts", "wss")
        self.websocket = parts.scheme in ("ws", "wss")
        self.path = (parts.path or "/mqtt") + (f"?{parts.query}" if parts.query else "")
        self.candidates = candidates  # the one to speak comes first
        self.known_version = False
        self.both_tried = False  # in this round
        self.faults = FaultLog(log)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def version_5(self) -> bool:
        return self.candidates[0] is MQTTProtocolVersion.MQTTv5

    @property
    def protocol(self) -> str:
        return "5" if self.version_5 else "3.1.1"


class Session:
    """One client of one broker, driven by its caller: whoever owns it calls `service` several times a second.

    It speaks MQTT 5, and 3.1.1 with a broker that has no 5. Nothing is kept for later: a message finds a connection
    that takes it, or its sender is told at once. With MQTT 5 the broker keeps the session of a connection that was
    lost, so that a short interruption costs no command and announces nothing. Not thread-safe; only the connecting
    itself runs on a thread of its own, since name resolution and TLS can't be done without blocking.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        client_id: str,
        version: Version,
        credentials: Credentials,
        will: Message | None = None,
        on_online: Callable[[], None] = lambda: None,
        on_message: Callable[[Received], None] = lambda received: None,
        session_expiry_s: int = 60,
        will_delay_s: int = WILL_DELAY_S,
        receive_maximum: int = 16,
        max_packet_bytes: int | None = v1.MOST_PACKET_BYTES,
        guest: bool = False,
    ) -> None:
        """urls: mqtt://HOST[:PORT], mqtts://..., ws://HOST[:PORT][/PATH], wss://...; all of the same broker, or of
        brokers that stand in for each other, tried in this order. version: "auto" is 5, or 3.1.1 with a broker that
        does not answer 5.

        will: what the broker says when this client has vanished for will_delay_s. None: nothing. on_online: called
        after each connect; on_message: for each message; both from `service`. session_expiry_s: so long the broker
        keeps subscriptions, and commands that arrive meanwhile, after a connection was lost. receive_maximum: messages
        that it may send unacknowledged. max_packet_bytes: the longest that is accepted; None: any.

        guest: for who connects only to see whether that works, by a client_id that nobody had before. A broker that
        names sessions after certificates then gives it another client's: with MQTT 5 that one is taken up and left as
        it was found, so that its will is not announced; see `is_guest`. To be closed as soon as it is online: what
        has come by then is not acknowledged, and comes again to whom it belongs.

        Raises ConfigError when the CA file or the client's certificate can't be used.
        """
        versions = [_PROTOCOLS[version]] if version in _PROTOCOLS else list(_PROTOCOLS.values())
        self._addresses = [_Address(url, versions.copy()) for url in urls]
        self._at = 0  # in use, or next to be tried
        self._tls = client_context(credentials.identity) if any(address.tls for address in self._addresses) else None
        self._client_id = client_id
        self._credentials = credentials
        self._will = will
        self._on_online = on_online
        self._on_message = on_message
        self._session_expiry_s = session_expiry_s
        self._will_delay_s = will_delay_s
        self._receive_maximum = receive_maximum
        self._max_packet_bytes = max_packet_bytes
        self._guest = guest
        self._found_session = False
        self._backoff = Backoff(first_s=0.5, most_s=30.0)
        self._phase = _Phase.WAITING
        self._next_attempt_s = 0.0
        self._greeting_until_s = 0.0
        self._connector: threading.Thread | None = None
        self._connect_error = ""
        self._client = self._new_client()
        self._known_here = False  # a broker has accepted this object before
        self._greeted = False
        self._online_s = 0.0
        self._brief = 0
        self._trouble = ""
        self._trouble_at = ""
        self._failures = 0
        self._closed = False
        self._told: set[str] = set()
        # Of this connection.
        self._waiting = deque[tuple[Message, tuple[Callable[[], None] | None, ...]]]()  # until fewer are unacknowledged
        self._unacknowledged: dict[int, tuple[Any, ...]] = {}  # by packet id: topic, on_delivered, on_refused
        self._unacknowledged_most = UNACKNOWLEDGED_MOST  # at once: what the broker says, if it is less
        self._broker_max_bytes: int | None = None
        self._delivered = deque[Callable[[], None]]()
        self._inbox = deque[paho.MQTTMessage]()
        self._subscribing: dict[int, str] = {}

    @property
    def online(self) -> bool:
        return self._phase is _Phase.ONLINE

    @property
    def failures(self) -> int:
        """How often connecting to an address has failed, or the connection was lost."""
        return self._failures

    @property
    def is_guest(self) -> bool:
        """Whether the broker had a session for this client that is another one's; only ever with `guest`."""
        return self._guest and self._found_session

    @property
    def trouble(self) -> str:
        """Why the last attempt to connect failed or the connection was lost; empty before the first time."""
        return self._trouble

    @property
    def trouble_at(self) -> str:
        """The same with the HOST:PORT where it was, also when there is only one."""
        return self._trouble_at

    @property
    def protocol(self) -> str:
        """The version in use, or next to be tried: 5 or 3.1.1."""
        return self._address.protocol

    @property
    def address(self) -> str:
        """HOST:PORT of the broker in use, or next to be tried."""
        return str(self._address)

    @property
    def _address(self) -> _Address:
        return self._addresses[self._at]

    def service(self) -> None:
        """Do what the connection needs now: connect, read, write, ping. Takes no longer than a system call."""
        match self._phase:
            case _Phase.WAITING if time.monotonic() >= self._next_attempt_s:
                self._start_connecting()
            case _Phase.CONNECTING if self._connector is not None and not self._connector.is_alive():
                if self._connect_error:
                    self._lost(self._connect_error)
                elif self._client.socket() is None:  # closed again while CONNECT was written
                    self._closed_unheard(self._client.trouble or "the other end closed it")
                else:
                    self._phase = _Phase.GREETING
                    self._greeting_until_s = time.monotonic() + CONNECT_TIMEOUT_S
            case _Phase.GREETING:
                self._exchange()
                if self._phase is _Phase.GREETING and time.monotonic() > self._greeting_until_s:
                    # Not at once with the other version: it may be frozen, and the next address not.
                    self._lost_unheard("the broker accepts the connection and says nothing")
            case _Phase.ONLINE:
                self._exchange()
            case _:
                pass
        if self._greeted and self._phase is _Phase.ONLINE:
            self._greeted = False
            self._on_online()

    def subscribe(self, topic_filter: str, qos: int) -> None:
        """To be called from `on_online`: each connection needs it again. A broker that refuses is one WARNING.

        With MQTT 5 `Received.retain` is what the sender said; with 3.1.1 only of what was there before.
        """
        if self._phase is not _Phase.ONLINE:
            return
        if self._address.version_5:
            options = SubscribeOptions(qos=qos, retainAsPublished=True)
            result, mid = self._client.subscribe(topic_filter, options=options)
        else:
            result, mid = self._client.subscribe(topic_filter, qos)
        if result == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
            self._subscribing[mid] = topic_filter

    def publish(
        self,
        message: Message,
        on_delivered: Callable[[], None] | None = None,
        on_refused: Callable[[], None] | None = None,
    ) -> Delivery:
        """Hand a message to the connection.

        on_delivered, on_refused: one of them is called once, from `service` or `close`, when the broker has
        acknowledged a message with QoS 1, or refused it, which is one ERROR a topic. Neither after the connection is
        lost: its owner publishes it again when `on_online` is called.
        """
        if self._phase is not _Phase.ONLINE:
            return Delivery.DISCONNECTED
        if self._broker_max_bytes is not None and packet_bytes(message) > self._broker_max_bytes:
            return Delivery.TOO_LARGE
        if message.qos:
            if len(self._unacknowledged) + len(self._waiting) >= UNACKNOWLEDGED_MOST:
                return Delivery.SLOW
            self._hand_in(message, on_delivered, on_refused)
            return Delivery.TAKEN if self.online else Delivery.DISCONNECTED
        if self._client.want_write():
            # What was published before is still here: the socket's buffer is full.
            return Delivery.SLOW
        return Delivery.TAKEN if taken(self._send(message).rc) else Delivery.DISCONNECTED

    def close(self, last: Message | None, timeout_s: float) -> None:
        """Publish `last`, see it acknowledged if the broker is quick enough, and say goodbye."""
        deadline = Deadline(timeout_s)
        # Half a connection can't be left in order: the broker would take its end for a failure, and announce the will.
        self._on_online = lambda: None
        self._on_message = lambda received: None
        patience = Deadline(min(timeout_s, _GREETING_TO_END_S))
        while self._phase in (_Phase.CONNECTING, _Phase.GREETING) and patience.left_s():
            self.service()
            time.sleep(0.01)
        if self._phase is _Phase.ONLINE:
            if last is not None and last.qos:
                self._hand_in(last)
            elif last is not None:
                self._send(last)
            while self._phase is _Phase.ONLINE and (self._unacknowledged or self._waiting) and deadline.left_s():
                self._exchange(wait_s=min(0.05, deadline.left_s()))
            if self._unacknowledged or self._waiting:
                log.warning("broker %s did not acknowledge the last message within %.1f s", self.address, timeout_s)
        self._closed = True
        # Also before it is accepted: it would go on under this client's name.
        self._client.leave(keep_session=self.is_guest)
        self._forget_connection()
        self._phase = _Phase.WAITING
        self._next_attempt_s = float("inf")

    def _new_client(self) -> Client:
        address = self._address
        client = Client(
            self._client_id, address.candidates[0], websocket=address.websocket, max_packet_bytes=self._max_packet_bytes
        )
        client.connect_timeout = CONNECT_TIMEOUT_S
        if self._will is not None:
            properties = None
            if address.version_5:
                properties = properties_of(PacketTypes.WILLMESSAGE, self._will)
                properties.WillDelayInterval = self._will_delay_s
            client.will_set(self._will.topic, self._will.payload, self._will.qos, self._will.retain, properties)
        if self._credentials.username:
            client.username_pw_set(self._credentials.username, self._credentials.password or None)
        if address.tls:
            client.tls_set_context(self._tls)
        if address.websocket:
            client.ws_set_options(path=address.path)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_acknowledged = self._acknowledged
        client.on_subscribe = self._subscribed
        client.on_message = self._received
        client.on_unreadable = self._unreadable
        return client

    def _start_connecting(self) -> None:
        # A new one each time: nothing that paho holds of an earlier connection can get into this one.
        client = self._client = self._new_client()
        address = self._address
        self._forget_connection()
        self._connect_error = ""
        options: dict[str, Any] = {}
        if address.version_5:
            properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call] # paho has no types there
            properties.SessionExpiryInterval = self._session_expiry_s
            properties.ReceiveMaximum = self._receive_maximum
            if self._max_packet_bytes is not None:
                properties.MaximumPacketSize = self._max_packet_bytes
            # The first one begins a new session: this object knows nothing of what an earlier process left behind, and
            # a command that brought it down must not come again. See docs/decisions/0014.
            options = {"clean_start": not (self._known_here or self._guest), "properties": properties}

        def connect() -> None:
            try:
                client.connect(address.host, address.port, keepalive=KEEPALIVE_S, **options)
                if self._closed:
                    client.leave()
            except Exception as error:  # noqa: BLE001 - whatever goes wrong here is why there is no connection
                # Only its text: its traceback would keep the socket open.
                self._connect_error = why_not_connected(error)

        self._connector = threading.Thread(target=connect, name="mqtt-connect", daemon=True)
        self._phase = _Phase.CONNECTING
        self._connector.start()

    def _exchange(self, wait_s: float = 0.0) -> None:
        """Read and write what the socket has and takes right now, though no more than so many packets."""
        client, phase = self._client, self._phase
        for turn in range(_TURNS):
            try:
                busy = client.turn(0.0 if turn else wait_s)
            except Exception as error:  # noqa: BLE001 - the other end may send anything, and paho hasn't thought of all
                if self._phase is not _Phase.WAITING:
                    self._lost(why_broken(error))
                return
            if not busy or self._phase is not _Phase.ONLINE:
                break
            self._hand_out()
            if phase is _Phase.GREETING:
                return  # `on_online` comes first
        if self._client is client and self._phase is phase:
            client.loop_misc()

    def _hand_out(self) -> None:
        """Call the owner's callbacks, acknowledge, send what waited for an acknowledgement.

        Not from paho's callbacks: paho writes nothing from within them, so that all that is published there would wait.
        """
        client = self._client
        while self._delivered and self._phase is _Phase.ONLINE:
            self._call(self._delivered.popleft())
        while self._inbox and self._phase is _Phase.ONLINE:
            message = self._inbox.popleft()
            if (arrived := received(message)) is not None:
                self._call(functools.partial(self._on_message, arrived))
            if message.qos and self._phase is _Phase.ONLINE:
                client.ack(message.mid, message.qos)
        self._send_waiting()

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception as error:
            if self._is_news(f"callback {type(error).__name__}"):
                log.exception("handling a message from broker %s failed; the connection stays", self.address)

    def _hand_in(self, message: Message, *callbacks: Callable[[], None] | None) -> None:
        self._waiting.append((message, callbacks or (None, None)))
        self._send_waiting()

    def _send_waiting(self) -> None:
        while self._waiting and len(self._unacknowledged) < self._unacknowledged_most and self.online:
            message, callbacks = self._waiting[0]
            sent = self._send(message)
            if sent.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
                continue  # the packet id, of 65535, belongs to an unacknowledged message: the next one is free
            if not taken(sent.rc):
                return
            self._waiting.popleft()
            self._unacknowledged[sent.mid] = (message.topic, *callbacks)

    def _send(self, message: Message) -> paho.MQTTMessageInfo:
        properties = publish_properties(message) if self._address.version_5 else None
        return self._client.publish(message.topic, message.payload, message.qos, message.retain, properties)

    def _connected(
        self, client: paho.Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        address = self._address
        if not reason.is_failure:
            self._phase = _Phase.ONLINE
            address.faults.worked("broker %s is back", address)
            log.info("connected to broker %s with MQTT %s", address, address.protocol)
            # paho knows neither of these limits of the broker's; exceeding one ends the connection.
            self._unacknowledged_most = min(UNACKNOWLEDGED_MOST, getattr(properties, "ReceiveMaximum", 65535))
            self._broker_max_bytes = getattr(properties, "MaximumPacketSize", None)
            self._greeted = True  # paho writes nothing from within its callbacks, so `service` goes on
            self._known_here = True
            self._found_session = bool(flags.session_present)
            address.known_version = address.known_version or address.version_5
            self._online_s = time.monotonic()
        elif reason.value == _UNSUPPORTED_VERSION:
            address.known_version = True
            self._lost(f"the broker does not speak MQTT {address.protocol}", other_version=True, at_once=True)
        else:
            hint = "; see mqtt.username and mqtt.password_file" if reason.value in _WRONG_LOGIN else ""
            self._lost(f"the broker refuses this client: {reason}{hint}")

    def _disconnected(
        self, client: paho.Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        address = self._address
        why = self._client.trouble or ("the other end closed it" if reason.value == _UNSPECIFIED else str(reason))
        if self._phase is _Phase.ONLINE:
            brief = time.monotonic() - self._online_s < _STABLE_S
            self._brief = self._brief + 1 if brief else 0
            # Not every broker says that another client has taken over the name.
            if reason.value == _TAKEN_OVER:
                why += f": another client is named {self._client_id} too; see device"
            elif self._brief >= _BRIEF_MOST:
                why += f"; perhaps another client is named {self._client_id} too, see device"
            self._lost(f"connection lost ({why})", other_version=not (address.known_version or address.version_5))
        elif self._phase is _Phase.GREETING:
            self._closed_unheard(why)

    def _acknowledged(self, mid: int, reason: ReasonCode) -> None:
        topic, on_delivered, on_refused = self._unacknowledged.pop(mid, ("", None, None))
        if reason.is_failure:
            if self._is_news(f"publish {topic}"):
                log.error(
                    "broker %s refuses a message on %s: %s; see its access control list", self.address, topic, reason
                )
            if on_refused is not None:
                self._delivered.append(on_refused)
        elif on_delivered is not None:
            self._delivered.append(on_delivered)

    def _subscribed(
        self,
        client: paho.Client,
        userdata: Any,
        mid: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        topic_filter = self._subscribing.pop(mid, "")
        for reason in reasons:
            if reason.is_failure and self._is_news(f"subscribe {topic_filter}"):
                log.warning(
                    "broker %s refuses the subscription to %s: %s; see its access control list",
                    self.address,
                    topic_filter,
                    reason,
                )

    def _received(self, client: paho.Client, userdata: Any, message: paho.MQTTMessage) -> None:
        if not self._guest:  # what is acknowledged would not come again
            self._inbox.append(message)

    def _unreadable(self, why: str) -> None:
        if self._is_news("unreadable"):
            log.warning("broker %s: a message that can't be read is skipped (%s)", self.address, why)

    def _is_news(self, what: str) -> bool:
        """Whether this is said for the first time. Topics may be anybody's choice: after so many it is enough."""
        if what in self._told or len(self._told) >= _TOLD_MOST:
            return False
        self._told.add(what)
        return True

    def _closed_unheard(self, why: str) -> None:
        hint = ""
        if not self._address.tls:
            hint = f"; a broker with TLS wants {'wss' if self._address.websocket else 'mqtts'}:// in mqtt.url"
        elif "mqtt." not in why:  # the alert that says so gets lost when the connection ends while CONNECT is written
            hint = "; it may want another client certificate, or one at all: see mqtt.cert_file"
        self._lost_unheard(f"connection closed before it was accepted ({why}){hint}", at_once=True)

    def _lost_unheard(self, why: str, *, at_once: bool = False) -> None:
        # Some brokers without MQTT 5 say so, others choke on the packet and say nothing. As long as this broker has
        # not accepted either version, they take turns.
        unknown = not self._address.known_version
        self._lost(why, other_version=unknown, at_once=unknown and at_once)

    def _lost(self, why: str, *, other_version: bool = False, at_once: bool = False) -> None:
        """other_version: the next attempt at this address speaks the other one. at_once: it comes before any else."""
        address, was_online = self._address, self._phase is _Phase.ONLINE
        if was_online and time.monotonic() - self._online_s > _STABLE_S:
            self._backoff.reset()  # not on connecting: two devices of one name would throw each other out without end
        if other_version:
            address.candidates.reverse()
        wait_s = 0.0
        if at_once and len(address.candidates) > 1 and not address.both_tried:
            address.both_tried = True
            then = f"trying {address.protocol}"
        elif was_online or self._at + 1 == len(self._addresses):
            wait_s = self._backoff.next_s()
            self._at = 0
            for each in self._addresses:
                each.both_tried = False
            then = f"next try in {wait_s:.1f} s"
        else:
            self._at += 1
            then = f"trying {self._address}"
        self._trouble_at = f"{address}: {why}"
        self._trouble = why if len(self._addresses) == 1 else self._trouble_at
        self._failures += 1
        self._phase = _Phase.WAITING
        self._next_attempt_s = time.monotonic() + wait_s
        self._forget_connection()
        # Often it comes after a fault that goes by itself, such as a broker's restart, and this one does not.
        refused = any(words in why for words in ("refuses this client", "certificate is refused", "client certificate"))
        address.faults.failed("broker %s: %s; %s", address, why, then, kind="refused" if refused else "")
        if (socket := self._client.socket()) is not None:
            socket.close()

    def _forget_connection(self) -> None:
        self._greeted = False
        for held in (self._waiting, self._unacknowledged, self._delivered, self._inbox, self._subscribing):
            held.clear()
