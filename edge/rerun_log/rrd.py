"""The bytes of an .rrd file, and the same messages as gRPC carries them.

A file is a header and then messages, each a kind, a length and so many bytes of protobuf:

    header   "RRF2", the version of Rerun that wrote it (4 bytes), options (4 bytes)
    message  kind (u64, little endian), length (u64, little endian), payload
    end      a message of kind 0; what follows it is an index, for readers that seek

What writes and reads them is re_log_encoding in https://github.com/rerun-io/rerun; the kinds are also the numbers of
the fields in LogMsg, of rerun/log_msg/v1alpha1/log_msg.proto there. So what the SDK has encoded once can be kept in a
file, sent to a server, and taken from the file and sent later, and is the same chunk, with the same id, in each place.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

MAGIC = b"RRF2"
HEADER_BYTES = 12
WRITE_MESSAGES = "/rerun.sdk_comms.v1alpha1.MessageProxyService/WriteMessages"

_FRAME = struct.Struct("<QQ")
_GRPC_PREFIX = struct.Struct(">BI")


_LZ4 = 2
"""Compression of rerun/log_msg/v1alpha1/log_msg.proto: 1 is none."""


class Kind(IntEnum):
    """What a message is. The values are those of files, and the numbers of LogMsg's fields."""

    END = 0
    STORE_INFO = 1
    CHUNK = 2
    BLUEPRINT_ACTIVATION = 3


class BrokenRrdError(ValueError):
    """Bytes that are no .rrd, or not one that this program can read."""


class Message(NamedTuple):
    """kind: a `Kind`. payload: protobuf: SetStoreInfo, ArrowMsg or BlueprintActivationCommand."""

    kind: int
    payload: memoryview

    @property
    def framed(self) -> bytes:
        """As it stands in a file."""
        return _FRAME.pack(self.kind, len(self.payload)) + self.payload

    @property
    def request(self) -> bytes:
        """As a length-prefixed gRPC message: WriteMessagesRequest { log_msg: LogMsg { <kind>: payload } }.

        Prefix: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md, uncompressed. Fields:
        rerun/sdk_comms/v1alpha1/sdk_comms.proto; 2 is protobuf's wire type of what has a length.
        """
        log_msg = bytes([self.kind << 3 | 2]) + _varint(len(self.payload)) + self.payload
        request = bytes([1 << 3 | 2]) + _varint(len(log_msg)) + log_msg
        return _GRPC_PREFIX.pack(0, len(request)) + request


def split(rrd: bytes) -> tuple[bytes, bytes]:
    """A whole file's header, and its messages up to the end message or the file's end.

    Raises BrokenRrdError when it has no header, or ends in the middle of a message.
    """
    end = HEADER_BYTES
    check_header(rrd[:HEADER_BYTES])
    for at, kind, length in frames(rrd, HEADER_BYTES):
        if kind == Kind.END:
            return rrd[:HEADER_BYTES], rrd[HEADER_BYTES:at]
        end = at + _FRAME.size + length
    if end != len(rrd):
        raise BrokenRrdError(f"the message at byte {end} is cut off")
    return rrd[:HEADER_BYTES], rrd[HEADER_BYTES:]


def check_header(header: bytes) -> None:
    """Raises BrokenRrdError."""
    if len(header) < HEADER_BYTES or not header.startswith(MAGIC):
        raise BrokenRrdError(f"begins with {bytes(header[:4])!r}, an .rrd of Rerun 0.23 or later with {MAGIC!r}")


def messages(framed: bytes) -> Iterator[Message]:
    """The whole messages of what comes after a header, up to an end message or to what is cut off."""
    view = memoryview(framed)
    for at, kind, length in frames(framed):
        if kind == Kind.END:
            return
        yield Message(kind, view[at + _FRAME.size : at + _FRAME.size + length])


def frames(framed: bytes, at: int = 0) -> Iterator[tuple[int, int, int]]:
    """(position, kind, length of the payload) of each whole message, the end message included, from `at` on."""
    while at + _FRAME.size <= len(framed):
        kind, length = _FRAME.unpack_from(framed, at)
        if at + _FRAME.size + length > len(framed):
            return
        yield at, kind, length
        at += _FRAME.size + length


FRAME_BYTES = _FRAME.size
"""What stands before each payload."""


def frame(head: bytes) -> tuple[int, int]:
    """(kind, length of the payload) of what stands before a payload."""
    kind, length = _FRAME.unpack(head)
    return kind, length


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Chunk(NamedTuple):
    """What is known of a chunk without decoding it. made_ns: since 1970, when it was put together."""

    is_static: bool
    is_of_blueprint: bool
    made_ns: int


def chunk(payload: bytes | memoryview) -> Chunk:
    """Of a message of kind CHUNK: ArrowMsg of rerun/log_msg/v1alpha1/log_msg.proto. Raises BrokenRrdError."""
    is_static, is_of_blueprint, made_ns = False, False, 0
    for field, content in _fields(memoryview(payload)):
        match field, content:
            case 1, memoryview():  # StoreId { kind: 1 for recordings, 2 for blueprints; ... }
                is_of_blueprint = dict(_fields(content)).get(1) == 2
            case 6, memoryview():  # Tuid { time_ns, inc }: when, and what makes it unique
                time_ns = dict(_fields(content)).get(1, 0)
                made_ns = time_ns if isinstance(time_ns, int) else 0
            case 7, int():
                is_static = bool(content)
    return Chunk(is_static, is_of_blueprint, made_ns)


def arrow(payload: bytes | memoryview) -> tuple[memoryview, int | None]:
    """Of a message of kind CHUNK the stream of Arrow's IPC format, and how many bytes it has unpacked: None where it is
    as it is, else it is packed by LZ4, as a block. Raises BrokenRrdError."""
    fields = dict(_fields(memoryview(payload)))
    content, packing, unpacked_bytes = fields.get(5), fields.get(2, 1), fields.get(3)
    if not isinstance(content, memoryview):
        raise BrokenRrdError("a chunk has no content")
    if packing != _LZ4:
        return content, None
    if not isinstance(unpacked_bytes, int):
        raise BrokenRrdError("a chunk does not say how long it is")
    return content, unpacked_bytes


def is_sound(framed: bytes) -> bool:
    """Whether these are whole messages of known kinds that protobuf can read. Says nothing of what is in them."""
    end = 0
    try:
        for at, kind, length in frames(framed):
            end = at + FRAME_BYTES + length
            payload = memoryview(framed)[end - length : end]
            if kind == Kind.CHUNK:
                chunk(payload)
            else:
                Kind(kind)
                deque(_fields(payload), maxlen=0)
    except ValueError:
        return False
    return 0 < end == len(framed)


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, content) of the fields of a protobuf message: https://protobuf.dev/programming-guides/encoding."""
    at = 0
    while at < len(message):
        key, at = _read_varint(message, at)
        match key & 7:
            case 0:
                content, at = _read_varint(message, at)
                yield key >> 3, content
            case 1:
                yield key >> 3, int.from_bytes(message[at : at + 8], "little")
                at += 8
            case 2:
                length, at = _read_varint(message, at)
                yield key >> 3, message[at : at + length]
                at += length
            case 5:
                at += 4
            case kind:
                raise BrokenRrdError(f"a message has a field of kind {kind}, which protobuf has no more")
    if at > len(message):
        raise BrokenRrdError("a message ends in the middle of a field")


def _read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number there, and where it ends."""
    value = shift = 0
    while at < len(message) and shift < 64:
        value |= (message[at] & 0x7F) << shift
        shift += 7
        at += 1
        if message[at - 1] < 0x80:
            return value, at
    raise BrokenRrdError("a number in a message has no end")
