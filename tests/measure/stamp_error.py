"""How wrong the times of frames are, by pictures that show when they were drawn.

usage: python -m tests.measure.stamp_error [--frames 600] [--sources gstreamer "rtsp, H.264" ...]

error: a frame's monotonic_ns after the instant that its picture shows. age: how long after that instant the frame is in
hand, which is when a daemon without such times would say that it was taken.

gstreamer: raw pictures through shared memory of another process, stamped by shmsrc when they come. held up: the same
with a queue behind it that keeps each for 200 ms, less what comes with the newest. rtsp: GStreamer's server with
openh264enc or jpegenc, over TCP. rtspsrc: the first of these, received by GStreamer in place of FFmpeg.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from edge.cameras.driver import SYSTEM_PYTHON
from edge.cameras.stream import StreamSource
from edge.interfaces import FrameSource
from tests.clock_picture import drawn_ns
from tests.conftest import eventually
from tests.measure.gstreamer_rounds import pipeline_source
from tests.servers import rtsp_server

_ENCODED = {"H.264": "openh264enc gop-size=30 ! rtph264pay config-interval=1", "MJPEG": "jpegenc ! rtpjpegpay"}


@contextlib.contextmanager
def by_pipeline(behind: str = "") -> Iterator[FrameSource]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "clock"
        written = f"appsrc name=clock ! shmsink socket-path={place} wait-for-connection=false shm-size=20000000"
        program = Path(__file__).parents[1] / "clock_program.py"
        process = subprocess.Popen([SYSTEM_PYTHON, str(program), written], env={**os.environ, "GST_DEBUG": "0"})
        try:
            eventually(place.exists)
            caps = "video/x-raw,format=I420,width=640,height=480,framerate=30/1"
            yield pipeline_source(f"shmsrc socket-path={place} is-live=true do-timestamp=true ! {caps}{behind}")
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def by_rtsp(codec: str) -> Iterator[FrameSource]:
    with rtsp_server({"/clock": f"appsrc name=clock ! {_ENCODED[codec]} name=pay0"}) as server:
        yield StreamSource("front", f"{server.url}/clock")


@contextlib.contextmanager
def by_rtspsrc() -> Iterator[FrameSource]:
    with by_rtsp("H.264") as source:
        assert isinstance(source, StreamSource)
        taken = f"rtspsrc location={source._location} protocols=tcp latency=0"
        yield pipeline_source(f"{taken} ! rtph264depay ! h264parse ! avdec_h264 max-threads=1")


SOURCES: dict[str, Callable[[], contextlib.AbstractContextManager[FrameSource]]] = {
    "gstreamer": by_pipeline,
    "gstreamer, held up": lambda: by_pipeline(" ! queue min-threshold-time=200000000 max-size-bytes=0"),
    "rtsp, H.264": lambda: by_rtsp("H.264"),
    "rtsp, MJPEG": lambda: by_rtsp("MJPEG"),
    "gstreamer, rtspsrc": by_rtspsrc,
}


def measure(source: FrameSource, count: int) -> tuple[list[float], list[float]]:
    """Errors and ages in ms, of so many frames from the first one on."""
    errors, ages = [], []
    with source:
        while len(errors) < count:
            frame = source.read(1.0)
            now_ns = time.monotonic_ns()
            if frame is None:
                continue
            drawn = drawn_ns(frame.rgb.pixels)
            assert drawn is not None, "the picture can't be read"
            errors.append((frame.monotonic_ns - drawn) / 1e6)
            ages.append((now_ns - drawn) / 1e6)
    return errors, ages


def told(name: str, values: list[float]) -> str:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return f"{name} p50 {p50:6.1f}  p95 {p95:6.1f}  p99 {p99:6.1f}  {min(values):6.1f} to {max(values):6.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=list(SOURCES))
    options = parser.parse_args()
    print("milliseconds")
    for name in options.sources:
        with SOURCES[name]() as source:
            errors, ages = measure(source, options.frames)
        print(f"{name:<20}{told('error', errors)}   {told('age', ages)}", flush=True)


if __name__ == "__main__":
    main()
