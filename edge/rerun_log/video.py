"""Frames as encoded video in Rerun."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, Literal

import av
import cv2
import numpy as np
import rerun as rr
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace
from rerun.chunk import Chunk

from edge import jpeg
from edge.rerun_log.entities import time_columns, video_entity
from edge.rerun_log.parcel import Parcel
from edge.vision.frame import Frame, Picture, PixelLayout, UInt8Array, VideoCodec, VideoPacket

KEYFRAME_EVERY_NS = 1_000_000_000
"""A viewer that joins sees nothing until the next keyframe."""


class H264Encoder:
    """x264 at its fastest, without look-ahead: a frame in, its packet out."""

    codec = VideoCodec.H264

    def __init__(self) -> None:
        self._context: Any = None
        self._size = (0, 0)
        self._planes = np.empty((0, 0), np.uint8)
        self._keyframe_due_ns = 0
        self._last_ns = 0

    def encode(self, frame: Frame) -> VideoPacket:
        picture = frame.for_people
        # 4:2:0 has no odd sizes; a lost row or column is invisible, a scaled picture isn't.
        size = (picture.width_px & ~1, picture.height_px & ~1)
        if size != self._size:
            self._context, self._size, self._keyframe_due_ns = _x264(*size), size, 0
            self._planes = np.empty((size[1] * 3 // 2, size[0]), np.uint8)
        # x264 copies a picture before it encodes it: one more copy on the way, 0.16 ms, can be spared.
        source = av.VideoFrame.from_numpy_buffer(self._i420(picture), format="yuv420p")
        source.pts = frame.seq
        # A time that goes back is another camera's, of whose picture this one's is no continuation.
        keyframe = frame.monotonic_ns >= self._keyframe_due_ns or frame.monotonic_ns < self._last_ns
        self._last_ns = frame.monotonic_ns
        if keyframe:
            source.pict_type = PictureType.I
            self._keyframe_due_ns = frame.monotonic_ns + KEYFRAME_EVERY_NS
        payload = b"".join(bytes(packet) for packet in self._context.encode(source))
        return VideoPacket(frame.seq, frame.captured_ns, self.codec, keyframe, payload)

    def _i420(self, picture: Picture) -> UInt8Array:
        """(height * 3 / 2, width) of the encoder's size; good until the next picture."""
        if picture.layout is PixelLayout.I420:
            return picture.pixels
        # cv2 does this in 0.1 to 0.2 ms where the encoder's own conversion takes 0.7 ms.
        width_px, height_px = self._size
        rgb = picture.pixels[:height_px, :width_px]
        return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420, dst=self._planes), np.uint8)


class JpegEncoder:
    """Each frame alone, at seven times the bytes of H.264."""

    codec = VideoCodec.JPEG

    def encode(self, frame: Frame) -> VideoPacket:
        return VideoPacket(frame.seq, frame.captured_ns, self.codec, True, jpeg.encode(frame.for_people))


class VideoSink:
    """Encodes frames, or passes on what a camera has encoded itself, and hands the chunks to `put`."""

    def __init__(self, codec: Literal["h264", "jpeg"], put: Callable[[Parcel], None]) -> None:
        self._new_encoder = H264Encoder if codec == "h264" else JpegEncoder
        self._put = put
        self._encoders: dict[str, H264Encoder | JpegEncoder] = {}

    def write(self, batch: Sequence[Frame]) -> None:
        packets: dict[str, list[VideoPacket]] = {}
        for frame in batch:
            if frame.packets is not None:
                packets.setdefault(frame.camera, []).extend(frame.packets)
            else:
                encoder = self._encoders.get(frame.camera)
                if encoder is None:
                    encoder = self._encoders[frame.camera] = self._new_encoder()
                packets.setdefault(frame.camera, []).append(encoder.encode(frame))
        for camera, of_camera in packets.items():
            for run in _split_at_keyframes(of_camera):
                self._put(self._parcel(video_entity(camera), run))

    def close(self, timeout_s: float) -> None:
        self._encoders.clear()

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
        )


def _split_at_keyframes(packets: Sequence[VideoPacket]) -> list[list[VideoPacket]]:
    """Runs of H.264 that begin with a keyframe, but for the first; JPEG stays in one run."""
    runs: list[list[VideoPacket]] = []
    for packet in packets:
        if not runs or (packet.keyframe and packet.codec is VideoCodec.H264):
            runs.append([])
        runs[-1].append(packet)
    return runs


def _x264(width_px: int, height_px: int) -> Any:
    context: Any = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = width_px, height_px, "yuv420p"
    context.framerate, context.time_base = Fraction(30, 1), Fraction(1, 30)
    context.max_b_frames = 0
    context.colorspace, context.color_range = Colorspace.ITU601, ColorRange.MPEG  # what both ways to I420 give
    context.gop_size = 10_000  # keyframes come by time, not by count: cameras' rates differ and change
    context.thread_count = 1
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "26", "forced-idr": "1"}
    return context
