"""The recording on this machine: one .rrd file a session, within a budget."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import rerun as rr

from edge.errors import ConfigError, ConfigProblem
from edge.rerun_log import streams
from edge.rerun_log.parcel import GroupGuard, Parcel
from edge.rerun_log.scene import Scene
from edge.stats import DropCause, Stats

log = logging.getLogger(__name__)

_FLUSH_EVERY_S = 1.0
"""What a kill -9 may cost."""

_FREE_FLOOR_BYTES = 50_000_000


def _free_path(directory: Path, name: str) -> Path:
    parts = (f"{name}{'' if part == 1 else f'.{part}'}.rrd" for part in count(1))
    return next(path for path in (directory / part for part in parts) if not path.exists())


class RecordingSink:
    """Writes `<directory>/<recording id>.rrd`; what follows in the same session after a reload, `<recording id>.2.rrd`.

    While it grows, and after a crash, its last message may be torn. Rerun's viewer and `rerun rrd` read it up to there;
    the Python reader wants it mended first: `rerun rrd optimize FILE -o MENDED`.

    keep_mb: when all recordings in the directory together reach so much, or the disk is nearly full, recording ends and
    the rest is counted as dropped. Nothing is deleted. Raises ConfigError when the directory can't be written.
    """

    def __init__(self, directory: Path, *, keep_mb: int, scene: Scene, stats: Stats) -> None:
        self.path = _free_path(directory, scene.recording_id)
        self._directory = directory
        self._keep_bytes = keep_mb * 1_000_000
        self._stats = stats
        self._guard = GroupGuard()
        self._next_flush_s = 0.0
        self._ended_by = DropCause.SINK_FAILED
        self._stream: rr.RecordingStream | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if why := self._no_room():  # before there is a file: to begin again and again must not fill the disk
                log.warning("recording does not begin: %s", why)
                self._ended_by = DropCause.DISK_BUDGET
                return
            self.path.touch(exist_ok=False)
        except OSError as error:
            problem = f"can't be written: {error.strerror}"
            raise ConfigError([ConfigProblem("config", "rerun.record_dir", str(directory), problem)]) from None
        # A stream of its own: sinks on one stream share its queue, and a stalled viewer would stop the file too.
        self._stream = scene.new_stream()
        self._stream.set_sinks(rr.FileSink(str(self.path), write_footer=True))
        scene.describe(self._stream)

    def write(self, batch: Sequence[Parcel]) -> None:
        for parcel in batch:
            if self._stream is None:
                self._stats.dropped("recording", self._ended_by, parcel.rows)
            elif not self._guard.admits(parcel):
                self._stats.dropped("recording", DropCause.BROKEN_GROUP, parcel.rows)
            else:
                self._stream.send_chunks(parcel.chunks)
                self._stats.sent("recording rows", parcel.rows)
        if self._stream is not None and time.monotonic() >= self._next_flush_s:
            self._next_flush_s = time.monotonic() + _FLUSH_EVERY_S
            self._flush(self._stream)

    def close(self, timeout_s: float) -> None:
        if self._stream is not None:
            self._stream.disconnect()  # writes the footer
            self._stream = None
            streams.release()

    def _flush(self, stream: rr.RecordingStream) -> None:
        try:
            stream.flush(timeout_sec=5.0)
        except RuntimeError as error:
            # The SDK's writer has given up for good, though it goes on taking chunks.
            self._end(stream, DropCause.SINK_FAILED, f"{self.path} can't be written: {error}")
            return
        if why := self._no_room():
            self._end(stream, DropCause.DISK_BUDGET, why)

    def _no_room(self) -> str:
        """Why nothing more may be written, or ""."""
        used, free = self._used_bytes(), shutil.disk_usage(self._directory).free
        if used >= self._keep_bytes:
            reason = f"{self._directory} holds {used / 1e6:.0f} MB, rerun.keep_mb allows {self._keep_bytes / 1e6:.0f}"
            return f"{reason}; delete recordings or raise it, and start again"
        if free < _FREE_FLOOR_BYTES:
            # While there is room for the last message and the footer.
            return f"only {free / 1e6:.0f} MB are free for {self._directory}; make room, and start again"
        return ""

    def _used_bytes(self) -> int:
        used = 0
        for file in self._directory.glob("*.rrd"):
            with contextlib.suppress(FileNotFoundError):  # somebody makes room
                used += file.stat().st_size
        return used

    def _end(self, stream: rr.RecordingStream, cause: DropCause, why: str) -> None:
        log.warning("recording ends: %s", why)
        self._ended_by = cause
        stream.disconnect()
        self._stream = None
