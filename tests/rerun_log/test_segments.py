"""The log on disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import random
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rerun.chunk import RrdReader

from edge.errors import ConfigError
from edge.privacy import Shows
from edge.rerun_log import rrd, segments
from edge.rerun_log.log import Description, Entry, SceneLog
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.scene import Scene
from edge.rerun_log.segments import NAME, Segments
from edge.stats import DropCause, Stats
from tests.full_disk import fill, free
from tests.rerun_log.reading import PROGRAM, rows, static
from tests.rerun_log.scenes import points_parcel, scene, video_parcel
from tests.rerun_log.seen import in_file, shown

pytestmark = pytest.mark.integration

POINTS = "/camera/front/video/pose/points"
VIDEO = "/camera/front/video"
MB = 1_000_000
RECORDING = scene().recording_id


class Desk:
    """A log and what it puts into a directory. Once it has a `budget` this is looked at after each entry."""

    def __init__(
        self, directory: Path, *, keep_bytes: int = 100 * MB, keep_free_bytes: int = 1, about: Scene | None = None
    ) -> None:
        about = about or scene()
        self.directory = directory
        self.stats = Stats([])
        self.log = SceneLog(self.stats)
        self.log.describe(about)
        self.budget = keep_bytes
        self.largest = 0
        self.gone: list[tuple[int, int]] = []
        self.entries: dict[int, Entry] = {}
        self.segments = Segments(
            directory,
            about.recording_id,
            device=about.device,
            keep_bytes=keep_bytes,
            keep_free_bytes=keep_free_bytes,
            description=lambda: self.log.description,
            gone=self.gone.extend,
            stats=self.stats,
        )
        self._arrived: list[Entry] = []
        self.log.keep_longer(self.segments, self._arrived.append)

    def put(self, *parcels: Parcel) -> None:
        for parcel in parcels:
            self.log.put(parcel)
            self.write()

    def write(self) -> None:
        for entry in self._arrived:
            self.entries[entry.number] = entry._replace(shows=Shows.PICTURES)  # files know no more of what is in them
        self.segments.write(self._arrived)
        self._arrived.clear()
        self.largest = max(self.largest, used(self.directory))
        assert self.largest <= self.budget

    def take(self, *parcels: Parcel) -> list[Entry]:
        """What a lane has in hand."""
        for parcel in parcels:
            self.log.put(parcel)
        taken, self._arrived[:] = list(self._arrived), []
        return taken

    def miss(self, *parcels: Parcel) -> None:
        """Entries that the lane in front of it lets go."""
        for parcel in parcels:
            self.log.put(parcel)
        self._arrived.clear()

    def describe(self, about: Scene) -> None:
        """As the daemon does between the end of one lane and the beginning of another."""
        self.log.describe(about)
        self._arrived.clear()
        self.segments.begin(self.log.next)

    @property
    def files(self) -> list[Path]:
        return recordings(self.directory, self.segments._recording_id)

    def dropped(self) -> dict[DropCause, int]:
        return {cause: items for (_, cause), items in self.stats.drops().items()}

    def close(self) -> None:
        self.segments.close(1.0)
        self.log.close()


@contextlib.contextmanager
def desk(directory: Path, *, keep_bytes: int = 100 * MB, about: Scene | None = None) -> Iterator[Desk]:
    made = Desk(directory, keep_bytes=keep_bytes, about=about)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of 8 MB in memory, which only a process that waits has mounted."""
    directory = tmp_path_factory.mktemp("mounted")
    unshare = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
    mount = 'mount -t tmpfs -o size=8m none "$0" && echo mounted && exec cat'
    command = [*unshare, "sh", "-c", mount, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"mounted\n"
        yield Path(f"/proc/{process.pid}/root{directory}")
        process.kill()


@pytest.fixture
def disk(small_disk: Path) -> Iterator[Path]:
    yield small_disk
    for path in small_disk.iterdir():
        path.unlink()


def look_always(monkeypatch: pytest.MonkeyPatch) -> None:
    """See before each entry what others have done to the directory and the disk."""
    monkeypatch.setattr(segments, "_LOOK_EVERY_S", 0.0)
    monkeypatch.setattr(segments, "_LOOK_SHARE", 1e9)


def recordings(directory: Path, recording: str = "") -> list[Path]:
    """In the order in which they were begun."""
    found = [path for path in directory.iterdir() if NAME.fullmatch(path.name) and path.name.startswith(recording)]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))


def used(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.suffix == ".rrd")


def video(count: int, *, first: int = 0, every: int = 4, nbytes: int = 6000) -> list[Parcel]:
    """48 kB each, of which every fourth begins with a keyframe."""
    return [video_parcel(number, every=every, nbytes=nbytes) for number in range(first, first + count)]


def opened(path: Path) -> list[str]:
    """The ids of a file's chunks, after it was read as a whole in every way there is."""
    reader = RrdReader(str(path))
    (entry,) = reader.recordings()
    assert entry.application_id == "edge-pose-bench"
    assert reader.stream().collect().summary()
    ids = [str(chunk.id) for chunk in reader.stream()]
    assert len({*ids}) == len(ids) > 0
    return ids


def fake(directory: Path, name: str, *, age_s: float = 1000, size: int = 1000) -> Path:
    """A recording of somebody else's; what matters of it is its size."""
    path = directory / name
    path.write_bytes(b"RRF2" + bytes(8) + (2).to_bytes(8, "little") + (size - 28).to_bytes(8, "little"))
    os.truncate(path, size)
    at_ns = path.stat().st_mtime_ns - int(age_s * 1e9)
    os.utime(path, ns=(at_ns, at_ns))
    return path


def test_what_is_written_can_be_read_back(tmp_path: Path) -> None:
    with desk(tmp_path) as here:
        here.put(*(points_parcel(number) for number in range(10)))
        path = here.segments.path
        assert path == tmp_path / f"{RECORDING}.0001.rrd"
        assert rows(path)[POINTS] == list(range(20)), "while it is being written"
    opened(path)
    assert rows(path)[POINTS] == list(range(20))
    assert here.stats.sends() == {"recording rows": 20}
    assert not here.stats.drops()
    assert stat.S_IMODE(path.stat().st_mode) & 0o037 == 0, "a picture of somebody is not for everybody"


def test_each_file_can_be_opened_alone_and_begins_with_a_keyframe(tmp_path: Path) -> None:
    with desk(tmp_path, keep_bytes=2 * MB) as here:
        here.put(*video(24))
        files = here.files
        assert [path.name for path in files] == [f"{RECORDING}.{part:04d}.rrd" for part in range(1, len(files) + 1)]
        assert len(files) > 3
    ids = [chunk_id for path in files for chunk_id in opened(path)]
    whole = static(files[0])
    seqs: list[int] = []
    for path in files:
        assert static(path) == whole
        found = rows(path)[VIDEO]
        assert found[0] % 32 == 0, "where a keyframe is"
        seqs += found
        command = [str(PROGRAM), "rrd", "stats", str(path)]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
    assert seqs == list(range(192))
    assert len(ids) - len({*ids}) == (len(files) - 1) * sum(chunk_is_static(files[0]))


def chunk_is_static(path: Path) -> list[bool]:
    return [chunk.is_static for chunk in RrdReader(str(path)).stream()]


def test_where_no_keyframe_comes_a_file_ends_at_twice_its_size(tmp_path: Path) -> None:
    with desk(tmp_path, keep_bytes=2 * MB) as here:
        here.put(*video(25, every=1000))
        assert len(here.files) > 2
        assert min(path.stat().st_size for path in here.files[:-1]) > 430_000
        assert max(path.stat().st_size for path in here.files) <= 500_000


def test_parts_beyond_9999_are_in_order(tmp_path: Path) -> None:
    fake(tmp_path, f"{RECORDING}.9999.rrd")
    with desk(tmp_path) as here:
        here.put(points_parcel(0))
        assert here.segments.path.name == f"{RECORDING}.10000.rrd"
        here.segments.close(1.0)
        here.put(points_parcel(1))
        assert [path.name for path in here.files[1:]] == [f"{RECORDING}.1000{part}.rrd" for part in (0, 1)]


def test_a_recording_that_begins_is_there_at_once_and_within_the_budget(tmp_path: Path) -> None:
    with desk(tmp_path, keep_bytes=MB) as here:
        others = [fake(tmp_path, f"other.000{part}.rrd", size=600_000) for part in (1, 2)]
        here.segments.begin(here.log.next)
        here.write()
        assert [path.exists() for path in others] == [False, True]
        (first,) = here.files
        opened(first)
        here.put(*video(2))
        assert [here.segments.read(number) for number in range(2)] == [here.entries[number] for number in range(2)]
        here.segments.begin(here.log.next)
        here.put(*video(1, first=4))
        assert [len(rows(path)) for path in here.files] == [1, 1]


class TestTheBudget:
    def test_the_oldest_go_and_it_is_never_exceeded(self, tmp_path: Path) -> None:
        with desk(tmp_path, keep_bytes=2 * MB) as here:
            chance = random.Random(1)
            for number in range(150):
                here.put(*video(1, first=number, nbytes=chance.choice((100, 6000, 12_000))))
            assert here.largest > 1.6 * MB
            held = [number for number in here.entries if here.segments.holds(number)]
            assert [number for number, _ in here.gone] == [number for number in here.entries if number < held[0]]
            assert {rows for _, rows in here.gone} == {8}
            assert held == list(range(held[0], 150))
            for path in here.files:
                opened(path)
            assert [seq for path in here.files for seq in rows(path)[VIDEO]] == list(range(8 * held[0], 8 * 150))
            assert not here.stats.drops()

    def test_older_recordings_go_first_by_their_age_whatever_their_names(self, tmp_path: Path) -> None:
        others = [
            fake(tmp_path, name, age_s=age_s, size=500_000) for name, age_s in (("b.0001.rrd", 9), ("a.0007.rrd", 5))
        ]
        with desk(tmp_path, keep_bytes=2 * MB) as here:
            here.put(*video(17, every=1))
            assert [path.exists() for path in others] == [False, True]
            here.put(*video(10, first=17, every=1))
            assert [path.exists() for path in others] == [False, False]
            assert not here.gone
            here.put(*video(20, first=27, every=1))
            assert here.gone

    def test_files_of_other_names_are_neither_counted_nor_touched(self, tmp_path: Path) -> None:
        names = ("notes.rrd", "old-style.rrd", "a.0001.rrd.part", "a.001.rrd", "holiday.mp4")
        kept = [fake(tmp_path, name, size=3 * MB) for name in names]
        here = Desk(tmp_path, keep_bytes=2 * MB)
        here.budget = 2 * MB + used(tmp_path)
        here.put(*video(60))
        here.close()
        assert all(path.stat().st_size == 3 * MB for path in kept)

    def test_what_another_process_writes_stays_and_counts(self, tmp_path: Path) -> None:
        theirs, finished = fake(tmp_path, "theirs.0002.rrd", size=MB), fake(tmp_path, "theirs.0001.rrd", size=200_000)
        with theirs.open("rb") as writing:
            fcntl.flock(writing, fcntl.LOCK_EX)
            with desk(tmp_path, keep_bytes=2 * MB) as here:
                here.put(*video(60))
                assert theirs.exists()
                assert not finished.exists()
                assert here.gone
                assert here.largest > 1.5 * MB

    def test_two_that_share_a_directory_share_its_budget(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        look_always(monkeypatch)  # as if they were slow
        with (
            desk(tmp_path, keep_bytes=3 * MB, about=scene(session="a")) as one,
            desk(tmp_path, keep_bytes=3 * MB, about=scene(session="b")) as other,
        ):
            for number in range(0, 100, 4):
                one.put(*video(4, first=number))
                other.put(*video(4, first=number))
            for here in (one, other):
                assert here.files
                opened(here.files[-1])

    def test_where_there_is_no_room_for_any_nothing_remains_of_a_try(self, tmp_path: Path) -> None:
        theirs = fake(tmp_path, "theirs.0001.rrd", size=MB)
        with theirs.open("rb") as writing:
            fcntl.flock(writing, fcntl.LOCK_EX)
            with desk(tmp_path, keep_bytes=MB) as here:
                here.put(*video(3))
                assert recordings(tmp_path) == [theirs]
                assert here.dropped() == {DropCause.DISK_BUDGET: 24}

    def test_one_that_can_not_be_deleted_stays_and_the_next_one_goes(self, tmp_path: Path) -> None:
        stuck = tmp_path / "a.0001.rrd"
        stuck.mkdir()
        os.utime(stuck, (0, 0))
        other = fake(tmp_path, "b.0001.rrd", size=MB)
        with desk(tmp_path, keep_bytes=MB) as here:
            here.budget += stuck.stat().st_size
            here.put(*video(3))
            assert not other.exists()
            assert here.stats.sends() == {"recording rows": 24}


class TestTheDisk:
    def test_so_much_of_it_stays_free(self, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        look_always(monkeypatch)
        here = Desk(disk, keep_free_bytes=4 * MB)
        least = shutil.disk_usage(disk).free
        for number in range(150):
            here.put(*video(1, first=number))
            least = min(least, shutil.disk_usage(disk).free)
        assert least >= 4 * MB - 8 * 4096, "files take whole pages there"
        assert here.largest > 2 * MB
        assert here.gone
        (disk / "others").write_bytes(bytes(2 * MB))
        here.put(*video(1, first=150))
        assert shutil.disk_usage(disk).free >= 4 * MB - 8 * 4096
        for path in here.files:
            opened(path)
        here.close()

    def test_where_others_leave_no_room_recording_pauses_and_goes_on_with_a_keyframe(
        self, disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        look_always(monkeypatch)
        monkeypatch.setattr(segments, "_SYNC_EVERY_S", 0.0)
        caplog.set_level(logging.INFO)
        here = Desk(disk, keep_free_bytes=MB)
        here.put(*video(10))
        (disk / "others").write_bytes(bytes(shutil.disk_usage(disk).free))
        here.put(*video(9, first=10))
        assert sum(here.dropped().values()) == 8 * 9
        assert caplog.text.count("recording pauses: only ") == 1
        assert "rerun.keep_free_mb" in caplog.text
        (disk / "others").unlink()
        here.put(*video(10, first=19))
        assert sum(here.dropped().values()) == 8 * 10
        assert "again" in caplog.text
        here.close()
        for path in here.files:
            opened(path)
        assert rows(here.files[-1])[VIDEO] == list(range(8 * 20, 8 * 29))

    def test_full_to_the_last_byte_and_back(
        self, disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """As a quota does it: there seems to be room."""
        monkeypatch.setattr(segments, "_SYNC_EVERY_S", 0.0)
        here = Desk(disk)
        here.put(*video(5))
        here.segments._keep_free_bytes = -100 * MB
        fill(disk)
        here.put(*video(7, first=5))
        assert here.dropped().keys() == {DropCause.SINK_FAILED, DropCause.BROKEN_GROUP}
        assert caplog.text.count(os.strerror(errno.ENOSPC)) == 1
        assert len(here.files) == 1, "tries leave nothing behind"
        assert len(opened(here.files[0])) > 5
        free(disk)
        here.put(*video(4, first=12))
        here.close()
        assert [len(opened(path)) > 4 for path in here.files] == [True, True]
        assert rows(here.files[1])[VIDEO] == list(range(8 * 12, 8 * 16))
        written, lost = here.stats.sends()["recording rows"], sum(here.dropped().values())
        assert written + lost == 8 * 16
        assert sum(len(rows(path)[VIDEO]) for path in here.files) == written

    def test_full_from_the_beginning_it_waits_for_room(self, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        look_always(monkeypatch)
        monkeypatch.setattr(segments, "_SYNC_EVERY_S", 0.0)
        fill(disk)
        here = Desk(disk, keep_free_bytes=MB)
        here.put(*video(4))
        assert not here.files
        free(disk)
        here.put(*video(4, first=4))
        here.close()
        assert rows(here.files[0])[VIDEO] == list(range(32, 64))


class TestWhatGoesWrong:
    def test_a_lane_left_behind_spoils_nothing_that_another_one_writes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A reload while the disk stalls."""
        stalled, goes_on, write = threading.Event(), threading.Event(), os.pwrite

        def stall(file: int, content: bytes, at: int) -> int:
            if threading.current_thread() is left:
                stalled.set()
                assert goes_on.wait(10.0)
            return write(file, content, at)

        with desk(tmp_path) as here:
            here.put(*video(2))
            old = here.take(*video(3, first=2, every=1))
            left = threading.Thread(target=here.segments.write, args=(old,))
            monkeypatch.setattr(os, "pwrite", stall)
            left.start()
            assert stalled.wait(10.0)
            here.describe(scene(max_people=2))
            new = here.take(*video(4, first=8))
            following = threading.Thread(target=here.segments.write, args=(new,))
            following.start()
            following.join(0.1)
            assert following.is_alive(), "it waits for its turn"
            goes_on.set()
            for thread in (left, following):
                thread.join(10.0)
            assert [here.segments.read(each.number) for each in new] == new
            assert [here.segments.holds(each.number) for each in old] == [True, False, False], "counted by its lane"
            assert [len(rows(path)[VIDEO]) for path in here.files] == [8 * 3, 8 * 4]
            for path in here.files:
                opened(path)

    def test_a_file_that_is_there_already_is_passed_over(self, tmp_path: Path) -> None:
        with desk(tmp_path) as here:
            theirs = fake(tmp_path, f"{RECORDING}.0001.rrd")
            content = theirs.read_bytes()
            here.put(*video(2))
            assert theirs.read_bytes() == content
            assert here.segments.path.name == f"{RECORDING}.0002.rrd"
            assert not here.stats.drops()

    def test_what_can_not_be_deleted_can_still_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(segments, "_SYNC_EVERY_S", 0.0)
        with desk(tmp_path, keep_bytes=MB) as here:
            here.put(*video(18))
            held = [number for number in here.entries if here.segments.holds(number)]

            def refuse(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - as Path's own
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

            with monkeypatch.context() as disk:
                disk.setattr(Path, "unlink", refuse)
                here.put(*video(12, first=20))
            assert here.dropped()
            assert [number for number in held if not here.segments.holds(number)] == []
            assert [here.segments.read(number) for number in held] == [here.entries[number] for number in held]

    def test_what_never_fits_costs_nothing_that_is_there(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        other = fake(tmp_path, "other.0001.rrd")
        with desk(tmp_path, keep_bytes=MB) as here:
            here.put(*video(3))
            here.put(video_parcel(4, nbytes=200_000))
            assert other.exists()
            assert [number for number in range(4) if here.segments.holds(number)] == [0, 1, 2]
        told = r"recording pauses: 1\.\d MB are to be written at once, rerun\.keep_mb allows 1 in all"
        assert len(re.findall(told, caplog.text)) == 1

    def test_a_file_has_its_lock_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Or another daemon that starts takes it for one that was only begun, and removes it."""
        lock, before = fcntl.flock, list[list[Path]]()

        def look(file: int, how: int) -> None:
            before.append(recordings(tmp_path))
            lock(file, how)

        with desk(tmp_path) as here:
            monkeypatch.setattr(fcntl, "flock", look)
            here.put(*video(1))
            monkeypatch.undo()
        assert before == [[]]
        assert [path.name for path in tmp_path.iterdir()] == [f"{RECORDING}.0001.rrd"]

    def test_another_budget_holds_from_the_next_beginning_on(self, tmp_path: Path) -> None:
        with desk(tmp_path, keep_bytes=10 * MB) as here:
            here.put(*video(47))
            assert here.files[-1].stat().st_size > MB
            here.segments.keep(MB, 1)
            here.segments.begin(here.log.next)
            here.put(*video(20, first=48))
            assert used(tmp_path) <= MB
            assert here.segments.read(66) == here.entries[66]
            assert not here.dropped()


class TestReading:
    def test_entries_come_back_by_number_from_every_file_while_it_is_written(self, tmp_path: Path) -> None:
        with desk(tmp_path, keep_bytes=2 * MB) as here:
            chance = random.Random(2)
            for number in range(120):
                here.put(*video(1, first=number), points_parcel(number))
                for asked in chance.sample(sorted(here.entries), min(5, len(here.entries))):
                    found = here.segments.read(asked)
                    assert found == (here.entries[asked] if here.segments.holds(asked) else None)
            assert here.gone
            held = [number for number in here.entries if here.segments.holds(number)]
            assert [here.segments.read(number) for number in held] == [here.entries[number] for number in held]
            assert here.segments.read(240) is None
            assert not here.segments.holds(240)

    def test_what_was_missed_is_not_there_and_what_follows_it_is(self, tmp_path: Path) -> None:
        with desk(tmp_path) as here:
            here.put(*video(2))
            here.miss(*video(1, first=2))
            here.put(*video(7, first=3))
            held = [number for number in range(10) if here.segments.holds(number)]
            assert held == [0, 1, *range(4, 10)]
            assert [here.segments.read(number) for number in held] == [here.entries[number] for number in held]
            assert here.segments.read(2) is None
            assert here.dropped() == {DropCause.BROKEN_GROUP: 8}
            assert len(here.files) == 1
            here.put(points_parcel(0))
            here.miss(points_parcel(1), points_parcel(2))
            here.put(points_parcel(3))
            assert [here.segments.holds(number) for number in range(10, 14)] == [True, False, False, True]
            assert here.segments.read(13) == here.entries[13]

    def test_whatever_the_lane_lets_go_of_each_cameras_video_goes_on_with_a_keyframe(self, tmp_path: Path) -> None:
        chance = random.Random(9)
        with desk(tmp_path) as here:
            for number in range(120):
                for camera in ("front", "back"):
                    parcel = video_parcel(number, camera=camera, every=6, nbytes=50)
                    (here.miss if chance.random() < 0.1 else here.put)(parcel)
            (file,) = here.files
        for camera in ("front", "back"):
            found = [seq // 8 for seq in rows(file)[f"/camera/{camera}/video"] if seq % 8 == 0]
            assert all(number % 6 == 0 or number - 1 in found for number in found)
            assert len(found) > 30

    def test_a_file_that_was_deleted_by_hand_holds_nothing_any_more(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look_always(monkeypatch)
        with desk(tmp_path, keep_bytes=2 * MB) as here:
            here.put(*video(12, every=1))
            first, *_, last = here.files
            first.unlink()
            assert here.segments.read(0) == here.entries[0]._replace(framed=b"")
            last.unlink()
            here.put(*video(1, first=12, every=1))
            assert [number for number, _ in here.gone] == [
                number for number in range(12) if not here.segments.holds(number)
            ]
            assert {0, 11} <= {number for number, _ in here.gone}
            assert rows(here.files[-1])[VIDEO] == list(range(96, 104))

    @pytest.mark.parametrize("again", [False, True], ids=["of this run", "of an earlier one"])
    def test_what_is_damaged_is_not_handed_out_but_counted(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, *, again: bool
    ) -> None:
        """A server refuses a call with a message that it can't read, and all that is in it, however often it comes."""
        here = Desk(tmp_path)
        here.log.attach("hub", "link", lambda: None)
        here.put(*video(5, every=1))
        (path,) = here.files
        content = bytearray(path.read_bytes())
        places = [at for at, _, length in rrd.frames(bytes(content), rrd.HEADER_BYTES) if length > 40_000]
        content[places[1]] = 77  # no kind that there is
        content[places[2] + rrd.FRAME_BYTES + 30 : places[2] + rrd.FRAME_BYTES + 60] = b"\xff" * 30
        path.write_bytes(content[: places[4] + 1000])
        if again:
            here.close()
            here = Desk(tmp_path, about=scene(session="again"))
        receiver = here.log.attach("hub", "link", lambda: None)
        here.log.connected(receiver)
        sound = [entry.framed for entry in iter(lambda: here.log.next_of_gap(receiver), None)]
        expected = [bytes(content[places[number] : places[number + 1]]) for number in (0, 3)]
        assert sound[-2:] == expected
        assert caplog.text.count("is damaged or gone: what was at byte") == 1
        dropped = here.stats.drops()["link", DropCause.SINK_FAILED]
        assert dropped == (2 if again else 16), "of earlier runs a message counts as a row"
        here.close()


class TestMending:
    @pytest.fixture(scope="class")
    def whole(self, tmp_path_factory: pytest.TempPathFactory) -> bytes:
        directory = tmp_path_factory.mktemp("whole")
        with desk(directory) as here:
            here.put(*(points_parcel(number) for number in range(3)))
        return here.files[0].read_bytes()

    @pytest.fixture
    def torn(self, tmp_path: Path) -> Path:
        return tmp_path / "earlier.0002.rrd"

    def next_start(self, torn: Path) -> None:
        with desk(torn.parent):
            pass

    def test_a_torn_end_is_cut_off(self, torn: Path, whole: bytes) -> None:
        ends = [at + rrd.FRAME_BYTES + length for at, _, length in rrd.frames(whole, rrd.HEADER_BYTES)]
        for end in ends[-3:]:
            for missing in (1, 17, 100):
                torn.write_bytes(whole[: end - missing])
                self.next_start(torn)
                assert torn.stat().st_size == max(each for each in ends if each <= end - missing)
                opened(torn)

    def test_what_is_whole_is_not_touched(self, torn: Path, whole: bytes) -> None:
        torn.write_bytes(whole)
        os.utime(torn, (0, 0))
        self.next_start(torn)
        assert (torn.read_bytes(), torn.stat().st_mtime) == (whole, 0)

    @pytest.mark.parametrize("size", [0, 1, 11, 12, 27, 100])
    def test_a_file_that_was_only_begun_is_removed(self, torn: Path, whole: bytes, size: int) -> None:
        torn.write_bytes(whole[:size])
        self.next_start(torn)
        assert not torn.exists()

    def test_zeros_at_the_end_are_cut_off_as_well(self, torn: Path, whole: bytes) -> None:
        for zeros in (7, 16, 5000):
            torn.write_bytes(whole + bytes(zeros))
            self.next_start(torn)
            assert torn.read_bytes() == whole

    def test_an_index_at_the_end_stays(self, torn: Path) -> None:
        stream = scene().new_stream()
        stream.save(torn)
        scene().describe(stream)
        stream.disconnect()
        content = torn.read_bytes()
        self.next_start(torn)
        assert torn.read_bytes() == content

    def test_what_is_no_recording_is_left_alone_and_told(self, torn: Path, caplog: pytest.LogCaptureFixture) -> None:
        torn.write_bytes(b"RRF0" + bytes(5000))
        self.next_start(torn)
        assert torn.stat().st_size == 5004
        assert "stays as it is: begins with b'RRF0'" in caplog.text

    def test_only_the_last_file_of_a_recording_can_be_torn(self, torn: Path, whole: bytes) -> None:
        """So only that one is looked through at the start."""
        before = torn.with_name("earlier.0001.rrd")
        for path in (before, torn):
            path.write_bytes(whole[:-1])
        self.next_start(torn)
        assert before.stat().st_size == len(whole) - 1
        opened(torn)

    def test_what_another_process_is_writing_is_left_alone(self, torn: Path, whole: bytes) -> None:
        torn.write_bytes(whole[:-1])
        with torn.open("rb") as writing:
            fcntl.flock(writing, fcntl.LOCK_EX)
            self.next_start(torn)
            assert torn.stat().st_size == len(whole) - 1

    def test_the_same_recording_goes_on_in_another_file(self, tmp_path: Path) -> None:
        for part in range(3):
            with desk(tmp_path) as here:
                here.put(*video(2, first=2 * part, every=2))
                assert here.segments.path.name == f"{RECORDING}.{part + 1:04d}.rrd"
        ids = [chunk_id for path in recordings(tmp_path) for chunk_id in opened(path)]
        assert len(ids) == len({*ids})
        assert [rows(path)[VIDEO] for path in recordings(tmp_path)] == [
            list(range(16 * part, 16 * (part + 1))) for part in range(3)
        ]


def test_another_description_begins_another_file(tmp_path: Path) -> None:
    with desk(tmp_path) as here:
        here.put(*video(2))
        here.describe(scene(cameras=("front", "back")))
        here.put(video_parcel(0, camera="back"))
        assert [here.segments.read(number) for number in (0, 1, 3)] == [here.entries[number] for number in (0, 1, 3)]
        assert not here.segments.holds(2), "the description, with which the file begins"
        first, second = here.files
    opened(second)
    assert "/camera/back/video" not in static(first)
    assert static(second)["/camera/back/video"]
    assert rows(second) == {"/camera/back/video": list(range(8))}


class TestPrivacy:
    def test_a_stricter_mode_begins_another_file_and_the_one_before_is_known_to_show_more(self, tmp_path: Path) -> None:
        with desk(tmp_path) as here:
            here.put(*video(2), points_parcel(0))
            here.describe(scene(privacy="landmarks", video="off"))
            here.put(points_parcel(1), *video(1), points_parcel(2))
            open_one, strict = here.files
            more = here.segments.showing_more_than(Shows.NUMBERS)
            assert (list(more), here.segments.rows(more)) == ([(0, 3)], 18)
            assert not here.segments.showing_more_than(Shows.PICTURES)
            strictest = here.segments.read(4)
            assert strictest is not None
            assert strictest.shows is Shows.NUMBERS
        assert [max(map(shown, in_file(path))) for path in (open_one, strict)] == [Shows.PICTURES, Shows.NUMBERS]
        assert rows(strict)[POINTS] == [2, 3, 4, 5]

    @pytest.mark.parametrize("begun", [False, True])
    def test_what_a_lane_that_was_left_behind_still_brings_is_in_no_file_of_a_stricter_mode(
        self, tmp_path: Path, *, begun: bool
    ) -> None:
        """Also in the moment after the mode has changed and before the new recording has begun."""
        with desk(tmp_path) as here:
            here.put(points_parcel(0))
            late = here.take(*video(2), points_parcel(1))
            if begun:
                here.describe(scene(privacy="landmarks", video="off"))
            else:
                here.log.describe(scene(privacy="landmarks", video="off"))
                here.take()
            here.segments.write(late)
            here.put(points_parcel(2))
            files = here.files
        assert [max(map(shown, in_file(path))) for path in files] == [Shows.PICTURES, Shows.NUMBERS]
        assert here.dropped() == ({} if begun else {DropCause.PRIVATE: 16})


def test_a_sink_that_was_closed_goes_on_in_another_file(tmp_path: Path) -> None:
    """Recording is switched off and on again."""
    with desk(tmp_path) as here:
        here.put(*video(2))
        here.segments.close(1.0)
        here.put(*video(2, first=4))
        assert [rows(path)[VIDEO] for path in here.files] == [list(range(16)), list(range(32, 48))]
        assert here.segments.read(1) == here.entries[1]
        assert here.segments.read(3) == here.entries[3]


def cannot_begin(directory: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        Segments(
            directory,
            "r",
            device="bench",
            keep_bytes=MB,
            keep_free_bytes=1,
            description=lambda: Description(b"", b"", Shows.PICTURES),
            gone=lambda entries: None,
            stats=Stats([]),
        )
    return str(raised.value)


def test_what_can_not_be_a_directory_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    for directory in (tmp_path / "taken", tmp_path / "taken" / "below", Path("/proc/recordings")):
        message = cannot_begin(directory)
        assert f"rerun.record_dir = {directory}: can't be written: " in message
        assert "\n" not in message.strip()


def test_a_directory_that_is_not_there_is_made(tmp_path: Path) -> None:
    with desk(tmp_path / "some" / "where") as here:
        here.put(points_parcel(0))
        assert here.files
