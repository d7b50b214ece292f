"""Frames through the encoder and back."""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import cv2
import numpy as np
import pytest

from edge.rerun_log.parcel import Parcel
from edge.rerun_log.video import H264Encoder, JpegEncoder, VideoSink
from edge.vision.frame import Frame, Picture, PixelLayout, VideoCodec, VideoPacket
from tests.rerun_log.reading import column

pytestmark = pytest.mark.integration

RED, GREEN, BLUE = (200, 30, 30), (30, 180, 30), (30, 30, 200)


def picture(seq: int, *, width_px: int = 128, height_px: int = 96) -> np.ndarray:
    """Three coloured bars, and a white block that moves with seq."""
    pixels = np.zeros((height_px, width_px, 3), np.uint8)
    for number, colour in enumerate((RED, GREEN, BLUE)):
        pixels[:, number * width_px // 3 : (number + 1) * width_px // 3] = colour
    pixels[8:16, (seq * 4) % (width_px - 8) :][:, :8] = 255
    return pixels


def frames(count: int, *, fps: float = 30.0, **size: int) -> list[Frame]:
    return [
        Frame("front", seq, int(seq * 1e9 / fps), int(seq * 1e9 / fps), Picture(picture(seq, **size), PixelLayout.RGB))
        for seq in range(count)
    ]


def decoded(packets: Sequence[VideoPacket]) -> list[np.ndarray]:
    """RGB pictures, by a decoder that starts at the first packet."""
    decoder = av.CodecContext.create("h264", "r")
    pictures = [each for packet in packets for each in decoder.decode(av.Packet(packet.payload))]
    return [each.to_ndarray(format="rgb24") for each in (*pictures, *decoder.decode(None))]


def shipped(batches: Sequence[Sequence[Frame]], codec: str = "h264") -> list[Parcel]:
    parcels: list[Parcel] = []
    sink = VideoSink(codec, parcels.append)
    for batch in batches:
        sink.write(batch)
    return parcels


def test_h264_gives_every_frame_back_in_its_colours() -> None:
    encoder = H264Encoder()
    sources = frames(40)
    pictures = decoded([encoder.encode(each) for each in sources])
    assert len(pictures) == 40
    for source, found in zip(sources, pictures, strict=True):
        assert cv2.PSNR(source.rgb.pixels, found) > 26
    for number, colour in enumerate((RED, GREEN, BLUE)):
        assert np.abs(pictures[-1][60, 20 + number * 42].astype(int) - colour).max() < 25


def test_a_keyframe_comes_every_second_whatever_the_rate() -> None:
    for fps in (5.0, 30.0):
        encoder = H264Encoder()
        packets = [encoder.encode(each) for each in frames(int(3 * fps), fps=fps)]
        assert [packet.seq / fps for packet in packets if packet.keyframe] == [0, 1, 2]


def test_decoding_can_begin_at_any_keyframe() -> None:
    encoder = H264Encoder()
    packets = [encoder.encode(each) for each in frames(60)]
    assert len(decoded(packets[30:])) == 30


def test_the_cameras_own_planes_are_encoded_as_they_are() -> None:
    source = frames(1)[0]
    planes = cv2.cvtColor(source.rgb.pixels, cv2.COLOR_RGB2YUV_I420)
    grey = Picture(np.zeros((96, 128, 3), np.uint8), PixelLayout.RGB)
    given = Frame("front", 0, 0, 0, grey, video=Picture(planes, PixelLayout.I420))
    assert cv2.PSNR(source.rgb.pixels, decoded([H264Encoder().encode(given)])[0]) > 26
    jpeg = cv2.imdecode(np.frombuffer(JpegEncoder().encode(given).payload, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert cv2.PSNR(source.rgb.pixels, jpeg) > 25


def test_odd_and_changing_sizes_are_encoded() -> None:
    encoder = H264Encoder()
    packets = [encoder.encode(each) for each in (*frames(3, width_px=65, height_px=49), *frames(3))]
    assert [packet.keyframe for packet in packets] == [True, False, False, True, False, False]
    assert [each.shape for each in decoded(packets)] == [(48, 64, 3)] * 3 + [(96, 128, 3)] * 3


def test_jpeg_is_a_picture_each() -> None:
    (parcel,) = shipped([frames(3)], "jpeg")
    assert not parcel.in_order
    for row in column(parcel.chunks[0], "blob"):
        assert cv2.imdecode(np.frombuffer(io.BytesIO(bytes(row[0])).read(), np.uint8), cv2.IMREAD_COLOR).shape == (
            96,
            128,
            3,
        )


def test_parcels_begin_with_keyframes_or_go_on_from_the_one_before() -> None:
    batches = [frames(70)[at : at + 8] for at in range(0, 70, 8)]
    parcels = shipped(batches)
    assert sum(parcel.rows for parcel in parcels) == 70
    assert all(parcel.in_order for parcel in parcels)
    for parcel in parcels:
        keyframes = [bool(row[0]) for row in column(parcel.chunks[0], "is_keyframe")]
        assert keyframes[0] == parcel.keyframe
        assert not any(keyframes[1:])


def test_a_camera_whose_encoder_lags_is_not_encoded_twice() -> None:
    encoder = H264Encoder()
    sources = frames(3)
    packets = [encoder.encode(each) for each in sources]
    lagging = [
        Frame("front", each.seq, each.captured_ns, each.monotonic_ns, each.rgb, packets=tuple(packets[: each.seq][-1:]))
        for each in sources
    ]
    (parcel,) = shipped([lagging])
    assert column(parcel.chunks[0], "frame_idx") == [0, 1]


def test_packets_of_a_camera_with_its_own_encoder_pass_untouched() -> None:
    encoder = H264Encoder()
    sources = frames(3)
    packets = [encoder.encode(each) for each in sources]
    own = [
        Frame("front", each.seq, each.captured_ns, each.monotonic_ns, each.rgb, packets=(packet,))
        for each, packet in zip(sources, packets, strict=True)
    ]
    (parcel,) = shipped([own])
    assert [bytes(row[0]) for row in column(parcel.chunks[0], "sample")] == [packet.payload for packet in packets]
    assert packets[0].codec is VideoCodec.H264
