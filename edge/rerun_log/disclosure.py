"""How much there may be to see in a file of a recording, as it says itself: of each of them that can be told.

A file begins with all that does not change, and in it are the recording's properties, and in them the mode of privacy
that it was made in. That stands in the file itself and not beside it, so that no crash, copy or restored backup parts
the two.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from edge.privacy import Shows, most_declared
from edge.rerun_log import rrd
from edge.rerun_log.scene import PRIVACY_PROPERTY

_PROPERTIES = b"/__properties"
_LARGEST = 1_000_000
"""No part of what does not change is as large; what is, is something else."""


def most_shown(path: Path) -> Shows:
    """The most that there may be to see in this file. One that does not say, be it older or damaged, may show all.

    Reads its beginning, some 35 kB at most. Raises OSError.
    """
    with path.open("rb") as file, contextlib.suppress(ValueError):
        rrd.check_header(file.read(rrd.HEADER_BYTES))
        modes = {mode for payload in _description(file) for mode in _modes(payload)}
        if modes:
            return max(map(most_declared, modes))
    return Shows.PICTURES


def _description(file: BinaryIO) -> Iterator[bytes]:
    """The payloads of the chunks from here on that do not change, up to the first one that lies in time."""
    while len(head := file.read(rrd.FRAME_BYTES)) == rrd.FRAME_BYTES:
        kind, length = rrd.frame(head)
        if kind == rrd.Kind.END or length > _LARGEST:
            return
        if kind != rrd.Kind.CHUNK:
            file.seek(length, os.SEEK_CUR)
            continue
        if len(payload := file.read(length)) < length:
            return
        chunk = rrd.chunk(payload)
        if chunk.is_of_blueprint:
            continue
        if not chunk.is_static:
            return
        yield payload


def _modes(payload: bytes) -> list[str]:
    """The values of the property in a chunk, if it is one of properties; none where it is damaged."""
    with contextlib.suppress(OSError, ValueError, TypeError, pa.ArrowException, SystemError):  # as Arrow has it
        content, unpacked_bytes = rrd.arrow(payload)
        buffer = pa.py_buffer(content)
        if unpacked_bytes is not None:
            if unpacked_bytes > _LARGEST:
                return []
            buffer = pa.decompress(buffer, decompressed_size=unpacked_bytes, codec="lz4_raw")
        stream = pa.ipc.open_stream(buffer)
        entity = (stream.schema.metadata or {}).get(b"rerun:entity_path", b"")
        if entity.startswith(_PROPERTIES) and PRIVACY_PROPERTY in stream.schema.names:
            return [mode for batch in stream for mode in _texts(batch)]
    return []


def _texts(batch: pa.RecordBatch) -> list[str]:
    batch.validate(full=True)  # before Arrow follows offsets that damage has made
    return [str(text) for row in batch.column(PRIVACY_PROPERTY).to_pylist() for text in row or ()]
