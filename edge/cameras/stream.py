"""Video files and network streams, decoded by FFmpeg's libraries through PyAV."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

import av
import av.logging
import cv2
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, VideoReformatter
from av.video.stream import VideoStream

from edge.addresses import without_credentials
from edge.cameras.arrival import Arrivals, Backlog
from edge.clocks import CaptureClock, Clock
from edge.errors import CameraError, CameraLost, CameraUnusable
from edge.interfaces import EndOfStream
from edge.logs import FaultLog, of_camera
from edge.pacing import Deadline
from edge.vision.frame import Frame, Picture, PixelLayout, UInt8Array

log = logging.getLogger(__name__)

OPEN_TIMEOUT_S = 10.0
SILENCE_TIMEOUT_S = 3.0
"""A network stream that sends nothing for so long counts as lost."""

_LIVE_OPTIONS = {
    "rtsp_transport": "tcp",
    # Else FFmpeg watches the first 5 s to find the frame rate, which nobody asks it for, and then gives them at once.
    "fpsprobesize": "0",
}

_BACKLOG_MOST_NS = 2_000_000_000
"""For so long after it was opened, a stream's pictures may come at once because they have waited."""

_REORDERED = 32
"""A frame's packet is no further back than this."""

_PARSED = ("h264", "hevc", "mpeg4")
"""Of these, an RTP stream's picture is known to be complete when the first packet of the next one has come."""

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
        self._told = ""
        self._clock = CaptureClock()
        self._opened_ns = 0
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
        try:
            stream = self._open()
        except CameraError:
            self._close()
            raise
        self._opened_ns = self._clock.open()
        self._decoded = self._received(stream) if self.live else self._decode()
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
        decoded, time_ns = self._waiting
        if self.live:
            instant = self._clock.at(time_ns, Clock.MONOTONIC)
        else:
            early_s = (self._opened_ns + time_ns - time.monotonic_ns()) / 1e9
            if self._paced and early_s > 0:
                time.sleep(min(early_s, timeout_s))
                if early_s > timeout_s:
                    return None
            instant = self._clock.media(time_ns)
        self._waiting = None
        video = _i420(decoded)
        frame = Frame(
            camera=self._camera,
            seq=self._seq,
            captured_ns=instant.captured_ns,
            monotonic_ns=instant.monotonic_ns,
            rgb=Picture(self._rgb(decoded, video), PixelLayout.RGB),
            video=video,
        )
        self._seq += 1
        return frame

    def _rgb(self, decoded: VideoFrame, i420: Picture | None) -> UInt8Array:
        # OpenCV is off by 0.3 of 255 in the mean, FFmpeg by 1.3, always to the dark side. Cameras behind a driver go
        # the same way, so that the same planes give the same picture. Both take 0.1 ms.
        if i420 is not None:
            return np.asarray(cv2.cvtColor(i420.pixels, cv2.COLOR_YUV2RGB_I420), np.uint8)
        # VideoFrame.to_ndarray makes a new converter for each frame, with threads: 0.44 ms of CPU instead of 0.15.
        converted = self._converter.reformat(decoded, format="rgb24", threads=1)
        return np.ascontiguousarray(converted.to_ndarray(), np.uint8)

    def _open(self) -> VideoStream:
        """Open the file or stream anew, and its first video track. Raises CameraLost or CameraUnusable."""
        self._close()
        if self.live:
            self._container = self._connected()
        else:
            try:
                self._container = av.open(f"file:{self._location}")  # without it, a colon would make it a protocol
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

    def _connected(self) -> InputContainer:
        try:
            _resolve(self._location, OPEN_TIMEOUT_S)
        except OSError as error:
            raise self._trouble(error) from None
        begun_s = time.monotonic()
        try:
            # These time-outs are PyAV's, and hold for whatever FFmpeg waits for but the look-up of a name.
            return av.open(self._location, timeout=(OPEN_TIMEOUT_S, SILENCE_TIMEOUT_S), options=_LIVE_OPTIONS)
        except (av.FFmpegError, OSError) as error:
            if time.monotonic() - begun_s >= OPEN_TIMEOUT_S:  # which FFmpeg takes for invalid data
                raise self._error(f"{self._shown}: no picture within {OPEN_TIMEOUT_S:g} s") from None
            raise self._trouble(error) from None

    def _received(self, stream: VideoStream) -> Iterator[tuple[VideoFrame, int] | None]:
        """Each frame with the time.monotonic_ns of its capture; None for what is left out."""
        assert self._container is not None, "frames come of an open container"
        self._tell(stream)
        arrivals, backlog = Arrivals(), Backlog(_BACKLOG_MOST_NS)
        is_held_back = self._container.format.name == "rtsp" and stream.codec_context.name in _PARSED
        begins: deque[tuple[int | None, int]] = deque(maxlen=_REORDERED)
        before_ns = 0
        decodable = False
        for packet, came_ns, frames in self._packets(stream):
            # What made FFmpeg give the picture before was this one's first packet.
            begins.append((packet.pts, before_ns if is_held_back and before_ns else came_ns))
            before_ns = came_ns
            if not frames:
                yield None
            for frame in frames:
                decodable = True
                arrived_ns = next((at_ns for pts, at_ns in reversed(begins) if pts == frame.pts), came_ns)
                stamp_ns = _stamp_ns(frame)
                captured_ns = arrivals.captured_ns(stamp_ns, arrived_ns)
                yield None if backlog.holds(stamp_ns, arrived_ns) else (frame, captured_ns)
        if not decodable:
            raise self._error(f"{self._shown}: no picture in it can be decoded; give a stream that ffplay shows")

    def _tell(self, stream: VideoStream) -> None:
        """What has been opened; once, and again when it is something else than before."""
        codec = stream.codec_context
        told = f"{codec.name} {codec.width}x{codec.height}" if codec.width else codec.name
        level = logging.DEBUG if told == self._told else logging.INFO
        of_camera(log, self._camera).log(level, "camera %s: %s, %s", self._camera, self._shown, told)
        self._told = told

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
            if not self._loop:
                return
            lap_ns = media_ns + period_ns
            self._open()  # rather than seek: raw H.264 and pipes can't

    def _lap(self, lap_ns: int) -> Iterator[tuple[VideoFrame, int, int] | None]:
        """The open container's frames from its beginning to its end: frame, time counted from `lap_ns`, period; None
        for a packet that can't be decoded."""
        assert self._container is not None, "a lap runs on an open container"
        stream = self._container.streams.video[0]
        period_ns = int(1e9 / (stream.average_rate or 30))
        first_ns: int | None = None
        media_ns = lap_ns - period_ns
        for _, _, frames in self._packets(stream):
            if not frames:
                yield None
            for frame in frames:
                stamp_ns = _stamp_ns(frame)
                if stamp_ns is None:
                    media_ns += period_ns
                else:
                    first_ns = stamp_ns if first_ns is None else first_ns
                    media_ns = max(lap_ns + stamp_ns - first_ns, media_ns + 1)
                yield frame, media_ns, period_ns

    def _packets(self, stream: VideoStream) -> Iterator[tuple[Packet[VideoStream], int, list[VideoFrame]]]:
        """The open container's packets from its beginning to its end, each with the time.monotonic_ns at which it came
        and the frames that it completes: none where it can't be decoded. Raises av.FFmpegError."""
        assert self._container is not None, "packets come of an open container"
        undecodable = 0
        for packet in self._container.demux(stream):
            came_ns = time.monotonic_ns()
            try:
                frames = packet.decode()
            except av.InvalidDataError as error:
                undecodable += 1
                reason = error.strerror or error
                self._faults.failed("camera %s: a packet can't be decoded, going on: %s", self._camera, reason)
                if undecodable > _UNDECODABLE_MOST:
                    raise
                frames = []
            else:
                undecodable = 0 if frames else undecodable
            yield packet, came_ns, frames

    @property
    def _shown(self) -> str:
        return without_credentials(self._location)

    def _trouble(self, error: Exception) -> CameraLost | CameraUnusable:
        if isinstance(error, av.ExitError):
            return self._error(f"{self._shown}: nothing came for {SILENCE_TIMEOUT_S:g} s")
        reason = without_credentials(getattr(error, "strerror", None) or str(error))
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


def _stamp_ns(frame: VideoFrame) -> int | None:
    """The stream's own time, counted from anywhere."""
    return None if frame.pts is None or frame.time_base is None else int(frame.pts * frame.time_base * 1_000_000_000)


def _resolve(location: str, timeout_s: float) -> None:
    """Look up the name of the address's host. Raises OSError with the reason when nobody knows it within `timeout_s`.

    FFmpeg's own look-up takes what the resolver takes, up to minutes, and calls its failure an input/output error. A
    process can be cut off; the answer it has got comes at once when FFmpeg asks.
    """
    try:
        host = urlsplit(location).hostname or ""
    except ValueError:
        return  # FFmpeg may understand it
    getent = shutil.which("getent")
    if getent is None or not re.fullmatch(r"[\w.-]*[^\W\d][\w.-]*", host):  # an IP address, or odd
        return
    try:
        found = subprocess.run([getent, "ahosts", host], capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise OSError(f"its host's name is not known after {timeout_s:g} s; is the name server up?") from None
    if found.returncode:
        raise OSError("its host's name is not known; mend it, or give the IP address")


def _i420(frame: VideoFrame) -> Picture | None:
    """The decoder's own planes, which an encoder can take as they are; None where their colours mean something else
    than BT.601's in limited range, in other formats and for odd sizes."""
    usual = frame.color_range != ColorRange.JPEG and frame.colorspace in _BT601
    if frame.format.name != "yuv420p" or not usual or frame.width % 2 or frame.height % 2:
        return None
    return Picture(np.ascontiguousarray(frame.to_ndarray()), PixelLayout.I420)
