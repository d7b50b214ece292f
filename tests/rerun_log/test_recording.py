"""The recording on disk."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from rerun.chunk import RrdReader

from edge.errors import ConfigError
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.recording import RecordingSink
from edge.rerun_log.scene import observation_parcel
from edge.stats import DropCause, Stats
from edge.vision.observation import observe
from tests.conftest import frame, pose
from tests.rerun_log.reading import rows
from tests.rerun_log.scenes import scene

pytestmark = pytest.mark.integration

POINTS = "/camera/front/video/pose/points"


def parcel(seq: int) -> Parcel:
    return observation_parcel("front", [observe(frame(seq=seq), [pose()])], mask=False)


def test_everything_written_can_be_read_back(tmp_path: Path) -> None:
    stats = Stats([])
    sink = RecordingSink(tmp_path, keep_mb=10, scene=scene(), stats=stats)
    for seq in range(50):
        sink.write([parcel(seq)])
    sink.close(5.0)
    assert sink.path.name == "bench-20260101T000000Z-0000abcd.rrd"
    assert rows(sink.path)[POINTS] == list(range(50))
    assert stats.sends() == {"recording rows": 50}
    assert not stats.drops()


def test_it_belongs_to_the_devices_application_under_its_own_recording_id(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path, keep_mb=10, scene=scene(), stats=Stats([]))
    sink.close(5.0)
    (entry,) = RrdReader(str(sink.path)).recordings()
    assert entry.application_id == "edge-pose-bench"
    assert entry.recording_id == "bench-20260101T000000Z-0000abcd"


def test_a_copy_of_the_growing_file_is_readable_as_after_a_crash(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path, keep_mb=10, scene=scene(), stats=Stats([]))
    sink.write([parcel(seq) for seq in range(20)])
    as_it_is = tmp_path / "copy.rrd"
    shutil.copy(sink.path, as_it_is)  # the first write is flushed at once
    assert rows(as_it_is)[POINTS] == list(range(20))
    sink.close(5.0)


def test_a_recording_with_a_torn_end_can_be_mended(tmp_path: Path) -> None:
    sink = RecordingSink(tmp_path, keep_mb=10, scene=scene(), stats=Stats([]))
    for seq in range(20):
        sink.write([parcel(seq)])
    sink.close(5.0)
    torn = tmp_path / "torn.rrd"
    torn.write_bytes(sink.path.read_bytes()[: sink.path.stat().st_size // 2])
    found = sorted(rows(torn)[POINTS])
    assert 0 < len(found) < 20
    assert found == list(range(len(found)))


def test_recording_ends_when_the_directory_is_full_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "older.rrd").write_bytes(bytes(999_000))
    stats = Stats([])
    sink = RecordingSink(tmp_path, keep_mb=1, scene=scene(), stats=stats)
    sink.write([parcel(0)])
    sink.write([parcel(1)])
    sink.close(5.0)
    assert rows(sink.path)[POINTS] == [0]
    assert stats.drops() == {("recording", DropCause.DISK_BUDGET): 1}
    assert "rerun.keep_mb" in caplog.text
    assert (tmp_path / "older.rrd").exists()


def test_a_directory_that_is_a_file_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError, match=r"rerun\.record_dir = .*taken: can't be written"):
        RecordingSink(tmp_path / "taken", keep_mb=1, scene=scene(), stats=Stats([]))


def test_where_there_is_no_room_no_recording_begins(tmp_path: Path) -> None:
    """It can be begun and ended from afar, again and again."""
    (tmp_path / "earlier.rrd").write_bytes(bytes(1_000_000))
    stats = Stats([])
    for _ in range(3):
        sink = RecordingSink(tmp_path, keep_mb=1, scene=scene(), stats=stats)
        sink.write([parcel(0)])
        sink.close(5.0)
    assert [file.name for file in tmp_path.iterdir()] == ["earlier.rrd"]
    assert stats.drops().keys() == {("recording", DropCause.DISK_BUDGET)}
