"""Pipelines for real, in the process that a daemon starts for them: Debian's GStreamer, the code path of a Jetson."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from edge.cameras.children.gstreamer import EVEN, PACKED
from edge.cameras.driver import DRIVERS, DriverSource, listed
from edge.cameras.stream import StreamSource
from edge.errors import CameraError, CameraLost, CameraUnusable
from edge.interfaces import EndOfStream, FrameSource
from edge.vision.frame import Frame, PixelLayout, UInt8Array
from tests.camera_rounds import rounds, watched
from tests.conftest import CLIP
from tests.measure.gstreamer_rounds import WANTED, disturb, pipeline_source

pytestmark = pytest.mark.integration

BARS = "videotestsrc pattern=smpte75 num-buffers=3 ! video/x-raw"


def frames_of(source: FrameSource, *, most: int = 1000) -> list[Frame]:
    """Those until it ends, or the first `most` of them."""
    frames: list[Frame] = []
    with source:
        try:
            while len(frames) < most:
                if (frame := source.read(5.0)) is not None:
                    frames.append(frame)
        except EndOfStream:
            pass
    return frames


def film_of(pipeline: str, *, most: int = 1000) -> list[Frame]:
    """Each of its frames, without waiting for their time."""
    return frames_of(pipeline_source(pipeline, waits=True), most=most)


def picture_of(pipeline: str) -> UInt8Array:
    return film_of(pipeline, most=1)[0].rgb.pixels


def wanting(pipeline: str, **wanted: object) -> DriverSource:
    request = {**WANTED, "source": pipeline, **wanted}
    return DriverSource("front", DRIVERS["gstreamer"], f"gstreamer:{pipeline}", request, waits=True)


def error_of(pipeline: str, **wanted: object) -> CameraError:
    with pytest.raises(CameraError) as caught:
        frames_of(wanting(pipeline, **wanted))
    assert "\n" not in str(caught.value)
    return caught.value


def bars(pixels: UInt8Array) -> UInt8Array:
    """The middle of each of the seven bars: (7, 3)."""
    height, width = pixels.shape[:2]
    return np.stack([pixels[height // 4, width * (2 * bar + 1) // 14] for bar in range(7)])


@pytest.mark.parametrize("name", [*PACKED, *EVEN, "Y444", "RGB16", "v210", "ARGB64"])
def test_colours_come_through_from_every_format(name: str) -> None:
    got = picture_of(f"{BARS},format={name},width=642,height=480,colorimetry=bt601")

    assert got.shape == (480, 642, 3)
    white, yellow, cyan, green, magenta, red, blue = bars(got).astype(int)
    if name == "GRAY8":
        assert (got == got[..., :1]).all()
        return
    for colour, bits in zip((white, yellow, cyan, green, magenta, red, blue), (7, 6, 3, 2, 5, 4, 1), strict=True):
        expected = [191 if bits & bit else 0 for bit in (4, 2, 1)]
        assert np.abs(colour - expected).max() <= 6, f"{colour} for {expected}"


@pytest.mark.parametrize("colorimetry", ["bt601", "bt709", "1:4:5:1", "1:3:5:1"])
@pytest.mark.parametrize("name", ["I420", "NV12", "YUY2"])
def test_colours_are_right_by_whatever_matrix_and_range_they_were_made(name: str, colorimetry: str) -> None:
    made = "videotestsrc pattern=smpte75 num-buffers=1 ! video/x-raw,format=RGB,width=320,height=240"
    given = f"video/x-raw,format={name},colorimetry={colorimetry}"
    got = picture_of(f"{made} ! videoconvert ! {given}")

    assert np.abs(bars(got).astype(int) - bars(picture_of(made))).max() <= 6  # FFmpeg rounds to the dark side


@pytest.mark.parametrize(("width_px", "height_px"), [(641, 481), (642, 481), (641, 480), (98, 66), (2, 2)])
def test_pictures_of_any_size_are_read(width_px: int, height_px: int) -> None:
    for name in ("I420", "UYVY", "RGB"):
        got = picture_of(f"{BARS},format={name},width={width_px},height={height_px}")
        assert got.shape == (height_px, width_px, 3)


def test_people_are_shown_the_pipelines_own_planes() -> None:
    (frame,) = film_of(f"{BARS},format=NV12,width=320,height=240", most=1)
    assert (frame.for_people.layout, frame.for_people.width_px) == (PixelLayout.I420, 320)


def test_size_and_rate_are_those_of_the_configuration_where_the_pipeline_leaves_them_open() -> None:
    source = "videotestsrc num-buffers=3"
    frames = frames_of(wanting(source, width_px=800, height_px=600, fps=10.0))
    assert frames[0].rgb.pixels.shape == (600, 800, 3)
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [100_000_000] * 2

    fixed = f"{source} ! video/x-raw,width=320,height=240,framerate=25/1"
    frames = frames_of(wanting(fixed, width_px=800, height_px=600, fps=10.0))
    assert frames[0].rgb.pixels.shape == (240, 320, 3)
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [40_000_000] * 2


def test_what_can_not_be_had_is_not_insisted_on() -> None:
    frames = frames_of(wanting(f"filesrc location={CLIP} ! decodebin", width_px=800, height_px=600), most=1)
    assert frames[0].rgb.pixels.shape == (480, 640, 3)


def test_the_pixel_format_is_that_of_the_configuration() -> None:
    plain = frames_of(wanting("videotestsrc num-buffers=1", pixel_format="NV12"))
    assert plain[0].for_people.layout is PixelLayout.I420


@pytest.mark.parametrize(
    "end", ["", " !", " ! jpegenc", " ! videoconvert ! appsink", " ! appsink name=mine max-buffers=9"]
)
def test_a_pipeline_may_end_as_it_likes(end: str) -> None:
    frames = film_of(f"videotestsrc num-buffers=3 name=appsink{end}")
    assert [frame.seq for frame in frames] == [0, 1, 2]


def test_a_file_gives_each_of_its_frames_with_the_pixels_and_times_of_the_file_source() -> None:
    expected = frames_of(StreamSource("front", str(CLIP), pace="unlimited"))

    frames = film_of(f"filesrc location={CLIP} ! decodebin")

    assert [frame.seq for frame in frames] == list(range(60))
    assert all((one.rgb.pixels == other.rgb.pixels).all() for one, other in zip(frames, expected, strict=True))
    times = [frame.captured_ns - frames[0].captured_ns for frame in frames]
    assert np.abs(np.subtract(times, [frame.captured_ns - expected[0].captured_ns for frame in expected])).max() <= 1


def test_landmarks_are_those_of_the_file_source(model: Path) -> None:
    from edge.estimators.mediapipe import MediaPipeEstimator

    def landmarks(frames: Sequence[Frame]) -> np.ndarray:
        with MediaPipeEstimator(model) as estimator:
            return np.stack([person.image_xyz for frame in frames for person in estimator.estimate(frame)])

    expected = landmarks(frames_of(StreamSource("front", str(CLIP), pace="unlimited"), most=20))
    got = landmarks(film_of(f"filesrc location={CLIP} ! decodebin", most=20))

    off_px = np.abs(got - expected)[..., :2] * (640, 480)
    # Their times differ by a nanosecond here and there, on which the smoothing depends.
    assert off_px.max() <= 0.1


def test_at_its_own_pace_a_film_ends_as_a_camera_that_went() -> None:
    begun_ns = time.monotonic_ns()
    frames: list[Frame] = []

    def watch(source: FrameSource) -> None:
        while True:
            if (frame := source.read(5.0)) is not None:
                frames.append(frame)
                assert begun_ns < frame.monotonic_ns <= time.monotonic_ns()

    with pipeline_source("videotestsrc num-buffers=15") as source, pytest.raises(CameraLost, match="stream has ended"):
        watch(source)
    # Shown when their time has come; only a machine that can't keep up loses some.
    apart_ns = np.diff([frame.monotonic_ns for frame in frames])
    assert np.median(apart_ns) == pytest.approx(1e9 / 30, abs=1e6)


def test_a_picture_that_was_held_up_in_the_pipeline_is_as_old_as_it_is() -> None:
    held_up = "queue min-threshold-time=400000000 max-size-bytes=0"
    with pipeline_source(f"videotestsrc is-live=true ! video/x-raw,width=64,height=48 ! {held_up}") as source:
        ages_ns = []
        while len(ages_ns) < 10:
            if (frame := source.read(5.0)) is not None:
                ages_ns.append(time.monotonic_ns() - frame.monotonic_ns)
    assert min(ages_ns) >= 300_000_000  # the queue counts what comes with the newest picture


def test_a_pipeline_that_hands_over_faster_than_anybody_takes_loses_and_counts() -> None:
    with pipeline_source("videotestsrc is-live=true ! video/x-raw,framerate=200/1,width=64,height=48") as source:
        frame = None
        while frame is None:
            frame = source.read(5.0)
        time.sleep(0.5)  # the frames that come meanwhile find no slot
        while source.lost == 0:
            source.read(5.0)


@pytest.mark.parametrize(
    ("pipeline", "kind", "text"),
    [
        (
            "nvarguscamerasrc ! nvvidconv ! video/x-raw,format=BGRx",
            CameraUnusable,
            'no element "nvarguscamerasrc"; install NVIDIA\'s JetPack (nvidia-l4t-gstreamer)',
        ),
        (
            "mycamsrc",
            CameraUnusable,
            'no element "mycamsrc"; install one of gstreamer1.0-plugins-base, -good, -bad, -ugly',
        ),
        ("videotestsrc ! ! x", CameraUnusable, "syntax error; try it with gst-launch-1.0"),
        ("videotestsrc speed=3", CameraUnusable, 'no property "speed" in element "videotestsrc"'),
        ("videotestsrc ! openh264enc", CameraUnusable, "the pipeline ends in video/x-h264; append its decoder"),
        ("videotestsrc ! fakesink", CameraUnusable, "the pipeline ends in no picture; leave out the sink at its end"),
        ("audiotestsrc", CameraUnusable, "the pipeline ends in audio/x-raw; append its decoder, or decodebin"),
        ("videotestsrc ! appsink videotestsrc ! appsink", CameraUnusable, "it has more than one appsink"),
        ("appsink", CameraUnusable, "it has more than one appsink, or nothing else"),
        (
            f"filesrc location={CLIP} ! qtdemux ! h264parse ! avdec_h264",
            CameraUnusable,
            "Internal data stream error (not-linked); an element gives what the next one does not take",
        ),
        ("filesrc location=/none ! decodebin", CameraLost, 'Resource not found (No such file "/none")'),
        ("v4l2src device=/dev/video99", CameraLost, "Cannot identify device '/dev/video99'"),
        ("videotestsrc ! identity error-after=2", CameraLost, "Failed after iterations as requested"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(pipeline: str, kind: type[CameraError], text: str) -> None:
    error = error_of(pipeline)
    assert type(error) is kind
    assert text in str(error)


def test_a_decoder_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GST_PLUGIN_FEATURE_RANK", "avdec_mpeg4:NONE")
    error = error_of(f"filesrc location={CLIP} ! decodebin")
    assert isinstance(error, CameraUnusable)
    assert "there is no MPEG-4 Video (Simple Profile) decoder; install gstreamer1.0-libav" in str(error)


def test_passwords_are_told_nowhere() -> None:
    pipeline = 'rtspsrc location=rtsp://anna:geheim@127.0.0.1:1/door user-pw="ge heim" ! decodebin'
    error = error_of(pipeline)
    assert isinstance(error, CameraLost)
    assert "Could not open resource" in str(error)
    # DriverSource is given what it is called without them; this is what the child says.
    assert "geheim" not in str(error).removeprefix(f"gstreamer:{pipeline}")
    assert "ge heim" not in str(error).removeprefix(f"gstreamer:{pipeline}")


def test_what_a_pipeline_does_not_have_is_refused() -> None:
    assert "control brightness: a pipeline has none" in str(error_of("videotestsrc", controls={"brightness": 3}))
    assert "pixel_format MJPG: expected auto or one of RGB" in str(error_of("videotestsrc", pixel_format="MJPG"))


def test_without_gstreamer_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.cameras.driver.SYSTEM_PYTHON", sys.executable)
    error = error_of("videotestsrc")
    assert isinstance(error, CameraUnusable)
    assert "GStreamer can't be used from Python" in str(error)
    assert "apt install python3-gi gir1.2-gstreamer-1.0" in str(error)


def test_there_is_nothing_to_list() -> None:
    assert listed(DRIVERS["gstreamer"]) == []


def test_however_often_its_process_is_killed_or_frozen_it_comes_back_and_nothing_is_left_behind() -> None:
    source = pipeline_source("videotestsrc is-live=true")
    with watched(source) as camera:
        _, killed = rounds(camera, 3, lambda: disturb(camera, source, signal.SIGKILL))
        _, frozen = rounds(camera, 1, lambda: disturb(camera, source, signal.SIGSTOP))

    levels = [(level.threads, level.descriptors, level.children) for level in (*killed, *frozen)]
    assert len(set(levels)) == 1
