"""A camera's picture and its time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

UInt8Array = NDArray[np.uint8]


class PixelLayout(StrEnum):
    """How the bytes of a picture are arranged."""

    RGB = "rgb"  # (height, width, 3): red, green, blue
    I420 = "i420"  # (height * 3 / 2, width): planes Y, U, V; both sides even


class VideoCodec(StrEnum):
    H264 = "h264"  # Annex B, parameter sets in front of each keyframe
    JPEG = "jpeg"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """Pixels meant for people to look at, in whatever layout the camera has them without a conversion.

    `pixels` is uint8, C-contiguous, and read-only from here on: whoever builds a Picture gives its array away.
    """

    pixels: UInt8Array
    layout: PixelLayout

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
            raise ValueError(f"pixels: expected C-contiguous uint8, got {pixels.dtype} with strides {pixels.strides}")
        if self.layout is PixelLayout.RGB and (pixels.ndim != 3 or pixels.shape[2] != 3):
            raise ValueError(f"rgb pixels: expected shape (height, width, 3), got {pixels.shape}")
        if self.layout is PixelLayout.I420 and (pixels.ndim != 2 or pixels.shape[0] % 3 or pixels.shape[1] % 2):
            raise ValueError(
                f"i420 pixels: expected shape (height * 3 / 2, width), both sides even, got {pixels.shape}"
            )
        pixels.setflags(write=False)

    @property
    def width_px(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height_px(self) -> int:
        rows = int(self.pixels.shape[0])
        return rows if self.layout is PixelLayout.RGB else rows * 2 // 3


@dataclass(frozen=True, slots=True)
class VideoPacket:
    """One encoded picture. `seq` and `captured_ns` are those of the frame that it shows."""

    seq: int
    captured_ns: int
    codec: VideoCodec
    keyframe: bool
    payload: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One capture of one camera.

    seq: counts the camera's captures from 0, without gaps, across reopenings.
    captured_ns: when the light fell, nanoseconds since the Unix epoch. A file's frame n lies its own n / fps after
        the file was opened, at whatever pace it is read.
    monotonic_ns: the same instant on a clock that never steps; strictly increasing. Only differences mean something.
    rgb: what the estimator looks at.
    video: what people look at, where the camera gives a second stream or another layout; else None and `rgb` serves.
    packets: what the camera's own encoder has finished since the frame before, None where it has no encoder. An
        encoder lags, so a packet may show an earlier frame; it carries that frame's seq and time. Of a camera that was
        opened anew the first one is a keyframe.
    shown_seq: the seq of the picture that people look at while this frame is the newest: its own, or an earlier one's
        where not every frame is shown. None is its own.

    Frames own their memory: a source copies out of a driver's buffer before it gives the buffer back.
    """

    camera: str
    seq: int
    captured_ns: int
    monotonic_ns: int
    rgb: Picture
    video: Picture | None = None
    packets: tuple[VideoPacket, ...] | None = None
    shown_seq: int | None = None

    def __post_init__(self) -> None:
        if self.rgb.layout is not PixelLayout.RGB:
            raise ValueError(f"rgb: expected layout rgb, got {self.rgb.layout}")

    @property
    def for_people(self) -> Picture:
        """The picture to record and stream."""
        return self.video or self.rgb

    @property
    def is_shown(self) -> bool:
        return self.shown_seq in (None, self.seq)

    @property
    def nbytes(self) -> int:
        """What its pictures and packets take."""
        pictures = self.rgb.pixels.nbytes + (0 if self.video is None else self.video.pixels.nbytes)
        return pictures + sum(len(packet.payload) for packet in self.packets or ())


@dataclass(frozen=True, slots=True)
class EncodedFrame:
    """What a camera's own encoder had finished by the frame `seq`, without the frame's pictures: those are a hundred
    times as large, and nobody needs them who has this."""

    camera: str
    seq: int
    packets: tuple[VideoPacket, ...]

    @property
    def nbytes(self) -> int:
        return _OBJECT_BYTES + sum(_OBJECT_BYTES + len(packet.payload) for packet in self.packets)


_OBJECT_BYTES = 100

Filmed = Frame | EncodedFrame
"""What people look at: pictures that are still to be encoded, or what their camera has made of them."""


def from_keyframe(packets: tuple[VideoPacket, ...]) -> tuple[VideoPacket, ...]:
    """Those from the first keyframe on."""
    first = next((at for at, packet in enumerate(packets) if packet.keyframe), len(packets))
    return packets[first:]
