"""Reading recordings back, with Rerun's own reader."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from rerun.chunk import Chunk, RrdReader

from edge.cli.local_viewer import rerun_program, without_analytics
from tests.servers import free_port

PROGRAM = rerun_program()


def chunks(recording: Path) -> list[Chunk]:
    """What a recording holds. One that grows, or was cut off by a crash, is mended first, as its owner would do it."""
    try:
        stream = RrdReader(str(recording)).stream()
    except RuntimeError:  # its last message is torn
        with tempfile.TemporaryDirectory() as scratch:
            mended = Path(scratch) / "mended.rrd"
            command = [str(PROGRAM), "rrd", "optimize", str(recording), "-o", str(mended)]
            subprocess.run(command, check=True, capture_output=True, timeout=30)
            return chunks(mended)
    return [chunk for chunk in stream if not str(chunk.entity_path).startswith("/__")]


def rows(recording: Path) -> dict[str, list[int]]:
    """Entity -> the frame_idx of each of its rows, in the file's order."""
    found: dict[str, list[int]] = defaultdict(list)
    for chunk in chunks(recording):
        if not chunk.is_static:
            found[str(chunk.entity_path)] += column(chunk, "frame_idx")
    return dict(found)


def column(chunk: Chunk, name: str) -> list[Any]:
    """The values of the column whose name ends with `name`, one a row."""
    batch = chunk.to_record_batch()
    (index,) = [at for at, known in enumerate(batch.schema.names) if known == name or known.endswith(f":{name}")]
    return list(batch.column(index).to_pylist())


def static(recording: Path) -> dict[str, set[str]]:
    """Entity -> the components that are logged once and for all."""
    found: dict[str, set[str]] = defaultdict(set)
    for chunk in chunks(recording):
        if chunk.is_static:
            found[str(chunk.entity_path)] |= {name for name in chunk.to_record_batch().schema.names if ":" in name}
    return dict(found)


def received(url: str, into: Path, *, expect: dict[str, int], timeout_s: float = 20.0) -> dict[str, list[int]]:
    """What a viewer that joins the server at `url` gets, once it has at least `expect` rows of each entity.

    Whatever has arrived when the time is over is returned too, for the test to judge.
    """
    end_s = time.monotonic() + timeout_s
    environment = {**os.environ, **without_analytics(into.with_name(f"{into.name}-settings"))}
    while True:
        into.unlink(missing_ok=True)
        command = [str(PROGRAM), "--bind", "127.0.0.1", "--port", str(free_port()), url, "--save", str(into)]
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environment) as viewer:
            # It never ends by itself; what it has received after a moment is what the server had.
            try:
                viewer.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                viewer.terminate()
        found = rows(into) if into.exists() and into.stat().st_size else {}
        if all(len(found.get(entity, ())) >= count for entity, count in expect.items()) or time.monotonic() > end_s:
            return found
