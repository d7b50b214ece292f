"""From the bytes of a driver's buffer to a picture of red, green and blue."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from edge.cameras.children.outlet import Plane
from edge.vision.frame import Picture, PixelLayout, UInt8Array


class UnreadablePictureError(Exception):
    """What the driver has put into the buffer is no picture; the text says why."""


_PACKED: Mapping[str, tuple[int, int | None]] = {
    "RGB": (3, None),
    "BGR": (3, cv2.COLOR_BGR2RGB),
    "RGBX": (4, cv2.COLOR_RGBA2RGB),
    "BGRX": (4, cv2.COLOR_BGRA2RGB),
    "GREY": (1, cv2.COLOR_GRAY2RGB),
    "YUYV": (2, cv2.COLOR_YUV2RGB_YUYV),
    "UYVY": (2, cv2.COLOR_YUV2RGB_UYVY),
}
"""Bytes a pixel, and OpenCV's way to RGB."""

_SEMIPLANAR: Mapping[str, int] = {"NV12": cv2.COLOR_YUV2RGB_NV12, "NV21": cv2.COLOR_YUV2RGB_NV21}

_FFMPEG_PACKED: Mapping[str, str] = {"YUYV": "yuyv422", "UYVY": "uyvy422"}
_YUV = frozenset([*_FFMPEG_PACKED, *_SEMIPLANAR, "I420"])


class ToRgb:
    """The pictures of one camera. Not for several threads at once.

    BT.601 in limited range, what webcams give, is OpenCV's: 0.06 to 0.1 ms for 640x480. Other matrices and full range
    are FFmpeg's, which takes 0.2 ms for planes and 0.8 ms for YUYV.
    """

    def __init__(self) -> None:
        self._converter = VideoReformatter()

    def __call__(self, memory: memoryview, plane: Plane) -> Picture:
        """The picture in `memory` as one that owns its bytes. Raises UnreadablePictureError."""
        content = np.frombuffer(memory[plane.offset : plane.offset + plane.nbytes], np.uint8)
        try:
            return Picture(np.ascontiguousarray(self._rgb(content, plane)), PixelLayout.RGB)
        except (cv2.error, ValueError, TypeError) as error:
            size = f"{plane.width_px}x{plane.height_px}, {plane.nbytes} bytes, {plane.stride_bytes} a row"
            why = " ".join(str(error).split())[:120]
            raise UnreadablePictureError(f"no picture of {plane.format} {size}: {why}") from None

    def _rgb(self, content: UInt8Array, plane: Plane) -> UInt8Array:
        kind = plane.format
        if kind == "JPEG":
            return _decoded(content)
        if kind in _YUV and (plane.matrix != "bt601" or plane.full_range):
            return self._by_ffmpeg(content, plane)
        if kind in _PACKED:
            pixels, way = _rows(content, plane, _PACKED[kind][0]), _PACKED[kind][1]
            # What the array shows is the driver's memory, which others will write to.
            return pixels.copy() if way is None else np.asarray(cv2.cvtColor(pixels, way), np.uint8)
        if kind in _SEMIPLANAR:
            rows = _strided(content, (plane.height_px * 3 // 2, plane.width_px), plane.stride_bytes)
            return np.asarray(cv2.cvtColor(rows, _SEMIPLANAR[kind]), np.uint8)
        if kind == "I420":
            return np.asarray(cv2.cvtColor(i420(content, plane), cv2.COLOR_YUV2RGB_I420), np.uint8)
        raise ValueError("of a format that is unknown here")

    def _by_ffmpeg(self, content: UInt8Array, plane: Plane) -> UInt8Array:
        if packed := _FFMPEG_PACKED.get(plane.format):
            frame = _filled(packed, np.ascontiguousarray(_rows(content, plane, 2)))
        else:
            # PyAV's from_numpy_buffer (18.1) is wrong about other heights: two rows fewer, and colours of other places.
            made = av.VideoFrame.from_ndarray if plane.height_px % 4 else av.VideoFrame.from_numpy_buffer
            frame = made(i420(content, plane), format="yuv420p")
        converted = self._converter.reformat(
            frame,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if plane.matrix == "bt709" else Colorspace.ITU601,
            src_color_range=ColorRange.JPEG if plane.full_range else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return np.asarray(converted.to_ndarray(), np.uint8)


def i420(content: UInt8Array, plane: Plane) -> UInt8Array:
    """(height * 3 / 2, width): planes Y, U, V without gaps, of I420, NV12 or NV21. Both sides are even."""
    width, height, stride = plane.width_px, plane.height_px, plane.stride_bytes
    out = np.empty((height * 3 // 2, width), np.uint8)
    out[:height] = _strided(content, (height, width), stride)
    u, v = out[height:].reshape(2, height // 2, width // 2)
    behind = content[height * stride :]
    if plane.format == "I420":
        chroma_stride = stride // 2
        u[:] = _strided(behind, (height // 2, width // 2), chroma_stride)
        v[:] = _strided(behind[height // 2 * chroma_stride :], (height // 2, width // 2), chroma_stride)
        return out
    pairs = np.ascontiguousarray(_strided(behind, (height // 2, width), stride)).reshape(height // 2, width // 2, 2)
    cv2.split(pairs, [u, v] if plane.format == "NV12" else [v, u])
    return out


def _strided(content: UInt8Array, shape: tuple[int, int], stride_bytes: int) -> UInt8Array:
    """Rows of `shape[1]` bytes, one every `stride_bytes`. Raises TypeError or ValueError where there are too few, or
    they lie over each other, as a driver has them that says 0."""
    if stride_bytes < shape[1]:
        raise ValueError("its rows overlap")
    return np.ndarray(shape, np.uint8, content.data, 0, (stride_bytes, 1))


def _rows(content: UInt8Array, plane: Plane, depth: int) -> UInt8Array:
    """(height, width, depth), or without the last for a depth of 1."""
    if depth == 1:
        return _strided(content, (plane.height_px, plane.width_px), plane.stride_bytes)
    shape = (plane.height_px, plane.width_px, depth)
    if plane.stride_bytes < plane.width_px * depth:
        raise ValueError("its rows overlap")
    return np.ndarray(shape, np.uint8, content.data, 0, (plane.stride_bytes, depth, 1))


def _decoded(content: UInt8Array) -> UInt8Array:
    decoded = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if decoded is None:
        raise ValueError("it can't be decoded")
    return np.asarray(decoded, np.uint8)


def _filled(name: str, packed: UInt8Array) -> av.VideoFrame:
    height, width = packed.shape[:2]
    frame = av.VideoFrame(width, height, name)
    (rows,) = frame.planes
    padded = np.frombuffer(memoryview(rows), np.uint8).reshape(height, rows.line_size)
    padded[:, : width * 2] = packed.reshape(height, width * 2)
    return frame


def for_people(memory: memoryview, plane: Plane, to_rgb: Callable[[memoryview, Plane], Picture]) -> Picture:
    """The picture that people look at: the camera's own planes where an encoder can take them as they are."""
    usual = plane.matrix == "bt601" and not plane.full_range and not plane.width_px % 2 and not plane.height_px % 2
    if plane.format in ("I420", *_SEMIPLANAR) and usual:
        content: Any = np.frombuffer(memory[plane.offset : plane.offset + plane.nbytes], np.uint8)
        try:
            return Picture(i420(content, plane), PixelLayout.I420)
        except (TypeError, ValueError):
            pass  # the other way says what is wrong
    return to_rgb(memory, plane)
