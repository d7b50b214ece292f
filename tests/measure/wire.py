"""What the scene takes on the wire, beside Rerun's example of human pose tracking and by setting, and how it looks.

usage: python -m tests.measure.wire [--seconds 20] [--rounds 3] [--what example settings angles]

The bundled clip (640x480, 30 frames/s, one person), model full, masks on, 30 frames/s by the clock, into a server of
Rerun's own (rerun --serve-grpc) through a relay on the loopback interface that counts the bytes of TCP. Each way is a
process of its own, in turn. What arrives is decoded to RGB and compared with the pictures that went in, by FFmpeg's
filters psnr and ssim, on the luma of both (BT.601): peak signal-to-noise ratio in dB, and structural similarity (Wang
et al., "Image quality assessment: from error visibility to structural similarity", IEEE Trans. Image Processing 13(4),
2004).

example: also unpaced, by the loops of `edge-pose bench`: frames/s and processor time a frame.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, get_args

import av
import av.filter
import cv2
import numpy as np

from edge.app import App
from edge.bench import rounds
from edge.bench.baselines import Example, timed
from edge.bench.footage import MemorySource, pictures, shots
from edge.bench.measurement import Loop, Task
from edge.children import ending_with_us
from edge.config import CameraConfig, Config, PoseConfig, RerunConfig
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from tests.rerun_log.onlooker import Arrival, Onlooker
from tests.servers import Relay, mosquitto, relay, rerun_server

_FPS = 30.0
_WARM_UP_S = 3.0
_CAMERA = "front"
_VIDEOS = (f"/camera/{_CAMERA}/video", "/video/bgr")


def settings() -> Iterator[tuple[str, dict[str, Any]]]:
    """What is compared: its name, and what the configuration has then."""
    yield "the default", {}
    for crf in (22, 28, 30, 32):
        yield f"h264_crf = {crf}", {"rerun": {"h264_crf": crf}}
    for kbit_s in (500, 200):
        yield f"h264_kbit_s = {kbit_s}", {"rerun": {"h264_kbit_s": kbit_s}}
    for keyframe_s in (2, 10):
        yield f"keyframe_s = {keyframe_s}", {"rerun": {"keyframe_s": keyframe_s}}
    yield 'video = "jpeg"', {"rerun": {"video": "jpeg"}}
    yield 'video = "jpeg", jpeg_quality = 50', {"rerun": {"video": "jpeg", "jpeg_quality": 50}}
    for mask in _others("mask"):
        yield f'mask = "{mask}"', {"rerun": {"mask": mask}}
    yield 'video = "off"', {"rerun": {"video": "off"}}
    for mask in _others("mask"):
        yield f'video = "off", mask = "{mask}"', {"rerun": {"video": "off", "mask": mask}}
    for hz in (15, 5):
        yield f"frames_hz = {hz}", {"rerun": {"frames_hz": hz}}
    if "privacy" in Config.model_fields:
        for mode in ("mask", "landmarks"):
            yield f'privacy.mode = "{mode}"', {"privacy": {"mode": mode}}


def _others(key: str) -> list[str]:
    known = RerunConfig.model_fields[key]
    return [choice for choice in get_args(known.annotation) if choice != known.default]


@dataclass(frozen=True, slots=True)
class Found:
    """In a window of `seconds`. wire: bytes of TCP to the server. cpu_s: of the process. entities: bytes of messages,
    compressed, by entity, of the pictures in the window. psnr_db, ssim: of the video's luma, None without one."""

    seconds: float
    frames: int
    wire: int
    cpu_s: float
    entities: Mapping[str, int] = field(default_factory=dict)
    psnr_db: float | None = None
    ssim: float | None = None

    @property
    def kb_s(self) -> float:
        return self.wire / self.seconds / 1000

    @property
    def fps(self) -> float:
        """Less than a camera's where the machine is busy with something else: then the rest is that of fewer frames."""
        return self.frames / self.seconds

    @property
    def cpu_ms(self) -> float:
        return 1000 * self.cpu_s / self.frames

    @property
    def likeness(self) -> str:
        return "" if self.psnr_db is None else f"{self.psnr_db:.1f} | {self.ssim:.3f}"


# The processes that are measured. Each prints a line at both ends of its window.


def _tell(**facts: float) -> None:
    print(json.dumps(facts), flush=True)


def run_example(hub: str, model: str, seconds: float) -> None:
    import mediapipe

    vision = mediapipe.tasks.vision
    options = vision.PoseLandmarkerOptions(
        base_options=mediapipe.tasks.BaseOptions(model_asset_path=model),
        running_mode=vision.RunningMode.VIDEO,
        output_segmentation_masks=True,
    )
    with vision.PoseLandmarker.create_from_options(options) as landmarker:

        def detect(pixels: np.ndarray, number: int) -> Any:
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
            return landmarker.detect_for_video(image, int(number * 1000 / _FPS))

        example = Example(hub, detect)
        began_s = 0.0
        done = 0

        def one(pixels: np.ndarray, number: int) -> bool:
            nonlocal began_s, done
            now_s = time.perf_counter()
            began_s = began_s or now_s
            if now_s - began_s >= _WARM_UP_S and not done:
                _tell(cpu_s=time.process_time())
            done += now_s - began_s >= _WARM_UP_S
            return example.frame(pixels, number)

        timed(one, example.finish, pictures(layout="bgr24"), _WARM_UP_S + seconds, fps=_FPS)
        _tell(cpu_s=time.process_time(), frames=done)


def run_daemon(hub: str, model: str, seconds: float, changes: dict[str, Any]) -> None:
    keys = {
        "device": "bench",
        "log_level": "warning",
        "camera": {_CAMERA: CameraConfig(source="synthetic")},
        "pose": PoseConfig(model=model, workers=1),
        **changes,
        "rerun": {"url": hub, **changes.get("rerun", {})},
    }
    found = ModelStore().find(model)
    assert found is not None, "a path is taken as it is"
    footage = shots()
    app = App(Config(**keys), found, Inbox(), sources=lambda name, _: MemorySource(name, footage, fps=_FPS))
    app.daemon.start()
    try:
        counts = app.stats.cameras[_CAMERA].counts
        while counts().estimated == 0:
            assert app.daemon.wait(0.01) is None, "it runs"
        assert app.daemon.wait(_WARM_UP_S) is None, "it runs"
        before = counts().estimated
        _tell(cpu_s=time.process_time())
        assert app.daemon.wait(seconds) is None, "it runs"
        _tell(cpu_s=time.process_time(), frames=counts().estimated - before)
    finally:
        app.stop()


# What measures them.


def measure(task: Sequence[str], *, look: bool = True) -> Found:
    """task: what the process is told besides the server's address."""
    with rerun_server() as server, relay(server.port) as line:
        onlooker = Onlooker(server.port, keeps_content=True) if look else None
        try:
            begin, end = _window(task, line)
        finally:
            if onlooker is not None:
                onlooker.close()
    seconds = end["at_s"] - begin["at_s"]
    arrivals = [] if onlooker is None else onlooker.arrivals
    entities: Counter[str] = Counter()
    for each in arrivals:
        if begin["at_s"] <= each.at_s <= end["at_s"]:
            entities[each.entity] += each.nbytes
    likeness = compared(arrivals)
    cpu_s, wire = end["cpu_s"] - begin["cpu_s"], int(end["wire"] - begin["wire"])
    return Found(seconds, int(end["frames"]), wire, cpu_s, entities, *likeness)


def _window(task: Sequence[str], line: Relay) -> tuple[dict[str, float], dict[str, float]]:
    hub = f"rerun+http://127.0.0.1:{line.port}/proxy"
    command = ending_with_us([sys.executable, "-m", "tests.measure.wire", "--process", hub, *task])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=rounds.environment()
    ) as process:
        try:
            assert process.stdout is not None
            ends = []
            for text in process.stdout:
                ends.append(json.loads(text) | {"wire": line.to_server, "at_s": time.time()})
                if len(ends) == 2:
                    break
            process.wait(30)
        finally:
            process.kill()
    assert len(ends) == 2, f"{task}: it ended before its time"
    return ends[0], ends[1]


def compared(arrivals: Sequence[Arrival]) -> tuple[float, float] | tuple[()]:
    """Mean PSNR in dB and SSIM of all pictures that arrived; nothing where there is no video."""
    samples: dict[int, bytes] = {}
    jpegs: set[int] = set()
    for each in arrivals:
        blobs = each.column("blob") if each.entity in _VIDEOS else []
        values = each.column("sample") if each.entity in _VIDEOS and not blobs else blobs
        if values:  # without video, other rows are there
            samples |= {seq: bytes(value[0]) for seq, value in zip(each.seqs, values, strict=True)}
            jpegs |= {*each.seqs} if blobs else set()
    if not samples:
        return ()
    sources = pictures()
    codec = av.CodecContext.create("h264", "r")
    psnr, ssim = Filter("psnr", "lavfi.psnr.mse.y"), Filter("ssim", "lavfi.ssim.Y")
    errors, likeness = [], []
    for seq in sorted(samples):
        if seq in jpegs:
            found = [cv2.imdecode(np.frombuffer(samples[seq], np.uint8), cv2.IMREAD_COLOR_RGB)]
        else:
            found = [each.to_ndarray(format="rgb24") for each in codec.decode(av.Packet(samples[seq]))]
        for rgb in found:
            both = [cv2.cvtColor(each, cv2.COLOR_RGB2YUV_I420) for each in (sources[seq % len(sources)], rgb)]
            errors.append(psnr.of(*both))
            likeness.append(ssim.of(*both))
    assert len(errors) == len(samples), "each picture can be decoded"
    return 10 * float(np.log10(255**2 / np.mean(errors))), float(np.mean(likeness))


class Filter:
    """One of FFmpeg's filters that compare two pictures; what it says under `name`."""

    def __init__(self, kind: str, name: str) -> None:
        self._kind, self._name = kind, name
        self._graph: Any = None
        self._count = 0

    def of(self, one: np.ndarray, other: np.ndarray) -> float:
        """Of two pictures as I420."""
        if self._graph is None:
            self._build(one.shape[1], one.shape[0] * 2 // 3)
        for source, planes in zip(self._sources, (one, other), strict=True):
            picture = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            picture.pts, picture.time_base = self._count, Fraction(1, 30)
            source.push(picture)
        self._count += 1
        return float(self._sink.pull().metadata[self._name])

    def _build(self, width_px: int, height_px: int) -> None:
        self._graph = graph = av.filter.Graph()
        about = f"video_size={width_px}x{height_px}:pix_fmt=yuv420p:time_base=1/30"
        self._sources = [graph.add("buffer", about) for _ in range(2)]
        compare, self._sink = graph.add(self._kind), graph.add("buffersink")
        for at, source in enumerate(self._sources):
            source.link_to(compare, 0, at)
        compare.link_to(self._sink)
        graph.configure()


def shown(found: Sequence[Found]) -> str:
    """KB/s: the median of the rounds, and of several the least and most."""
    kb_s = [each.kb_s for each in found]
    spread = f" ({min(kb_s):.0f} to {max(kb_s):.0f})" if len(kb_s) > 1 else ""
    return f"{statistics.median(kb_s):.0f}{spread}"


def compare_with_example(model: str, seconds: float, count: int, changes: str) -> None:
    """changes: JSON, what the daemon's configuration has that is not the default."""
    ways = {"example": ["example"], "edge-pose": ["daemon", changes]}
    paced: dict[str, list[Found]] = {name: [] for name in ways}
    free: dict[Loop, list[tuple[float, float]]] = {Loop.SEED: [], Loop.ALL_CAPPED: [], Loop.ALL: []}
    for number in range(count):
        for name in sorted(ways, reverse=number % 2 == 1):
            paced[name].append(measure([ways[name][0], model, str(seconds), *ways[name][1:]]))
        for loop in rounds.order([*free], number):
            with rerun_server() as server, relay(server.port) as line, mosquitto() as broker:
                hub = f"rerun+http://127.0.0.1:{line.port}/proxy"
                found = rounds.run(Task(loop, model, seconds / 2, hub=hub, broker=broker.url))
            free[loop].append((found.frames_per_s, found.cpu_ms))
    print("| 30 frames/s | KB/s on the wire | frames/s | PSNR, dB | SSIM | CPU, ms a frame |")
    print("|---|---|---|---|---|---|")
    for name, of_way in paced.items():
        fps = statistics.median(each.fps for each in of_way)
        cpu_ms = statistics.median(each.cpu_ms for each in of_way)
        print(f"| {name} | {shown(of_way)} | {fps:.1f} | {of_way[-1].likeness} | {cpu_ms:.1f} |")
    parts = [ours.kb_s / theirs.kb_s for ours, theirs in zip(paced["edge-pose"], paced["example"], strict=True)]
    print(
        f"\nedge-pose in times of the example: {statistics.median(parts):.3f} ({min(parts):.3f} to {max(parts):.3f})\n"
    )
    print("| as fast as it goes | frames/s | CPU, ms a frame |\n|---|---|---|")
    for loop, of_loop in free.items():
        fps, cpu_ms = (statistics.median(each) for each in zip(*of_loop, strict=True))
        print(f"| {loop} | {fps:.1f} | {cpu_ms:.1f} |")
    print(flush=True)


def compare_settings(model: str, seconds: float, only: str) -> None:
    print(
        "| [rerun] | KB/s | of it video | mask | rest | PSNR, dB | SSIM | frames/s |\n|---|---|---|---|---|---|---|---|"
    )
    for name, changes in settings():
        if only not in name:
            continue
        found = measure(["daemon", model, str(seconds), json.dumps(changes)])
        kinds: Counter[str] = Counter()
        for entity, nbytes in found.entities.items():
            kind = "mask" if "mask" in entity or "contour" in entity else "video" if entity in _VIDEOS else "rest"
            kinds[kind] += nbytes
        parts = " | ".join(f"{kinds[kind] / found.seconds / 1000:.0f}" for kind in ("video", "mask", "rest"))
        print(f"| `{name}` | {shown([found])} | {parts} | {found.likeness or ' | '} | {found.fps:.1f} |", flush=True)


def split_by_entity(model: str, seconds: float) -> None:
    found = measure(["daemon", model, str(seconds), "{}"])
    print("| entity | KB/s | bytes a frame |\n|---|---|---|")
    for entity, nbytes in sorted(found.entities.items()):
        print(f"| {entity} | {nbytes / found.seconds / 1000:.1f} | {nbytes / found.frames:.0f} |")
    rest = found.wire - sum(found.entities.values())
    print(f"| HTTP/2, gRPC, acknowledgements | {rest / found.seconds / 1000:.1f} | {rest / found.frames:.0f} |\n")


def main() -> None:
    if sys.argv[1:2] == ["--process"]:
        _, _, hub, way, model, seconds, *changes = sys.argv
        if way == "example":
            run_example(hub, model, float(seconds))
        else:
            run_daemon(hub, model, float(seconds), json.loads(changes[0]))
        sys.stdout.flush()
        os._exit(0)  # exit hooks of libraries may take their time
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--what", nargs="+", choices=["example", "settings", "angles"], default=["example", "settings", "angles"]
    )
    parser.add_argument("--only", default="", help="settings whose name holds this")
    parser.add_argument("--changes", default="{}", help="of the daemon beside the example, as JSON")
    options = parser.parse_args()
    model = str(ModelStore().ensure("full").path)
    if "example" in options.what:
        compare_with_example(model, options.seconds, options.rounds, options.changes)
    if "angles" in options.what:
        split_by_entity(model, options.seconds)
    if "settings" in options.what:
        compare_settings(model, options.seconds, options.only)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
