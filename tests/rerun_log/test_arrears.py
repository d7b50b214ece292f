"""What one run did not ship, the next one does."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.privacy import Mode, Shows
from edge.rerun_log import rrd
from edge.rerun_log.arrears import Arrears, Note, path_of_notes
from edge.rerun_log.log import Entry, Receiver
from edge.rerun_log.segments import Segments
from edge.stats import DropCause
from tests.rerun_log.scenes import Recorder, points_parcel, scene, video_parcel
from tests.rerun_log.seen import in_file, shown
from tests.rerun_log.test_disclosure import without_property

pytestmark = pytest.mark.integration

HUB = "rerun+http://hub.local:9876/proxy"


def attached(recorder: Recorder) -> Receiver:
    return recorder.log.attach(HUB, "hub", lambda: None)


def shipped(recorder: Recorder, receiver: Receiver, *, most: int = 1000) -> list[Entry]:
    """Take what the gap has, as a forwarder would, and acknowledge it."""
    found: list[Entry] = []
    while len(found) < most and (entry := recorder.log.next_of_gap(receiver)):
        found.append(entry)
        recorder.log.acknowledged(receiver, [(entry.number, entry.rows)])
    return found


def end_as_if_killed(recorder: Recorder) -> None:
    """Nothing is noted any more."""
    recorder.segments.close(1.0)


def chunks(entries: list[Entry]) -> list[bytes]:
    return [bytes(each.payload) for entry in entries for each in rrd.messages(entry.framed)]


def messages_of(path: Path) -> list[bytes]:
    return [bytes(each.payload) for each in rrd.messages(path.read_bytes()[rrd.HEADER_BYTES :])]


@pytest.mark.parametrize("end", [end_as_if_killed, Recorder.close], ids=["killed", "ended"])
def test_what_a_run_never_shipped_is_owed_by_the_next_with_what_tells_what_it_is(
    tmp_path: Path, end: Callable[[Recorder], object]
) -> None:
    first = Recorder(tmp_path, scene(session="1"))
    attached(first)
    for number in range(5):
        first.put(video_parcel(number))
    path = first.segments.path
    end(first)
    second = Recorder(tmp_path, scene(session="2"))
    receiver = attached(second)
    assert chunks(shipped(second, receiver)) == messages_of(path)
    second.close()
    third = Recorder(tmp_path, scene(session="3"))
    assert not shipped(third, attached(third))
    third.close()


def test_what_was_acknowledged_is_owed_no_more(tmp_path: Path) -> None:
    first = Recorder(tmp_path, scene(session="1"))
    receiver = attached(first)
    for number in range(6):
        first.put(video_parcel(number))
    first.log.acknowledged(receiver, [(number, 8) for number in (0, 1, 4)])
    first.put(video_parcel(6))
    path = first.segments.path
    first.close()
    whole = messages_of(path)
    described = len(whole) - 7  # a parcel of video is one message
    second = Recorder(tmp_path, scene(session="2"))
    receiver = attached(second)
    assert chunks(shipped(second, receiver)) == [*whole[:described], *(whole[described + at] for at in (2, 3, 5, 6))]
    second.close()


def test_a_rest_is_owed_by_one_run_after_the_other(tmp_path: Path) -> None:
    first = Recorder(tmp_path, scene(session="1"))
    attached(first)
    for number in range(4):
        first.put(video_parcel(number))
    whole = messages_of(first.segments.path)
    first.close()
    second = Recorder(tmp_path, scene(session="2"))
    early = shipped(second, attached(second), most=len(whole) - 2)
    second.close()
    third = Recorder(tmp_path, scene(session="3"))
    rest = shipped(third, attached(third))
    third.close()
    assert chunks(early) == whole[:-2]
    assert chunks(rest) == whole[-2:]


def test_what_is_new_goes_before_what_is_owed(tmp_path: Path) -> None:
    first = Recorder(tmp_path, scene(session="1"))
    attached(first)
    first.put(video_parcel(0))
    first.close()
    second = Recorder(tmp_path, scene(session="2"))
    receiver = attached(second)
    second.put(video_parcel(0))
    second.log.connected(receiver)
    second.put(video_parcel(1))
    entry = second.log.next_live(receiver)
    assert entry is not None
    assert entry.number >= 0
    numbers = [each.number for each in shipped(second, receiver)]
    assert numbers
    assert max(numbers) < 0 or numbers[0] >= 0  # of the gap, this run's first
    second.close()


def test_files_that_are_deleted_for_room_are_owed_no_more_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for session in ("1", "2"):
        first = Recorder(tmp_path, scene(session=session))
        attached(first)
        for number in range(5):
            first.put(video_parcel(number))
        first.close()
    second = Recorder(tmp_path, scene(session="3"), keep_mb=1)
    receiver = attached(second)
    assert len(shipped(second, receiver, most=1)) == 1  # the first file was looked through for it, the other was not
    for number in range(20):
        second.put(video_parcel(number))
    second.log.acknowledged(receiver, [(number, 8) for number in range(20)])
    assert not shipped(second, receiver)
    assert second.stats.drops()["hub", DropCause.DISCONNECTED] > 0
    assert caplog.text.count("bench-2.0001.rrd is gone before all of it was shipped") == 1
    second.close()


def test_a_note_that_is_damaged_counts_as_none_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for content in ("", "{", "[]", '{"a": 1}', '{"a": {"lacking": [], "writing": "x", "described": 0, "until": "y"}}'):
        path_of_notes(tmp_path, "bench").write_text(content)
        assert Arrears(tmp_path, "bench").notes == {}
        assert ".unshipped.bench.json" in caplog.text
        caplog.clear()


def test_a_note_is_read_as_it_was_written(tmp_path: Path) -> None:
    note = Note({"a.0001.rrd": ((12, 40), (60, 80))}, "a.0002.rrd", 40, 100)
    Arrears(tmp_path, "bench").put(HUB, note)
    assert Arrears(tmp_path, "bench").notes == {HUB: note}
    assert json.loads(path_of_notes(tmp_path, "bench").read_text())[HUB]["until"] == 100


def test_another_writers_file_is_left_alone(tmp_path: Path) -> None:
    first = Recorder(tmp_path, scene(session="1"))
    attached(first)
    first.put(video_parcel(0))
    second = Recorder(tmp_path, scene(session="2"))  # beside the first, which is still writing
    assert not shipped(second, attached(second))
    assert isinstance(second.segments, Segments)
    first.put(video_parcel(1))
    first.close()
    second.close()


def test_each_device_has_its_own_debts_in_a_directory_that_they_share(tmp_path: Path) -> None:
    for device in ("hall", "hall-2"):
        first = Recorder(tmp_path, scene(device=device, session="1"))
        attached(first)
        first.put(video_parcel(0))
        first.close()
    for device in ("hall", "hall-2"):
        second = Recorder(tmp_path, scene(device=device, session="2"))
        owed = chunks(shipped(second, attached(second)))
        assert owed == messages_of(tmp_path / f"{device}-1.0001.rrd")
        second.close()


def test_what_can_not_be_read_stays_and_the_rest_is_shipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = []
    for session in ("1", "2"):
        first = Recorder(tmp_path, scene(session=session))
        attached(first)
        first.put(video_parcel(0))
        first.close()
        paths.append(first.segments.path)
    paths[0].unlink()
    paths[0].mkdir()
    second = Recorder(tmp_path, scene(session="3"))
    assert chunks(shipped(second, attached(second))) == messages_of(paths[1])
    assert caplog.text.count(f"{paths[0]} stays as it is, and is not shipped: ") == 1
    second.close()
    assert paths[0].name in path_of_notes(tmp_path, "bench").read_text(), "it is owed until it is gone"


def test_a_note_that_could_not_be_written_is_tried_again(tmp_path: Path) -> None:
    note = Note({}, "a.0002.rrd", 40, 100)
    arrears = Arrears(tmp_path, "bench")
    in_the_way = tmp_path / f"{path_of_notes(tmp_path, 'bench').name}.new"
    in_the_way.mkdir()
    assert not arrears.put(HUB, note)
    in_the_way.rmdir()
    assert arrears.put(HUB, note)
    assert Arrears(tmp_path, "bench").notes == {HUB: note}


def test_who_asks_does_not_wait_until_a_note_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Recorder(tmp_path, scene(session="1"))
    receiver = attached(here)
    here.put(video_parcel(0))
    stalled, goes_on, sync = threading.Event(), threading.Event(), os.fsync

    def stall(file: int) -> None:
        stalled.set()
        assert goes_on.wait(10.0)
        sync(file)

    monkeypatch.setattr(os, "fsync", stall)
    noting = threading.Thread(target=here.log.note, args=(receiver,))
    noting.start()
    assert stalled.wait(10.0)
    asking = threading.Thread(target=here.put, args=(video_parcel(1),))
    asking.start()
    asking.join(10.0)
    assert not asking.is_alive()
    goes_on.set()
    noting.join(10.0)
    here.close()


def test_what_the_next_run_ships_is_not_counted_as_dropped(tmp_path: Path) -> None:
    first = Recorder(tmp_path, scene(session="1"))
    first.log.memory_bytes = 1_000_000
    attached(first)
    for number in range(3):
        first.put(video_parcel(number))
    first.log.put(video_parcel(3))  # which does not come to be recorded
    first.close()
    assert first.stats.drops() == {("hub", DropCause.STOPPED): 8}


class TestPrivacy:
    """What an earlier run left in an opener mode."""

    @pytest.mark.parametrize(("before", "now"), [("full", "mask"), ("full", "landmarks"), ("mask", "landmarks")])
    def test_it_is_owed_no_more_stays_on_the_disk_and_is_told(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, before: Mode, now: Mode
    ) -> None:
        left = {}
        for session in ("1", "2"):
            first = Recorder(tmp_path, scene(session=session, privacy=before))
            attached(first)
            first.put(points_parcel(0))
            left[first.segments.path] = first.segments.path.stat().st_size
            first.close()
        second = Recorder(tmp_path, scene(session="3", privacy=now))
        receiver = attached(second)
        assert not shipped(second, receiver)
        assert not shipped(second, receiver)
        second.put(points_parcel(1))
        second.log.connected(receiver)
        assert len(shipped(second, receiver)) == 1
        second.close()
        assert caplog.text.count("shows more than privacy.mode allows") == 1
        assert "edge-pose recordings list" in caplog.text
        assert left == {path: path.stat().st_size for path in left}
        third = Recorder(tmp_path, scene(session="4", privacy=before))
        assert not shipped(third, attached(third)), "once it must not leave, it does not leave later either"
        third.close()

    @pytest.mark.parametrize("is_recorded", [False, True])
    def test_a_run_that_never_met_its_hub_withholds_it_all_the_same(
        self,
        tmp_path: Path,
        is_recorded: bool,  # noqa: FBT001 - a column of the table
    ) -> None:
        for session, mode in (("1", "full"), ("2", "landmarks")):
            recorder = Recorder(tmp_path, scene(session=session, privacy=mode))
            attached(recorder)
            if mode == "full" or is_recorded:
                recorder.put(points_parcel(0))
            if mode == "full":
                recorder.put(video_parcel(0))
            recorder.close()
        third = Recorder(tmp_path, scene(session="3"))
        owed = shipped(third, attached(third))
        assert chunks(owed) == (messages_of(tmp_path / "bench-2.0001.rrd") if is_recorded else [])
        third.close()

    @pytest.mark.parametrize(("before", "now"), [("landmarks", "mask"), ("mask", "full"), ("landmarks", "landmarks")])
    def test_what_shows_no_more_is_owed_as_ever(self, tmp_path: Path, before: Mode, now: Mode) -> None:
        first = Recorder(tmp_path, scene(session="1", privacy=before))
        attached(first)
        first.put(points_parcel(0))
        first.close()
        second = Recorder(tmp_path, scene(session="2", privacy=now))
        assert chunks(shipped(second, attached(second))) == messages_of(tmp_path / "bench-1.0001.rrd")
        second.close()

    def test_a_file_from_before_there_were_modes_counts_as_full(self, tmp_path: Path) -> None:
        first = Recorder(tmp_path, scene(session="1", privacy="landmarks"))
        attached(first)
        first.put(points_parcel(0))
        path = first.segments.path
        first.close()
        note = path_of_notes(tmp_path, "bench").read_bytes()
        for mode, is_owed in (("landmarks", False), ("full", True)):
            path.write_bytes(without_property(path.read_bytes()))
            path_of_notes(tmp_path, "bench").write_bytes(note)
            second = Recorder(tmp_path, scene(session=f"2-{mode}", privacy=mode))
            assert bool(shipped(second, attached(second))) is is_owed
            second.close()

    def test_a_later_file_in_an_opener_mode_is_not_taken_for_one_of_the_noted_mode(self, tmp_path: Path) -> None:
        """A note says: what comes after this file is lacking too. What comes after it may have been anything."""
        first = Recorder(tmp_path, scene(session="1", privacy="landmarks"))
        attached(first)
        first.put(points_parcel(0))
        first.log.release()  # as if the link were taken out of the configuration
        first.log.describe(scene(session="1", privacy="full"))
        first.segments.begin(first.log.next)
        first.log.keep_longer(first.segments, first.arrived.append)
        first.put(video_parcel(0))
        end_as_if_killed(first)
        landmarks, full = sorted(tmp_path.glob("*.rrd"))
        second = Recorder(tmp_path, scene(session="2", privacy="landmarks"))
        assert chunks(shipped(second, attached(second))) == messages_of(landmarks)
        assert max(map(shown, in_file(full))) is Shows.PICTURES
        second.close()

    def test_debts_taken_up_in_an_opener_mode_go_no_further_in_a_stricter_one(self, tmp_path: Path) -> None:
        first = Recorder(tmp_path, scene(session="1"))
        attached(first)
        for number in range(4):
            first.put(video_parcel(number))
        first.close()
        second = Recorder(tmp_path, scene(session="2"))
        receiver = attached(second)
        assert len(shipped(second, receiver, most=2)) == 2
        left = len(messages_of(tmp_path / "bench-1.0001.rrd")) - 2
        second.log.describe(scene(session="2", privacy="landmarks"))
        second.log.connected(receiver)
        assert [entry.number for entry in shipped(second, receiver)] == [0], "that it is another mode now"
        assert second.stats.drops() == {("hub", DropCause.PRIVATE): left}
        second.close()
