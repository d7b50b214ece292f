"""Video files and network streams, decoded by FFmpeg's libraries through PyAV."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self

import av
import av.logging
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from edge.addresses import without_credentials
from edge.clocks import CaptureClock
from edge.errors import CameraLost, CameraUnusable
from edge.interfaces import EndOfStream
from edge.logs import FaultLog, of_camera
from edge.pacing import Deadline
from edge.vision.frame import Frame, Picture, PixelLayout, UInt8Array

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 3.0
"""A network stream that sends nothing for so long counts as lost."""

# Unspecified, BT.470 BG and SMPTE 170M (ITU-T H.273, table 4): the latter two are BT.601.
_BT601 = (2, 5, 6)

_UNDECODABLE_MOST = 250
"""So many packets in a row that can't be decoded are no longer a disturbance."""


def is_network_address(location: str) -> bool:
    """Whether `location` is an address such as rtsp://..., not a path."""
    return "://" in location


class StreamSource:
    """A video file or an rtsp:// (or other FFmpeg) address.

    location: a path or an address. Addresses are live: their newest frame wins. Files wait for whoever processes them.
    loop: begin a file again at its end; times go on, as if the clip were repeated on the film.
    pace: "realtime" holds a file's frames back until their own time has come; "unlimited" does not.
    """

    def __init__(
        self, camera: str, location: str, *, loop: bool = False, pace: Literal["realtime", "unlimited"] = "realtime"
    ) -> None:
        self._camera = camera
        self._location = location
        self._loop = loop
        self._paced = pace == "realtime"
        self._container: InputContainer | None = None
        self._decoded: Iterator[tuple[VideoFrame, int] | None] = iter(())
        self._waiting: tuple[VideoFrame, int] | None = None
        self._seq = 0
        self._clock = CaptureClock()
        self._opened_monotonic_ns = 0
        self._converter = VideoReformatter()
        self._faults = FaultLog(of_camera(log, camera))  # once a camera, however many packets are damaged

    @property
    def opening(self) -> bool:
        return False  # entering is opening

    @property
    def live(self) -> bool:
        return is_network_address(self._location)

    def __enter__(self) -> Self:
        # FFmpeg would print what it thinks of each damaged packet on standard error.
        av.logging.set_level(av.logging.PANIC)
        self._open()
        self._opened_monotonic_ns = self._clock.open()
        self._decoded = self._decode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._decoded, self._waiting = iter(()), None

    def read(self, timeout_s: float) -> Frame | None:
        deadline = Deadline(timeout_s)
        while self._waiting is None:
            try:
                self._waiting = next(self._decoded)
            except StopIteration:
                if self.live:
                    raise CameraLost(f"{self._shown}: the stream has ended") from None
                raise EndOfStream from None
            except (av.FFmpegError, OSError) as error:
                raise self._trouble(error) from None
            if self._waiting is None and not deadline.left_s():
                return None
        decoded, media_ns = self._waiting
        if self._paced and not self.live:
            early_s = (self._opened_monotonic_ns + media_ns - time.monotonic_ns()) / 1e9
            if early_s > 0:
                time.sleep(min(early_s, timeout_s))
                if early_s > timeout_s:
                    return None
        self._waiting = None
        # Network cameras tell no time that could be trusted: what counts is when their picture is here.
        instant = self._clock.now() if self.live else self._clock.media(media_ns)
        frame = Frame(
            camera=self._camera,
            seq=self._seq,
            captured_ns=instant.captured_ns,
            monotonic_ns=instant.monotonic_ns,
            rgb=Picture(self._rgb(decoded), PixelLayout.RGB),
            video=_i420(decoded),
        )
        self._seq += 1
        return frame

    def _rgb(self, decoded: VideoFrame) -> UInt8Array:
        # 0.15 ms with a converter that stays and has no threads of its own. VideoFrame.to_ndarray makes a new one for
        # each frame, with threads: 0.44 ms of CPU for the same picture.
        converted = self._converter.reformat(decoded, format="rgb24", threads=1)
        return np.ascontiguousarray(converted.to_ndarray(), np.uint8)

    def _open(self) -> VideoStream:
        """Open the file or stream anew, and its first video track. Raises CameraLost or CameraUnusable."""
        self._close()
        try:
            self._container = (
                av.open(self._location, timeout=(OPEN_TIMEOUT_S, SILENCE_TIMEOUT_S), options={"rtsp_transport": "tcp"})
                if self.live
                else av.open(f"file:{self._location}")  # without it, a colon in the name would make it a protocol
            )
        except (av.FFmpegError, OSError) as error:
            raise self._trouble(error) from None
        if not self._container.streams.video:
            raise self._error(f"{self._shown}: holds no video; give a file or stream with a video track")
        stream = self._container.streams.video[0]
        if stream.codec_context is None:
            raise self._error(f"{self._shown}: its video codec is unknown here; convert it, for example to H.264")
        # One thread: the cores belong to inference, and decoding a camera's picture takes a fraction of one.
        stream.codec_context.thread_count = 1
        return stream

    def _decode(self) -> Iterator[tuple[VideoFrame, int] | None]:
        """Each frame with its time in ns since the beginning, loops included; None for what can't be decoded."""
        lap_ns = 0
        while True:
            media_ns, period_ns = lap_ns, 0
            for decoded in self._lap(lap_ns):
                if decoded is None:
                    yield None
                else:
                    frame, media_ns, period_ns = decoded
                    yield frame, media_ns
            if not period_ns:
                raise self._error(f"{self._shown}: no picture in it can be decoded; give a file that ffplay shows")
            if not self._loop or self.live:
                return
            lap_ns = media_ns + period_ns
            self._open()  # rather than seek: raw H.264 and pipes can't

    def _lap(self, lap_ns: int) -> Iterator[tuple[VideoFrame, int, int] | None]:
        """The open container's frames from its beginning to its end: frame, time counted from `lap_ns`, period; None
        for a packet that can't be decoded."""
        assert self._container is not None, "a lap runs on an open container"
        stream = self._container.streams.video[0]
        period_ns = int(1e9 / (stream.average_rate or 30))
        undecodable = 0
        first_ns: int | None = None
        media_ns = lap_ns - period_ns
        for packet in self._container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError as error:
                undecodable += 1
                reason = error.strerror or error
                self._faults.failed("camera %s: a packet can't be decoded, going on: %s", self._camera, reason)
                if undecodable > _UNDECODABLE_MOST:
                    raise
                yield None
                continue
            for frame in frames:
                undecodable = 0
                if frame.pts is None or frame.time_base is None:
                    media_ns += period_ns
                else:
                    stamp_ns = int(frame.pts * frame.time_base * 1_000_000_000)
                    first_ns = stamp_ns if first_ns is None else first_ns
                    media_ns = max(lap_ns + stamp_ns - first_ns, media_ns + 1)
                yield frame, media_ns, period_ns

    @property
    def _shown(self) -> str:
        return without_credentials(self._location)

    def _trouble(self, error: Exception) -> CameraLost | CameraUnusable:
        reason = getattr(error, "strerror", None) or str(error)
        return self._error(
            f"{self._shown}: {reason}"
            if self.live
            else f"{self._shown}: can't be read as video ({reason}); give a file that ffplay shows"
        )

    def _error(self, message: str) -> CameraLost | CameraUnusable:
        """A stream may be well again the next time, a file will not."""
        return CameraLost(message) if self.live else CameraUnusable(message)

    def _close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def _i420(frame: VideoFrame) -> Picture | None:
    """The decoder's own planes, which an encoder can take as they are; None where their colours mean something else
    than BT.601's in limited range, in other formats and for odd sizes."""
    usual = frame.color_range != ColorRange.JPEG and frame.colorspace in _BT601
    if frame.format.name != "yuv420p" or not usual or frame.width % 2 or frame.height % 2:
        return None
    return Picture(np.ascontiguousarray(frame.to_ndarray()), PixelLayout.I420)
