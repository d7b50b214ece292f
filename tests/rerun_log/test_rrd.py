"""The framing of an .rrd against what Rerun's SDK writes and reads, and of gRPC against a decoder of its own."""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise
from pathlib import Path

import pytest
import rerun as rr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rerun.chunk import RrdReader

from edge.rerun_log import rrd
from edge.rerun_log.rrd import BrokenRrdError, Kind
from tests.rerun_log.scenes import scene

HEADER = b"RRF2\0\x29\0\0\x01\x02\0\0"
CONTENT = st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(max_size=40)), max_size=5)


def framed(content: list[tuple[int, bytes]]) -> list[bytes]:
    return [struct.pack("<QQ", kind, len(payload)) + payload for kind, payload in content]


def listed(found: bytes) -> list[tuple[int, bytes]]:
    return [(message.kind, bytes(message.payload)) for message in rrd.messages(found)]


def varint(content: bytes) -> tuple[int, bytes]:
    """A number in protobuf's encoding, and what follows it."""
    value = 0
    for at, byte in enumerate(content):
        value |= (byte & 0x7F) << 7 * at
        if byte < 0x80:
            return value, content[at + 1 :]
    raise AssertionError("cut off")


def fields(content: bytes) -> list[tuple[int, bytes]]:
    """(number, value) of each field of a protobuf message, all of which have a length."""
    found = []
    while content:
        key, content = varint(content)
        assert key & 7 == 2, "the wire type of what has a length"
        length, content = varint(content)
        assert length <= len(content)
        found.append((key >> 3, content[:length]))
        content = content[length:]
    return found


@given(content=CONTENT)
def test_messages_come_back_as_they_were_framed_wherever_the_file_is_cut_off(content: list[tuple[int, bytes]]) -> None:
    parts = framed(content)
    whole = b"".join(parts)
    ends = [0, *accumulate(map(len, parts))]
    assert [message.framed for message in rrd.messages(whole)] == parts
    for cut in range(len(whole) + 1):
        assert listed(whole[:cut]) == content[: sum(end <= cut for end in ends) - 1]
        if cut in ends:
            assert rrd.split(HEADER + whole[:cut]) == (HEADER, whole[:cut])
        else:
            with pytest.raises(BrokenRrdError, match="cut off"):
                rrd.split(HEADER + whole[:cut])


@given(content=CONTENT, index=st.binary(max_size=20), rest=st.binary(max_size=50))
def test_what_follows_the_end_message_is_no_message(
    content: list[tuple[int, bytes]], index: bytes, rest: bytes
) -> None:
    whole = b"".join(framed(content))
    (end,) = framed([(Kind.END, index)])
    assert rrd.split(HEADER + whole + end + rest) == (HEADER, whole)
    assert listed(whole + end + rest) == content


@given(anything=st.one_of(st.binary(max_size=80), st.binary(max_size=80).map(HEADER.__add__)))
@example(anything=HEADER + bytes(100))
@example(anything=HEADER + b"\xff" * 100)
@example(anything=HEADER[:-1])
def test_any_bytes_are_messages_or_said_to_be_none(anything: bytes) -> None:
    listed(anything)
    try:
        header, found = rrd.split(anything)
    except BrokenRrdError:
        return
    assert anything.startswith(header + found)
    assert b"".join(message.framed for message in rrd.messages(found)) == found


@pytest.mark.parametrize("begin", [b"", b"RRF", b"RRF1" + bytes(8), b"RRIO" + bytes(8), b"<html><body>"])
def test_what_is_no_rrd_is_said_with_what_it_begins_with(begin: bytes) -> None:
    with pytest.raises(BrokenRrdError, match=r"begins with b'.*', an \.rrd of Rerun 0\.23 or later with b'RRF2'"):
        rrd.check_header(begin)


@given(
    kind=st.sampled_from([1, 2, 3]), size=st.one_of(st.integers(0, 300), st.sampled_from([16_383, 16_384, 2_097_152]))
)
@settings(max_examples=60, deadline=None)
@example(kind=2, size=127)
@example(kind=2, size=128)
def test_a_request_says_what_the_message_says(kind: int, size: int) -> None:
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    (message,) = rrd.messages(framed([(kind, payload)])[0])
    compressed, length = struct.unpack(">BI", message.request[:5])
    assert (compressed, length) == (0, len(message.request) - 5)
    ((number, log_msg),) = fields(message.request[5:])
    assert number == 1
    assert fields(log_msg) == [(kind, payload)]


@pytest.mark.integration
class TestTheSdk:
    @pytest.fixture(scope="class")
    def written(self) -> bytes:
        """A whole file, with the index at its end."""
        stream = scene().new_stream()
        into = rr.binary_stream(stream)
        scene().describe(stream)
        content = into.read()
        stream.disconnect()
        assert content
        return content

    def test_a_file_without_its_index_holds_the_same(self, written: bytes, tmp_path: Path) -> None:
        header, found = rrd.split(written)
        assert {message.kind for message in rrd.messages(found)} == {
            Kind.STORE_INFO,
            Kind.CHUNK,
            Kind.BLUEPRINT_ACTIVATION,
        }
        ids = []
        for name, content in (("whole", written), ("without", header + found)):
            path = tmp_path / f"{name}.rrd"
            path.write_bytes(content)
            ids.append({str(chunk.id) for chunk in RrdReader(str(path)).stream()})
        assert ids[0] == ids[1]
        assert len(ids[0]) > 10

    def test_cut_off_anywhere_it_is_as_many_whole_messages_as_there_are(self, written: bytes) -> None:
        header, found = rrd.split(written)
        ends = [0, *(at + rrd.FRAME_BYTES + length for at, _, length in rrd.frames(found))]
        assert ends[-1] == len(found)
        for whole, (end, following) in enumerate(pairwise(ends)):
            for cut in {end, end + 1, end + 15, end + 16, end + 17, (end + following) // 2, following - 1}:
                assert len(listed(found[:cut])) == whole
            with pytest.raises(BrokenRrdError, match=f"byte {len(header) + end} "):
                rrd.split(header + found[: end + 1])

    @given(data=st.data())
    @settings(max_examples=150, deadline=None)
    def test_what_was_written_is_sound_and_what_else_is_there_is_judged_without_an_error(
        self, data: st.DataObject, written: bytes
    ) -> None:
        _, found = rrd.split(written)
        assert rrd.is_sound(found)
        at = data.draw(st.integers(0, len(found) - 1))
        assert not rrd.is_sound(found[:at]) or at in {start for start, _, _ in rrd.frames(found)}
        damaged = found[:at] + data.draw(st.binary(min_size=1, max_size=30)) + found[at + 10 :]
        if rrd.is_sound(damaged):
            assert b"".join(message.request for message in rrd.messages(damaged))
