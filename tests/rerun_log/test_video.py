"""Frames through the encoder and back."""

from __future__ import annotations

import io
from collections.abc import Sequence

import av
import cv2
import numpy as np
import pytest

from edge.bench.footage import pictures
from edge.config import RerunConfig
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.video import H264Encoder, JpegEncoder, VideoSink
from edge.vision.frame import Frame, Picture, PixelLayout, VideoCodec, VideoPacket
from tests.rerun_log.reading import column

pytestmark = pytest.mark.integration

DEFAULTS = RerunConfig()

RED, GREEN, BLUE = (200, 30, 30), (30, 180, 30), (30, 30, 200)


def picture(seq: int, *, width_px: int = 128, height_px: int = 96) -> np.ndarray:
    """Three coloured bars, and a white block that moves with seq."""
    pixels = np.zeros((height_px, width_px, 3), np.uint8)
    for number, colour in enumerate((RED, GREEN, BLUE)):
        pixels[:, number * width_px // 3 : (number + 1) * width_px // 3] = colour
    pixels[8:16, (seq * 4) % (width_px - 8) :][:, :8] = 255
    return pixels


def film(shots: Sequence[np.ndarray], *, fps: float = 30.0) -> list[Frame]:
    return [
        Frame("front", seq, int(seq * 1e9 / fps), int(seq * 1e9 / fps), Picture(shot, PixelLayout.RGB))
        for seq, shot in enumerate(shots)
    ]


def frames(count: int, *, fps: float = 30.0, **size: int) -> list[Frame]:
    return film([picture(seq, **size) for seq in range(count)], fps=fps)


def decoded(packets: Sequence[VideoPacket]) -> list[np.ndarray]:
    """RGB pictures, by a decoder that starts at the first packet."""
    decoder = av.CodecContext.create("h264", "r")
    pictures = [each for packet in packets for each in decoder.decode(av.Packet(packet.payload))]
    return [each.to_ndarray(format="rgb24") for each in (*pictures, *decoder.decode(None))]


def shipped(batches: Sequence[Sequence[Frame]], rerun: RerunConfig = DEFAULTS) -> list[Parcel]:
    parcels: list[Parcel] = []
    sink = VideoSink(rerun, parcels.append)
    for batch in batches:
        sink.write(batch)
    return parcels


def test_h264_gives_every_frame_back_in_its_colours() -> None:
    encoder = H264Encoder(DEFAULTS)
    sources = frames(40)
    pictures = decoded([encoder.encode(each) for each in sources])
    assert len(pictures) == 40
    for source, found in zip(sources, pictures, strict=True):
        assert cv2.PSNR(source.rgb.pixels, found) > 26
    for number, colour in enumerate((RED, GREEN, BLUE)):
        assert np.abs(pictures[-1][60, 20 + number * 42].astype(int) - colour).max() < 25


def test_a_keyframe_comes_every_second_whatever_the_rate() -> None:
    for fps in (5.0, 30.0):
        encoder = H264Encoder(DEFAULTS)
        packets = [encoder.encode(each) for each in frames(int(3 * fps), fps=fps)]
        assert [packet.seq / fps for packet in packets if packet.keyframe] == [0, 1, 2]


@pytest.mark.parametrize(("keyframe_s", "due_s"), [(0.2, [0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4]), (1.5, [0, 1])])
def test_keyframes_come_as_often_as_configured_the_second_one_after_a_second_at_most(
    keyframe_s: float, due_s: list[float]
) -> None:
    encoder = H264Encoder(RerunConfig(keyframe_s=keyframe_s))
    packets = [encoder.encode(each) for each in frames(48, fps=30.0)]
    assert [packet.seq / 30.0 for packet in packets if packet.keyframe] == due_s


@pytest.mark.parametrize("fps", [0.5, 5.0, 30.0, 60.0])
def test_however_noisy_the_pictures_and_whatever_their_rate_no_more_than_the_cap_comes_of_them(fps: float) -> None:
    cap_kbit_s, chance = 500, np.random.default_rng(0)
    noise = [chance.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(10)]
    encoder = H264Encoder(RerunConfig(h264_kbit_s=cap_kbit_s))
    sources = film([noise[seq % 10] for seq in range(int(10 * fps) or 1)], fps=fps)
    packets = [encoder.encode(each) for each in sources]
    settled = [packet for packet in packets if packet.seq >= max(fps, 2)]  # it knows the rate by then
    kbit = np.array([len(packet.payload) * 8 / 1000 for packet in settled])
    for first in range(len(kbit)):
        came = np.cumsum(kbit[first:])
        over_s = np.arange(1, len(came) + 1) / fps
        assert (came <= cap_kbit_s * (over_s + max(1.0, 1 / fps)) * 1.03).all()
    of_the_cap = kbit.sum() / (cap_kbit_s * len(settled) / fps)
    assert of_the_cap > (0.6 if fps >= 5 else 0.3), "what may be used is used"


def test_below_the_cap_it_changes_nothing() -> None:
    sources = film(pictures())
    found = {}
    for kbit_s in (1500, "unlimited"):
        encoder = H264Encoder(RerunConfig(h264_kbit_s=kbit_s))
        packets = [encoder.encode(each) for each in sources]
        nearness = [cv2.PSNR(source.rgb.pixels, each) for source, each in zip(sources, decoded(packets), strict=True)]
        found[kbit_s] = np.mean(nearness), sum(len(packet.payload) for packet in packets)
    assert found[1500] == pytest.approx(found["unlimited"], rel=0.01)


def test_quality_is_as_configured() -> None:
    (source,) = film(pictures()[:1])
    crf = [len(H264Encoder(RerunConfig(h264_crf=crf)).encode(source).payload) for crf in (18, 26, 40)]
    jpeg = [len(JpegEncoder(RerunConfig(jpeg_quality=quality)).encode(source).payload) for quality in (95, 75, 30)]
    for sizes in (crf, jpeg):
        assert sizes[0] > 1.5 * sizes[1] > 2 * sizes[2]


def test_decoding_can_begin_at_any_keyframe() -> None:
    encoder = H264Encoder(DEFAULTS)
    packets = [encoder.encode(each) for each in frames(60)]
    assert len(decoded(packets[30:])) == 30


def test_the_cameras_own_planes_are_encoded_as_they_are() -> None:
    source = frames(1)[0]
    planes = cv2.cvtColor(source.rgb.pixels, cv2.COLOR_RGB2YUV_I420)
    grey = Picture(np.zeros((96, 128, 3), np.uint8), PixelLayout.RGB)
    given = Frame("front", 0, 0, 0, grey, video=Picture(planes, PixelLayout.I420))
    assert cv2.PSNR(source.rgb.pixels, decoded([H264Encoder(DEFAULTS).encode(given)])[0]) > 26
    jpeg = cv2.imdecode(np.frombuffer(JpegEncoder(DEFAULTS).encode(given).payload, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert cv2.PSNR(source.rgb.pixels, jpeg) > 25


def test_odd_and_changing_sizes_are_encoded() -> None:
    encoder = H264Encoder(DEFAULTS)
    packets = [encoder.encode(each) for each in (*frames(3, width_px=65, height_px=49), *frames(3))]
    assert [packet.keyframe for packet in packets] == [True, False, False, True, False, False]
    assert [each.shape for each in decoded(packets)] == [(48, 64, 3)] * 3 + [(96, 128, 3)] * 3


def test_jpeg_is_a_picture_each() -> None:
    (parcel,) = shipped([frames(3)], RerunConfig(video="jpeg"))
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
    encoder = H264Encoder(DEFAULTS)
    sources = frames(3)
    packets = [encoder.encode(each) for each in sources]
    lagging = [
        Frame("front", each.seq, each.captured_ns, each.monotonic_ns, each.rgb, packets=tuple(packets[: each.seq][-1:]))
        for each in sources
    ]
    (parcel,) = shipped([lagging])
    assert column(parcel.chunks[0], "frame_idx") == [0, 1]


def test_packets_of_a_camera_with_its_own_encoder_pass_untouched() -> None:
    encoder = H264Encoder(DEFAULTS)
    sources = frames(3)
    packets = [encoder.encode(each) for each in sources]
    own = [
        Frame("front", each.seq, each.captured_ns, each.monotonic_ns, each.rgb, packets=(packet,))
        for each, packet in zip(sources, packets, strict=True)
    ]
    (parcel,) = shipped([own])
    assert [bytes(row[0]) for row in column(parcel.chunks[0], "sample")] == [packet.payload for packet in packets]
    assert packets[0].codec is VideoCodec.H264
