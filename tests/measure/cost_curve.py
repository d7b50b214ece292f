"""What cores, workers and cameras give and cost: every combination through `edge-pose bench`, drawn and as a table.

usage: cost_curve.py OUT.svg [rounds=3] [seconds=5] [cores=1,2] [workers=1,2] [cameras=1,2,4]

Everything on, every frame, with broker and Rerun server on the same cores. Takes about a minute a combination.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # easy to tell apart (Okabe and Ito's palette)
WIDTH, HEIGHT, TOP, BOTTOM, LEFT, GAP, PLOT = 900, 400, 64, 88, 56, 84, 360


@dataclass(frozen=True, slots=True)
class Point:
    """What one combination gave: frames a second of all cameras together, processor time of the daemon a frame."""

    cores: int
    workers: int
    cameras: int
    frames_per_s: float
    cpu_ms: float


def bench(cores: int, loop: str, rounds: str, seconds: str, *options: str) -> tuple[float, float]:
    """Frames a second and ms of CPU a frame, on the first `cores` of those that there are."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(usable)[:cores])  # children inherit it
    try:
        command = [sys.executable, "-m", "edge", "bench", "--json", "--only", loop, "--rounds", rounds]
        done = subprocess.run([*command, "--seconds", seconds, *options], check=True, stdout=subprocess.PIPE, text=True)
    finally:
        os.sched_setaffinity(0, usable)
    found: dict[str, Any] = json.loads(done.stdout)
    for doubt in found["doubts"]:
        print(f"! {doubt}", file=sys.stderr)
    return found["frames_per_s"][loop], found["cpu_ms_per_frame"][loop]


def measure(settings: Mapping[str, str]) -> tuple[list[Point], dict[int, tuple[float, float]]]:
    """Every combination, and MediaPipe's own loop for each number of cores."""
    amounts = {name: [int(text) for text in settings[name].split(",")] for name in ("cores", "workers", "cameras")}
    how = (settings["rounds"], settings["seconds"])
    bare = {cores: bench(cores, "bare", *how) for cores in amounts["cores"]}
    points = []
    for cores, workers, cameras in itertools.product(*amounts.values()):
        print(
            f"{_many(cores, 'core')}, {_many(workers, 'worker')} a camera, {_many(cameras, 'camera')}", file=sys.stderr
        )
        options = ("--workers", str(workers), "--cameras", str(cameras))
        points.append(Point(cores, workers, cameras, *bench(cores, "all", *how, *options)))
    return points, bare


def table(points: Sequence[Point], bare: Mapping[int, tuple[float, float]]) -> Iterator[str]:
    """In Markdown."""
    yield "| cores | workers a camera | cameras | frames/s together | CPU ms a frame | times the bare loop's |"
    yield "|---|---|---|---|---|---|"
    for point in points:
        times = point.frames_per_s / bare[point.cores][0]
        amounts = f"{point.cores} | {point.workers} | {point.cameras}"
        yield f"| {amounts} | {point.frames_per_s:.0f} | {point.cpu_ms:.1f} | {times:.2f} |"
    for cores, (frames_per_s, cpu_ms) in bare.items():
        yield f"| {cores} | MediaPipe's own loop | | {frames_per_s:.0f} | {cpu_ms:.1f} | 1 |"


def drawing(points: Sequence[Point], bare: Mapping[int, tuple[float, float]]) -> str:
    """Both figures over the number of cameras, a line for each pair of cores and workers, as SVG."""
    cameras = sorted({point.cameras for point in points})
    pairs = sorted({(point.cores, point.workers) for point in points})
    parts = [f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>']
    for panel, (title, figure) in enumerate((("frames/s, all cameras together", 0), ("CPU ms a frame", 1))):
        left = LEFT + panel * (PLOT + GAP)
        values = [(point.frames_per_s, point.cpu_ms)[figure] for point in points]
        values += [each[figure] for each in bare.values()]
        step = _step(max(values))
        top_value = step * (int(max(values) / step) + 1)

        def y(value: float, top_value: float = top_value) -> float:
            return HEIGHT - BOTTOM - value / top_value * (HEIGHT - BOTTOM - TOP)

        def x(number: int, left: int = left) -> float:
            return left + PLOT * (cameras.index(number) + 0.5) / len(cameras)

        parts.append(_text(left, TOP - 16, title, weight="bold"))
        for value in (step * tick for tick in range(round(top_value / step) + 1)):
            parts.append(_line([(left, y(value)), (left + PLOT, y(value))], "#e0e0e0" if value else "#808080", 1))
            parts.append(_text(left - 8, y(value) + 4, f"{value:g}", anchor="end"))
        below = HEIGHT - BOTTOM + 20
        parts += [_text(x(number), below, _many(number, "camera"), anchor="middle") for number in cameras]
        for cores, each in bare.items():
            height = y(each[figure])
            colour = COLOURS[[pair[0] for pair in pairs].index(cores) % len(COLOURS)]
            parts.append(_line([(left, height), (left + PLOT, height)], colour, 1.5, dashed=True))
        for number, pair in enumerate(pairs):
            colour = COLOURS[number % len(COLOURS)]
            of_pair = [point for point in points if (point.cores, point.workers) == pair]
            places = [(x(point.cameras), y((point.frames_per_s, point.cpu_ms)[figure])) for point in of_pair]
            parts.append(_line(places, colour, 2.5))
            parts += [f'<circle cx="{at:.1f}" cy="{height:.1f}" r="4" fill="{colour}"/>' for at, height in places]
    parts.append(
        _text(
            LEFT,
            22,
            "Everything on, every frame; workers: of each camera; dashed: MediaPipe's own loop on as many cores",
        )
    )
    for number, (cores, workers) in enumerate(pairs):
        at = LEFT + number * 205
        colour = COLOURS[number % len(COLOURS)]
        parts.append(_line([(at, HEIGHT - 24), (at + 24, HEIGHT - 24)], colour, 2.5))
        parts.append(_text(at + 30, HEIGHT - 20, f"{_many(cores, 'core')}, {_many(workers, 'worker')}"))
    body = "\n".join(parts)
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    style = 'font-family="sans-serif" font-size="13" fill="#202020"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n{body}\n</svg>\n'


def _step(most: float) -> float:
    """A round number of which a few make up `most`."""
    return next(each for each in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if most / each <= 6)


def _many(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _line(places: Sequence[tuple[float, float]], colour: str, width: float, *, dashed: bool = False) -> str:
    path = " ".join(f"{at:.1f},{height:.1f}" for at, height in places)
    dashes = ' stroke-dasharray="6 5"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _text(at: float, height: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{at:.1f}" y="{height:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def main() -> None:
    defaults = {"rounds": "3", "seconds": "5", "cores": "1,2", "workers": "1,2", "cameras": "1,2,4"}
    settings = defaults | dict(argument.split("=", 1) for argument in sys.argv[2:])
    points, bare = measure(settings)
    Path(sys.argv[1]).write_text(drawing(points, bare))
    print("\n".join(table(points, bare)))


if __name__ == "__main__":
    main()
