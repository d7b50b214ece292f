"""What events cost: time and processor, frames, and what wears out a card.

usage: python -m tests.measure.events cost [--events 2000] [--directory D]
       python -m tests.measure.events frames [--rounds 5] [--seconds 14] [--hz 20]
       python -m tests.measure.events bytes [--events 240]    as root: it mounts a file system of its own

cost: the outbox alone, its file in D: the time from putting an event to its being on the disk, and the processor's time
an event, of whoever puts and removes it and of the outbox's thread; one after the other, and as fast as they are put.
frames: frames/s of the clip, unpaced, with so many events a second to a broker, against none.
bytes: what is written to the device below an ext4, an event at a time: put, acknowledged, and everything written back
before the next one, as the kernel does by itself within half a minute.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edge.event_log import EventLog
from edge.mqtt.outbox import Outbox
from edge.reports import CameraEnded
from edge.stats import Percentiles
from tests.conftest import eventually
from tests.measure.outages import Run, daemon
from tests.servers import mosquitto

_SECTOR_BYTES = 512  # of /sys/block/*/stat, whatever the device has
_MINUTES_OF_A_DAY = 1440
_AT_ONCE = 500


class Measured:
    """An outbox with somebody who puts and acknowledges."""

    def __init__(self, directory: Path) -> None:
        self.log = EventLog("20261124T130524Z-d88a2176")
        self.outbox = Outbox(directory, self.log.happened)
        self.log.listen(self.outbox.put)
        self.outbox.start()

    def happens(self) -> str:
        return self.log.happened("front", CameraEnded("rtsp://camera/1: Connection refused"))

    def one(self) -> float:
        """An event, from its beginning until it is removed. How long it took to be on the disk, in milliseconds."""
        began_s = time.perf_counter()
        event_id = self.happens()
        assert self.outbox.settle(10)
        took_ms = 1000 * (time.perf_counter() - began_s)
        self.acknowledge([event_id])
        return took_ms

    def acknowledge(self, event_ids: list[str]) -> None:
        left = {*event_ids}
        while left:
            for each in self.outbox.waiting():
                self.outbox.remove(each.event_id)
                left.discard(each.event_id)
            time.sleep(0.0001)

    def cpu_s(self) -> tuple[float, float]:
        """Of this thread, and of the outbox's."""
        assert self.outbox._thread.ident is not None
        return time.thread_time(), time.clock_gettime(time.pthread_getcpuclockid(self.outbox._thread.ident))


def cost(events: int, directory: Path) -> None:
    with tempfile.TemporaryDirectory(dir=directory) as scratch:
        measured = Measured(Path(scratch))
        measured.one()
        before_s, began_s = measured.cpu_s(), time.perf_counter()
        delays = Percentiles.of([measured.one() for _ in range(events)])
        _tell("one after the other", measured, events, before_s, began_s)
        assert delays
        print(f"  to the disk: p50 {delays.p50_ms:.2f}, p95 {delays.p95_ms:.2f}, p99 {delays.p99_ms:.2f} ms")
        before_s, began_s = measured.cpu_s(), time.perf_counter()
        for _ in range(events // _AT_ONCE):
            happened = [measured.happens() for _ in range(_AT_ONCE)]
            assert measured.outbox.settle(10)
            measured.acknowledge(happened)
        _tell(f"{_AT_ONCE} at once", measured, events // _AT_ONCE * _AT_ONCE, before_s, began_s)
        measured.outbox.close(5)


def _tell(what: str, measured: Measured, events: int, before_s: tuple[float, float], began_s: float) -> None:
    spent_us = 1e6 * (time.perf_counter() - began_s) / events
    here_us, there_us = (1e6 * (now - then) / events for now, then in zip(measured.cpu_s(), before_s, strict=True))
    print(
        f"{what}: {spent_us:.0f} µs an event; CPU {there_us:.0f} µs of the outbox's thread, {here_us:.0f} µs of others"
    )


def frames(rounds: int, seconds: float, hz: float) -> None:
    runs: dict[str, list[Run]] = {"none": [], "events": []}
    with mosquitto() as broker, tempfile.TemporaryDirectory() as scratch:
        for number in range(rounds):
            for name in sorted(runs, reverse=number % 2 == 0):
                settings = [f"mqtt.url={broker.url}", f"state_dir={scratch}/{name}"]
                settings += [f"events_hz={hz}"] if name == "events" else []
                runs[name].append(run := daemon(settings, seconds, []))
                told = run.sent.get("mqtt event", 0)
                print(f"round {number}: {name}: {run.frames_per_s:.1f} frames/s, {told} events, drops {run.drops}")
    for name, made in runs.items():
        middle = [statistics.median(getattr(run, of) for run in made) for of in ("frames_per_s", "cpu_ms_per_frame")]
        print(f"{name}: {middle[0]:.1f} frames/s, CPU {middle[1]:.2f} ms a frame")
    ratios = [with_them.frames_per_s / none.frames_per_s for none, with_them in zip(*runs.values(), strict=True)]
    print(f"{hz:g} events/s against none: {statistics.median(ratios):.3f} {[round(ratio, 3) for ratio in ratios]}")


def written_bytes(events: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        image, mounted = Path(scratch) / "disk.img", Path(scratch) / "disk"
        mounted.mkdir()
        _run("/usr/sbin/mke2fs", "-q", "-t", "ext4", str(image), "256m")
        device = _run("losetup", "--find", "--show", str(image)).strip()
        try:
            # Without what the kernel does to the file system's tables in the background during the first minutes.
            _run("mount", "-o", "init_itable=0,noatime", device, str(mounted))
            try:
                _count(events, mounted, Path("/sys/block") / Path(device).name / "stat")
            finally:
                _run("umount", str(mounted))
        finally:
            _run("losetup", "--detach", device)


def _count(events: int, mounted: Path, stat: Path) -> None:
    def written() -> int:
        return int(stat.read_text().split()[6]) * _SECTOR_BYTES

    measured = Measured(mounted)
    measured.one()
    eventually(lambda: not len(measured.outbox))
    time.sleep(5)  # for the rest of what mounting makes the kernel do
    _run("sync", "-f", str(mounted))
    before, put, removed = written(), 0, 0
    for _ in range(events):
        start = written()
        event_id = measured.happens()
        assert measured.outbox.settle(10)
        put += written() - start
        start = written()
        measured.acknowledge([event_id])
        eventually(lambda: not measured.outbox._removed and not measured.outbox._removing)
        _run("sync", "-f", str(mounted))
        removed += written() - start
    total = written() - before
    print(
        f"{events} events: {total / events:.0f} bytes each ({put / events:.0f} until it counts, {removed / events:.0f}"
        f" for its removal and what is written back), {total / events * _MINUTES_OF_A_DAY / 1e6:.1f} MB a day at one a"
        " minute"
    )
    measured.outbox.close(5)


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "frames", "bytes"])
    parser.add_argument("--events", type=int)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=14)
    parser.add_argument("--hz", type=float, default=20)
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    match options.what:
        case "cost":
            cost(options.events or 2000, options.directory)
        case "frames":
            frames(options.rounds, options.seconds, options.hz)
        case "bytes":
            written_bytes(options.events or 240)


if __name__ == "__main__":
    main()
