"""Makes the pictures that README and docs show, from what real runs of `edge-pose` printed, published and recorded.

usage: .venv/bin/python docs/pictures/make.py [--out DIR] [PICTURE...]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import paho.mqtt.client as paho
from matplotlib.figure import Figure
from paho.mqtt.enums import CallbackAPIVersion
from PIL import Image
from rerun.chunk import RrdReader
from rerun.experimental import ViewerClient
from rich.console import Console
from rich.text import Text

from edge.cli.demo import CLIP
from edge.cli.local_broker import BrokerKind, local_broker
from edge.cli.local_server import free_port, local_server
from edge.cli.local_viewer import rerun_program, without_analytics
from edge.cli.watch import page
from edge.mqtt.fleet import Fleet, Row
from edge.mqtt.session import Session
from edge.mqtt.tls import Credentials
from edge.pacing import Deadline
from edge.rerun_log.entities import angles_entity, points_2d_entity
from edge.vision.kinematics import JOINTS
from edge.vision.skeleton import MEDIAPIPE_POSE

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 10
DOCTOR_COLUMNS = 120
COLUMNS, LINES = 100, 40
WIDTH_PX, HEIGHT_PX, TOP_BAR_PX = 1400, 900, 36
ANIMATION_WIDTH_PX, ANIMATION_HZ = 700, 10


@dataclass(frozen=True, slots=True)
class Clip:
    """frames: how many it has. at: the one to show, in which limbs are apart and all is in view. people: in it.
    tilt_deg, roll_deg: how its camera hung, as far as those tell who stand upright."""

    path: Path
    frames: int
    at: int
    people: int
    tilt_deg: float
    roll_deg: float


RUNNER = Clip(CLIP, frames=60, at=40, people=1, tilt_deg=22.0, roll_deg=27.0)
TWO_PEOPLE = ROOT / "tests" / "media" / "two_people_1088x1920_60fps.mp4"


@dataclass(frozen=True, slots=True)
class Demo:
    """A demonstration that is over. written: what its terminal got. summaries: the messages, decoded, in order."""

    written: str
    summaries: list[dict[str, Any]]
    recording: Path


def demonstrate(scratch: Path) -> Demo:
    """Run it as somebody would who sits at a terminal and has subscribed to what it publishes."""
    # The paths it prints are relative to where it was started; this way they are those of a checkout.
    (scratch / ".venv").symlink_to(sys.prefix)
    command = [".venv/bin/python", "-m", "edge", "demo", "--seconds", str(SECONDS)]
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT), "EDGE_POSE__DEVICE": "hall"}
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(its_end, (LINES, COLUMNS))
    # In a session of its own, Ctrl-C does not reach it: that and our SIGTERM are two signals, after which it leaves its
    # broker behind.
    process = subprocess.Popen(
        command, cwd=scratch, env=environment, stdin=its_end, stdout=its_end, stderr=its_end, start_new_session=True
    )
    os.close(its_end)
    written = b""
    summaries: list[dict[str, Any]] = []
    deadline = Deadline(SECONDS + 60.0)  # the first run ever fetches the model
    try:
        with contextlib.ExitStack() as subscription:
            broker = None
            while deadline.left_s():
                if not select.select([terminal], [], [], 0.2)[0]:
                    continue
                try:
                    written += os.read(terminal, 65536)
                except OSError:  # EIO: the other end has been closed
                    break
                if broker is None and (broker := re.search(rb"mqtt://127\.0\.0\.1:(\d+)\s", written)):
                    subscription.enter_context(summaries_received(int(broker[1]), summaries))
        code = process.wait(timeout=deadline.left_s() + 1.0)
    finally:
        process.terminate()
        process.wait(timeout=10.0)
        os.close(terminal)
    if code:
        sys.exit(f"make.py: the demo ended with {code}:\n{written.decode()}")
    (recording,) = (scratch / "edge-pose-demo").glob("*.rrd")
    return Demo(written.decode(), summaries, recording)


@contextlib.contextmanager
def summaries_received(port: int, into: list[dict[str, Any]]) -> Iterator[None]:
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.on_connect = lambda client, *_: client.subscribe("pose/v1/+/camera/+/summary")
    client.on_message = lambda client, userdata, message: into.append(json.loads(message.payload))
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        yield
    finally:
        client.disconnect()
        client.loop_stop()


class Studio:
    """The runs that the pictures show, each made once, and only when one of them is asked for."""

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

    @functools.cached_property
    def demo(self) -> Demo:
        return demonstrate(self.scratch)

    @functools.cached_property
    def pair(self) -> Clip:
        """Two people in as few frames and pixels as two cores have time for, twice over, beside the runner."""
        path = self.scratch / "pair.mkv"
        with av.open(str(TWO_PEOPLE)) as source, av.open(str(path), "w") as target:
            (whole,) = source.streams.video
            stream = target.add_stream("libx264", rate=15, options={"crf": "12"})
            stream.width, stream.height, stream.pix_fmt = whole.width // 2, whole.height // 2, "yuv420p"
            frames = [*source.decode(whole)][::4]
            for number, frame in enumerate(frames):
                small = frame.reformat(stream.width, stream.height, "yuv420p")
                small.pts, small.time_base = number, Fraction(1, 15)
                target.mux(stream.encode(small))
            target.mux(stream.encode())
        return Clip(path, frames=len(frames), at=10, people=2, tilt_deg=24.0, roll_deg=-15.0)

    def record(self, name: str, keys: Mapping[str, object]) -> Path:
        """The recording of a device that has run as configured until there is a full window of its curves."""
        directory = self.scratch / name
        keys = {"device": "hall", "rerun.record_dir": directory, **keys}
        with subprocess.Popen(run_command(keys), cwd=ROOT, stderr=subprocess.PIPE, start_new_session=True) as process:
            try:
                _, said = process.communicate(timeout=SECONDS + 4.0)
            except subprocess.TimeoutExpired:
                process.terminate()
                _, said = process.communicate(timeout=10.0)
        if process.returncode:
            sys.exit(f"make.py: the run for {name} ended with {process.returncode}:\n{said.decode()}")
        (recording,) = directory.glob("*.rrd")
        return recording


def run_command(keys: Mapping[str, object]) -> list[str]:
    sets = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "edge", "run", *sets]


def playing(**clips: Clip) -> dict[str, object]:
    """Keys for cameras of these names that show these clips over and over."""
    keys: dict[str, object] = {"pose.max_people": max(clip.people for clip in clips.values())}
    for camera, clip in clips.items():
        keys |= {f"camera.{camera}.source": clip.path, f"camera.{camera}.loop": "true"}
        keys |= {f"camera.{camera}.mount.{name}_deg": getattr(clip, f"{name}_deg") for name in ("tilt", "roll")}
    return keys


def viewer(studio: Studio, picture: Path) -> str:
    return photograph(studio, studio.demo.recording, moment(studio.demo.recording, "demo", RUNNER), picture)


def two_people(studio: Studio, picture: Path) -> str:
    drawn = {
        "camera.front.zone.treadmill.polygon": [[0.1, 0.5], [0.6, 0.5], [0.9, 0.8], [0.4, 0.95]],
        "camera.front.line.middle.begin": [0.1, 0.65],
        "camera.front.line.middle.end": [0.86, 0.55],
    }
    recording = studio.record("two_people", playing(front=studio.pair) | {"rerun.mask": "contour"} | drawn)
    return photograph(studio, recording, moment(recording, "front", studio.pair), picture)


def two_cameras(studio: Studio, picture: Path) -> str:
    recording = studio.record("two_cameras", playing(front=RUNNER, yard=studio.pair))
    return photograph(studio, recording, moment(recording, "yard", studio.pair), picture)


def privacy_mask(studio: Studio, picture: Path) -> str:
    recording = studio.record("privacy_mask", playing(front=studio.pair) | {"privacy.mode": "mask"})
    return photograph(studio, recording, moment(recording, "front", studio.pair), picture)


def privacy_landmarks(studio: Studio, picture: Path) -> str:
    recording = studio.record("privacy_landmarks", playing(front=studio.pair) | {"privacy.mode": "landmarks"})
    return photograph(studio, recording, moment(recording, "front", studio.pair), picture)


def live(studio: Studio, picture: Path) -> str:
    """One round of the demonstration's clip, so that its end goes on with its beginning."""
    recording = studio.demo.recording
    end = moment(recording, "demo", RUNNER)
    step = np.timedelta64(1000 // ANIMATION_HZ, "ms")
    steps = RUNNER.frames * ANIMATION_HZ // 30  # of the clip's 30 frames/s
    with viewer_window(studio.scratch) as client:
        show(client, recording)
        windows = [window_at(client, end - step * left, still_s=0.4) for left in reversed(range(steps))]
    size = (ANIMATION_WIDTH_PX, ANIMATION_WIDTH_PX * HEIGHT_PX // WIDTH_PX)
    first, *others = (window.resize(size, Image.Resampling.LANCZOS) for window in windows)
    duration_ms = 1000 // ANIMATION_HZ
    first.save(picture, save_all=True, append_images=others, duration=duration_ms, loop=0, quality=60, method=6)
    return f"{first.width}x{first.height}, {steps} pictures"


def moment(recording: Path, camera: str, clip: Clip) -> np.datetime64:
    """When `clip` was shown last with all its people found, in the frame nearest to the one that is worth showing."""
    found: list[tuple[int, int]] = []
    for chunk in RrdReader(str(recording)).stream():
        if str(chunk.entity_path) == points_2d_entity(camera) and not chunk.is_static:
            rows = chunk.to_record_batch()
            points = [len(each) for each in rows["Points2D:positions"].to_pylist()]
            times = rows["time"].cast("int64").to_pylist()
            all_there = clip.people * len(MEDIAPIPE_POSE.keypoints)
            frames = rows["frame_idx"].to_pylist()
            found += [(frame, ns) for frame, ns, many in zip(frames, times, points, strict=True) if many == all_there]
    if not found:
        sys.exit(f"make.py: camera {camera} never saw {clip.people} people at once in {recording.name}")
    last = max(frame for frame, _ in found) - clip.frames
    _, time_ns = min((each for each in found if each[0] > last), key=lambda each: abs(each[0] % clip.frames - clip.at))
    return np.datetime64(time_ns, "ns")


def photograph(studio: Studio, recording: Path, when: np.datetime64, picture: Path) -> str:
    with viewer_window(studio.scratch) as client:
        show(client, recording)
        return save(window_at(client, when, still_s=1.0), picture)


def show(client: ViewerClient, recording: Path) -> None:
    if client.open(str(recording)).loading:
        sys.exit("make.py: the viewer takes too long to load the recording")
    at_rest(client, still_s=6.0)  # until what it says of itself in a corner has gone


def window_at(client: ViewerClient, when: np.datetime64, still_s: float) -> Image.Image:
    client.set_time("time", timestamp=when, play_state="paused")
    window = Image.open(io.BytesIO(at_rest(client, still_s))).convert("RGB")
    # The top bar tells of this machine rather than of the recording: that it draws in software, for one.
    return window.crop((0, TOP_BAR_PX, WIDTH_PX, TOP_BAR_PX + HEIGHT_PX))


@contextlib.contextmanager
def viewer_window(scratch: Path) -> Iterator[ViewerClient]:
    """Rerun's native viewer without a screen. ViewerClient.spawn would do if it took a size and an address."""
    port = free_port()
    command = [str(rerun_program()), "--headless", "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--window-size", f"{WIDTH_PX}x{TOP_BAR_PX + HEIGHT_PX}", "--hide-welcome-screen"]
    with local_server(command, port, environment={**os.environ, **without_analytics(scratch)}):
        yield ViewerClient.connect(f"rerun+http://127.0.0.1:{port}/proxy")


def at_rest(client: ViewerClient, still_s: float) -> bytes:
    """The window as PNG, once nothing has changed for so long: the video is decoded, the cameras stand still."""
    deadline, window, since_s = Deadline(60.0), b"", time.monotonic()
    while deadline.left_s():
        time.sleep(0.2)
        if (now := client.take_screenshot()) != window:
            window, since_s = now, time.monotonic()
        elif time.monotonic() - since_s >= still_s:
            return window
    sys.exit("make.py: the viewer did not come to rest")


def terminal(studio: Studio, picture: Path) -> str:
    console = Console(record=True, file=io.StringIO(), width=COLUMNS, force_terminal=True, color_system="truecolor")
    for line in left_on_screen(studio.demo.written.replace(str(Path.home()), "~")):
        text = Text.from_ansi(line)
        for row in text.divide(range(COLUMNS, len(text), COLUMNS)):  # a terminal goes on below where a line is full
            console.print(row, highlight=False)
    return save_svg(console, f"edge-pose demo --seconds {SECONDS}", picture)


def doctor(_: Studio, picture: Path) -> str:
    """A camera that works, and some that don't."""
    cameras = {
        "front": "gstreamer:videotestsrc is-live=true pattern=smpte",
        "side": "gstreamer:nvarguscamerasrc sensor-id=1 ! nvvidconv",
        "back": "v4l2:/dev/video7",
        "door": f"rtsp://anna:secret@127.0.0.1:{free_port()}/1",
        "film": "gstreamer:videotestsrc ! videocnvert",
    }
    sets = [f"--set=camera.{name}.source={source}" for name, source in cameras.items()]
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(DOCTOR_COLUMNS)}
    done = subprocess.run(
        [sys.executable, "-m", "edge", "doctor", "--set=device=hall-pi", *sets],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    console = Console(
        record=True, file=io.StringIO(), width=DOCTOR_COLUMNS, force_terminal=True, color_system="truecolor"
    )
    for line in done.stdout.replace(str(Path.home()), "~").splitlines():
        text = Text.from_ansi(line)
        for row in text.divide(range(DOCTOR_COLUMNS, len(text), DOCTOR_COLUMNS)):
            console.print(row, highlight=False)
    return save_svg(console, "edge-pose doctor", picture)


def save_svg(console: Console, title: str, picture: Path) -> str:
    """What the console has recorded, without what would be fetched from the net to show it."""
    svg = console.export_svg(title=title, unique_id=picture.stem)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", "ui-monospace, Consolas, 'DejaVu Sans Mono', monospace")
    svg = re.sub(r"\s*<!--.*?-->", "", svg.replace("font-family: arial", "font-family: sans-serif"))
    # librsvg cuts off no-break spaces at a text's ends too, and with them the indentation.
    picture.write_text(svg.replace("<svg ", '<svg xml:space="preserve" ', 1))
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', svg)[0]
    return f"{float(width):.0f}x{float(height):.0f}"


def left_on_screen(written: str) -> list[str]:
    """The lines, with their colours, without what was shown for a while and then wiped away."""
    lines, row = [""], 0
    for piece in re.split(r"(\n|\x1b\[\d*A|\x1b\[2K|\x1b\[\?25[hl])", written.replace("\r", "")):
        if piece == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif up := re.fullmatch(r"\x1b\[(\d*)A", piece):
            row -= int(up[1] or 1)
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif not piece.startswith("\x1b[?"):  # which hides and shows the cursor
            lines[row] += piece
    while not lines[-1]:
        lines.pop()
    return lines


def angle(studio: Studio, picture: Path) -> str:
    demo = studio.demo
    times_ns, frames, angles_deg = [], [], []
    for chunk in RrdReader(str(demo.recording)).stream():
        if str(chunk.entity_path) == angles_entity("demo") and not chunk.is_static:
            rows = chunk.to_record_batch()
            times_ns += rows["time"].cast("int64").to_pylist()
            frames += rows["frame_idx"].to_pylist()
            angles_deg += rows["Scalars:scalars"].to_pylist()
    recorded_s = (np.array(times_ns) - times_ns[0]) / 1e9
    messages = [message for message in demo.summaries if message["people"]]
    received_s = [(message["t_us"] - times_ns[0] / 1000) / 1e6 for message in messages]

    figure = Figure(figsize=(9, 4), dpi=100, layout="constrained")
    axes = figure.add_subplot()
    for joint, colour in (("left_knee", "#0072b2"), ("right_knee", "#d55e00")):
        axes.plot(recorded_s, np.array(angles_deg)[:, JOINTS.index(joint)], color=colour, label=joint.replace("_", " "))
        received_deg = [message["people"][0]["angles"].get(joint, np.nan) for message in messages]
        axes.plot(received_s, received_deg, "o", color=colour, markersize=4)
    axes.plot([], [], "k-", label="recorded, every frame")
    axes.plot([], [], "ko", markersize=4, label="received over MQTT, summary")
    for begun_s in recorded_s[np.array(frames) % RUNNER.frames == 0]:
        axes.axvline(begun_s, color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="time in s (dotted: the clip begins again)", ylabel="angle in degrees", xlim=(0, recorded_s[-1]))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return save(Image.open(drawn), picture)


def save(image: Image.Image, picture: Path) -> str:
    # A third of the size in 256 colours; without k-means the thin curves lose theirs to the video.
    image.convert("RGB").quantize(256, kmeans=4).save(picture, optimize=True)
    return f"{image.width}x{image.height}"


def watch(studio: Studio, picture: Path) -> str:
    """Four devices as `edge-pose watch` shows them: one at work with two cameras, one paused, one stopped, one gone."""
    fleet = Fleet("pose/v1")
    with local_broker(BrokerKind.AUTO) as broker, contextlib.ExitStack() as devices:

        def run(device: str, **keys: object) -> subprocess.Popen[bytes]:
            keys |= {"device": device, "mqtt.url": broker.url, "mqtt.version": broker.version, "pose.model": "lite"}
            process = subprocess.Popen(run_command(keys), stderr=subprocess.DEVNULL, cwd=ROOT)
            devices.callback(process.wait)
            devices.callback(process.kill)
            return process

        def shown(device: str, camera: str = "") -> Row | None:
            rows = (row for row in fleet.rows(time.time()) if row.device == device and row.camera in {camera, "front"})
            return next(rows, None)

        def subscribe() -> None:
            of_device = ("state", "info", "health", *(f"camera/+/{kind}" for kind in ("status", "summary", "event")))
            for topic in of_device:
                session.subscribe(f"pose/v1/+/{topic}", qos=1)

        session = Session(
            [broker.url],
            client_id="picture",
            version=broker.version,
            credentials=Credentials(),
            on_online=subscribe,
            on_message=lambda it: fleet.take(it.topic, it.payload, time.time()),
        )

        def until(holds: Callable[[], object]) -> None:
            deadline = Deadline(90.0)
            while not holds():
                session.service()
                time.sleep(0.02)
                if not deadline.left_s():
                    sys.exit("make.py: the devices don't come to what is to be shown")

        clip = {"camera.front.source": CLIP, "camera.front.loop": "true"}
        lost = run("cellar", **{"camera.front.source": "synthetic", "camera.front.fps": 5})
        done = run("attic", **{"camera.front.source": "synthetic", "camera.front.fps": 5})
        until(lambda: shown("cellar") and shown("attic") and shown("attic").fps and shown("cellar").fps)
        lost.kill()
        done.terminate()
        run("hall", **clip, **{"camera.door.source": "rtsp://127.0.0.1:1/door"})
        run("yard", **{"camera.front.source": "synthetic", "camera.front.paused": "true"})
        until(lambda: shown("hall") and (shown("hall").fps or 0) > 10 and shown("cellar").state == "offline")
        console = Console(record=True, file=io.StringIO(), width=110, force_terminal=True, color_system="truecolor")
        console.print(page(f"connected to {session.address}, MQTT {session.protocol}", fleet, time.time(), 110))
        session.close(None, 1.0)
    return save_svg(console, "edge-pose watch", picture)


PICTURES = {
    "terminal": (terminal, "terminal.svg"),
    "doctor": (doctor, "doctor.svg"),
    "angle": (angle, "angle.png"),
    "watch": (watch, "watch.svg"),
}
OF_THE_VIEWER = {
    "viewer": (viewer, "viewer.png"),
    "live": (live, "live.webp"),
    "two_people": (two_people, "two_people.png"),
    "two_cameras": (two_cameras, "two_cameras.png"),
    "privacy_mask": (privacy_mask, "privacy_mask.png"),
    "privacy_landmarks": (privacy_landmarks, "privacy_landmarks.png"),
}


def main() -> None:
    pictures = PICTURES | OF_THE_VIEWER
    parser = argparse.ArgumentParser(description="Make the pictures of the documentation from real runs.")
    parser.add_argument("pictures", nargs="*", choices=[*pictures, "all"], default="all", metavar="PICTURE")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="default: where this file is")
    parser.epilog = f"PICTURE: {', '.join(pictures)}; without one, all of them"
    options = parser.parse_args()
    wanted = [*pictures] if "all" in options.pictures else options.pictures
    if OF_THE_VIEWER.keys() & set(wanted):  # Rerun draws with the one and decodes H.264 with the other
        drivers = [file for place in ("/usr/share", "/etc") for file in Path(place, "vulkan/icd.d").glob("*.json")]
        missing = ["mesa-vulkan-drivers"] * (not drivers) + ["ffmpeg"] * (shutil.which("ffmpeg") is None)
        if missing:
            sys.exit(f"make.py: for the viewer: apt install --no-install-recommends {' '.join(missing)}")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edge-pose-pictures-") as scratch:
        studio = Studio(Path(scratch))
        for name in wanted:
            make, file = pictures[name]
            picture = options.out / file
            size = make(studio, picture)
            print(f"{os.path.relpath(picture)} {size}, {picture.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
