"""A viewer that is there all the time, and notes what arrives at a Rerun server and when."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pyarrow as pa

from edge.rerun_log import rrd

_READ = "/rerun.sdk_comms.v1alpha1.MessageProxyService/ReadMessages"
_WINDOW = 16_000_000
_AGAIN_S = 0.05


@dataclass(frozen=True, slots=True)
class Arrival:
    """A chunk with a frame index. at_s: since the Unix epoch, as captured_s is, row by row. chunk: its id. nbytes: of
    the message, compressed as it travels. content: its rows, where they are kept."""

    at_s: float
    chunk: str
    entity: str
    seqs: tuple[int, ...]
    captured_s: tuple[float, ...]
    nbytes: int
    content: pa.RecordBatch | None = None

    def column(self, name: str) -> list[Any]:
        """The values of the column whose name ends with `name`, one a row; none where there is no such column."""
        assert self.content is not None, "contents are kept"
        names = [known for known in self.content.schema.names if known.endswith(f":{name}")]
        return list(self.content.column(names[0]).to_pylist()) if names else []


class Onlooker:
    """Reads from the server at a port of the loopback interface, past nginx, and comes back whenever it is gone.

    keeps_content: of what arrives, and not just what it is of.
    """

    def __init__(self, port: int, *, keeps_content: bool = False) -> None:
        self._port = port
        self._keeps_content = keeps_content
        self._over = threading.Event()
        self.arrivals: list[Arrival] = []
        """Appended by its thread only, in order."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join()

    def rows(self, entity: str) -> list[int]:
        """The frame_idx of each row so far, as they came; what came again is the same chunk, and counts once."""
        chunks = {each.chunk: each for each in list(self.arrivals) if each.entity == entity}
        return [seq for each in chunks.values() for seq in each.seqs]

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError):
                for payload in self._messages():
                    if (arrival := _arrival(payload, keeps_content=self._keeps_content)) is not None:
                        self.arrivals.append(arrival)
            self._over.wait(_AGAIN_S)

    def _messages(self) -> Iterator[memoryview]:
        """The ArrowMsgs that come, until the connection ends. Raises OSError."""
        with socket.create_connection(("127.0.0.1", self._port), 1.0) as connection:
            connection.settimeout(0.2)
            state = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            state.local_settings = h2.settings.Settings(
                initial_values={h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW}
            )
            state.initiate_connection()
            state.increment_flow_control_window(_WINDOW)
            head = [(":method", "POST"), (":scheme", "http"), (":path", _READ), (":authority", "hub")]
            state.send_headers(1, [*head, ("content-type", "application/grpc"), ("te", "trailers")])
            state.send_data(1, b"\0\0\0\0\0", end_stream=True)
            content = bytearray()
            while not self._over.is_set():
                connection.sendall(state.data_to_send())
                try:
                    received = connection.recv(1 << 20)
                except TimeoutError:
                    continue
                if not received:
                    return
                for event in state.receive_data(received):
                    if isinstance(event, h2.events.DataReceived):
                        content += event.data
                        state.acknowledge_received_data(event.flow_controlled_length, 1)
                    elif isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
                        return
                while len(content) >= 5 and len(content) >= (end := 5 + int.from_bytes(content[1:5], "big")):
                    log_msg = dict(_fields(memoryview(bytes(content[5:end])))).get(1)
                    del content[:end]
                    for kind, payload in _fields(log_msg) if isinstance(log_msg, memoryview) else ():
                        if kind == rrd.Kind.CHUNK and isinstance(payload, memoryview):
                            yield payload


def _arrival(payload: memoryview, *, keeps_content: bool) -> Arrival | None:
    """What ArrowMsg of rerun/log_msg/v1alpha1/log_msg.proto holds, if it has the two timelines."""
    at_s = time.time()
    fields = dict(_fields(payload))
    content, size, compression = fields[5], fields.get(3), fields.get(2)
    assert isinstance(content, memoryview), "a chunk has a payload"
    arrow = pa.py_buffer(content)
    if compression == 2:
        arrow = pa.decompress(arrow, decompressed_size=size, codec="lz4_raw")
    batch = pa.ipc.open_stream(arrow).read_next_batch()
    about = batch.schema.metadata or {}
    chunk, entity = (about.get(b"rerun:" + name, b"").decode() for name in (b"id", b"entity_path"))
    if not {"frame_idx", "time"} <= set(batch.schema.names):
        return None
    seqs = batch.column("frame_idx").cast(pa.int64()).to_pylist()
    captured_ns = batch.column("time").cast(pa.int64()).to_pylist()
    captured_s = tuple(each / 1e9 for each in captured_ns)
    return Arrival(at_s, chunk, entity, tuple(seqs), captured_s, len(payload), batch if keeps_content else None)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Numbers and values of a protobuf message, of the two wire types that Rerun's have."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        value, at = _varint(message, at)
        if key & 7 == 2:
            yield key >> 3, message[at : at + value]
            at += value
        else:
            assert key & 7 == 0, f"wire type {key & 7}"
            yield key >> 3, value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
