"""Frames through the encoder and back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest
from av.video.reformatter import ColorPrimaries, ColorRange, Colorspace, ColorTrc
from hypothesis import given
from hypothesis import strategies as st

from edge.bench.footage import pictures
from edge.config import RerunConfig
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.video import H264Encoder, JpegEncoder, VideoSink, WholeGroups
from edge.stats import DropCause, Stats
from edge.vision.frame import EncodedFrame, Filmed, Frame, Picture, PixelLayout, VideoCodec, VideoPacket
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


def encoded(sources: Sequence[Frame], *, keyframe_s: float = 1.0) -> list[VideoPacket]:
    encoder = H264Encoder(RerunConfig(keyframe_s=keyframe_s))
    return [encoder.encode(each) for each in sources]


def decoded(packets: Sequence[VideoPacket]) -> list[np.ndarray]:
    """RGB pictures, by a decoder that starts at the first packet."""
    decoder = av.CodecContext.create("h264", "r")
    pictures = [each for packet in packets for each in decoder.decode(av.Packet(packet.payload))]
    return [each.to_ndarray(format="rgb24") for each in (*pictures, *decoder.decode(None))]


def shipped(
    batches: Sequence[Sequence[Filmed]], rerun: RerunConfig = DEFAULTS, stats: Stats | None = None
) -> list[Parcel]:
    parcels: list[Parcel] = []
    sink = VideoSink(rerun, parcels.append, stats or Stats([]))
    for batch in batches:
        sink.write(batch)
    return parcels


@pytest.mark.parametrize("height_px", [96, 98])  # as four times a number, and as a crop may be
def test_h264_gives_every_frame_back_in_its_colours(height_px: int) -> None:
    encoder = H264Encoder(DEFAULTS)
    sources = frames(40, height_px=height_px)
    pictures = decoded([encoder.encode(each) for each in sources])
    assert len(pictures) == 40
    for source, found in zip(sources, pictures, strict=True):
        assert cv2.PSNR(source.rgb.pixels, found) > 26
    for number, colour in enumerate((RED, GREEN, BLUE)):
        assert np.abs(pictures[-1][60, 20 + number * 42].astype(int) - colour).max() < 25


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (224, 172, 105)])
def test_red_is_red_for_who_goes_by_the_tags_and_for_who_takes_every_stream_for_bt709(
    colour: tuple[int, int, int],
) -> None:
    (packet,) = encoded(film([np.full((96, 128, 3), colour, np.uint8)]))
    (found,) = av.CodecContext.create("h264", "r").decode(av.Packet(packet.payload))
    assert (found.colorspace, found.color_range) == (Colorspace.ITU709, ColorRange.MPEG)
    assert (found.color_primaries, found.color_trc) == (ColorPrimaries.BT709, ColorTrc.BT709)
    assert np.abs(found.to_ndarray(format="rgb24")[48, 64].astype(int) - colour).max() <= 4


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


def test_a_keyframe_that_is_wanted_comes_with_the_next_picture_but_no_sooner_than_a_second_after_the_last() -> None:
    parcels: list[Parcel] = []
    sink = VideoSink(RerunConfig(keyframe_s=10), parcels.append, Stats([]))
    for each in frames(200, width_px=64, height_px=48):
        if each.seq in (35, 36, 100, 130, 131):
            sink.want_keyframes()
        sink.write([each])
    found = [seq for parcel in parcels if parcel.keyframe for seq in column(parcel.chunks[0], "frame_idx")]
    assert found == [0, 30, 60, 100, 130, 160]


@pytest.mark.parametrize("fps", [0.5, 5.0, 30.0, 60.0])
def test_however_noisy_the_pictures_and_whatever_their_rate_no_more_than_the_cap_comes_of_them(fps: float) -> None:
    cap_kbit_s, chance = 200, np.random.default_rng(0)
    noise = [chance.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(10)]
    encoder = H264Encoder(RerunConfig(h264_kbit_s=cap_kbit_s, h264_crf=18))
    sources = film([noise[seq % 10] for seq in range(int(10 * fps) or 1)], fps=fps)
    packets = [encoder.encode(each) for each in sources]
    settled = [packet for packet in packets if packet.seq >= max(fps, 2)]  # it knows the rate by then
    kbit = np.array([len(packet.payload) * 8 / 1000 for packet in settled])
    for first in range(len(kbit)):
        came = np.cumsum(kbit[first:])
        over_s = np.arange(1, len(came) + 1) / fps
        assert (came <= cap_kbit_s * (over_s + max(1.0, 1 / fps)) * 1.03).all()
    of_the_cap = kbit.sum() / (cap_kbit_s * len(settled) / fps)
    assert of_the_cap > 0.6, "what may be used is used"


@pytest.mark.parametrize(("slow", "fast", "each_s"), [(20.0, 30.0, 1), (10.0, 30.0, 2), (5.0, 30.0, 3)])
def test_a_rate_that_goes_up_and_down_takes_no_more_than_the_cap_in_the_long_run(
    slow: float, fast: float, each_s: int
) -> None:
    cap_kbit_s, chance = 500, np.random.default_rng(0)
    noise = [chance.integers(0, 256, (240, 320, 3), np.uint8) for _ in range(10)]
    encoder = H264Encoder(RerunConfig(h264_kbit_s=cap_kbit_s))
    at_s, kbit, seq = 0.0, 0.0, 0
    while at_s < 24:
        source = replace(film([noise[seq % 10]])[0], seq=seq, monotonic_ns=int(at_s * 1e9))
        kbit += len(encoder.encode(source).payload) / 125
        at_s += 1 / (fast if int(at_s / each_s) % 2 else slow)
        seq += 1
    # The one rise for which it was not prepared comes on top.
    assert kbit <= cap_kbit_s * (24 + 1 + fast / slow)


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
    packets = encoded(frames(3))
    lagging = [EncodedFrame("front", seq, tuple(packets[:seq][-1:])) for seq in range(3)]
    (parcel,) = shipped([lagging])
    assert column(parcel.chunks[0], "frame_idx") == [0, 1]


def test_packets_of_a_camera_with_its_own_encoder_pass_untouched() -> None:
    packets = encoded(frames(3))
    (parcel,) = shipped([[EncodedFrame("front", packet.seq, (packet,)) for packet in packets]])
    assert [bytes(row[0]) for row in column(parcel.chunks[0], "sample")] == [packet.payload for packet in packets]
    assert packets[0].codec is VideoCodec.H264


def samples(parcels: Sequence[Parcel]) -> dict[int, bytes]:
    """By frame_idx, in the order in which they are logged."""
    return {
        seq: bytes(row[0])
        for parcel in parcels
        for seq, row in zip(column(parcel.chunks[0], "frame_idx"), column(parcel.chunks[0], "sample"), strict=True)
    }


def pictures_of(logged: dict[int, bytes]) -> dict[int, np.ndarray]:
    """What one decoder makes of what is logged, one sample after the other."""
    packets = [VideoPacket(seq, 0, VideoCodec.H264, False, sample) for seq, sample in logged.items()]
    return dict(zip(logged, decoded(packets), strict=True))


def furthest(sources: Sequence[Frame], found: dict[int, np.ndarray]) -> float:
    """PSNR in dB of that picture which is least like its source."""
    return min(cv2.PSNR(sources[seq].rgb.pixels, each) for seq, each in found.items())


def test_a_camera_whose_pictures_can_not_be_encoded_is_told_and_harms_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    parcels: list[Parcel] = []
    stats = Stats([])
    sink = VideoSink(DEFAULTS, parcels.append, stats)
    speck = [replace(each, camera="speck") for each in film([np.zeros((1, 2, 3), np.uint8)] * 6)]
    good = frames(6)
    for each in zip(speck, good, strict=True):
        sink.write(each)
    assert [parcel.rows for parcel in parcels] == [1] * 6
    assert {parcel.entity for parcel in parcels} == {"/camera/front/video"}
    assert [parcel.keyframe for parcel in parcels] == [True, *[False] * 5], "its encoder goes on"
    assert stats.drops() == {("rerun video", DropCause.SINK_FAILED): 6}
    assert caplog.text.count("camera speck: its pictures can't be encoded") == 1


class TestGroups:
    """What is left of groups of pictures that a camera has encoded itself, when some of its frames do not come."""

    @given(
        keyframes=st.lists(st.booleans(), min_size=1, max_size=60),
        lag=st.integers(0, 3),
        lost=st.sets(st.integers(0, 62)),
        again=st.integers(0, 62),
    )
    def test_whatever_is_lost_what_is_left_can_be_decoded_and_nothing_else_is_missing(
        self, keyframes: list[bool], lag: int, lost: set[int], again: int
    ) -> None:
        """again: from this frame on another sink has taken over, as in a reload."""
        packets = [VideoPacket(seq, 0, VideoCodec.H264, key, b"") for seq, key in enumerate(keyframes)]
        # A frame brings the packet of the one `lag` before, and sometimes none or two.
        brought = {seq: packets[seq - lag : seq - lag + 1] if seq >= lag else [] for seq in range(len(packets) + lag)}
        for seq in range(lag + 5, len(packets) + lag, 7):
            brought[seq], brought[seq - 1] = [*brought[seq - 1], *brought[seq]], []
        groups = WholeGroups()
        came: list[VideoPacket] = []
        holes = {0, again}
        for seq, of_frame in brought.items():
            groups = WholeGroups() if seq == again else groups
            if seq in lost:
                holes.add(seq + 1)
            else:
                came += groups.take(EncodedFrame("front", seq, tuple(of_frame)))

        decodable: list[VideoPacket] = []
        whole = False
        for seq, of_frame in brought.items():
            whole = whole and seq not in holes
            for packet in of_frame:
                whole = seq not in lost and (whole or packet.keyframe)
                decodable += [packet] if whole else []
        assert came == decodable
        before = -2
        for packet in came:
            assert packet.keyframe or packet.seq == before + 1
            before = packet.seq

    def test_the_rest_of_a_group_that_has_a_hole_goes_and_is_counted(self) -> None:
        sources = film([*pictures(), *pictures()])
        packets = encoded(sources)  # keyframes at 0, 30, 60, 90
        came = [EncodedFrame("front", packet.seq, (packet,)) for packet in packets if packet.seq not in (3, 45, 60)]
        stats = Stats([])
        logged = samples(shipped([came[at : at + 8] for at in range(0, len(came), 8)], stats=stats))
        assert [*logged] == [*range(3), *range(30, 45), *range(90, 120)]
        assert stats.drops() == {("rerun video", DropCause.BROKEN_GROUP): 26 + 14 + 29}
        assert furthest(sources, pictures_of(logged)) > 32
        assert len(decoded([item.packets[0] for item in came])) < len(came), (
            "a decoder can't do with what it leaves out"
        )

    def test_a_frame_that_is_not_encoded_yet_breaks_nothing(self) -> None:
        sources = film(pictures())
        came = [each for each in sources if each.seq % 7 not in (2, 3, 6)]
        logged = samples(shipped([came[at : at + 8] for at in range(0, len(came), 8)]))
        assert [*logged] == [each.seq for each in came]
        assert furthest(sources, pictures_of(logged)) > 32

    def test_what_failed_on_the_way_is_not_referred_to(self) -> None:
        sources = film(pictures())
        broken = Frame(
            "front",
            8,
            sources[8].captured_ns,
            sources[8].monotonic_ns,
            Picture(np.zeros((1, 1, 3), np.uint8), PixelLayout.RGB),
        )
        parcels: list[Parcel] = []
        sink = VideoSink(DEFAULTS, parcels.append, stats := Stats([]))
        sink.write(sources[:5])
        sink.write([*sources[5:8], broken])
        assert stats.drops() == {("rerun video", DropCause.SINK_FAILED): 4}
        sink.write(sources[9:20])
        logged = samples(parcels)
        assert [*logged] == [*range(5), *range(9, 20)]
        assert [parcel.keyframe for parcel in parcels] == [True, True]
        assert furthest(sources, pictures_of(logged)) > 32

    def test_a_camera_that_encodes_by_itself_and_one_that_does_not_take_turns(self) -> None:
        sources = film(pictures())
        packets = encoded(sources[20:])
        own = [EncodedFrame("front", packet.seq, (packet,)) for packet in packets]
        logged = samples(shipped([sources[:10], sources[10:20], own[:15], sources[35:40], own[20:]]))
        assert [*logged] == [*range(40), *range(50, 60)]
        assert furthest(sources, pictures_of(logged)) > 32
