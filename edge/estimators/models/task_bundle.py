"""The format of a .task bundle, to make one out of bare TensorFlow Lite networks.

A bundle is a zip archive whose members are stored, not compressed, at offsets of 64 bytes: MediaPipe maps the file and
hands the networks on as they lie there. Inside, MediaPipe wants to know how pixels become a network's input, which it
reads from the network's metadata: a FlatBuffer (root type ModelMetadata of TFLite's metadata_schema.fbs) in the buffer
that the network's metadata table (schema.fbs) names TFLITE_METADATA.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

from flatbuffers import Builder, encode, packer
from flatbuffers.table import Table

DETECTOR = "pose_detector.tflite"
LANDMARKER = "pose_landmarks_detector.tflite"

_ALIGNMENT = 64
_LOCAL_HEADER_BYTES = 30  # APPNOTE.TXT, 4.3.7; the member's name and extra fields follow
_EXTRA = struct.Struct("<HH")  # 4.5.1: what it is, and the length of what follows
_PADDING = 0xD935  # what Android's zipalign calls its padding; readers skip what they don't know

# Fields of schema.fbs's Model, in its order.
_VERSION, _OPERATORS, _SUBGRAPHS, _DESCRIPTION, _BUFFERS, _METADATA_BUFFER, _METADATA, _SIGNATURES = range(8)


def bundle(members: Mapping[str, bytes]) -> bytes:
    """A .task file of `members`, name -> content; the same bytes for the same members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            entry = zipfile.ZipInfo(name)  # of 1980-01-01
            entry.create_system = 3
            short = -(file.tell() + _LOCAL_HEADER_BYTES + len(name) + _EXTRA.size) % _ALIGNMENT
            entry.extra = _EXTRA.pack(_PADDING, short) + bytes(short)
            archive.writestr(entry, content)
    return file.getvalue()


def with_input_range(network: bytes, *, mean: float, deviation: float) -> bytes:
    """A .tflite `network` that tells how its input is made: (pixel - mean) / deviation, pixels being 0..255.

    The network stays as it is, behind a new root table that also lists the metadata: offsets in a FlatBuffer are
    relative and point forward only, so what lies in front can refer to it, and nothing in it has to change.
    """
    root = Table(network, encode.Get(packer.uoffset, network, 0))
    front = Builder(len(network) + 4096)
    # Everything that asks for an alignment in the network keeps it when the whole is moved by a multiple of 64.
    front.Prep(_ALIGNMENT, len(network))
    begin = front.CreateByteVector(network) - 4  # its content begins behind its length

    def moved(position: int) -> int:
        """The builder's name, counted from the end, for what was at `position` in the network."""
        return int(begin - position)

    buffers = [moved(position) for position in _tables(root, _BUFFERS)]
    metadata = [moved(position) for position in _tables(root, _METADATA)]
    description = _input_range(mean, deviation)
    front.Prep(16, len(description))  # schema.fbs: force_align
    content = front.CreateByteVector(description)
    front.StartObject(1)  # Buffer
    front.PrependUOffsetTRelativeSlot(0, content, 0)
    buffers.append(front.EndObject())
    name = front.CreateString("TFLITE_METADATA")
    front.StartObject(2)  # Metadata
    front.PrependUOffsetTRelativeSlot(0, name, 0)
    front.PrependUint32Slot(1, len(buffers) - 1, 0)
    metadata.append(front.EndObject())

    fields = {_BUFFERS: _vector(front, buffers), _METADATA: _vector(front, metadata)}
    for field in (_OPERATORS, _SUBGRAPHS, _DESCRIPTION, _METADATA_BUFFER, _SIGNATURES):
        if position := _field(root, field):
            fields[field] = moved(root.Indirect(position))
    front.StartObject(8)
    front.PrependUint32Slot(_VERSION, encode.Get(packer.uint32, network, _field(root, _VERSION)), 0)
    for field, target in fields.items():
        front.PrependUOffsetTRelativeSlot(field, target, 0)
    front.Finish(front.EndObject(), file_identifier=b"TFL3")
    return bytes(front.Output())


def _input_range(mean: float, deviation: float) -> bytes:
    """A ModelMetadata whose first subgraph's first input has NormalizationOptions."""
    builder = Builder(256)
    means, deviations = (_floats(builder, [number]) for number in (mean, deviation))
    builder.StartObject(2)  # NormalizationOptions
    builder.PrependUOffsetTRelativeSlot(0, means, 0)
    builder.PrependUOffsetTRelativeSlot(1, deviations, 0)
    options = builder.EndObject()
    builder.StartObject(2)  # ProcessUnit, a union: its type and its value
    builder.PrependUint8Slot(0, 1, 0)
    builder.PrependUOffsetTRelativeSlot(1, options, 0)
    units = _vector(builder, [builder.EndObject()])
    builder.StartObject(7)  # TensorMetadata
    builder.PrependUOffsetTRelativeSlot(4, units, 0)
    inputs = _vector(builder, [builder.EndObject()])
    builder.StartObject(10)  # SubGraphMetadata
    builder.PrependUOffsetTRelativeSlot(2, inputs, 0)
    subgraphs = _vector(builder, [builder.EndObject()])
    builder.StartObject(8)  # ModelMetadata
    builder.PrependUOffsetTRelativeSlot(3, subgraphs, 0)
    builder.Finish(builder.EndObject(), file_identifier=b"M001")
    return bytes(builder.Output())


def _field(table: Table, field: int) -> int:
    """Where a field's value lies; 0 when the table doesn't have it."""
    offset = table.Offset(4 + 2 * field)
    return int(table.Pos + offset) if offset else 0


def _tables(table: Table, field: int) -> list[int]:
    """Where the tables of a field that is a vector of tables lie."""
    offset = table.Offset(4 + 2 * field)
    if not offset:
        return []
    first = table.Vector(offset)
    return [int(table.Indirect(first + 4 * index)) for index in range(table.VectorLen(offset))]


def _vector(builder: Builder, targets: Sequence[int]) -> int:
    builder.StartVector(4, len(targets), 4)
    for target in reversed(targets):
        builder.PrependUOffsetTRelative(target)
    return int(builder.EndVector())


def _floats(builder: Builder, numbers: Sequence[float]) -> int:
    builder.StartVector(4, len(numbers), 4)
    for number in reversed(numbers):
        builder.PrependFloat32(number)
    return int(builder.EndVector())
