"""paho's client, made fit for an owner that drives it and for whatever strangers send."""

from __future__ import annotations

import errno
import functools
import select
from collections.abc import Callable
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MessageType, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edge.mqtt.message import Message, Received
from edge.mqtt.tls import why_broken

UNACKNOWLEDGED_MOST = 64
"""So many messages with QoS 1 are kept until the broker has acknowledged them; more are not taken."""

_USER_PROPERTY = ("v", "1")
"""On every message: the version of the layout, edge.mqtt.wire.v1."""


class Client(paho.Client):
    """paho's client, without what it does not survive. What is overridden here is private to it: paho 2.1 to 2.2."""

    def __init__(
        self, client_id: str, protocol: MQTTProtocolVersion, *, websocket: bool, max_packet_bytes: int | None
    ) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            transport="websockets" if websocket else "tcp",
            reconnect_on_failure=False,  # it would connect to a broker without 3.1.1 again, with 3.1, from loop_read
            manual_ack=True,
        )
        self.max_inflight_messages = UNACKNOWLEDGED_MOST  # beyond it paho would hold back on its own
        self.trouble = ""
        """Why reading or writing failed, in words; paho itself keeps only that it did."""
        self.on_unreadable: Callable[[str], None] = lambda why: None
        self.on_acknowledged: Callable[[int, ReasonCode], None] = lambda mid, reason: None
        self._max_packet_bytes = max_packet_bytes
        self._version_5 = protocol is MQTTProtocolVersion.MQTTv5

    def leave(self, *, keep_session: bool = False) -> None:
        """Say goodbye, so that the broker does not announce the will, and let go of the connection."""
        self.on_disconnect = None
        goodbye: Any = None
        if self._version_5 and not keep_session:
            goodbye = Properties(PacketTypes.DISCONNECT)  # type: ignore[no-untyped-call] # paho has no types there
            goodbye.SessionExpiryInterval = 0  # nobody comes back for what the broker would keep
        self.disconnect(properties=goodbye)
        if (socket := self.socket()) is not None:
            socket.close()

    def turn(self, wait_s: float) -> bool:
        """Read and write what the socket has and takes within wait_s; whether that was anything."""
        socket = self.socket()
        if socket is None or socket.fileno() < 0:
            raise ConnectionError("the connection is closed")
        # What TLS has decrypted already, the kernel doesn't know of. paho's websocket takes no more from the socket
        # than it is asked for, so that nothing waits in its buffer; it has `pending` too.
        pending = (count := getattr(socket, "pending", None)) is not None and count() > 0
        readable, writable = _ready(socket.fileno(), wants_write=self.want_write(), wait_s=0.0 if pending else wait_s)
        if readable or pending:
            self.loop_read()
        if writable:
            self.loop_write()
        return readable or writable or pending

    def _sock_recv(self, bufsize: int) -> bytes:
        # It is asked for all that is left of a packet, so its length shows here before there is memory for it. It is
        # cut rather than the connection ended: the broker would send a retained message again at each subscribing, and
        # anybody who may publish here could keep this client away for good.
        if self._max_packet_bytes is not None and self._in_packet["remaining_length"] > self._max_packet_bytes:
            if self._in_packet["command"] & 0xF0 != MessageType.PUBLISH:
                self.trouble = f"the broker sends a packet of {bufsize} bytes, more than {self._max_packet_bytes}"
                raise OSError(errno.EMSGSIZE, self.trouble)
            del self._in_packet["packet"][self._max_packet_bytes :]
            bufsize = min(bufsize, self._max_packet_bytes)
        try:
            return super()._sock_recv(bufsize)
        except BlockingIOError:
            raise
        except OSError as error:
            self.trouble = why_broken(error)
            raise

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            written = super()._sock_send(buf)
        except BlockingIOError:
            raise
        except OSError as error:
            self.trouble = why_broken(error)
            raise
        if not written and buf:
            # A websocket's frame went out in part. paho would take the packet off its queue and count the rest of the
            # frame as bytes of the next packet, so that everything after it were garbage.
            raise BlockingIOError
        return written

    def _do_on_publish(self, mid: int, reason_code: ReasonCode, properties: Properties) -> MQTTErrorCode:
        # on_publish is called for QoS 0 too, whose ids go round and meet those that are still unacknowledged.
        self.on_acknowledged(mid, reason_code)
        return super()._do_on_publish(mid, reason_code, properties)

    def _packet_handle(self) -> MQTTErrorCode:
        try:
            return super()._packet_handle()
        except MQTTException as error:
            # paho refuses texts that MQTT allows, a byte order mark among them. To end the connection would only bring
            # the message again: anybody who may publish here could keep this client away for good.
            packet, command = self._in_packet["packet"], self._in_packet["command"]
            if command & 0xF0 != MessageType.PUBLISH:
                raise
            self.on_unreadable(str(error))
            mid_at = 2 + int.from_bytes(packet[:2], "big")
            if command & 0x06 and len(packet) >= mid_at + 2:
                return self._send_puback(int.from_bytes(packet[mid_at : mid_at + 2], "big"))
            return MQTTErrorCode.MQTT_ERR_SUCCESS


def _ready(descriptor: int, *, wants_write: bool, wait_s: float) -> tuple[bool, bool]:
    """Whether it can be read, which includes its end, and written. Not `select`, which ends at descriptor 1023."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | (select.POLLOUT if wants_write else 0))
    events = sum(event for _, event in poll.poll(wait_s * 1000))
    return bool(events & ~select.POLLOUT), bool(events & select.POLLOUT)


def taken(code: MQTTErrorCode) -> bool:
    return code in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN)


def received(message: paho.MQTTMessage) -> Received | None:
    """None for one whose topic is no text."""
    try:
        topic = message.topic
    except UnicodeDecodeError:
        return None
    properties = message.properties
    correlation = getattr(properties, "CorrelationData", None)
    response_topic = getattr(properties, "ResponseTopic", "")
    return Received(
        topic,
        bytes(message.payload),
        message.qos,
        message.retain,
        None if correlation is None else bytes(correlation),
        "" if "+" in response_topic or "#" in response_topic else response_topic,
        getattr(properties, "ContentType", ""),
        tuple((name, value) for name, value in getattr(properties, "UserProperty", [])),
    )


def publish_properties(message: Message) -> Any:
    if message.properties or message.correlation is not None:
        return properties_of(PacketTypes.PUBLISH, message)
    return _usual_properties(message.expiry_s, message.content_type)


@functools.lru_cache(maxsize=32)  # a handful of combinations, one for each message
def _usual_properties(expiry_s: int | None, content_type: str) -> _Packed:
    return _Packed(properties_of(PacketTypes.PUBLISH, Message("", b"", expiry_s=expiry_s, content_type=content_type)))


class _Packed:
    """Properties as they go over the wire, all that paho asks of them. It packs its own anew for each message: 40 us,
    a third of what publishing a frame takes."""

    def __init__(self, properties: Any) -> None:
        self._bytes: bytes = properties.pack()

    def pack(self) -> bytes:
        return self._bytes


def properties_of(packet: int, message: Message) -> Any:
    properties: Any = Properties(packet)  # type: ignore[no-untyped-call] # paho has no types there
    properties.UserProperty = [_USER_PROPERTY, *message.properties]
    if message.expiry_s is not None:
        properties.MessageExpiryInterval = message.expiry_s
    if message.content_type:
        properties.ContentType = message.content_type
    if message.correlation is not None:
        properties.CorrelationData = message.correlation
    return properties


def packet_bytes(message: Message) -> int:
    """The length of its packet with MQTT 5: header, topic, packet id, properties and payload."""
    properties = len(publish_properties(message).pack())
    return 5 + 2 + len(message.topic.encode()) + 2 + properties + len(message.payload)
