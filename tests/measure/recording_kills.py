"""Recordings of a process that is killed: what can be opened, and what is missing.

usage: python -m tests.measure.recording_kills [--kills 20] [--seed N] [--daemon]

Each life records into the same directory and is killed with SIGKILL at a random moment. Half of them record at a
camera's pace, the others as fast as they can, so that some are killed in the middle of a file's beginning, of an entry
or of a deletion. After each, files are opened as they are, and again after what the next start does to them.

--daemon: it is the daemon itself that is killed, with the bundled clip as its camera, and what is missing is the time
from the last picture on the disk to the kill.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rerun.chunk import RrdReader

from edge.rerun_log.segments import NAME, Segments
from edge.stats import Stats
from tests.cli.command import COMMAND, run_settings
from tests.conftest import eventually
from tests.rerun_log.reading import PROGRAM, column
from tests.rerun_log.scenes import scene

KEEP_BYTES = 6_000_000
VIDEO = "/camera/front/video"
_PATIENCE_S = 30.0
_ROWS = 8
_MORE_THAN_A_DESCRIPTION = 100_000


@dataclass(frozen=True, slots=True)
class Pace:
    every_s: float
    nbytes: int
    most_s: float
    """When it is killed at the latest, after its first entry."""


CAMERA = Pace(0.27, 50_000, 4.0)
FAST = Pace(0.01, 800_000, 0.7)


@dataclass(frozen=True, slots=True)
class Kill:
    """put: how many entries it said it had put. on_disk: up to which of them all that was kept is there. torn_bytes: of
    half a message at the end. most_bytes: the most that was ever seen in the directory. files: that could be opened, of
    this life."""

    pace: Pace
    put: int
    on_disk: int
    torn_bytes: int
    most_bytes: int
    files: int

    @property
    def missing_s(self) -> float:
        return max(0, self.put - self.on_disk) * self.pace.every_s


def run(*, kills: int, seed: int, scratch: Path, paces: Sequence[Pace] = (CAMERA, FAST)) -> list[Kill]:
    """Raises AssertionError for a file that can't be opened, and for one that has a hole. scratch: an empty one."""
    chance = random.Random(seed)
    directory = scratch / "recordings"
    directory.mkdir()
    found = []
    for life in range(kills):
        pace = paces[life % len(paces)]
        found.append(_live_and_die(directory, f"life{life}", pace, pace.most_s * chance.random()))
    return found


def _live_and_die(directory: Path, session: str, pace: Pace, lives_s: float) -> Kill:
    command = [sys.executable, "-m", "tests.rerun_log.recorder", str(directory), session]
    command += [str(KEEP_BYTES), str(pace.every_s), str(pace.nbytes)]
    said: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        output = process.stdout
        assert output is not None
        reader = threading.Thread(target=lambda: said.extend(map(int, output)))
        reader.start()
        most_bytes = _watch(directory, said, lives_s)
        process.kill()
        reader.join()  # what it said before it died counts
    most_bytes = max(most_bytes, used(directory))
    recording_id = scene(session=session).recording_id
    own = parts(directory, recording_id)
    for path in own[-1:]:  # the others ended well
        if path.stat().st_size:
            subprocess.run([str(PROGRAM), "rrd", "stats", str(path)], check=True, capture_output=True, timeout=30)
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    torn_bytes = used(copy)
    start_again(copy)
    torn_bytes -= used(copy)
    seqs: list[int] = []
    files = parts(copy, recording_id)
    for path in files:
        seqs += opened(path)
    if seqs:
        assert seqs == list(range(seqs[0], seqs[-1] + 1)), f"{files[0]} to {files[-1].name} have a hole"
    shutil.rmtree(copy)
    return Kill(pace, len(said), (seqs[-1] + 1) // _ROWS if seqs else 0, torn_bytes, most_bytes, len(files))


def kill_daemon(directory: Path, lives_s: float) -> tuple[float, int]:
    """(seconds from the last picture on the disk to the kill, the most bytes that were in `directory`)."""
    keys: dict[str, object] = {"device": "killed", "camera__front__loop": True, "pose__model": "lite"}
    keys |= {"rerun__record_dir": directory, "rerun__keep_mb": KEEP_BYTES // 1_000_000}
    before = set(directory.iterdir())
    said: list[int] = []
    quiet = subprocess.DEVNULL
    with subprocess.Popen([*COMMAND, "run", *run_settings(**keys)], stdout=quiet, stderr=quiet) as process:

        def records() -> bool:
            return any(path.stat().st_size > _MORE_THAN_A_DESCRIPTION for path in set(directory.iterdir()) - before)

        eventually(records, _PATIENCE_S)
        said.append(0)
        most_bytes = _watch(directory, said, lives_s)
        killed_s = time.time()
        process.kill()
    copy = directory.with_name("copy")
    shutil.copytree(directory, copy)
    start_again(copy)
    (recording_id,) = {path.name.rpartition(".")[0].rpartition(".")[0] for path in set(directory.iterdir()) - before}
    last_s = 0.0
    for path in parts(copy, recording_id):
        assert opened(path)
        for chunk in RrdReader(str(path)).stream():
            if str(chunk.entity_path) == VIDEO and not chunk.is_static:
                captured_ns = chunk.to_record_batch().column("time").cast("int64").to_pylist()
                last_s = max(last_s, *(each / 1e9 for each in captured_ns))
    shutil.rmtree(copy)
    return killed_s - last_s, max(most_bytes, used(directory))


def _watch(directory: Path, said: Sequence[int], lives_s: float) -> int:
    """Until it has lived so long after its first entry; the most bytes that were seen."""
    most_bytes, ends_s = 0, 0.0
    patience_s = time.monotonic() + _PATIENCE_S
    while not ends_s or time.monotonic() < ends_s:
        if said and not ends_s:
            ends_s = time.monotonic() + lives_s
        assert time.monotonic() < patience_s, "it does not record"
        most_bytes = max(most_bytes, used(directory))
        time.sleep(0.003)
    return most_bytes


def start_again(directory: Path) -> None:
    """What the next start does to what it finds."""
    Segments(
        directory,
        "next",
        device="next",
        keep_bytes=KEEP_BYTES,
        keep_free_bytes=1,
        description=lambda: (b"", b""),
        gone=lambda entries: None,
        stats=Stats([]),
    )


def opened(path: Path) -> list[int]:
    """The numbers of the pictures in a file that is whole."""
    reader = RrdReader(str(path))
    assert reader.stream().collect().summary()
    chunks = list(reader.stream())
    assert len({str(chunk.id) for chunk in chunks}) == len(chunks)
    of_video = [chunk for chunk in chunks if str(chunk.entity_path) == VIDEO and not chunk.is_static]
    return [seq for chunk in of_video for seq in column(chunk, "frame_idx")]


def parts(directory: Path, recording_id: str) -> list[Path]:
    found = [(NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    own = [(int(name["part"]), path) for name, path in found if name and name["recording"] == recording_id]
    return [path for _, path in sorted(own)]


def used(directory: Path) -> int:
    """How much all files take. It looks again where one went meanwhile: that made room for what came then."""
    while True:
        names = {path.name for path in directory.iterdir()}
        total = 0
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += (directory / name).stat().st_size
        if names <= {path.name for path in directory.iterdir()}:
            return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--daemon", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "RRD file has no footer")
    if options.daemon:
        with tempfile.TemporaryDirectory() as scratch:
            (directory := Path(scratch) / "recordings").mkdir()
            chance = random.Random(options.seed)
            kills = [kill_daemon(directory, 8 * chance.random()) for _ in range(options.kills)]
        missing = sorted(missing_s for missing_s, _ in kills)
        most_mb = max(most_bytes for _, most_bytes in kills) / 1e6
        median_s, most_s = missing[len(missing) // 2], missing[-1]
        print(f"seed {options.seed}, {len(kills)} kills of the daemon: {median_s:.2f} s missing, {most_s:.2f} at most,")
        print(f"{most_mb:.2f} MB at most of {KEEP_BYTES / 1e6:.0f}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        found = run(kills=options.kills, seed=options.seed, scratch=Path(scratch))
    print(f"seed {options.seed}, {KEEP_BYTES / 1e6:.0f} MB may be kept")
    print("every s  put  on disk  missing s  torn bytes  files")
    for kill in found:
        told = (kill.put, kill.on_disk, kill.missing_s, kill.torn_bytes, kill.files)
        print(f"{kill.pace.every_s:>7.2f}  {told[0]:>3}  {told[1]:>7}  {told[2]:>9.2f}  {told[3]:>10}  {told[4]:>5}")
    missing_s, most_bytes = max(kill.missing_s for kill in found), max(kill.most_bytes for kill in found)
    torn = sum(kill.torn_bytes > 0 for kill in found)
    print(
        f"{len(found)} kills: at most {missing_s:.2f} s missing, {torn} torn, never more than {most_bytes / 1e6:.2f} MB"
    )


if __name__ == "__main__":
    main()
