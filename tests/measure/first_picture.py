"""How soon there is a picture: for a viewer that joins late, and for one that waits for a hub's return.

usage: python -m tests.measure.first_picture [--keyframe-s 1 10] [--cameras 1 4] [--line-kb-s 0 400] [--rounds 3]

Cameras of 30 frames/s show the bundled clip, through the lanes and the link of the daemon, without inference, into
Rerun's server. line-kb-s: of the device's way to it; 0: as fast as the loopback interface. What is seen is what a
viewer can decode. The first: any, of whatever time; now: one that was captured less than a second ago.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from edge.bench.footage import shots
from edge.config import CameraConfig, Config, RerunConfig
from edge.lanes import LaneGroup
from edge.rerun_lanes import RerunLanes
from edge.stats import Stats
from tests.conftest import eventually, frame, observe, pose
from tests.rerun_log.hubs import ended, rerun
from tests.rerun_log.onlooker import Arrival, Onlooker
from tests.servers import free_port, relay
from tests.test_rerun_lanes import INFO, running

_FPS = 30
_BEFORE_S = 12.0
_AWAY_S = 6.0
_NOW_S = 1.0


class Filming:
    """Gives the lanes what cameras and estimators do, at their rate, until the end of the block."""

    def __init__(self, group: LaneGroup, cameras: Sequence[str]) -> None:
        self._group = group
        self._cameras = cameras
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        begun_s = time.monotonic()
        found = [pose(mask=(120, 160))]
        for seq, shot in enumerate(itertools.cycle(shots())):
            if self._over.wait(max(0.0, begun_s + seq / _FPS - time.monotonic())):
                return
            for camera in self._cameras:
                filmed = replace(
                    frame(seq=seq, camera=camera),
                    rgb=shot,
                    captured_ns=time.time_ns(),
                    monotonic_ns=time.monotonic_ns(),
                )
                for films in self._group.video:
                    films.offer(filmed)
                for observers in self._group.observers:
                    observers.offer(observe(filmed, found))


def decodable(arrivals: Sequence[Arrival], entity: str) -> Iterator[Arrival]:
    """Those that a viewer which got `arrivals` in this order can show something of."""
    shown: set[int] = set()
    for each in arrivals:
        if each.entity == entity:
            for seq, keyframe in zip(each.seqs, each.column("is_keyframe"), strict=True):
                if keyframe[0] or seq - 1 in shown:
                    shown.add(seq)
            if each.seqs[-1] in shown:
                yield each


def seen_after(onlooker: Onlooker, since_s: float, cameras: Sequence[str]) -> tuple[float, float]:
    """(first, now), in seconds after `since_s`; of the camera that is last."""

    def found() -> list[tuple[float, float]]:
        times = []
        for camera in cameras:
            arrivals = [each for each in list(onlooker.arrivals) if each.at_s >= since_s]
            seen = list(decodable(arrivals, f"/camera/{camera}/video"))
            now = [each.at_s for each in seen if each.at_s - each.captured_s[-1] < _NOW_S]
            if now:
                times.append((seen[0].at_s - since_s, now[0] - since_s))
        return times

    eventually(lambda: len(found()) == len(cameras), 60)
    return max(first for first, _ in found()), max(now for _, now in found())


@contextlib.contextmanager
def looking(port: int) -> Iterator[Onlooker]:
    onlooker = Onlooker(port, keeps_content=True)
    try:
        yield onlooker
    finally:
        onlooker.close()


def once(keyframe_s: float, cameras: int, line_kb_s: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """What a late viewer sees after it has come, and what one sees after the hub has."""
    names = [f"camera{number}" for number in range(cameras)]
    port = free_port()
    with (
        tempfile.TemporaryDirectory() as scratch,
        ended(server := rerun(Path(scratch), port)),
        relay(port, bytes_s=line_kb_s * 1000 or None) as line,
    ):
        server.start()
        config = Config(
            device="bench",
            camera={name: CameraConfig(source="synthetic") for name in names},
            rerun=RerunConfig(url=f"rerun+http://127.0.0.1:{line.port}/proxy", keyframe_s=keyframe_s),
        )
        lanes = RerunLanes("1", Stats([]))
        with running(lanes.build(config, INFO)) as group, Filming(group, names):
            time.sleep(_BEFORE_S)
            with looking(port) as late:
                of_late = seen_after(late, time.time(), names)
            with looking(port) as waiting:
                server.kill()
                time.sleep(_AWAY_S)
                server.start()
                of_waiting = seen_after(waiting, time.time(), names)
        lanes.close()
        return of_late, of_waiting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keyframe-s", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--line-kb-s", type=float, nargs="+", default=[0.0, 400.0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("| keyframe_s | cameras | line, KB/s | late viewer: first, s | now, s | hub's return: first, s | now, s |")
    print("|---|---|---|---|---|---|---|")
    for keyframe_s, cameras, line_kb_s in itertools.product(options.keyframe_s, options.cameras, options.line_kb_s):
        if line_kb_s and cameras > 1:
            continue  # that is too thin for anything
        rounds = [once(keyframe_s, cameras, line_kb_s) for _ in range(options.rounds)]
        columns = zip(*[(*of_late, *of_waiting) for of_late, of_waiting in rounds], strict=True)
        told = [f"{statistics.median(each):.2f} ({max(each):.2f})" for each in columns]
        print(f"| {keyframe_s:g} | {cameras} | {line_kb_s or 'any'} | {' | '.join(told)} |", flush=True)


if __name__ == "__main__":
    main()
