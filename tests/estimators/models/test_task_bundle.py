from __future__ import annotations

import io
import zipfile

import flatbuffers
from hypothesis import given
from hypothesis import strategies as st
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata_schema
from mediapipe.tasks.metadata import schema_py_generated as schema

from edge.estimators.models.task_bundle import bundle, with_input_range


def network(*, buffers: list[bytes], metadata: list[str]) -> bytes:
    """A .tflite as TensorFlow Lite's own schema writes it, with nothing in it to compute."""
    model = schema.ModelT()
    model.version = 3
    model.description = "net"
    model.buffers = [schema.BufferT() for _ in buffers]
    for buffer, content in zip(model.buffers, buffers, strict=True):
        buffer.data = list(content)
    model.metadata = [schema.MetadataT() for _ in metadata]
    for index, name in enumerate(metadata):
        model.metadata[index].name = name
    subgraph = schema.SubGraphT()
    subgraph.name = "main"
    model.subgraphs = [subgraph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def read(network: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromPackedBuf(network)


def content(buffer: schema.BufferT) -> bytes:
    return b"" if buffer.data is None else bytes(buffer.data)


@given(
    buffers=st.lists(st.binary(max_size=40), max_size=4),
    metadata=st.lists(st.text("abc", min_size=1, max_size=5), max_size=2),
)
def test_a_network_keeps_all_it_has_and_tells_its_input_range(buffers: list[bytes], metadata: list[str]) -> None:
    original = network(buffers=buffers, metadata=metadata)
    told = with_input_range(original, mean=127.5, deviation=2.0)

    assert original in told, "the network itself is not touched"
    assert told.index(original) % 64 == 0, "nor is what it lies at multiples of"
    before, after = read(original), read(told)
    assert (after.version, after.description, after.subgraphs[0].name) == (3, before.description, b"main")
    assert [content(buffer) for buffer in after.buffers[:-1]] == buffers
    assert [entry.name for entry in after.metadata[:-1]] == [name.encode() for name in metadata]
    added = after.metadata[-1]
    assert (added.name, added.buffer) == (b"TFLITE_METADATA", len(buffers))
    described = metadata_schema.ModelMetadataT.InitFromPackedBuf(content(after.buffers[-1]))
    (unit,) = described.subgraphMetadata[0].inputTensorMetadata[0].processUnits
    assert unit.optionsType == metadata_schema.ProcessUnitOptions.NormalizationOptions
    assert (list(unit.options.mean), list(unit.options.std)) == ([127.5], [2.0])


@given(st.dictionaries(st.text("abcdefgh.", min_size=1, max_size=12), st.binary(max_size=200), max_size=4))
def test_a_bundle_holds_its_members_stored_and_aligned(members: dict[str, bytes]) -> None:
    made = bundle(members)

    with zipfile.ZipFile(io.BytesIO(made)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == members
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            begin = entry.header_offset + 30 + len(entry.filename) + len(entry.extra)
            assert begin % 64 == 0
            assert made[begin:].startswith(members[entry.filename])
    assert made == bundle(members)
