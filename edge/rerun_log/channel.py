"""An HTTP/2 connection over which a Rerun server is sent messages, each call of which it acknowledges.

Rerun's protocol is gRPC: a call of WriteMessages carries any number of messages, and its answer, which comes once the
caller has said that there are no more, means that the server has them all. The SDK's own sink does not wait for it.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from edge import tls
from edge.logs import printable
from edge.rerun_log import rrd

DEFAULT_PORT = 9876
SECURE = "rerun+https"
VERSION_HEADER, RUN_HEADER = "edge-pose-rerun", "edge-pose-run"
"""In each answer of a hub: the version of the Rerun behind it, and a word for this run of it."""

_NO_SERVER = "what answers there is no Rerun server"
NO_CERTIFICATE, SERVER_AWAY = (400, 495, 496), (502, 503, 504)
"""HTTP statuses of a hub. The first are nginx's 495 and 496, of a certificate that is not in order or missing, which it
sends as 400; with the others nobody is behind it."""

_UNREADABLE = ("3", "13")  # gRPC's INVALID_ARGUMENT and INTERNAL
_FRAME_HEAD_BYTES = 9
_GOAWAY = 7
_READS, _READ_BYTES = 16, 65_536
_UNSENT_BYTES = 65_536
"""What waits in front of the network: new data can't overtake it."""


class ChannelBrokenError(Exception):
    """There is no connection, or no longer one; the text says why, in a line.

    server_ended: it is the server that has ended, and not just the way to it; when it is back it has forgotten all.
    is_refusal: somebody has to change something, be it here or there. refused_call: of which the server could not read
    what it carried, and never will.
    """

    def __init__(
        self,
        why: str,
        *,
        server_ended: bool = False,
        is_refusal: bool = False,
        refused_call: int | None = None,
    ) -> None:
        super().__init__(why)
        self.server_ended = server_ended
        self.is_refusal = is_refusal
        self.refused_call = refused_call


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is. context: how TLS is spoken there, None for not at all."""

    host: str
    port: int
    context: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, identity: tls.Identity) -> Address:
        """Of rerun+https://HOST[:PORT]/proxy, or rerun+http. Raises ConfigError when a certificate can't be used."""
        parts = urlsplit(url)
        context = None
        if parts.scheme == SECURE:
            context = tls.client_context(identity)
            context.set_alpn_protocols(["h2"])
        return cls(parts.hostname or "", parts.port or DEFAULT_PORT, context)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Channel:
    """One connection, for one thread. Every method raises ChannelBrokenError when it is over."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        """Connect. timeout_s: for each of the steps, of which a slow link takes some round trips."""
        self._secure = address.context is not None
        self._authority = str(address)
        self._socket = _connected(address, timeout_s)
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self._unsent = bytearray()
        self._status: dict[int, str] = {}
        self._has_ended = False
        self._has_spoken = False
        self._has_more = False
        self.rerun_version = ""
        """What the other end runs, once it has answered anything, if it tells: an edge-pose hub does."""
        self.run = ""
        """Which run of the server it is, if that is told: another one has forgotten what this one had."""
        self.moved_s = time.monotonic()
        """When the other end last took something or said something about a call, be that only what stands in front of
        the server. That it is alive is not enough."""
        self._sent = self._reached = self._content_end = 0
        self._ends: dict[int, int] = {}
        self._due_s: dict[int, float] = {}
        self._answered_s = 0.0
        self._arriving = bytearray()
        self._last_answered: int | None = None
        self._last_acknowledged = 0
        self._h2.initiate_connection()
        self.flush()

    @property
    def can_begin(self) -> bool:
        """Whether the other end takes one more call now."""
        most = self._h2.remote_settings.max_concurrent_streams
        return not self.is_leaving and self._h2.open_outbound_streams < most

    @property
    def is_leaving(self) -> bool:
        """The other end takes no more calls; it answers those that it `answers`."""
        return self._last_answered is not None

    def answers(self, call: int) -> bool:
        """Whether the acknowledgement of a call can still come."""
        return self._last_answered is None or call <= self._last_answered

    def fileno(self) -> int:
        return self._socket.fileno()

    def begin(self) -> int:
        """A new call; its number."""
        call = self._h2.get_next_available_stream_id()
        self._h2.send_headers(
            call,
            [
                (":method", "POST"),
                (":scheme", "https" if self._secure else "http"),
                (":path", rrd.WRITE_MESSAGES),
                (":authority", self._authority),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
                ("user-agent", "edge-pose"),
            ],
        )
        return call

    def room(self, call: int) -> int:
        """How many bytes `send` takes right now without keeping them here."""
        if len(self._unsent) >= _UNSENT_BYTES:
            return 0
        return max(0, min(self._h2.local_flow_control_window(call), self._h2.max_outbound_frame_size))

    def send(self, call: int, content: memoryview) -> None:
        """No more than there is room for."""
        self._h2.send_data(call, bytes(content))
        self._unsent += self._h2.data_to_send()
        self._content_end = self._sent + len(self._unsent)

    def end(self, call: int) -> None:
        """No more messages: what comes now is the acknowledgement."""
        self._h2.end_stream(call)
        self._unsent += self._h2.data_to_send()
        self._ends[call] = self._sent + len(self._unsent)

    @property
    def silent_s(self) -> float:
        """So long an answer is due: the other end has all of a call, and has answered none since, or a later one."""
        now_s = time.monotonic()
        left_out = [now_s - due_s for call, due_s in self._due_s.items() if call < self._last_acknowledged]
        silent = [now_s - max(min(self._due_s.values()), self._answered_s)] if self._due_s else []
        return max([*left_out, *silent], default=0.0)

    def turn(self, wait_s: float, waker: int) -> list[int]:
        """Send and receive what is possible, waiting up to `wait_s` for that, or for `waker` to be readable. The calls
        that are acknowledged by now."""
        wants_to_write = self.flush()
        self._look_what_has_arrived()
        pending = self._has_more or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0)
        poll = select.poll()
        poll.register(waker, select.POLLIN)
        poll.register(self._socket, select.POLLIN | (select.POLLOUT if wants_to_write else 0))
        found = dict(poll.poll(0 if pending else wait_s * 1000))
        if found.get(self.fileno(), 0) & select.POLLOUT:
            self.flush()
        if pending or found.get(self.fileno(), 0) & ~select.POLLOUT:
            return self._read()
        return []

    def close(self) -> None:
        """Hang up at once; what has not been acknowledged may have arrived or not."""
        self._socket.close()

    def flush(self) -> bool:
        """Give the kernel what it takes. Whether it is worth to wait until it takes more."""
        self._unsent += self._h2.data_to_send()
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                self._sent += sent
                del self._unsent[:sent]
        except (BlockingIOError, ssl.SSLWantWriteError):
            return True
        except ssl.SSLWantReadError:  # TLS has to hear something first
            return False
        except OSError as error:
            raise self._broken(error) from None
        return False

    def _look_what_has_arrived(self) -> None:
        """By what the other end's kernel has acknowledged: over a slow link that takes as long as it takes, but from
        then on the server's answer is due. What TLS adds is a hundredth, and on its way with the rest."""
        (waiting,) = struct.unpack("i", fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4)))
        reached = self._sent - waiting
        if min(reached, self._content_end) > self._reached:  # answers to pings are nothing that it has taken
            self._reached, self.moved_s = min(reached, self._content_end), time.monotonic()
        for call, end in self._ends.items():
            if reached >= end:
                self._due_s.setdefault(call, time.monotonic())

    def _read(self) -> list[int]:
        """The calls that are acknowledged by what has come; no more than so much at a time, for who talks without end
        must not keep this one from everything else."""
        acknowledged: list[int] = []
        self._has_more = False
        try:
            for _ in range(_READS):
                if not (content := self._socket.recv(_READ_BYTES)):
                    break
                for event in self._h2.receive_data(self._without_farewells(content)):
                    self._has_spoken = True
                    acknowledged += self._met(event)
            else:
                self._has_more = True
                self.flush()
                return acknowledged
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            self.flush()
            return acknowledged
        except (h2.exceptions.ProtocolError, ValueError):  # the latter for headers that are no text
            raise self._no_server() from None
        except OSError as error:
            raise self._broken(error) from None
        if (acknowledged or self.is_leaving) and not self._has_ended:
            self._has_ended = True  # that is found again, if anything is still missing
            return acknowledged
        if not self._has_spoken:
            raise self._no_server()
        raise ChannelBrokenError("the other end hung up", server_ended=not self._is_behind_a_hub)

    @property
    def _is_behind_a_hub(self) -> bool:
        """Whether something stands in front of the server, which can end or be cut off for itself."""
        return bool(self.rerun_version)

    def _no_server(self) -> ChannelBrokenError:
        hint = "" if self._secure else f"; where it wants TLS, {SECURE}://"
        return ChannelBrokenError(f"{_NO_SERVER}{hint}", is_refusal=True)

    def _broken(self, error: OSError) -> ChannelBrokenError:
        reset = isinstance(error, ConnectionError) and not self._is_behind_a_hub
        if reset and not self._has_spoken:
            return self._no_server()
        is_refusal = isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError)
        return ChannelBrokenError(_why_broken(error), server_ended=reset, is_refusal=is_refusal)

    def _met(self, event: h2.events.Event) -> Sequence[int]:
        match event:
            case h2.events.WindowUpdated():
                self.moved_s = time.monotonic()
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self.moved_s = time.monotonic()
                self._look_at({str(name): str(value) for name, value in event.headers}, event.stream_id)
            case h2.events.DataReceived():
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.events.StreamEnded():
                self.moved_s = self._answered_s = time.monotonic()
                self._last_acknowledged = max(self._last_acknowledged, event.stream_id)
                self._ends.pop(event.stream_id, None)
                self._due_s.pop(event.stream_id, None)
                if self._status.pop(event.stream_id, "") != "0":
                    raise self._no_server()
                return (event.stream_id,)
            case h2.events.StreamReset():
                raise ChannelBrokenError(f"the other end broke off: HTTP/2 error {event.error_code}")
        return ()

    def _without_farewells(self, content: bytes) -> bytes:
        """The whole frames that have come, but for GOAWAY. For h2 that ends everything at once, while calls that the
        other end has begun with go on: RFC 9113, 6.8. nginx says it at each reload, and after so many calls."""
        self._arriving += content
        passed = bytearray()
        while len(self._arriving) >= _FRAME_HEAD_BYTES:
            length = int.from_bytes(self._arriving[:3], "big")
            if length > self._h2.max_inbound_frame_size:  # for h2 to refuse
                passed += self._arriving
                self._arriving.clear()
                break
            end = _FRAME_HEAD_BYTES + length
            if len(self._arriving) < end:
                break
            frame = bytes(self._arriving[:end])
            del self._arriving[:end]
            if frame[3] == _GOAWAY:
                last, error = struct.unpack_from(">II", frame, _FRAME_HEAD_BYTES)
                self._last_answered = last & 0x7FFF_FFFF
                if error != h2.errors.ErrorCodes.NO_ERROR:
                    raise ChannelBrokenError(f"the other end broke off: HTTP/2 error {error}")
            else:
                passed += frame
        return bytes(passed)

    def _look_at(self, headers: dict[str, str], call: int) -> None:
        self.rerun_version = headers.get(VERSION_HEADER, self.rerun_version)
        self.run = headers.get(RUN_HEADER, self.run)
        http_status = int(headers.get(":status", "200"))  # ValueError: no server of Rerun's
        if http_status != 200:
            away = http_status in SERVER_AWAY
            raise ChannelBrokenError(_why_refused(http_status), server_ended=away, is_refusal=not away)
        if "grpc-status" in headers:
            self._status[call] = status = headers["grpc-status"]
            if status != "0":
                message = unquote(headers.get("grpc-message", "no reason given"))
                why = f"the other end refuses: gRPC status {status}, {printable(message)[:200]}"
                unreadable = call if status in _UNREADABLE else None
                raise ChannelBrokenError(why, is_refusal=True, refused_call=unreadable)


def _connected(address: Address, timeout_s: float) -> socket.socket:
    try:
        connection = socket.create_connection((address.host, address.port), timeout_s)
    except (OSError, UnicodeError) as error:  # the latter for names that no host can have
        raise ChannelBrokenError(getattr(error, "strerror", None) or str(error)) from None
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        if address.context is not None:
            connection = address.context.wrap_socket(connection, server_hostname=address.host)
        connection.setblocking(False)
    except ssl.SSLError as error:
        connection.close()
        raise ChannelBrokenError(tls.why_no_tls(error, "rerun"), is_refusal=True) from None
    except OSError as error:
        connection.close()
        raise ChannelBrokenError(_why_broken(error)) from None
    return connection


_TCP_NOTSENT_LOWAT = 25  # linux/tcp.h; Python 3.11 has no name for it


def _why_broken(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return tls.why_broken(error, "rerun")
    return "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _why_refused(status: int) -> str:
    match status:
        case 403:
            return "the hub refuses (403): this certificate may not write there; see rerun.cert_file"
        case _ if status in NO_CERTIFICATE:
            return (
                f"the hub refuses ({status}): it wants a certificate it knows; see rerun.cert_file and rerun.key_file"
            )
        case _ if status in SERVER_AWAY:
            return f"the hub's Rerun is away ({status})"
        case _:
            return f"what answers there is no Rerun server (HTTP status {status}); see rerun.url"
