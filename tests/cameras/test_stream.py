from __future__ import annotations

import itertools
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edge.cameras.stream import StreamSource
from edge.errors import CameraError, CameraLost, CameraUnusable
from edge.interfaces import EndOfStream
from edge.vision.frame import Frame, PixelLayout
from tests.conftest import CLIP


def unpaced(location: object, *, loop: bool = False) -> StreamSource:
    return StreamSource("front", str(location), loop=loop, pace="unlimited")


def frames_of(source: StreamSource, *, most: int = 1000) -> list[Frame]:
    """Its frames from opening to the end of the stream, or the first `most` of them."""
    frames: list[Frame] = []
    with source:
        try:
            while len(frames) < most:
                frame = source.read(10.0)
                assert frame is not None
                frames.append(frame)
        except EndOfStream:
            pass
    return frames


def error_of(source: StreamSource) -> CameraError:
    with pytest.raises(CameraError) as caught:
        frames_of(source)
    return caught.value


def times_ns(frames: list[Frame]) -> np.ndarray:
    captured, monotonic = (
        np.array([getattr(frame, f"{clock}_ns") for frame in frames]) for clock in ("captured", "monotonic")
    )
    assert (np.diff(captured) == np.diff(monotonic)).all(), "both clocks tell the same"
    return monotonic


def film(
    path: Path, *, frames: int = 10, fps: int = 10, codec: str = "mpeg4", pixels: str = "yuv420p", width_px: int = 64
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width_px, 48, pixels
        for number in range(frames):
            grey = np.full((48, width_px, 3), 20 * number % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 16000
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return path


def without_pictures(path: Path) -> Path:
    """A video file whose index is whole and whose pictures are all zeros."""
    content = bytearray(film(path, codec="libx264").read_bytes())
    begin, end = content.index(b"mdat") + 4, content.index(b"moov") - 4
    content[begin:end] = bytes(end - begin)
    path.write_bytes(content)
    return path


def test_a_clip_gives_each_of_its_frames_once_with_the_pixels_that_opencv_sees() -> None:
    capture = cv2.VideoCapture(str(CLIP))
    frames = frames_of(unpaced(CLIP))

    assert [frame.seq for frame in frames] == list(range(60))
    for frame in frames:
        read, bgr = capture.read()
        assert read
        # It has FFmpeg convert the same planes, which rounds to the dark side.
        off = frame.rgb.pixels.astype(int) - bgr[..., ::-1]
        assert np.abs(off).max() <= 4
        assert 0 <= off.mean() < 2
    assert not capture.read()[0]


def test_a_clips_times_are_its_own_from_the_moment_it_was_opened() -> None:
    before_ns = time.time_ns(), time.monotonic_ns()
    frames = frames_of(unpaced(CLIP))

    assert np.abs(np.diff(times_ns(frames)) - 1e9 / 30).max() <= 1
    assert before_ns[0] <= frames[0].captured_ns <= time.time_ns()
    assert before_ns[1] <= frames[0].monotonic_ns <= time.monotonic_ns()


def test_people_are_shown_the_decoders_own_planes() -> None:
    (frame,) = frames_of(unpaced(CLIP), most=1)

    shown = frame.for_people
    assert (shown.layout, shown.width_px, shown.height_px) == (PixelLayout.I420, 640, 480)
    assert (cv2.cvtColor(shown.pixels, cv2.COLOR_YUV2RGB_I420) == frame.rgb.pixels).all()


def test_the_colours_are_those_of_bt601() -> None:
    (frame,) = frames_of(unpaced(CLIP), most=1)

    planes = frame.for_people.pixels.astype(float)
    luma = (planes[:480] - 16) / 219
    u, v = ((planes[480:].reshape(2, 240, 320) - 128) / 224).repeat(2, 1).repeat(2, 2)
    # ITU-R BT.601, 2.5: red and blue are (R - Y) / 1.402 and (B - Y) / 1.772.
    red, blue = luma + 1.402 * v, luma + 1.772 * u
    green = (luma - 0.299 * red - 0.114 * blue) / 0.587
    exact = np.stack([red, green, blue], axis=-1).clip(0, 1) * 255
    assert np.abs(frame.rgb.pixels - exact).max() < 1


@pytest.mark.parametrize(("pixels", "width_px"), [("yuvj420p", 64), ("yuv444p", 65)])
def test_pictures_that_are_no_plain_i420_are_shown_as_rgb(tmp_path: Path, pixels: str, width_px: int) -> None:
    clip = film(tmp_path / "clip.mkv", codec="libx264", pixels=pixels, width_px=width_px)

    frames = frames_of(unpaced(clip))

    assert len(frames) == 10
    assert {frame.for_people.layout for frame in frames} == {PixelLayout.RGB}
    assert {frame.rgb.width_px for frame in frames} == {width_px}


def test_a_looped_clip_goes_on_as_if_it_were_repeated_on_the_film() -> None:
    frames = frames_of(unpaced(CLIP, loop=True), most=150)

    assert [frame.seq for frame in frames] == list(range(150))
    assert np.abs(np.diff(times_ns(frames)) - 1e9 / 30).max() <= 1
    assert (frames[7].rgb.pixels == frames[67].rgb.pixels).all()
    assert (frames[7].rgb.pixels == frames[127].rgb.pixels).all()


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "clip.mjpeg", "clip.h264"])
def test_every_kind_of_file_can_be_looped(tmp_path: Path, name: str) -> None:
    codec = {"clip.mjpeg": "mjpeg", "clip.h264": "libx264"}.get(name, "mpeg4")
    clip = film(tmp_path / name, codec=codec, pixels="yuvj420p" if codec == "mjpeg" else "yuv420p")

    frames = frames_of(unpaced(clip, loop=True), most=25)

    assert (np.diff(times_ns(frames)) > 0).all()
    assert (frames[4].rgb.pixels == frames[14].rgb.pixels).all()


def test_a_clip_opened_again_counts_on_and_its_clock_goes_on() -> None:
    source = unpaced(CLIP)
    frames = [*frames_of(source, most=5), *frames_of(source, most=5)]

    assert [frame.seq for frame in frames] == list(range(10))
    assert all(one.monotonic_ns < after.monotonic_ns for one, after in itertools.pairwise(frames))
    assert (frames[0].rgb.pixels == frames[5].rgb.pixels).all()


def test_at_its_own_pace_no_frame_comes_before_its_time_and_none_is_lost_by_waiting(tmp_path: Path) -> None:
    with StreamSource("front", str(film(tmp_path / "clip.mp4", fps=2))) as source:
        first = source.read(10.0)
        early = source.read(0.0)
        second = source.read(10.0)

        assert first is not None
        assert early is None
        assert second is not None
        assert second.seq == 1
        assert second.monotonic_ns <= time.monotonic_ns()


def test_a_file_waits_for_whoever_processes_it_and_a_network_stream_does_not() -> None:
    assert not unpaced("/srv/clip.mp4").live
    assert unpaced("rtsp://door.local/1").live


@pytest.mark.parametrize("damage", [bytes, np.random.default_rng(1).bytes], ids=["zeros", "noise"])
def test_packets_damaged_in_the_middle_cost_their_own_pictures_only(
    tmp_path: Path, damage: Callable[[int], bytes]
) -> None:
    clip = tmp_path / "clip.mp4"
    content = bytearray(CLIP.read_bytes())
    content[100_000:250_000] = damage(150_000)
    clip.write_bytes(content)

    frames = frames_of(unpaced(clip))

    assert 30 <= len(frames) < 60
    assert [frame.seq for frame in frames] == list(range(len(frames)))
    assert (np.diff(times_ns(frames)) > 0).all()
    assert times_ns(frames)[-1] - times_ns(frames)[0] == pytest.approx(59 / 30 * 1e9, abs=2), "the gap stays a gap"


def test_what_is_no_video_is_told_in_one_line_that_names_the_file(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("no video at all\n" * 100)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(CLIP.read_bytes()[:200_000])
    reasons = {
        text: "can't be read as video (Invalid data found when processing input); give a file that ffplay shows",
        cut: "can't be read as video (Invalid data found when processing input); give a file that ffplay shows",
        tmp_path: "can't be read as video (Is a directory); give a file that ffplay shows",
        tmp_path / "missing.mp4": "can't be read as video (No such file or directory); give a file that ffplay shows",
        sound(tmp_path / "sound.mp4"): "holds no video; give a file or stream with a video track",
        without_pictures(tmp_path / "dark.mp4"): "no picture in it can be decoded; give a file that ffplay shows",
    }

    for path, reason in reasons.items():
        error = error_of(unpaced(path))
        assert isinstance(error, CameraUnusable)
        assert str(error) == f"{path}: {reason}"


def test_a_codec_that_ffmpeg_does_not_know_is_told_in_one_line(tmp_path: Path) -> None:
    clip = film(tmp_path / "clip.mp4", codec="libx264")
    clip.write_bytes(clip.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))

    error = error_of(unpaced(clip))

    assert isinstance(error, CameraUnusable)
    assert str(error).startswith(f"{clip}: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize("name", ["with space.mp4", "100%d.mp4", "ü.mp4", "10:30.mp4"])
def test_a_file_may_have_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(CLIP, name)

    assert len(frames_of(unpaced(name), most=2)) == 2


# An address with a scheme, even file://, is a stream like any other to us: live, and tried again when it ends.
def test_the_end_of_a_network_stream_is_a_loss_that_is_worth_another_try() -> None:
    error = error_of(unpaced(CLIP.as_uri()))

    assert isinstance(error, CameraLost)
    assert str(error) == f"{CLIP.as_uri()}: the stream has ended"


def test_a_network_stream_that_ends_before_its_first_picture_is_worth_another_try(tmp_path: Path) -> None:
    assert isinstance(error_of(unpaced(without_pictures(tmp_path / "dark.mp4").as_uri())), CameraLost)


@pytest.mark.parametrize("password", ["geheim", "ge@heim", "ge%40heim"])
def test_a_camera_that_does_not_answer_is_lost_and_its_password_stays_secret(password: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        error = error_of(unpaced(f"rtsp://anna:{password}@127.0.0.1:{port}/door"))

    assert isinstance(error, CameraLost)
    assert str(error) == f"rtsp://***@127.0.0.1:{port}/door: Connection refused"
