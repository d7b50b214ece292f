"""Frames as encoded video in Rerun."""

from __future__ import annotations

import logging
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import rerun as rr
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from rerun.chunk import Chunk

from edge import jpeg
from edge.config import KbitRate, RerunConfig
from edge.logs import FaultLog
from edge.privacy import Shows
from edge.rerun_log.colour import Bt709
from edge.rerun_log.entities import time_columns, video_entity
from edge.rerun_log.parcel import Parcel
from edge.stats import DropCause, Stats
from edge.vision.frame import EncodedFrame, Filmed, Frame, Picture, PixelLayout, UInt8Array, VideoCodec, VideoPacket

log = logging.getLogger(__name__)

_TOLD_FPS = 30
"""What x264 takes for the frame rate. Without look-ahead it goes by that alone to hold a cap, and never looks at
pictures' times: a camera of 5 frames/s, told 30, got 195 kbit/s of 1000."""

_BUFFER_S = 1.0
"""So much of the cap may come at once (the buffer of ITU-T H.264, annex C). Each group's keyframe has to fit in: with
half a second, one of 28 kB took quality from a clip that stays below the cap. With more than a second, what a thin line
gets at once would delay what follows by as much."""

_SOONEST_NS = 1_000_000_000
"""A keyframe that is asked for comes no sooner after the one before: however many receivers ask, and however often, it
is never more than what `rerun.keyframe_s` is by default."""

_SLOWER_FOR = 5
"""So many groups in a row make a lower rate one that lasts."""

_MOST_KBIT_S = 2_000_000
"""What x264 can count."""


class H264Encoder:
    """x264 at its fastest, without look-ahead: a frame in, its packet out.

    Quality is constant (`rerun.h264_crf`) as long as no more than `rerun.h264_kbit_s` comes of it: in any t seconds at
    most the cap times t + 1. It takes the frame rate as it finds it, which it looks at with each keyframe: a higher one
    at once, a lower one when it lasts. Up to the keyframe after a rise more comes, as much more as the rate has risen.
    """

    codec = VideoCodec.H264

    def __init__(self, rerun: RerunConfig) -> None:
        self._crf = rerun.h264_crf
        self._kbit_s = rerun.h264_kbit_s
        self.keyframe_is_wanted = False
        """Set it to have one soon."""
        self._keyframe_ns = int(rerun.keyframe_s * 1e9)
        self._context: Any = None
        self._size = (0, 0)
        self._planes = np.empty((0, 0), np.uint8)
        self._bt709 = Bt709(0, 0)
        self._period_s = 1 / _TOLD_FPS
        self._rate_is_known = False
        self._slower = 0  # groups in a row whose rate was lower
        self._intervals_ns: list[int] = []
        self._begun_ns = self._due_ns = 0
        self._last_ns = 0

    def encode(self, frame: Frame) -> VideoPacket:
        picture, now_ns = frame.for_people, frame.monotonic_ns
        # 4:2:0 has no odd sizes; a lost row or column is invisible, a scaled picture isn't.
        size = (picture.width_px & ~1, picture.height_px & ~1)
        # A time that goes back is another camera's, of whose picture this one's is no continuation.
        other = size != self._size or now_ns < self._last_ns
        if not other:
            self._intervals_ns.append(now_ns - self._last_ns)
        if keyframe := other or now_ns >= self._next_group_ns:
            self._begin_group(size, now_ns, goes_on=not other)
        self._last_ns = now_ns
        # x264 copies a picture before it encodes it: one more copy on the way, 0.16 ms, can be spared.
        # Of a height that is no multiple of four, PyAV's from_numpy_buffer (18.1) takes two rows away, and the colours
        # of other places.
        made = av.VideoFrame.from_ndarray if size[1] % 4 else av.VideoFrame.from_numpy_buffer
        source = made(self._i420(picture), format="yuv420p")
        source.pts = frame.seq
        if keyframe:
            source.pict_type = PictureType.I
        payload = b"".join(bytes(packet) for packet in self._context.encode(source))
        return VideoPacket(frame.seq, frame.captured_ns, self.codec, keyframe, payload)

    @property
    def _next_group_ns(self) -> int:
        return min(self._due_ns, self._begun_ns + _SOONEST_NS) if self.keyframe_is_wanted else self._due_ns

    def _begin_group(self, size: tuple[int, int], now_ns: int, *, goes_on: bool) -> None:
        """With a keyframe, so an encoder can take another one's place."""
        length_ns = self._keyframe_ns
        period_s = self._period_s
        if goes_on:
            period_s = max(1e-3, statistics.median(self._intervals_ns) / 1e9)  # a pause in between is no rate
        elif self._kbit_s != "unlimited":
            length_ns = min(length_ns, 1_000_000_000)  # by then the rate is known
        if size != self._size or self._is_other_rate(period_s, first=not goes_on):
            self._context = _x264(size, self._crf, self._kbit_s, period_s)
            self._planes = np.empty((size[1] * 3 // 2, size[0]), np.uint8)
            self._bt709 = Bt709(*size)
            self._size, self._period_s, self._slower = size, period_s, 0
        self._intervals_ns.clear()
        self._begun_ns, self._due_ns = now_ns, now_ns + length_ns
        self.keyframe_is_wanted = False

    def _is_other_rate(self, period_s: float, *, first: bool) -> bool:
        """Whether the cap wants another context. Each begins with a buffer to spare, so a rate that goes up and down
        must not bring one every time: a slower one, which gets less than it may, has to last."""
        if self._kbit_s == "unlimited" or first:
            return False
        ratio = period_s / self._period_s
        self._slower = self._slower + 1 if ratio > 1.25 else 0
        known, self._rate_is_known = self._rate_is_known, True
        return ratio < 0.8 or self._slower >= (_SLOWER_FOR if known else 1)

    def _i420(self, picture: Picture) -> UInt8Array:
        """(height * 3 / 2, width) of the encoder's size, in BT.709; good until the next picture."""
        if picture.layout is PixelLayout.I420:
            return self._bt709(picture.pixels)
        # cv2 does this in 0.1 to 0.2 ms where the encoder's own conversion takes 0.7 ms.
        width_px, height_px = self._size
        rgb = picture.pixels[:height_px, :width_px]
        cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420, dst=self._planes)
        return self._bt709(self._planes)


class JpegEncoder:
    """Each frame alone, at many times the bytes of H.264."""

    codec = VideoCodec.JPEG

    def __init__(self, rerun: RerunConfig) -> None:
        self._quality = rerun.jpeg_quality
        self.keyframe_is_wanted = False
        """They all are."""

    def encode(self, frame: Frame) -> VideoPacket:
        payload = jpeg.encode(frame.for_people, self._quality)
        return VideoPacket(frame.seq, frame.captured_ns, self.codec, True, payload)


class WholeGroups:
    """Of one camera's packets those that can be decoded: after a hole, and at the beginning, none before a keyframe.

    Where a frame is missing its packets are. What follows refers to them, up to the end of the group.
    """

    def __init__(self) -> None:
        self._next_seq = -1
        self._is_broken = True

    def take(self, frame: EncodedFrame) -> list[VideoPacket]:
        """Those of the next frame that came through."""
        self._is_broken |= frame.seq != self._next_seq
        self._next_seq = frame.seq + 1
        whole: list[VideoPacket] = []
        for packet in frame.packets:
            self._is_broken &= not packet.keyframe
            if not self._is_broken:
                whole.append(packet)
        return whole


class VideoSink:
    """Encodes frames, or passes on what a camera has encoded itself, and hands the chunks to `put`.

    A frame that does not get here leaves no more than a gap in what is encoded here: the next one refers to the last
    one that was. Of what a camera has encoded it takes the rest of its group with it.
    """

    def __init__(self, rerun: RerunConfig, put: Callable[[Parcel], None], stats: Stats) -> None:
        self._rerun = rerun
        self._put = put
        self._stats = stats
        self._encoders: dict[str, H264Encoder | JpegEncoder] = {}
        self._groups: dict[str, WholeGroups] = {}
        self._faults: defaultdict[str, FaultLog] = defaultdict(lambda: FaultLog(log))
        self._wanted = self._ordered = 0

    def want_keyframes(self) -> None:
        """Have every camera's next group begin soon, if it is encoded here. From any thread."""
        self._wanted += 1  # that two threads count as one matters not: it is another number than before

    def write(self, batch: Sequence[Filmed]) -> None:
        of_cameras: dict[str, list[Filmed]] = {}
        for filmed in batch:
            of_cameras.setdefault(filmed.camera, []).append(filmed)
        if self._ordered != (wanted := self._wanted):
            self._ordered = wanted
            for encoder in self._encoders.values():
                encoder.keyframe_is_wanted = True
        try:
            for camera, films in of_cameras.items():
                for run in _runs(self._encoded(camera, films)):
                    self._put(self._parcel(video_entity(camera), run))
        except BaseException:
            # Some of what is encoded got nowhere, and what comes next would refer to it.
            self._begin_anew()
            raise

    def close(self, timeout_s: float) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        """With keyframes."""
        self._encoders.clear()
        self._groups.clear()

    def _encoded(self, camera: str, films: Sequence[Filmed]) -> list[VideoPacket]:
        """None where that can't be: it is told and counted, and other cameras' pictures go on."""
        try:
            packets = [packet for filmed in films for packet in self._packets(filmed)]
        except (av.FFmpegError, cv2.error) as error:
            self._encoders.pop(camera, None)
            self._faults[camera].failed("camera %s: its pictures can't be encoded: %s", camera, error)
            self._stats.dropped("rerun video", DropCause.SINK_FAILED, len(films))
            return []
        self._faults[camera].worked("camera %s: its pictures are encoded again", camera)
        return packets

    def _packets(self, filmed: Filmed) -> Sequence[VideoPacket]:
        # Another camera of the same name may encode by itself, or no more.
        if isinstance(filmed, Frame):
            self._groups.pop(filmed.camera, None)
            encoder = self._encoders.get(filmed.camera)
            if encoder is None:
                encoder = self._encoders[filmed.camera] = _encoder(self._rerun)
            return [encoder.encode(filmed)]
        self._encoders.pop(filmed.camera, None)
        whole = self._groups.setdefault(filmed.camera, WholeGroups()).take(filmed)
        self._stats.dropped("rerun video", DropCause.BROKEN_GROUP, len(filmed.packets) - len(whole))
        return whole

    def _parcel(self, entity: str, run: Sequence[VideoPacket]) -> Parcel:
        indexes = time_columns([packet.seq for packet in run], [packet.captured_ns for packet in run])
        payloads = [packet.payload for packet in run]
        in_order = run[0].codec is VideoCodec.H264
        if in_order:
            keyframes = [packet.keyframe for packet in run]
            columns = [
                rr.ComponentColumn(rr.VideoStream.descriptor_sample(), rr.components.VideoSampleBatch(payloads)),
                rr.ComponentColumn(rr.VideoStream.descriptor_is_keyframe(), rr.components.IsKeyframeBatch(keyframes)),
            ]
        else:
            columns = [*rr.EncodedImage.columns(blob=payloads, media_type=["image/jpeg"] * len(run))]
        return Parcel(
            entity=entity,
            chunks=(Chunk.from_columns(entity, indexes, columns),),
            rows=len(run),
            in_order=in_order,
            keyframe=run[0].keyframe,
            shows=Shows.PICTURES,
        )


def _runs(packets: Sequence[VideoPacket]) -> list[list[VideoPacket]]:
    """Of one codec each. Those of H.264 begin with a keyframe, but for the first; JPEG stays in one run."""
    runs: list[list[VideoPacket]] = []
    for packet in packets:
        begins = not runs or packet.codec is not runs[-1][-1].codec
        if begins or (packet.keyframe and packet.codec is VideoCodec.H264):
            runs.append([])
        runs[-1].append(packet)
    return runs


def _encoder(rerun: RerunConfig) -> H264Encoder | JpegEncoder:
    return JpegEncoder(rerun) if rerun.video == "jpeg" else H264Encoder(rerun)


def _x264(size: tuple[int, int], crf: int, kbit_s: KbitRate, period_s: float) -> Any:
    """period_s: from one picture to the next, which makes of a cap a second one a picture."""
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height = size
    context.pix_fmt = "yuv420p"
    context.framerate, context.time_base = Fraction(_TOLD_FPS, 1), Fraction(1, _TOLD_FPS)
    context.max_b_frames = 0
    context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
    context.gop_size = 10_000  # keyframes come by time, not by count: cameras' rates differ and change
    context.thread_count = 1
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": str(crf), "forced-idr": "1"}
    # All three, or browsers take the stream for one that does not say.
    context.options |= {"x264-params": "colorprim=bt709:transfer=bt709:colormatrix=bt709"}
    if kbit_s != "unlimited":
        told = min(kbit_s * _TOLD_FPS * period_s, _MOST_KBIT_S)
        # x264 wants room for a picture, and gives one no more than that.
        room = min(kbit_s * max(_BUFFER_S, period_s), _MOST_KBIT_S)
        context.options |= {"maxrate": f"{told:.0f}k", "bufsize": f"{room:.0f}k"}
    return context
