from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.cameras.driver import Child, Driver, DriverSource, listed
from edge.errors import CameraError, CameraLost, CameraUnusable
from edge.interfaces import EndOfStream, FrameSource
from edge.pacing import Deadline
from edge.vision.frame import Frame
from tests.conftest import eventually

ACTING = Driver("acting", directory=Path(__file__).parent)


def acting(script: str, *, waits: bool = False) -> DriverSource:
    return DriverSource("front", ACTING, f"acting:{script}", {"source": script}, waits=waits)


def next_frame(source: FrameSource) -> Frame:
    deadline = Deadline(20)
    while deadline.left_s():
        if (frame := source.read(0.5)) is not None:
            return frame
    raise AssertionError("no frame")


def frames_of(source: FrameSource) -> list[Frame]:
    """Those until it ends, in whichever way."""
    frames = []
    with source:
        try:
            while True:
                frames.append(next_frame(source))
        except (EndOfStream, CameraError):
            return frames


def error_of(script: str) -> CameraError:
    source = acting(script)
    with pytest.raises(CameraError) as caught, source:
        next(frame for frame in iter(lambda: next_frame(source), None) if frame is None)
    return caught.value


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def children() -> set[int]:
    """Processes of which this one is the parent."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    before = descriptors(), children(), threading.active_count()
    yield
    eventually(lambda: (descriptors(), children(), threading.active_count()) == before)


def test_frames_arrive_each_with_memory_of_its_own() -> None:
    frames = frames_of(acting("open 12 end", waits=True))
    assert [frame.seq for frame in frames] == list(range(12))
    assert [int(frame.rgb.pixels[5, 7, 0]) for frame in frames] == list(range(12))
    assert {(frame.rgb.pixels.shape, frame.rgb.pixels.flags.writeable) for frame in frames} == {((48, 64, 3), False)}
    assert np.diff([frame.captured_ns for frame in frames]).tolist() == [1_000_000] * 11
    assert np.diff([frame.monotonic_ns for frame in frames]).tolist() == [1_000_000] * 11


def test_a_source_that_was_left_goes_on_counting_and_asks_for_the_same_camera() -> None:
    source = acting("open 2 lost", waits=True)
    first, second = frames_of(source), frames_of(source)
    assert [frame.seq for frame in (*first, *second)] == [0, 1, 2, 3]
    assert second[0].monotonic_ns > first[-1].monotonic_ns


def test_a_packet_carries_the_number_and_the_time_of_the_frame_that_it_shows() -> None:
    frames = frames_of(acting("encoding packets end", waits=True))
    times = {frame.seq: frame.captured_ns for frame in frames}
    packets = [packet for frame in frames for packet in frame.packets or ()]
    assert [(packet.seq, packet.payload) for packet in packets] == [(n, b"picture %d" % n) for n in range(3)]
    assert all(packet.captured_ns == times[packet.seq] for packet in packets)
    assert [packet.keyframe for packet in packets] == [True, False, False]


def test_stamps_of_every_clock_are_the_same_time() -> None:
    before_ns = time.time_ns(), time.monotonic_ns()
    frames = frames_of(acting("open clocks end"))
    after_ns = time.time_ns(), time.monotonic_ns()
    assert len(frames) == 4
    for frame in frames[:3]:
        assert before_ns[0] - 25_000_000 < frame.captured_ns < after_ns[0] - 20_000_000
        assert before_ns[1] - 25_000_000 < frame.monotonic_ns < after_ns[1] - 20_000_000
    assert before_ns[0] < frames[3].captured_ns < after_ns[0]


def test_stamps_that_can_not_be_are_told_once_and_not_taken(caplog: pytest.LogCaptureFixture) -> None:
    before_ns = time.monotonic_ns()
    frames = frames_of(acting("open nonsense end"))
    assert [before_ns < frame.monotonic_ns < time.monotonic_ns() for frame in frames] == [True] * 3
    assert len([line for line in caplog.messages if "time stamps can't be right" in line]) == 1


def test_without_an_encoder_there_are_no_packets() -> None:
    assert [frame.packets for frame in frames_of(acting("open 1 end", waits=True))] == [None]


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ("open lost", CameraLost, "it was unplugged; plug it in"),
        ("lost", CameraLost, "it was unplugged; plug it in"),
        ("unusable", CameraUnusable, "no such control"),
        ("open 1 unusable", CameraLost, "no such control"),  # it has worked: it is not the configuration
        ("open end", CameraLost, "the stream has ended"),
        ("raise", CameraLost, "ValueError: of the driver's own making"),
        (
            "crash",
            CameraLost,
            "its driver's process ended by signal 11; its last words are in the log at log_level debug",
        ),
        ("open exit", CameraLost, "its driver's process ended with exit code 3"),
        ("1", CameraLost, "AssertionError: slots come after opened"),
        ("babble", CameraLost, "its driver's process talks nonsense"),
        ("open faceless", CameraLost, "its driver's process talks nonsense"),
        ("open timeless", CameraLost, "its driver's process talks nonsense"),
        ("open-unsealed", CameraLost, "its driver's process shares no memory: it could be taken away"),
        ("open shrink", CameraLost, "PermissionError: [Errno 1] Operation not permitted"),
    ],
)
def test_what_goes_wrong_is_one_line(script: str, kind: type[CameraError], text: str) -> None:
    error = error_of(script)
    assert type(error) is kind
    assert str(error).startswith(f"acting:{script}: {text}")
    assert "\n" not in str(error)


def test_a_driver_gets_the_environment_that_the_daemon_was_given() -> None:
    os.putenv("ACTING_NATIVE", "what native code is told")
    try:
        assert str(error_of("environment")) == "acting:environment: native=None"
    finally:
        os.unsetenv("ACTING_NATIVE")


def test_a_picture_that_can_not_be_read_is_told_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    frames = frames_of(acting("open damaged damaged 2 end", waits=True))
    assert [frame.seq for frame in frames] == [0, 1]
    assert [line for line in caplog.messages if "can't be read" in line] == [
        (
            "camera front: a picture can't be read, going on: "
            "no picture of JPEG 64x48, 4 bytes, 0 a row: it can't be decoded"
        )
    ] * 2
    assert [record.levelname for record in caplog.records if "can't be read" in record.message] == ["WARNING", "DEBUG"]


@pytest.mark.parametrize("script", ["chatter", "open chatter"])
def test_a_driver_that_talks_without_end_holds_nobody_up(script: str) -> None:
    source = acting(script)
    with source:
        assert [source.read(0.2) for _ in range(3)] == [None] * 3


def test_what_a_driver_says_again_and_again_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with acting("open chatter") as source:
        eventually(lambda: source.read(0.01) or len(caplog.records) > 10)
    told = [record.levelname for record in caplog.records if "as it was" in record.message]
    assert told[:3] == ["WARNING", "DEBUG", "DEBUG"]
    assert told.count("WARNING") == 1


def test_one_that_only_talks_is_not_open_for_all_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.cameras.driver.OPEN_TIMEOUT_S", 0.5)
    source = acting("chatter")
    with pytest.raises(CameraLost, match="not open after"), source:
        next_frame(source)


def test_a_driver_that_hangs_is_ended_however_often_that_happens() -> None:
    source = acting("open 1 hang")
    for _ in range(5):
        with source:
            next_frame(source)
            assert source.read(0.01) is None
    assert not source._left_behind


def test_one_that_hangs_before_it_is_open_is_still_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.cameras.driver.OPEN_TIMEOUT_S", 0.5)
    source = acting("hang")
    with source:
        assert source.read(0.01) is None
        assert source.opening
        with pytest.raises(CameraLost, match=r"not open after 20 s|not open after 0\.5 s"):
            next_frame(source)


def test_what_ends_the_daemon_does_not_end_its_children_first() -> None:
    source = acting("open 1 wait 1", waits=True)
    with source:
        next_frame(source)
        assert source._child is not None
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(source._child._process.pid, number)
        assert source.read(0.5) is None


def test_a_child_ends_with_its_daemon_though_its_driver_hangs(tmp_path: Path) -> None:
    program = f"""
import sys, time
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from tests.cameras.test_driver import acting, next_frame
with acting("open 1 hang") as source:
    next_frame(source)
    print(source._child._process.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        child = Path("/proc", daemon.stdout.readline().strip())
        assert child.exists()
        daemon.kill()
    eventually(lambda: not child.exists() or (child / "stat").read_text().split()[2] == "Z")


def test_a_child_whose_daemon_went_while_it_started_opens_nothing() -> None:
    child = Child(ACTING, {"do": "stream", "source": "hang"})
    child._socket.close()
    assert child._process.wait(20) == 0


def test_frames_that_nobody_took_are_counted() -> None:
    lost: list[int] = []
    source = DriverSource("front", ACTING, "acting", {"source": "open late 1 end"}, waits=True, on_lost=lost.append)
    assert len(frames_of(source)) == 1
    assert (sum(lost), source.lost) == (7, 7)


def test_a_driver_hears_nothing_of_our_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_POSE__MQTT__URL", "mqtt://anna@hub")
    monkeypatch.setenv("PYTHONPATH", "/of/our/python")
    monkeypatch.setenv("LIBCAMERA_LOG_LEVELS", "*:DEBUG")
    source = acting("open 1 wait")
    with source:
        next_frame(source)
        assert source._child is not None
        environment = Path(f"/proc/{source._child._process.pid}/environ")
        if os.geteuid() == 0:  # its memory is closed to whom it belongs to
            told = environment.read_bytes().split(b"\0")
            assert b"LIBCAMERA_LOG_LEVELS=*:DEBUG" in told
            assert not [each for each in told if each.startswith((b"EDGE_POSE", b"PYTHON"))]
        assert os.getsid(source._child._process.pid) == source._child._process.pid, "Ctrl-C does not reach it"


def test_a_frozen_child_is_ended() -> None:
    source = acting("open 1 wait")
    with source:
        next_frame(source)
        assert not source.opening
        assert source._child is not None
        os.kill(source._child._process.pid, signal.SIGSTOP)
        assert source.read(0.01) is None


def test_without_memory_for_a_child_the_camera_is_lost_for_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "none"))
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(CameraLost, match="no process for its driver: No such file or directory"), acting("open"):
        pass


def test_it_lists_what_there_is() -> None:
    (entry,) = listed(ACTING)
    assert (entry["source"], entry["name"], entry["identity"]) == ("acting:1", "Actor", "1")
    assert entry["modes"][0] == "RGB 64x48 30/s"
