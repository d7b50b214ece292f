"""RTSP for real: GStreamer's server plays the bundled clip, and a picture that shows when it was drawn."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.cameras.stream import StreamSource
from edge.errors import CameraLost
from edge.vision.frame import Frame
from tests.camera_rounds import Level, rounds, watched
from tests.clock_picture import drawn_ns
from tests.conftest import CLIP
from tests.films import PAYLOADERS, film, served
from tests.measure.rtsp_rounds import FilmServer
from tests.servers import rtsp_server

pytestmark = pytest.mark.integration

CLOCK = "appsrc name=clock ! openh264enc gop-size=30 ! rtph264pay name=pay0 config-interval=1"
SOUND = "audiotestsrc is-live=true ! alawenc ! rtppcmapay name=pay0"
PERIOD_NS = 1e9 / 30


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that plays the clip as MPEG-4, H.264, H.265 and MJPEG, a clock, and mere sound."""
    folder = tmp_path_factory.mktemp("films")
    mounts = {f"/{codec}": served(film(folder, codec=codec, laps=5), codec) for codec in PAYLOADERS}
    with rtsp_server({**mounts, "/clock": CLOCK, "/sound": SOUND}) as server:
        yield server.url


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """HOST:PORT of a server that wants a password."""
    path = film(tmp_path_factory.mktemp("guarded"))
    with rtsp_server({"/1": served(path, "mpeg4")}, user="anna", password="ge heim") as server:
        yield server.url.removeprefix("rtsp://")


def frames_of(address: str, count: int) -> list[Frame]:
    frames: list[Frame] = []
    with StreamSource("front", address) as source:
        while len(frames) < count:
            if (frame := source.read(10.0)) is not None:
                frames.append(frame)
    return frames


def read_on(source: StreamSource) -> None:
    while True:
        source.read(10.0)


def error_of(address: str) -> str:
    with pytest.raises(CameraLost) as caught:
        frames_of(address, 1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextlib.contextmanager
def silent_server() -> Iterator[str]:
    """The address of one that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"rtsp://127.0.0.1:{listening.getsockname()[1]}/1"


@pytest.mark.parametrize("codec", PAYLOADERS)
def test_a_stream_of_any_usual_codec_is_played_in_its_own_time(films: str, codec: str) -> None:
    frames = frames_of(f"{films}/{codec}", 30)

    assert [frame.seq for frame in frames] == list(range(30))
    assert {frame.rgb.pixels.shape for frame in frames} == {(480, 640, 3)}
    apart_ns = np.diff([frame.monotonic_ns for frame in frames])
    assert np.median(apart_ns) == pytest.approx(PERIOD_NS, abs=2e6)


def test_pictures_come_through_as_the_file_has_them(films: str) -> None:
    clip = []
    with StreamSource("front", str(CLIP), pace="unlimited") as source:
        clip = [read.rgb.pixels for _ in range(60) if (read := source.read(10.0)) is not None]

    frames = frames_of(f"{films}/mpeg4", 60)

    (first,) = [number for number, pixels in enumerate(clip) if (pixels == frames[0].rgb.pixels).all()]
    for number, frame in enumerate(frames, first):
        assert (frame.rgb.pixels == clip[number % 60]).all()


def test_a_frame_is_as_old_as_its_picture_although_ffmpeg_holds_it_back(films: str) -> None:
    errors_ns = []
    for frame in frames_of(f"{films}/clock", 60):
        drawn = drawn_ns(frame.rgb.pixels)
        assert drawn is not None
        assert drawn <= frame.monotonic_ns <= time.monotonic_ns()
        errors_ns.append(frame.monotonic_ns - drawn)

    # FFmpeg knows that a picture is complete when the next one begins, a period later.
    assert np.median(errors_ns) < PERIOD_NS


def test_with_the_right_password_it_plays(guarded: str) -> None:
    assert len(frames_of(f"rtsp://anna:ge%20heim@{guarded}/1", 2)) == 2


@pytest.mark.parametrize("who", ["", "anna:falsch@", "otto:ge%20heim@"])
def test_without_it_the_server_refuses_and_nothing_of_it_is_told(guarded: str, who: str) -> None:
    mask = "***@" if who else ""
    assert error_of(f"rtsp://{who}{guarded}/1") == (
        f"rtsp://{mask}{guarded}/1: Server returned 401 Unauthorized (authorization failed)"
    )


def test_what_is_wrong_is_told_in_one_line(films: str) -> None:
    assert error_of(f"{films}/none") == f"{films}/none: Server returned 404 Not Found"
    assert error_of(f"{films}/sound") == f"{films}/sound: holds no video; give a file or stream with a video track"
    address = "rtsp://***@camera.invalid/1"
    unknown = "its host's name is not known; mend it, or give the IP address"
    assert error_of("rtsp://anna:geheim@camera.invalid/1") == f"{address}: {unknown}"


def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.cameras.stream.OPEN_TIMEOUT_S", 0.5)
    with silent_server() as address:
        assert error_of(address) == f"{address}: no picture within 0.5 s"


def test_so_is_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "getent"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("edge.cameras.stream.OPEN_TIMEOUT_S", 0.5)

    address = "rtsp://door.example/1"
    assert error_of(address) == f"{address}: its host's name is not known after 0.5 s; is the name server up?"


def test_a_server_that_is_killed_is_lost_and_one_that_freezes_too(tmp_path: Path) -> None:
    mounts = {"/1": served(film(tmp_path, laps=10), "mpeg4")}
    for number, text in ((signal.SIGKILL, "the stream has ended"), (signal.SIGSTOP, "nothing came for 3 s")):
        with rtsp_server(mounts) as server:
            source = StreamSource("front", f"{server.url}/1")
            with source:
                while source.read(10.0) is None:
                    pass
                server.process.send_signal(number)
                with pytest.raises(CameraLost, match=text):
                    read_on(source)


def test_however_often_it_goes_it_comes_back_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with (
        FilmServer(served(film(tmp_path, laps=60), "mpeg4")) as server,
        watched(StreamSource("1", server.url)) as camera,
    ):

        def killed() -> float:
            server.replace()
            return camera.seconds_to_next_frame()

        def frozen() -> float:
            server.freeze(4.0)
            return camera.seconds_to_next_frame()

        _, levels = rounds(camera, 3, killed)
        _, after = rounds(camera, 1, frozen)

    assert len({held(level) for level in (*levels, *after)}) == 1


def held(level: Level) -> tuple[int, int, int]:
    return level.threads, level.descriptors, level.children
