"""Recordings as a row of files: which there are, one file out of all of them, and which may go."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rerun.chunk import RrdReader

from edge.rerun_log import rrd
from edge.rerun_log.recordings import Recording, Segment, join, match, recordings, superfluous
from tests.rerun_log.reading import rows, static
from tests.rerun_log.scenes import Recorder, scene, video_parcel

pytestmark = pytest.mark.integration

VIDEO = "/camera/front/video"
NAME = "bench-20260101T000000Z-0000abcd"


def record(recorder: Recorder, parcels: range) -> None:
    """Of eight frames each, 48 kB."""
    for number in parcels:
        recorder.put(video_parcel(number))


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path, scene(), keep_mb=2)  # a file then has 250 kB


def joined(recording: Recording, into: Path) -> Path:
    with into.open("wb") as out:
        assert join(recording, out) == out.tell()
    return into


def chunk_ids(file: Path) -> list[str]:
    return [str(chunk.id) for chunk in RrdReader(str(file)).stream()]


def test_a_recording_is_known_by_its_files(recorder: Recorder, tmp_path: Path) -> None:
    record(recorder, range(20))
    (tmp_path / "notes.txt").touch()
    (tmp_path / "demo.rrd").touch()
    (recording,) = recordings(tmp_path)
    assert (recording.name, recording.device) == (NAME, "bench")
    assert [segment.part for segment in recording.segments] == list(range(1, len(recording.segments) + 1))
    assert len(recording.segments) >= 3
    assert recording.nbytes == sum(file.stat().st_size for file in tmp_path.glob(f"{NAME}.*"))
    assert [segment.is_being_written for segment in recording.segments][-2:] == [False, True]
    recorder.segments.close(1.0)
    (recording,) = recordings(tmp_path)
    assert not recording.is_being_written
    assert recording.begins_s == 1_767_225_600


def test_where_the_first_files_are_gone_it_begins_with_the_first_chunk_left(recorder: Recorder, tmp_path: Path) -> None:
    record(recorder, range(20))
    before = min(file.stat().st_ctime for file in tmp_path.iterdir())
    (tmp_path / f"{NAME}.0001.rrd").unlink()
    (recording,) = recordings(tmp_path)
    assert before - 60 < recording.begins_s <= recording.ends_s


def test_one_file_of_all_has_every_chunk_once(recorder: Recorder, tmp_path: Path) -> None:
    record(recorder, range(20))
    (recording,) = recordings(tmp_path)
    whole = joined(recording, tmp_path / "whole.rrd")
    assert sorted(rows(whole)[VIDEO]) == list(range(160))
    assert static(whole).keys() == static(recording.segments[0].path).keys()
    found = chunk_ids(whole)
    assert len(found) == len(set(found))
    messages = [message.kind for message in rrd.messages(rrd.split(whole.read_bytes())[1])]
    of_one = [message.kind for message in rrd.messages(rrd.split(recording.segments[1].path.read_bytes())[1])]
    assert messages.count(rrd.Kind.STORE_INFO) == of_one.count(rrd.Kind.STORE_INFO)
    assert messages.count(rrd.Kind.BLUEPRINT_ACTIVATION) == of_one.count(rrd.Kind.BLUEPRINT_ACTIVATION) == 1
    (entry,) = RrdReader(str(whole)).recordings()
    assert entry.recording_id == NAME


def test_another_description_comes_when_it_begins(recorder: Recorder, tmp_path: Path) -> None:
    """After a reload there are more cameras, and then as many as before."""
    record(recorder, range(4))
    recorder.log.describe(scene(cameras=("front", "back")))
    record(recorder, range(4, 8))
    recorder.log.describe(scene())
    record(recorder, range(8, 12))
    (recording,) = recordings(tmp_path)
    whole = joined(recording, tmp_path / "whole.rrd")
    assert "/camera/back/video" in static(whole)
    kinds = [message.kind for message in rrd.messages(rrd.split(whole.read_bytes())[1])]
    assert kinds.count(rrd.Kind.BLUEPRINT_ACTIVATION) == 3
    assert sorted(rows(whole)[VIDEO]) == list(range(96))


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 500])
def test_what_is_cut_off_is_left_out(recorder: Recorder, tmp_path: Path, cut: int) -> None:
    record(recorder, range(20))
    recorder.segments.close(1.0)
    (recording,) = recordings(tmp_path)
    torn = recording.segments[1].path
    os.truncate(torn, torn.stat().st_size - cut)
    whole = joined(recording, tmp_path / "whole.rrd")
    found = sorted(rows(whole)[VIDEO])
    assert 120 <= len(found) < 160
    assert found[-1] == 159


@pytest.mark.parametrize("content", [b"", b"RRF2", b"RRF2" + bytes(8)])
def test_a_file_that_has_only_begun_adds_nothing(recorder: Recorder, tmp_path: Path, content: bytes) -> None:
    record(recorder, range(4))
    (tmp_path / f"{NAME}.0002.rrd").write_bytes(content)
    (recording,) = recordings(tmp_path)
    assert sorted(rows(joined(recording, tmp_path / "whole.rrd"))[VIDEO]) == list(range(32))


def test_what_is_no_recording_is_not_made_one(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.0001.rrd").write_bytes(b"something else")
    (recording,) = recordings(tmp_path)
    with pytest.raises(rrd.BrokenRrdError, match="begins with b'some'"):
        join(recording, io.BytesIO())
    (tmp_path / f"{NAME}.0001.rrd").write_bytes(b"")
    (recording,) = recordings(tmp_path)
    with pytest.raises(rrd.BrokenRrdError, match="none of its files"):
        join(recording, io.BytesIO())


def test_files_that_go_meanwhile_are_left_out(recorder: Recorder, tmp_path: Path) -> None:
    record(recorder, range(20))
    (recording,) = recordings(tmp_path)
    recording.segments[0].path.unlink()
    whole = joined(recording, tmp_path / "whole.rrd")
    assert 0 < len(rows(whole)[VIDEO]) < 160
    assert VIDEO in static(whole), "the next file describes it as well"


def test_parts_are_sorted_by_number_and_missing_ones_are_known(tmp_path: Path) -> None:
    for part in ("9999", "10000", "10002"):
        shutil.copy(__file__, tmp_path / f"{NAME}.{part}.rrd")
    (recording,) = recordings(tmp_path)
    assert [segment.part for segment in recording.segments] == [9999, 10000, 10002]
    assert recording.missing == [10001]


def test_a_recording_is_found_by_a_beginning_that_no_other_has() -> None:
    names = ["hall-1", "hall-12", "yard-3"]
    assert [match(names, given) for given in ("hall-1", "y", "hall-12")] == ["hall-1", "yard-3", "hall-12"]
    with pytest.raises(LookupError, match="hall: 2 recordings begin so, the last of them is hall-12"):
        match(names, "hall")
    with pytest.raises(LookupError, match="no such recording"):
        match(names, "attic")


def segment(part: int, nbytes: int, changed_s: float, *, written: bool) -> Segment:
    return Segment(Path(f"{NAME}.{part:04d}.rrd"), part, nbytes, changed_s, is_being_written=written)


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50), st.booleans()), max_size=20),
    st.none() | st.integers(0, 50),
    st.none() | st.integers(0, 1000),
)
def test_the_oldest_go_and_never_what_is_being_written(
    files: list[tuple[int, int, bool]], before_s: int | None, keep_bytes: int | None
) -> None:
    segments = [segment(at + 1, size, when, written=written) for at, (size, when, written) in enumerate(files)]
    every = [Recording(NAME, "bench", 0.0, tuple(segments))] if segments else []
    chosen = superfluous(every, before_s=before_s, keep_bytes=keep_bytes)
    left = [each for each in segments if each not in chosen]
    assert not any(each.is_being_written for each in chosen)
    assert not any(each.changed_s < (before_s or 0) and not each.is_being_written for each in left)
    if keep_bytes is None:
        assert all(each.changed_s < (before_s or 0) for each in chosen)
    else:
        free_to_go = [each for each in left if not each.is_being_written]
        assert sum(each.nbytes for each in left) <= keep_bytes or not free_to_go
    if before_s is None and keep_bytes is None:
        assert not chosen


@given(st.binary(max_size=200))
def test_whatever_a_message_holds_it_is_read_or_refused(payload: bytes) -> None:
    with contextlib.suppress(rrd.BrokenRrdError):
        assert rrd.chunk(payload).made_ns >= 0
