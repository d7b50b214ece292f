"""What Rerun's viewers show of two live cameras, and of their recording afterwards, measured in screenshots.

usage: python -m tests.measure.pictures [--out DIR]

Two clips are marked first: a pure red square in two corners, which tell where the picture is in a window, and between
them the number of the frame in black and white. One clip reaches the daemon as RGB, the other as H.264 in BT.601.
A daemon plays both; a native viewer and a browser look on and are paused, and then a native viewer gets the recording.

red: the middle of the squares, (255, 0, 0) at the source.
moves: the numbers read from two pictures of it, before it was paused.
frame: the number that is read from the picture when it is paused.
drawn: how much of small discs where all keypoints of that frame's observation should be in the window has their
person's colour, 0 to 1; and of which frame's observation, up to four away, that is most: 0, the frame's own.
in mask: how many shoulders, hips, knees and ankles lie in their person's mask.
upright: in space, in metres, by how much shoulders are above hips and hips above ankles, at least; the lowest point.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image
from rerun.experimental import ViewerClient

from edge.cli.local_viewer import local_viewer
from edge.pacing import Deadline
from edge.rerun_log.entities import mask_entity, points_2d_entity, points_3d_entity
from edge.vision.frame import UInt8Array
from edge.vision.pose import Float32Array
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.browser import browser_page
from tests.conftest import CLIP
from tests.rerun_log.reading import chunks, column
from tests.servers import native_viewer

WIDTH_PX, HEIGHT_PX = 1400, 936
FPS = 5  # so that even a busy machine estimates each frame
SQUARE_PX, CODE_PX, BITS = 48, 32, 6
RED = (255, 0, 0)
COLOURS = {1: (86, 180, 233), 2: (230, 159, 0)}  # of the first people, as scene has them
LIMBS = ("shoulder", "hip", "knee", "ankle")
_TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Camera:
    """every: which of the clip's frames are taken. rgb: how it reaches the daemon. tilt_deg, roll_deg: its mount."""

    name: str
    clip: Path
    every: int
    people: int
    rgb: bool
    tilt_deg: float
    roll_deg: float


TWO_PEOPLE = Path(__file__).parents[1] / "media" / "two_people_1088x1920_60fps.mp4"
CAMERAS = (
    Camera("front", TWO_PEOPLE, every=4, people=2, rgb=True, tilt_deg=24.0, roll_deg=-15.0),
    Camera("yard", CLIP, every=2, people=1, rgb=False, tilt_deg=22.0, roll_deg=27.0),
)


def marked(camera: Camera, into: Path) -> int:
    """Write the clip with its marks at FPS; how many frames it has."""
    codec, pixels = ("ffv1", "bgr0") if camera.rgb else ("libx264", "yuv420p")
    with av.open(str(camera.clip)) as source, av.open(str(into), "w") as target:
        pictures = [frame.to_ndarray(format="rgb24") for frame in source.decode(video=0)][:: camera.every]
        stream = target.add_stream(codec, rate=FPS)
        height, width = (side // (2 if side > 1000 else 1) for side in pictures[0].shape[:2])
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if not camera.rgb:
            stream.codec_context.options = {"crf": "8"}
            stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU601, ColorRange.MPEG
        for number, picture in enumerate(pictures):
            small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
            small[:SQUARE_PX, :SQUARE_PX] = small[-SQUARE_PX:, -SQUARE_PX:] = RED
            for bit in range(BITS):
                left, right = (int(edge) for edge in _code_cell(bit, width))
                small[:CODE_PX, left:right] = 255 * (number >> bit & 1)
            target.mux(stream.encode(av.VideoFrame.from_ndarray(small, format="rgb24")))
        target.mux(stream.encode())
    return len(pictures)


def _code_cell(bit: int, width_px: int) -> tuple[float, float]:
    """Where a bit begins and ends, from left to right."""
    first, room = 1.5 * SQUARE_PX, (width_px - 2 * SQUARE_PX) / BITS
    return first + bit * room, first + (bit + 0.8) * room


@dataclass(frozen=True)
class Shown:
    """A camera's picture in a window: where, its number, and the colour of its red squares."""

    left_px: float
    top_px: float
    scale: float
    number: int
    red: tuple[int, ...]

    def at(self, points_px: Float32Array) -> Float32Array:
        """(N, 2) in the window, of (N, 2) in the picture."""
        placed: Float32Array = points_px * np.float32(self.scale) + np.array([self.left_px, self.top_px], np.float32)
        return placed


def find(window: UInt8Array, widths_px: list[int]) -> list[Shown] | None:
    """The pictures of all cameras, from top to bottom; None where their marks are not all there (yet)."""
    red = ((window[..., 0] > 180) & (window[..., 1:].max(axis=2) < 90)).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(red)
    squares = [
        (left, top, wide, high)
        for left, top, wide, high, area in stats[1:].tolist()
        if min(wide, high) >= 10 and max(wide, high) <= 1.3 * min(wide, high) and area >= 0.85 * wide * high
    ]
    squares.sort(key=lambda square: square[1])
    if len(squares) != 2 * len(widths_px):
        return None
    found = []
    for (first, last), width_px in zip(zip(squares[::2], squares[1::2], strict=True), widths_px, strict=True):
        left, top = first[:2]
        scale = (last[0] + last[2] - left) / width_px
        cells = [sum(_code_cell(bit, width_px)) / 2 for bit in range(BITS)]
        y = round(top + CODE_PX / 2 * scale)
        number = sum(int(window[y, round(left + x * scale)].mean() > 127) << bit for bit, x in enumerate(cells))
        middles = [window[up + high // 2, across + wide // 2] for across, up, wide, high in (first, last)]
        found.append(Shown(left, top, scale, number, tuple(np.mean(middles, axis=0).round().astype(int).tolist())))
    return found


@dataclass(frozen=True)
class Look:
    """What was seen through one viewer. moved: the first numbers. until_ns: when it was paused."""

    viewer: str
    window: UInt8Array
    shown: list[Shown]
    moved: list[tuple[int, int]]
    until_ns: int


def look(viewer: str, screenshot: Callable[[], bytes], pause: Callable[[], None], widths_px: list[int]) -> Look:
    """Wait for the pictures, until they move, pause and wait until they don't."""

    def shown(different: list[int] | None = None, still_s: float = 0.0) -> tuple[UInt8Array, list[Shown]]:
        deadline, since_s, numbers = Deadline(_TIMEOUT_S), time.monotonic(), None
        while deadline.left_s():
            window = np.array(Image.open(io.BytesIO(screenshot())).convert("RGB"))
            if (found := find(window, widths_px)) is not None:
                now = [each.number for each in found]
                if now != numbers:
                    numbers, since_s = now, time.monotonic()
                moved = different is None or all(a != b for a, b in zip(now, different, strict=True))
                if moved and time.monotonic() - since_s >= still_s:
                    return window, found
            time.sleep(0.1)
        sys.exit(f"pictures: {viewer} did not show what it should within {_TIMEOUT_S:g} s")

    before = [each.number for each in shown()[1]]
    after = [each.number for each in shown(different=before)[1]]
    pause()
    until_ns = time.time_ns()
    window, found = shown(still_s=3.0)
    return Look(viewer, window, found, list(zip(before, after, strict=True)), until_ns)


@dataclass(frozen=True)
class Observed:
    """An observation as it was recorded. flat: class -> (K, 2) px; body: class -> (K, 3) m; mask: of classes."""

    seq: int
    time_ns: int
    flat: dict[int, Float32Array]
    body: dict[int, Float32Array]
    mask: UInt8Array


def observations(files: list[Path], camera: Camera) -> list[Observed]:
    cells: dict[int, dict[str, object]] = {}
    wanted = {
        points_2d_entity(camera.name): ("Points2D:positions", "Points2D:class_ids"),
        points_3d_entity(camera.name): ("Points3D:positions", "Points3D:class_ids"),
        mask_entity(camera.name): ("SegmentationImage:buffer", "SegmentationImage:format"),
    }
    for chunk in (chunk for file in files for chunk in chunks(file)):
        for name in () if chunk.is_static else wanted.get(str(chunk.entity_path), ()):
            times = chunk.to_record_batch()["time"].cast("int64").to_pylist()
            for seq, time_ns, cell in zip(column(chunk, "frame_idx"), times, column(chunk, name), strict=True):
                cells.setdefault(seq, {"time": time_ns})[name] = cell

    def bodies(row: dict[str, object], kind: str) -> dict[int, Float32Array]:
        points = np.array(row[f"{kind}:positions"], np.float32)
        classes = np.array(row[f"{kind}:class_ids"])
        return {int(each): points[classes == each] for each in np.unique(classes)}

    found = []
    for seq, row in sorted(cells.items()):
        if len(row) == 1 + sum(map(len, wanted.values())):
            (form,), (pixels,) = row["SegmentationImage:format"], row["SegmentationImage:buffer"]  # type: ignore[misc]
            mask = np.array(pixels, np.uint8).reshape(form["height"], form["width"])
            found.append(Observed(seq, int(str(row["time"])), bodies(row, "Points2D"), bodies(row, "Points3D"), mask))
    return found


def limbs(names: tuple[str, ...]) -> list[int]:
    return [MEDIAPIPE_POSE.index(f"{side}_{name}") for name in names for side in ("left", "right")]


def drawn(window: UInt8Array, picture: Shown, seen: Observed) -> float:
    """The part of all discs, of two pixels around each keypoint, that has its person's colour."""
    down, right = np.mgrid[-2:3, -2:3]
    inside = down**2 + right**2 <= 5
    parts = []
    for person, points in seen.flat.items():
        columns, rows = picture.at(points).round().astype(int).T[..., None]
        rows = (rows + down[inside]).clip(0, window.shape[0] - 1)
        columns = (columns + right[inside]).clip(0, window.shape[1] - 1)
        off = np.abs(window[rows, columns].astype(int) - COLOURS[person]).max(axis=-1)
        parts.append((off < 40).mean())
    return float(np.mean(parts))


def in_mask(seen: Observed, size_px: tuple[int, int]) -> tuple[int, int]:
    """How many of the limbs lie in their person's mask, and of how many."""
    rows, columns = seen.mask.shape
    inside = total = 0
    for person, points in seen.flat.items():
        for x, y in (points[limbs(LIMBS)] / size_px * (columns, rows)).astype(int).tolist():
            total += 1
            inside += bool(0 <= x < columns and 0 <= y < rows and seen.mask[y, x] == person)
    return inside, total


def upright(seen: Observed) -> str:
    """y goes down."""
    heights = [
        [-body[limbs((name,)), 1].mean() for name in ("shoulder", "hip", "ankle")] for body in seen.body.values()
    ]
    above_hips = min(shoulder - hip for shoulder, hip, _ in heights)
    above_ankles = min(hip - ankle for _, hip, ankle in heights)
    lowest = max(float(body[:, 1].max()) for body in seen.body.values())
    return f"{above_hips:.2f}, {above_ankles:.2f}, {lowest:.2f}"


def report(looks: list[Look], files: list[Path], frames: list[int], sizes_px: list[tuple[int, int]]) -> None:
    print("viewer            camera  red              moves     frame  drawn      in mask  upright, m")
    for number, camera in enumerate(CAMERAS):
        observed = observations(files, camera)
        for each in looks:
            picture, (before, after) = each.shown[number], each.moved[number]
            # Of the rounds of the clip the last one that it can have been.
            there = [it for it in observed if it.time_ns <= each.until_ns and it.seq % frames[number] == picture.number]
            if not there:
                print(f"{each.viewer:17} {camera.name:7} {picture.red!s:16} frame {picture.number} was never estimated")
                continue
            seen = there[-1]
            near = {
                it.seq - seen.seq: drawn(each.window, picture, it) for it in observed if abs(it.seq - seen.seq) <= 4
            }
            inside, total = in_mask(seen, sizes_px[number])
            print(
                f"{each.viewer:17} {camera.name:7} {picture.red!s:16} {before:2} -> {after:2}   {picture.number:2}    "
                f"{near[0]:.2f}, {max(near, key=near.__getitem__):+d}   {inside:2}/{total:2}    {upright(seen)}"
            )


@contextlib.contextmanager
def daemon(clips: list[Path], push: str, record_dir: Path) -> Iterator[None]:
    keys: dict[str, object] = {"device": "hall", "rerun.url": push, "rerun.record_dir": record_dir}
    keys["pose.max_people"] = max(camera.people for camera in CAMERAS)
    for camera, clip in zip(CAMERAS, clips, strict=True):
        its = {"source": clip, "loop": "true", "mount.tilt_deg": camera.tilt_deg, "mount.roll_deg": camera.roll_deg}
        keys |= {f"camera.{camera.name}.{key}": value for key, value in its.items()}
    sets = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "edge", "run", *sets]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="keep the screenshots there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edge-pose-pictures-") as scratch:
        clips = [Path(scratch) / f"{camera.name}.mkv" for camera in CAMERAS]
        frames = [marked(camera, clip) for camera, clip in zip(CAMERAS, clips, strict=True)]
        sizes_px = [_size_px(clip) for clip in clips]
        widths_px = [width for width, _ in sizes_px]
        looks = []
        recordings = Path(scratch) / "recordings"
        with contextlib.ExitStack() as live:
            server = live.enter_context(local_viewer())
            with browser_page(WIDTH_PX, HEIGHT_PX) as page:
                # First, since a browser that draws in software takes long for what has been before it came.
                page.open(server.page)
                live.enter_context(daemon(clips, server.push, recordings))
                looks.append(look("browser, live", page.screenshot, page.press_space, widths_px))
            with native_viewer(WIDTH_PX, HEIGHT_PX) as client:
                client.open(server.push)
                looks.append(look("native, live", client.take_screenshot, _pauser(client), widths_px))
        files = sorted(recordings.glob("*.rrd"))  # of a few minutes each
        with native_viewer(WIDTH_PX, HEIGHT_PX) as client:
            client.open([str(file) for file in files])
            client.set_time("time", play_state="playing")
            looks.append(look("native, recorded", client.take_screenshot, _pauser(client), widths_px))
        report(looks, files, frames, sizes_px)
    for each in looks if options.out else ():
        options.out.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each.window).save(options.out / f"{each.viewer.replace(', ', '_')}.png", optimize=True)


def _pauser(client: ViewerClient) -> Callable[[], None]:
    return lambda: client.set_time(play_state="paused")


def _size_px(clip: Path) -> tuple[int, int]:
    with av.open(str(clip)) as source:
        return source.streams.video[0].width, source.streams.video[0].height


if __name__ == "__main__":
    main()
