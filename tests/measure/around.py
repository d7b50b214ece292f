"""What a frame costs besides inference, stage by stage, on the poses and pictures of the bundled clip.

usage: python -m tests.measure.around [--frames 600] [--only STAGE...]

Microseconds of CPU a frame: of the thread that does the stage, of this whole process with its libraries' threads, and
of the server at the other end. Where a stage takes several frames at once, it gets as many as in the daemon.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

from edge import tls
from edge.cameras.stream import StreamSource
from edge.config import RerunConfig
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.store import ModelStore
from edge.lanes import Lane
from edge.mqtt import messages
from edge.mqtt.wire import v1
from edge.pacing import Deadline
from edge.reports import LinkState
from edge.rerun_lanes import RERUN_BATCH
from edge.rerun_log.channel import Address
from edge.rerun_log.forwarder import Forwarder
from edge.rerun_log.log import SceneLog
from edge.rerun_log.observations import SceneSink, observation_parcel
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.scene import Scene
from edge.rerun_log.video import H264Encoder, VideoSink
from edge.stats import Stats
from edge.vision.frame import Frame
from edge.vision.observation import Observation
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import CLIP, eventually, observe
from tests.mqtt.test_sink import Bench
from tests.rerun_log.scenes import Recorder
from tests.servers import Server, mosquitto, rerun_server

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PERIOD_NS = 33_333_333


class Material:
    """The clip's frames, over and over as if a camera gave them, and what a landmarker found in them."""

    def __init__(self, count: int) -> None:
        with StreamSource("front", str(CLIP), pace="unlimited") as source:
            clip = [frame for _ in range(60) if (frame := source.read(1.0)) is not None]
        with MediaPipeEstimator(ModelStore().ensure("full").path) as estimator:
            poses = [estimator.estimate(frame) for frame in clip]
        self.frames: list[Frame] = []
        self.poses: list[tuple[Pose, ...]] = []
        for seq in range(count):
            self.frames.append(
                replace(
                    clip[seq % len(clip)],
                    seq=seq,
                    captured_ns=clip[0].captured_ns + seq * _PERIOD_NS,
                    monotonic_ns=clip[0].monotonic_ns + seq * _PERIOD_NS,
                )
            )
            self.poses.append(poses[seq % len(clip)])
        self.observations = [observe(frame, found) for frame, found in zip(self.frames, self.poses, strict=True)]


def cpu_s(server: Server) -> float:
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def report(stage: str, frames: int, work: Callable[[], object], server: Server | None = None) -> None:
    server_s = 0.0 if server is None else cpu_s(server)
    process_ns, thread_ns = time.process_time_ns(), time.thread_time_ns()
    work()
    thread_us = (time.thread_time_ns() - thread_ns) / frames / 1000
    process_us = (time.process_time_ns() - process_ns) / frames / 1000
    line = f"{stage:44} {thread_us:9.1f} {process_us:9.1f}"
    print(line if server is None else f"{line} {(cpu_s(server) - server_s) / frames * 1e6:9.1f}", flush=True)


def each(stage: str, work: Callable[..., object], items: Sequence[object]) -> None:
    """`work` for every one of `items`."""
    for item in items[:30]:
        work(item)
    report(stage, len(items), lambda: [work(item) for item in items])


def batches(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[at : at + RERUN_BATCH] for at in range(0, len(items), RERUN_BATCH)]


def capture(material: Material) -> None:
    with StreamSource("front", str(CLIP), loop=True, pace="unlimited") as source:
        each("capture: a file, decoded to RGB and I420", lambda _: source.read(1.0), material.frames)


def vision(material: Material) -> None:
    pairs = list(zip(material.frames, material.poses, strict=True))
    each("observe", lambda pair: observe(*pair), pairs)
    poses = [found[0] for found in material.poses if found]
    # Built anew from arrays of its own, as by the estimator.
    each("observe: Pose's checks, part of inference", replace, poses)


def encodings(material: Material) -> None:
    each("mqtt: landmarks as JSON", messages.landmarks, material.observations)
    each("mqtt: landmarks as CBOR", messages.landmarks_binary, material.observations)
    each("mqtt: summary", lambda seen: v1.encode(messages.summary(seen)), material.observations)


def mqtt(material: Material) -> None:
    for encoding in ("json", "cbor"):
        with mosquitto() as broker:
            bench = Bench(broker.url, summary_hz=5.0, landmarks_format=encoding)
            eventually(lambda sink=bench.sink: sink.write([]) or sink.online)
            sink = bench.sink

            def work(sink=sink) -> None:
                for seen in material.observations:
                    sink.write([seen])

            report(f"mqtt: write, {encoding}, summary at 5 Hz", len(material.observations), work, broker)
            assert bench.stats.sends()["mqtt landmarks"] == len(material.observations)
            sink.close(1.0)


def video(material: Material) -> None:
    rgb = [replace(frame, video=None) for frame in material.frames]
    pictures = [frame.rgb.pixels for frame in rgb[:60]] * (len(rgb) // 60)
    each("video: RGB to I420", lambda pixels: cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420), pictures)
    each("video: RGB to I420 and x264", H264Encoder(RerunConfig()).encode, rgb)
    each("video: x264 of the decoder's planes", H264Encoder(RerunConfig()).encode, material.frames)
    sink = VideoSink(RerunConfig(), lambda parcel: None, Stats([]))
    report("video: all of it, with chunks", len(rgb), lambda: [sink.write(batch) for batch in batches(rgb)])


def scene(material: Material) -> None:
    groups = batches(material.observations)
    for name, mask in (("points and angles", False), ("points, angles and mask", True)):
        build = functools.partial(observation_parcel, "front", mask=mask)
        report(f"scene: {name}", len(material.observations), lambda build=build: [build(group) for group in groups])


def parcels(material: Material) -> list[Parcel]:
    found: list[Parcel] = []
    sinks = (
        SceneSink(mask="image", people=1, put=found.append),
        VideoSink(RerunConfig(), found.append, Stats([])),
    )
    for seen, frames in zip(batches(material.observations), batches(material.frames), strict=True):
        sinks[0].write(seen)
        sinks[1].write(frames)
    return found


def about() -> Scene:
    return Scene(
        device="bench",
        session="20260101T000000Z-0000abcd",
        started_ns=1_767_225_600_000_000_000,
        cameras=("front",),
        skeleton=MEDIAPIPE_POSE,
        max_people=1,
        video="h264",
        mask="image",
        privacy="full",
        properties={},
    )


def link(material: Material) -> None:
    with rerun_server() as server:
        scene_log = SceneLog(Stats([]))
        scene_log.memory_bytes = 32_000_000
        scene_log.describe(about())
        address = Address.of(server.url, tls.Identity("rerun"))
        forwarder = Forwarder("link", address, scene_log, key=server.url, gap_bytes_s=1e6)
        forwarder.start()
        eventually(lambda: forwarder.state is LinkState.LIVE)
        # At 60 frames/s: what is paid by the second, such as acknowledgements, counts as in a daemon.
        shipped = parcels(material)
        begun_s = time.monotonic()

        def work() -> None:
            sent = 0
            for parcel in shipped:
                scene_log.put(parcel)
                sent += parcel.rows
                time.sleep(max(0.0, begun_s + sent / 2 / 60 - time.monotonic()))
            forwarder.close(Deadline(5.0))
            assert forwarder.join()

        report("link: everything, at 60 frames/s", len(material.frames), work, server)


def recording(material: Material) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        recorder = Recorder(Path(scratch), about())
        shipped = parcels(material)

        def work() -> None:
            for parcel in shipped:
                recorder.put(parcel)
            recorder.close()

        report("recording: everything", len(material.frames), work)
        print(f"{'recording: bytes a frame':44} {recorder.segments.path.stat().st_size / len(material.frames):9.0f}")


class Nothing:
    def write(self, batch: Sequence[Observation]) -> None:
        return

    def close(self, timeout_s: float) -> None:
        return


def lanes(material: Material) -> None:
    """Offered at 100 frames/s, so that the lane's thread waits in between as it does in a daemon."""
    for name, options in (("each at once", {}), ("in batches", {"batch": RERUN_BATCH, "linger_s": 0.25})):
        lane: Lane[Observation] = Lane("measured", Nothing(), Stats([]), capacity=64, **options)
        lane.start()

        def work(lane=lane) -> None:
            begun_s = time.monotonic()
            for number, seen in enumerate(material.observations):
                time.sleep(max(0.0, begun_s + number / 100 - time.monotonic()))
                lane.offer(seen)

        report(f"lane: hand-over, {name} (with the pacing)", len(material.observations), work)
        lane.close(Deadline(1.0))
        lane.join()


STAGES: dict[str, Callable[[Material], None]] = {
    stage.__name__: stage for stage in (capture, vision, encodings, mqtt, video, scene, link, recording, lanes)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=600)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=list(STAGES))
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    cv2.setNumThreads(1)
    material = Material(options.frames)
    print(f"{'microseconds of CPU a frame':44} {'thread':>9} {'process':>9} {'server':>9}")
    for stage in options.only:
        STAGES[stage](material)


if __name__ == "__main__":
    main()
