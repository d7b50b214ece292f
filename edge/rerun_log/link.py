"""The live link to a Rerun server or viewer."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import rerun as rr

from edge.logs import FaultLog
from edge.pacing import Backoff
from edge.reports import LinkState
from edge.rerun_log import streams
from edge.rerun_log.parcel import GroupGuard, Parcel
from edge.rerun_log.scene import Scene
from edge.stats import DropCause, Stats

log = logging.getLogger(__name__)

DEFAULT_PORT = 9876

_PROBE_TIMEOUT_S = 2.0
_WINDOW_BYTES = 4_000_000
_WINDOW_S = 0.25
_ACKNOWLEDGE_S = 0.5


class LinkSink:
    """Ships parcels to rerun+http://HOST:PORT/proxy for as long as somebody is there who takes them.

    The SDK never reconnects, and what it is given while the peer stands still piles up until log() blocks. Its flush()
    however tells both cases apart: it fails at once when the peer is gone and times out when the peer is stuck. So
    the link sends a window, flushes it, and goes on only once that has worked. A peer that is away or stuck costs one
    window of memory; what comes meanwhile is dropped and counted, and a peer that is back begins with the static
    data, the blueprint and a keyframe.
    """

    def __init__(self, url: str, *, scene: Scene, stats: Stats) -> None:
        parts = urlsplit(url)
        self._url = url
        self._address = (parts.hostname or "", parts.port or DEFAULT_PORT)
        self._scene = scene
        self._stats = stats
        self._guard = GroupGuard()
        self._backoff = Backoff(first_s=0.25, most_s=5.0)
        self._faults = FaultLog(log)
        self._stream: rr.RecordingStream | None = None
        self._stuck = False
        self._next_attempt_s = 0.0
        self._unacknowledged_bytes = 0
        self._acknowledged_s = 0.0

    @property
    def state(self) -> LinkState:
        if self._stream is None:
            return LinkState.AWAY
        return LinkState.STUCK if self._stuck else LinkState.LIVE

    @property
    def online(self) -> bool:
        """Whether there is a peer, be it stuck or not."""
        return self._stream is not None

    @property
    def stuck(self) -> bool:
        """Whether there is a peer that takes nothing."""
        return self._stuck

    def write(self, batch: Sequence[Parcel]) -> None:
        if self._stream is None:
            self._connect()
        elif self._stuck or time.monotonic() - self._acknowledged_s > _WINDOW_S:
            self._acknowledge(self._stream, _ACKNOWLEDGE_S)
        for parcel in batch:
            self._ship(parcel)

    def close(self, timeout_s: float) -> None:
        if self._stream is None:
            return
        stream = self._stream
        if self._acknowledge(stream, min(timeout_s, _ACKNOWLEDGE_S) if self._stuck else timeout_s):
            stream.disconnect()
        elif self._stream is not None:
            streams.leave_behind(stream)
        self._stream = None
        del stream
        streams.release()

    def _ship(self, parcel: Parcel) -> None:
        if self._stream is not None and not self._stuck and self._unacknowledged_bytes > _WINDOW_BYTES:
            self._acknowledge(self._stream, _ACKNOWLEDGE_S)
        if self._stream is None:
            self._stats.dropped("rerun link", DropCause.DISCONNECTED, parcel.rows)
        elif self._stuck:
            self._stats.dropped("rerun link", DropCause.SLOW_RECEIVER, parcel.rows)
        elif not self._guard.admits(parcel):
            self._stats.dropped("rerun link", DropCause.BROKEN_GROUP, parcel.rows)
        else:
            self._stream.send_chunks(parcel.chunks)
            self._unacknowledged_bytes += parcel.nbytes
            self._stats.sent("rerun link rows", parcel.rows)

    def _connect(self) -> None:
        if time.monotonic() < self._next_attempt_s:
            return
        try:
            # connect_grpc can't say whether anybody is there; a stream that began without a peer is dead for ever.
            socket.create_connection(self._address, timeout=_PROBE_TIMEOUT_S).close()
        except (OSError, UnicodeError) as error:  # the latter for names that no host can have
            self._lost(getattr(error, "strerror", None) or str(error))
            return
        stream = self._stream = self._scene.new_stream()
        stream.connect_grpc(self._url)
        self._scene.describe(stream)
        self._guard.forget()
        if self._acknowledge(stream, _PROBE_TIMEOUT_S):
            self._backoff.reset()
            log.info("streaming to Rerun at %s:%d", *self._address)

    def _acknowledge(self, stream: rr.RecordingStream, timeout_s: float) -> bool:
        """Wait until the peer has taken everything. False when it is stuck, or gone and the stream with it."""
        try:
            stream.flush(timeout_sec=timeout_s)
        except RuntimeError as error:
            self._stuck = "timed out" in str(error)
            if self._stuck:
                self._faults.failed("Rerun at %s:%d takes nothing; waiting for it", *self._address)
            else:
                stream.disconnect()
                self._stream = None
                self._lost(str(error).split(", uri:")[0])
            return False
        self._stuck = False
        self._unacknowledged_bytes = 0
        self._acknowledged_s = time.monotonic()
        self._faults.worked("Rerun at %s:%d takes what it gets again", *self._address)
        return True

    def _lost(self, why: str) -> None:
        wait_s = self._backoff.next_s()
        self._next_attempt_s = time.monotonic() + wait_s
        self._faults.failed("Rerun at %s:%d: %s; next try in %.1f s", *self._address, why, wait_s)
