"""The messages as bytes: what goes out comes back, and what is none of them is refused in one way."""

from __future__ import annotations

import contextlib
import json
import math
import struct
import typing
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.mqtt.wire import v1

NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FRACTIONS = st.floats(0, 1, width=32)
SCORES = st.floats(0, 1)
ROWS = 3
IMAGES = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, FRACTIONS), min_size=ROWS, max_size=ROWS)
WORLDS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=ROWS, max_size=ROWS)
PEOPLE = st.lists(st.tuples(SCORES, IMAGES, st.none() | WORLDS), max_size=4)
SEQS = st.integers(0, 2**63 - 1)
TIMES = st.integers(0, 2**62)

Person = tuple[float, list[tuple[float, ...]], list[tuple[float, ...]] | None]


def of(seq: int, t_us: int, people: list[Person]) -> v1.Landmarks:
    return v1.Landmarks(
        seq=seq,
        t_us=t_us,
        people=[
            v1.PersonLandmarks(
                id=number,
                score=score,
                image=typing.cast("Any", image),
                world=msgspec.UNSET if world is None else typing.cast("Any", world),
            )
            for number, (score, image, world) in enumerate(people, start=1)
        ],
    )


def packed(rows: list[tuple[float, ...]]) -> bytes:
    return b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)


def as_cbor(seq: int, t_us: int, people: list[Person]) -> bytes:
    tables = [
        (number, score, packed(image), None if world is None else packed(world))
        for number, (score, image, world) in enumerate(people, start=1)
    ]
    return v1.encode_binary(seq, t_us, tables, ROWS)


CBOR_MESSAGE = as_cbor(7, 1_785_585_600_000_000, [(0.5, [(0.25, 0.5, -1.0, 1.0)] * ROWS, [(0.5, 0.25, 2.0)] * ROWS)])
JSON_MESSAGE = v1.encode(v1.decode_landmarks(CBOR_MESSAGE))


@given(SEQS, TIMES, PEOPLE)
@settings(deadline=None)
def test_landmarks_come_back_from_json(seq: int, t_us: int, people: list[Person]) -> None:
    assert v1.decode_landmarks(v1.encode(of(seq, t_us, people))) == of(seq, t_us, people)


@given(SEQS, TIMES, PEOPLE)
@settings(deadline=None)
def test_landmarks_come_back_from_cbor_bit_by_bit(seq: int, t_us: int, people: list[Person]) -> None:
    assert v1.decode_landmarks(as_cbor(seq, t_us, people)) == of(seq, t_us, people)


def test_cbor_is_what_rfc_8746_says() -> None:
    (person,) = cbor2.loads(CBOR_MESSAGE)["people"]
    assert (person["image"].tag, list(person["image"].value[0])) == (40, [ROWS, 4])
    assert (person["world"].tag, list(person["world"].value[0])) == (40, [ROWS, 3])
    elements = person["world"].value[1]
    assert (elements.tag, struct.unpack("<9f", elements.value)) == (85, (0.5, 0.25, 2.0) * 3)


def decoded(payload: bytes) -> v1.Landmarks | None:
    """None where it is refused, in the one way that there is; anything else fails the test."""
    try:
        return v1.decode_landmarks(payload)
    except ValueError:
        return None


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"{" + tail))
@settings(deadline=None, max_examples=500)
def test_any_bytes_are_landmarks_or_a_value_error(payload: bytes) -> None:
    decoded(payload)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A message with a few of its bytes changed, gone, or more of them."""
    payload = bytearray(draw(st.sampled_from([CBOR_MESSAGE, JSON_MESSAGE])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(payload)))
        payload[at : at + draw(st.integers(0, 4))] = draw(st.binary(max_size=10))
    return bytes(payload[: draw(st.integers(0, len(payload)) | st.just(len(payload)))])


@given(mutated())
@settings(deadline=None, max_examples=1000)
def test_a_damaged_message_is_landmarks_or_a_value_error(payload: bytes) -> None:
    decoded(payload)


@pytest.mark.parametrize("payload", [CBOR_MESSAGE, JSON_MESSAGE])
def test_a_message_that_is_cut_off_is_refused(payload: bytes) -> None:
    assert decoded(payload) is not None
    assert [end for end in range(len(payload)) if decoded(payload[:end]) is not None] == []


@pytest.mark.parametrize(
    "payload",
    [
        b'{"a":' * 5000,
        b"{" + b"[" * 5000,
        b'{"v":1,"seq":1,"t_us":1,"people":' + b"[" * 5000,
        b"\x81" * 5000,  # arrays in arrays
        b"\xa1" * 5000,  # maps as keys of maps
        b"\xd8\x28" * 5000,  # tags of tags
        b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff",  # an array of 2**63 - 1
        b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff",  # a map
        b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",  # a byte string
        b"\xc4\x82\x1a\x7f\xff\xff\xff\x01",  # 1 * 10**2147483647
        b"\xd8\x1c\xa1\x66people\xd8\x1d\x00",  # a map that holds itself
    ],
)
def test_what_would_exhaust_a_reader_is_refused(payload: bytes) -> None:
    assert decoded(payload) is None


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"v": "1"},
        {"seq": -1},
        {"seq": 1.5},
        {"t_us": None},
        {"people": None},
        {"people": {}},
        {"people": [1]},
    ],
)
def test_what_is_not_of_this_version_is_refused_in_both_formats(change: dict[str, Any]) -> None:
    assert decoded(json.dumps({**json.loads(JSON_MESSAGE), **change}).encode()) is None
    assert decoded(cbor2.dumps({**cbor2.loads(CBOR_MESSAGE), **change})) is None


@pytest.mark.parametrize(
    "table",
    [
        cbor2.CBORTag(40, [[1, 4], cbor2.CBORTag(85, packed([(0.0,) * 3]))]),
        cbor2.CBORTag(40, [[0, 0], cbor2.CBORTag(85, b"")]),
        cbor2.CBORTag(40, [[-1, -4], cbor2.CBORTag(85, packed([(0.0,) * 4]))]),
        cbor2.CBORTag(40, [[2**40, 2**40], cbor2.CBORTag(85, packed([(0.0,) * 4]))]),
        cbor2.CBORTag(40, [[1, 4], cbor2.CBORTag(84, bytes(8))]),
        cbor2.CBORTag(40, [[1, 4], cbor2.CBORTag(85, "0" * 16)]),
        cbor2.CBORTag(40, [[1, 5], cbor2.CBORTag(85, packed([(0.0,) * 5]))]),
        cbor2.CBORTag(40, [[1, 4], cbor2.CBORTag(85, packed([(math.nan, 0.0, 0.0, 1.0)]))]),
        cbor2.CBORTag(40, [[1, 4], cbor2.CBORTag(85, packed([(0.0, math.inf, 0.0, 1.0)]))]),
        cbor2.CBORTag(40, [[1, 4], cbor2.CBORTag(85, packed([(0.0, 0.0, 0.0, 1.5)]))]),
        [[0.0, 0.0, 0.0, 1.0]],
        None,
    ],
)
def test_a_table_that_is_none_of_keypoints_is_refused(table: object) -> None:
    person = {"id": 1, "score": 0.5, "image": table}
    assert decoded(cbor2.dumps({"v": 1, "seq": 1, "t_us": 1, "people": [person]})) is None


def test_a_field_of_a_later_time_does_no_harm() -> None:
    expected = decoded(JSON_MESSAGE)
    assert decoded(json.dumps({**json.loads(JSON_MESSAGE), "later": [{}]}).encode()) == expected
    assert decoded(cbor2.dumps({**cbor2.loads(CBOR_MESSAGE), "later": [{}]})) == expected


def test_what_is_published_begins_with_its_version() -> None:
    assert v1.encode(v1.Summary(seq=1, t_us=2, frames=1, window_s=0.0, count=0, most=0, away=[], people=[])) == (
        b'{"v":1,"seq":1,"t_us":2,"frames":1,"window_s":0.0,"count":0,"most":0,"away":[],"people":[]}'
    )
    assert next(iter(cbor2.loads(CBOR_MESSAGE).items())) == ("v", 1)


EVENTS = [
    v1.CameraLost(id="s-1", t_us=1, camera="front", reason="no frame for 5 s"),
    v1.CameraBack(id="s-2", t_us=2, camera="front", away_s=1.5),
    v1.CameraEnded(id="s-3", t_us=3, camera="front", reason="end of file"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_are_told_apart_by_their_type(event: v1.Event) -> None:
    assert msgspec.json.decode(v1.encode(event), type=v1.Event) == event
    assert json.loads(v1.encode(event))["v"] == 1


def test_an_event_of_a_type_that_there_is_not_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="camera_stolen"):
        msgspec.json.decode(b'{"type":"camera_stolen","v":1,"id":"s-1","t_us":1,"camera":"a"}', type=v1.Event)


@pytest.mark.parametrize("verb", v1.REQUESTS)
def test_a_request_takes_its_own_fields_only(verb: str) -> None:
    needed = {"set": {"values": {"pose.model": "lite"}}, "record": {"on": True}}.get(verb, {})
    kind = v1.REQUESTS[verb]

    def read(**fields: object) -> v1.Request:
        return msgspec.json.decode(json.dumps({**needed, **fields}), type=kind)

    assert read(id="x" * 64).id == "x" * 64
    with pytest.raises(msgspec.ValidationError, match="length <= 64"):
        read(id="x" * 65)
    with pytest.raises(msgspec.ValidationError, match="unknown field `force`"):
        read(force=True)
    with pytest.raises(msgspec.ValidationError, match="Expected `str`"):
        read(id=7)


@pytest.mark.parametrize(
    ("verb", "payload", "text"),
    [
        ("ping", b"nonsense", "malformed"),
        ("ping", b"\xff\xfe", "malformed"),
        ("ping", b"[]", "Expected `object`, got `array`"),
        ("ping", b'{"id":' + b"[" * 5000, "Expected `str`, got `array`"),
        ("ping", b'{"more":' + b"[" * 5000, "unknown field `more`"),
        ("set", b"{}", "required field `values`"),
        ("set", b'{"values":{}}', "length >= 1"),
        ("set", json.dumps({"values": {f"k{n}": 1 for n in range(33)}}).encode(), "length <= 32"),
        ("set", b'{"values":{"mqtt.landmarks_hz":NaN}}', "malformed"),
        ("set", b'{"values":{"mqtt.landmarks_hz":1e999}}', "out of range"),
        ("set", b'{"values":{"camera":{"front":{}}}}', "got `object`"),
        ("record", b'{"on":1}', "Expected `bool`, got `int`"),
        ("pause", b'{"camera":"../front"}', "matching regex"),
        ("pause", b'{"camera":"front\\n"}', "matching regex"),
        ("snapshot", b'{"camera":""}', "matching regex"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(verb: str, payload: bytes, text: str) -> None:
    with pytest.raises(msgspec.MsgspecError) as refused:
        msgspec.json.decode(payload, type=v1.REQUESTS[verb])
    assert isinstance(refused.value, ValueError)
    assert text in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@given(st.sampled_from(sorted(v1.REQUESTS)), st.binary(max_size=100))
def test_any_bytes_are_a_request_or_a_value_error(verb: str, payload: bytes) -> None:
    with contextlib.suppress(ValueError):
        msgspec.json.decode(payload, type=v1.REQUESTS[verb])
