"""How much of a person there is to see in what Rerun is given, judged by what is really in it.

`SHOWN` is the one table of that. It is a list of what is allowed: whatever does not stand in it is taken for pictures.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import h2.config
import h2.connection
import h2.events
import h2.settings
import pyarrow as pa
from rerun.chunk import Chunk

from edge.privacy import Shows
from edge.rerun_log import rrd

SHOWN = {
    "AnnotationContext": Shows.NUMBERS,
    "Boxes2D": Shows.NUMBERS,
    "LineStrips2D": Shows.SILHOUETTES,  # contours; for the picture's edge see `_shown`
    "LineStrips3D": Shows.NUMBERS,  # the floor's
    "Points2D": Shows.NUMBERS,
    "Points3D": Shows.NUMBERS,
    "RecordingInfo": Shows.NUMBERS,
    "Scalars": Shows.NUMBERS,
    "SegmentationImage": Shows.SILHOUETTES,
    "SeriesLines": Shows.NUMBERS,
    "TextLog": Shows.NUMBERS,
    "Transform3D": Shows.NUMBERS,
    "ViewCoordinates": Shows.NUMBERS,
    # Of blueprints.
    "ContainerBlueprint": Shows.NUMBERS,
    "EyeControls3D": Shows.NUMBERS,
    "LineGrid3D": Shows.NUMBERS,
    "PanelBlueprint": Shows.NUMBERS,
    "PlotLegend": Shows.NUMBERS,
    "ScalarAxis": Shows.NUMBERS,
    "TextLogColumns": Shows.NUMBERS,
    "TimePanelBlueprint": Shows.NUMBERS,
    "ViewBlueprint": Shows.NUMBERS,
    "ViewContents": Shows.NUMBERS,
    "ViewportBlueprint": Shows.NUMBERS,
    "VisibleTimeRanges": Shows.NUMBERS,
    # Named here to be found by who looks for them; without a line they would count the same.
    "EncodedImage": Shows.PICTURES,
    "Image": Shows.PICTURES,
    "VideoStream": Shows.PICTURES,
}
"""Archetype -> the most that there is to see in any of its components."""

_INDEXES = {"rerun.controls.RowId", "frame_idx", "time", "log_time", "log_tick", "blueprint"}
_PROPERTIES = "/__properties"

MAGICS = {
    "JPEG": re.compile(rb"\xff\xd8\xff[\xdb\xe0\xe1]"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "H.264": re.compile(
        rb"\x00\x00\x01\x67[\x42\x4d\x64]"
    ),  # a start code, and the parameters of a baseline, main or high stream
}
"""What encoded pictures begin with. Video has it at each keyframe: ITU-T H.264, 7.4.1.2.1 and A.2."""


def shown(batch: pa.RecordBatch) -> Shows:
    """The most that there is to see in a chunk. batch: as it goes over the wire, with its entity in the metadata."""
    entity = (batch.schema.metadata or {}).get(b"rerun:entity_path", b"").decode()
    return max((_shown(entity, field) for field in batch.schema), default=Shows.NUMBERS)


def _shown(entity: str, field: pa.Field) -> Shows:
    if field.name in _INDEXES:
        return Shows.NUMBERS
    archetype, is_component, _ = field.name.partition(":")
    if archetype == "LineStrips2D" and re.fullmatch(r"/camera/[\w-]+/video(/zones)?", entity):
        return Shows.NUMBERS
    if not is_component and entity.startswith(_PROPERTIES) and pa.types.is_string(field.type.value_type):
        return Shows.NUMBERS
    return SHOWN.get(archetype, Shows.PICTURES)


def shown_by(chunks: Iterable[Chunk]) -> Shows:
    """The same of chunks that are still to be sent."""
    return max(shown(chunk.to_record_batch()) for chunk in chunks)


def batches(framed: bytes) -> Iterator[pa.RecordBatch]:
    """All chunks among framed messages, also those that do not change and those of blueprints."""
    for message in rrd.messages(framed):
        if message.kind == rrd.Kind.CHUNK:
            content, unpacked_bytes = rrd.arrow(message.payload)
            buffer = pa.py_buffer(content)
            if unpacked_bytes is not None:
                buffer = pa.decompress(buffer, decompressed_size=unpacked_bytes, codec="lz4_raw")
            yield from pa.ipc.open_stream(buffer)


def in_file(path: Path) -> list[pa.RecordBatch]:
    """All chunks of an .rrd."""
    return list(batches(path.read_bytes()[rrd.HEADER_BYTES :]))


def on_the_wire(sent: bytes) -> list[pa.RecordBatch]:
    """All chunks in what one connection of a device has sent to a hub: HTTP/2, gRPC, WriteMessagesRequest."""
    state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
    state.local_settings = h2.settings.Settings(
        client=False,
        initial_values={
            h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1,
            h2.settings.SettingCodes.MAX_FRAME_SIZE: 2**24 - 1,
        },
    )
    state.max_inbound_frame_size = 2**24 - 1
    state.initiate_connection()
    state.increment_flow_control_window(2**31 - 1 - 65_535)
    streams: dict[int, bytearray] = {}
    for at in range(0, len(sent), 65_536):
        for event in state.receive_data(sent[at : at + 65_536]):
            if isinstance(event, h2.events.DataReceived):
                streams.setdefault(event.stream_id, bytearray()).extend(event.data)
                state.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        state.data_to_send()
    return [batch for stream in streams.values() for framed in _framed(bytes(stream)) for batch in batches(framed)]


def _framed(stream: bytes) -> Iterator[bytes]:
    """What each whole request of a stream carries, as it would stand in a file."""
    at = 0
    while at + 5 <= len(stream) and at + 5 + (length := int.from_bytes(stream[at + 1 : at + 5], "big")) <= len(stream):
        for field, log_msg in rrd._fields(memoryview(stream)[at + 5 : at + 5 + length]):
            if field == 1 and isinstance(log_msg, memoryview):
                for kind, payload in rrd._fields(log_msg):
                    if isinstance(payload, memoryview) and kind in {*rrd.Kind}:
                        yield rrd.Message(kind, payload).framed
        at += 5 + length


def unpacked(chunks: Iterable[pa.RecordBatch]) -> bytes:
    """All that they hold, as it was before LZ4."""
    return b"".join(chunk.serialize().to_pybytes() for chunk in chunks)


def magics(content: bytes) -> set[str]:
    """The kinds of encoded pictures that begin somewhere in it."""
    return {name for name, magic in MAGICS.items() if magic.search(content)}
