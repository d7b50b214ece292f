"""A way for Rerun's viewer to a hub that wants a client certificate, which the viewer can't show.

    viewer --HTTP/2 on the loopback interface--> Relay --HTTP/2 in TLS, with the certificate--> hub

It passes on the one call that viewers read with, whole message by whole message. When the hub goes away, the call of
the viewer stays as it is, and the relay calls the hub anew: a viewer by itself would never do so. What it then gets a
second time are the same chunks with the same ids, which a viewer keeps once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from pathlib import Path
from typing import Self

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from edge.logs import FaultLog, printable
from edge.pacing import Backoff
from edge.reports import LinkState
from edge.rerun_log.channel import VERSION_HEADER, Address
from edge.rerun_log.hub import AWAY, READ_MESSAGES, THERE, Answer, mismatch, why_away

log = logging.getLogger(__name__)

_PIECE_BYTES = 65_536
_WINDOW_BYTES = 4 * 2**20
"""What a hub may send before it hears that some has arrived: 64 KiB, HTTP/2's own, slow down any link with a delay."""
_MOST_MESSAGE_BYTES = 128 * 2**20
_MOST_REQUEST_BYTES = 16_384
_CONNECT_S = 10.0
_CLOSE_S = 5.0

# https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
_OK, _PERMISSION_DENIED, _UNIMPLEMENTED = 0, 7, 12
_PREFIX_BYTES = 5  # of a gRPC message: whether it is compressed, and its length

_Headers = dict[str, str]


class Relay:
    """A port of the loopback interface for the viewers of one user, between `with` and its end.

    viewer: the version of Rerun's viewer here, for a line when the hub's is another, which is not `told_version`: that
    has been told. silent_s: how long a hub may be silent, though asked whether it is there, before that is told; after
    twice that it is called anew. as_typed: names the keys in a line as their user knows them. Memory: a message and
    some 200 KB in either direction for each viewer.
    """

    def __init__(
        self,
        hub: Address,
        *,
        viewer: str = "",
        told_version: str = "",
        silent_s: float = 8.0,
        retry_s: float = 5.0,
        as_typed: Callable[[str], str] = str,
    ) -> None:
        self._hub = hub
        self._as_typed = as_typed
        self._viewer = viewer
        self._silent_s = silent_s
        self._retry_s = retry_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._told_version = told_version
        self._faults = FaultLog(log)
        self._live = 0
        self._calls = 0
        self._refused_users = FaultLog(log)
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="hub relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_CLOSE_S)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """What the viewer is to connect to."""
        return f"rerun+http://127.0.0.1:{self.port}/proxy"

    @property
    def state(self) -> LinkState:
        """OFF while no viewer reads, LIVE when all that do hear from the hub."""
        calls, live = self._calls, self._live
        return LinkState.OFF if not calls else LinkState.LIVE if live == calls else LinkState.AWAY

    def _run(self) -> None:
        with contextlib.closing(self._loop):
            self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        viewers: set[asyncio.Task[None]] = set()

        async def admit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            viewers.add(task)
            try:
                if self._is_ours(writer):
                    await _Viewer(reader, writer, self._read).serve()
            except asyncio.CancelledError:
                pass  # the end of the relay; asyncio would take it for a fault
            finally:
                viewers.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(admit, sock=self._listener, limit=_PIECE_BYTES)
        await self._end.wait()
        server.close()
        for task in (still := [*viewers]):
            task.cancel()
        await asyncio.gather(*still, return_exceptions=True)

    def _is_ours(self, writer: asyncio.StreamWriter) -> bool:
        """Whether this user is at the other end: the port is open to everybody on this machine."""
        try:
            user = user_of(writer.get_extra_info("peername")[1], self.port)
        except FileNotFoundError:
            self._refused_users.failed(
                "whose a connection is can't be told on this system: whoever is on this machine could read along"
            )
            return True
        if user == os.getuid():
            return True
        self._refused_users.failed("refused a connection of another user (%s) on this machine", user, kind="other")
        return False

    async def _read(self, request: bytes) -> AsyncGenerator[bytes]:
        """Whole messages from the hub, one or more at a time, from one connection after the other. Raises _Refused."""
        backoff = Backoff(first_s=min(0.25, self._retry_s), most_s=self._retry_s)
        is_live = False
        self._calls += 1
        try:
            while True:
                try:
                    async with contextlib.aclosing(self._read_once(request)) as pieces:
                        async for piece in pieces:
                            if not is_live:
                                is_live = True
                                self._live += 1
                                backoff.reset()
                                self._faults.worked(THERE, self._hub)
                            if piece:
                                yield piece
                    why = "its server has ended"
                except (OSError, EOFError, h2.exceptions.H2Error) as error:
                    why = "the connection was cut" if isinstance(error, EOFError) else why_away(error)
                except _Away as away:
                    why = str(away)
                if is_live:
                    is_live = False
                    self._live -= 1
                wait_s = backoff.next_s()
                self._faults.failed(AWAY, self._hub, self._as_typed(why))
                await asyncio.sleep(wait_s)
        except _Refused as refusal:
            why = self._as_typed(str(refusal))
            self._faults.failed("the hub at %s: %s", self._hub, why, kind="refused")
            raise
        finally:
            self._calls -= 1
            self._live -= is_live

    async def _read_once(self, request: bytes) -> AsyncGenerator[bytes]:
        """From one connection, until its end; b"" first, when the hub has accepted.

        Raises OSError, EOFError, H2Error, _Away when it is worth trying again, and _Refused when it is not.
        """
        host, port, context = self._hub.host, self._hub.port, self._hub.context
        async with asyncio.timeout(_CONNECT_S):  # wait_for of Python 3.11 may forget that it is cancelled
            reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_PIECE_BYTES)
        try:
            if context is not None and writer.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
                raise _Refused("what answers there does not speak HTTP/2; see rerun.url")
            call = _Call(self._hub, request, self._judge)
            began_s = heard_s = self._loop.time()
            while not call.is_over:
                writer.write(call.to_send())
                received = None
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._silent_s / 4):
                        await writer.drain()
                        received = await reader.read(_PIECE_BYTES)
                if received == b"":
                    raise EOFError
                if received is None:
                    call.ask_whether_it_is_there()
                else:
                    for piece in call.take(received):
                        yield piece
                    heard_s = self._loop.time()  # the viewer may have taken its time
                silent_s = self._loop.time() - (heard_s if call.is_answered else began_s)
                if received is None and self._loop.time() - heard_s >= 2 * self._silent_s:
                    raise TimeoutError
                # What stands before Rerun's server is alive for itself, but begins to answer only when that does.
                if silent_s >= self._silent_s:
                    self._faults.failed("nothing comes from the hub at %s: it does not answer", self._hub)
                elif call.is_answered and received:
                    self._faults.worked(THERE, self._hub)
        finally:
            writer.transport.abort()

    def _judge(self, headers: _Headers) -> None:
        """Of the answer's beginning: go on, or raise _Refused or _Away. Tells of another version, each once."""
        version = headers.get(VERSION_HEADER, "")
        if version != self._told_version:
            self._told_version = version
            if why := mismatch(version, self._viewer):
                log.warning("%s", printable(why))
        answer = Answer(int(headers.get(":status", "0")), version)
        if answer.refusal:
            raise _Refused(answer.refusal)
        if answer.trouble:
            raise _Away(answer.trouble)
        if "grpc-status" in headers:
            _require_success(headers)


class _Refused(Exception):
    """The hub will not let this client read, or has nothing that it understands."""


class _Away(Exception):
    """The hub is there and can't answer at the moment."""


def _require_success(headers: _Headers) -> None:
    """Of what ends a gRPC call. Raises _Refused or _Away."""
    status = headers.get("grpc-status", "?")
    if status == str(_OK):
        return
    text = printable(headers.get("grpc-message", ""))[:200]
    if status == str(_UNIMPLEMENTED):
        raise _Refused(f"its Rerun does not know how this viewer reads ({text}); have the same edge-pose on both")
    raise _Away(f"its server ends with gRPC status {printable(status)} ({text})")


class _Call:
    """One call of a hub, without the connection that it goes through."""

    def __init__(self, hub: Address, request: bytes, judge: Callable[[_Headers], None]) -> None:
        self.is_over = False
        self.is_answered = False
        self._judge = judge
        self._messages = _Messages()
        self._connection = _connection(client=True, window_bytes=_WINDOW_BYTES)
        self._connection.increment_flow_control_window(_WINDOW_BYTES)
        self._stream = self._connection.get_next_available_stream_id()
        headers = {":method": "POST", ":scheme": "https", ":authority": str(hub), ":path": READ_MESSAGES}
        headers |= {"content-type": "application/grpc", "te": "trailers"}
        self._connection.send_headers(self._stream, list(headers.items()))
        self._connection.send_data(self._stream, request, end_stream=True)

    def to_send(self) -> bytes:
        return self._connection.data_to_send()

    def ask_whether_it_is_there(self) -> None:
        self._connection.ping(b"are you?")

    def take(self, received: bytes) -> Iterator[bytes]:
        """The whole messages in it; b"" when the hub has accepted. Raises what `_read_once` does."""
        for event in self._connection.receive_data(received):
            match event:
                case h2.events.ResponseReceived():
                    self._judge(_headers(event))
                    self.is_answered = True
                    yield b""
                case h2.events.DataReceived():
                    self._connection.acknowledge_received_data(event.flow_controlled_length or 0, self._stream)
                    yield from self._messages.take(event.data or b"")
                case h2.events.TrailersReceived():
                    _require_success(_headers(event))
                case h2.events.StreamEnded():
                    self.is_over = True
                case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                    raise EOFError


class _Messages:
    """Puts gRPC messages together that come in pieces."""

    def __init__(self) -> None:
        self._held = bytearray()

    def take(self, piece: bytes) -> Iterator[bytes]:
        """All that is whole by now, in one piece. Raises _Refused for a message larger than any should be."""
        self._held += piece
        end = 0
        while len(self._held) - end >= _PREFIX_BYTES:
            length = int.from_bytes(self._held[end + 1 : end + _PREFIX_BYTES])
            if length > _MOST_MESSAGE_BYTES:
                most = _MOST_MESSAGE_BYTES >> 20
                raise _Refused(f"it sends a message of {length >> 20} MiB, {most} are taken")
            if end + _PREFIX_BYTES + length > len(self._held):
                break
            end += _PREFIX_BYTES + length
        if end:
            whole = bytes(memoryview(self._held)[:end])
            del self._held[:end]
            yield whole


class _Viewer:
    """The connection of a viewer, and the calls in it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        read: Callable[[bytes], AsyncGenerator[bytes]],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._read = read
        self._connection = _connection(client=False)
        self._window = asyncio.Event()
        self._paths: dict[int, str] = {}
        self._requests: dict[int, bytearray] = {}
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Until the viewer has gone."""
        try:
            await self._flush()
            while received := await self._reader.read(_PIECE_BYTES):
                for event in self._connection.receive_data(received):
                    self._take(event)
                await self._flush()
        except (OSError, h2.exceptions.H2Error):
            pass  # it is no viewer, or has gone without a word
        finally:
            for call in (still := [*self._calls.values()]):
                call.cancel()
            await asyncio.gather(*still, return_exceptions=True)

    def _take(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived(stream_id=int(stream)):
                self._paths[stream] = _headers(event).get(":path", "")
                self._requests[stream] = bytearray()
            case h2.events.DataReceived(stream_id=int(stream)) if stream in self._requests:
                self._connection.acknowledge_received_data(event.flow_controlled_length or 0, stream)
                self._requests[stream] += event.data or b""
                if len(self._requests[stream]) > _MOST_REQUEST_BYTES:
                    self._connection.reset_stream(stream, h2.errors.ErrorCodes.ENHANCE_YOUR_CALM)
                    self._forget(stream)
            case h2.events.StreamEnded(stream_id=int(stream)) if stream in self._requests:
                task = asyncio.create_task(self._call(stream, self._paths[stream], bytes(self._requests.pop(stream))))
                self._calls[stream] = task
                task.add_done_callback(lambda _: self._forget(stream))
            case h2.events.StreamReset(stream_id=int(stream)):
                if call := self._calls.get(stream):
                    call.cancel()
                self._forget(stream)
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                self._window.set()

    def _forget(self, stream: int) -> None:
        for known in (self._paths, self._requests, self._calls):
            known.pop(stream, None)

    async def _call(self, stream: int, path: str, request: bytes) -> None:
        with contextlib.suppress(OSError, h2.exceptions.H2Error):  # the viewer has gone, or wants no more of it
            self._connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
            await self._flush()
            if path != READ_MESSAGES:
                await self._conclude(stream, _UNIMPLEMENTED, "this relay is for reading")
                return
            try:
                async with contextlib.aclosing(self._read(request)) as pieces:
                    async for piece in pieces:
                        await self._send(stream, piece)
            except _Refused as refusal:
                await self._conclude(stream, _PERMISSION_DENIED, str(refusal))

    async def _send(self, stream: int, piece: bytes) -> None:
        """As fast as the viewer takes it."""
        rest = memoryview(piece)
        while rest:
            room = min(
                self._connection.local_flow_control_window(stream),
                self._connection.max_outbound_frame_size,
            )
            if room <= 0:
                self._window.clear()
                await self._window.wait()
                continue
            self._connection.send_data(stream, bytes(rest[:room]))
            rest = rest[room:]
            await self._flush()

    async def _conclude(self, stream: int, status: int, text: str) -> None:
        trailers = [("grpc-status", str(status)), ("grpc-message", text)]
        self._connection.send_headers(stream, trailers, end_stream=True)
        await self._flush()

    async def _flush(self) -> None:
        self._writer.write(self._connection.data_to_send())
        await self._writer.drain()


def _connection(*, client: bool, window_bytes: int = 65_535) -> h2.connection.H2Connection:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client))
    window = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window_bytes}
    connection.local_settings = h2.settings.Settings(client=client, initial_values=window)
    connection.initiate_connection()
    return connection


def _headers(event: h2.events.RequestReceived | h2.events.ResponseReceived | h2.events.TrailersReceived) -> _Headers:
    return {name.decode(errors="replace"): text.decode(errors="replace") for name, text in event.headers or ()}


_ESTABLISHED = "01"


def user_of(client_port: int, server_port: int, tables: Path = Path("/proc/self/net")) -> int | None:
    """Who is at the other end of a connection between these ports of the loopback interface: a user's number; None
    when nobody is any more. Raises FileNotFoundError where the system does not tell: it is Linux's proc(5), net/tcp.
    """
    ends = (f":{client_port:04X}", f":{server_port:04X}")
    for _ in range(3):  # a table that changes while it is read may leave one out
        for table in ("tcp", "tcp6"):  # in tcp6 are sockets that speak IPv4 through IPv6
            with contextlib.suppress(FileNotFoundError) if table == "tcp6" else contextlib.nullcontext():
                for line in (tables / table).read_text().splitlines()[1:]:
                    _, here, there, state, *_, user, _, inode = line.split()[:10]
                    # Without an inode nobody has it open, and the user that is told is root.
                    if (here[-5:], there[-5:]) == ends and state == _ESTABLISHED and inode != "0":
                        return int(user)
    return None
