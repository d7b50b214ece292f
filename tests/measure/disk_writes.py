"""What the daemon writes to its disk in each way of logging to Rerun, scaled to a day.

usage: python -m tests.measure.disk_writes [--seconds 120] [--source CLIP] [--keep-mb 512]
           [--modes push h264 jpeg off points]    as root: it mounts an ext4 of its own

All that the daemon may write is on that disk: recordings, events that wait for the broker, its log. What the kernel
counts as written by the process is what it has put into files; what the disk gets has the file system's own writes on
top, whole blocks and its journal, and is what wears out a card.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cli.command import COMMAND, run_settings
from tests.conftest import CLIP, eventually
from tests.servers import mosquitto, rerun_server

MODES: dict[str, dict[str, object]] = {
    "push": {},
    "h264": {"rerun__video": "h264"},
    "jpeg": {"rerun__video": "jpeg"},
    "off": {"rerun__video": "off"},
    "points": {"rerun__video": "off", "rerun__mask": "off"},
}
_DISK_MB = 1500
_WARM_UP_S = 10.0


@dataclass(frozen=True, slots=True)
class Written:
    """In bytes. recorded: how much longer the files became. process: as the kernel counts it. disk: what arrived."""

    recorded: int
    process: int
    disk: int

    @classmethod
    def so_far(cls, process: int, mounted: Path) -> Written:
        counts = dict(line.split(": ") for line in Path(f"/proc/{process}/io").read_text().splitlines())
        device = mounted.stat().st_dev
        sectors = int(Path(f"/sys/dev/block/{device >> 8}:{device & 0xFF}/stat").read_text().split()[6])
        recorded = sum(file.stat().st_size for file in mounted.glob("recordings/*.rrd"))
        return cls(recorded, int(counts["write_bytes"]) - int(counts["cancelled_write_bytes"]), sectors * 512)

    def since(self, before: Written) -> Written:
        return Written(self.recorded - before.recorded, self.process - before.process, self.disk - before.disk)


@contextlib.contextmanager
def disk() -> Iterator[Path]:
    """An ext4 of its own, where it is mounted."""
    with tempfile.TemporaryDirectory() as scratch:
        image, mounted = Path(scratch) / "disk.img", Path(scratch) / "disk"
        mounted.mkdir()
        # Without lazy_itable_init=0 the kernel goes on making the file system after it is mounted.
        options = ["-E", "lazy_itable_init=0,lazy_journal_init=0"]
        make = ["/usr/sbin/mke2fs", "-q", "-t", "ext4", *options, str(image), f"{_DISK_MB}m"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", "loop", str(image), str(mounted)], check=True)
        try:
            yield mounted
        finally:
            subprocess.run(["umount", str(mounted)], check=True)


def measure(mode: str, *, source: str, seconds: float, keep_mb: int) -> Written:
    with disk() as mounted, mosquitto() as broker, rerun_server() as hub:
        keys: dict[str, object] = {"device": "disk", "camera__front__loop": True, "pose__model": "lite"}
        keys |= {"mqtt__url": broker.url, "state_dir": mounted / "state", "rerun__url": hub.url}
        if mode != "push":
            keys |= {"rerun__record_dir": mounted / "recordings", "rerun__keep_mb": keep_mb}
        settings = run_settings(source=source, **keys, **MODES[mode])
        with (mounted / "daemon.log").open("wb") as log:
            daemon = subprocess.Popen([*COMMAND, "run", *settings], stdout=log, stderr=log)
        try:
            eventually(lambda: "streaming to Rerun" in (mounted / "daemon.log").read_text(), 60)
            time.sleep(_WARM_UP_S)
            before = Written.so_far(daemon.pid, mounted)
            time.sleep(seconds)
            written = Written.so_far(daemon.pid, mounted).since(before)
            assert daemon.poll() is None, (mounted / "daemon.log").read_text()
        finally:
            daemon.terminate()
            daemon.wait(30)
        return written


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--source", default=str(CLIP))
    parser.add_argument("--modes", nargs="+", choices=[*MODES], default=[*MODES])
    parser.add_argument("--keep-mb", type=int, default=512)
    options = parser.parse_args()
    print("mode    files MB/day  process MB/day  disk MB/day")
    for mode in options.modes:
        found = measure(mode, source=options.source, seconds=options.seconds, keep_mb=options.keep_mb)
        recorded, process, arrived = (
            each * 86_400 / options.seconds / 1e6 for each in (found.recorded, found.process, found.disk)
        )
        print(f"{mode:<7} {recorded:>12.0f}  {process:>14.0f}  {arrived:>11.0f}", flush=True)


if __name__ == "__main__":
    main()
