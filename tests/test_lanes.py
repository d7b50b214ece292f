from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import SinkError
from edge.lanes import Lane, LaneGroup, Outlets, Shown, Slot, SlotOverflow
from edge.pacing import Deadline
from edge.stats import DropCause, Stats
from edge.vision.frame import EncodedFrame, Filmed
from tests.conftest import eventually, frame
from tests.rigs import PATIENCE_S, Shelf, finished, gate, lane


class TestSlot:
    def test_the_newest_frame_replaces_the_one_that_waits(self) -> None:
        slot: Slot[str] = Slot(SlotOverflow.NEWEST_WINS)

        assert [slot.put("old"), slot.put("newer"), slot.put("newest")] == [True, False, False]
        taken = slot.take()
        assert taken is not None
        assert taken[0] == "newest"

    def test_an_item_comes_with_the_time_at_which_it_went_in(self) -> None:
        slot: Slot[str] = Slot(SlotOverflow.WAIT)
        before_ns = time.monotonic_ns()
        slot.put("frame")
        after_ns = time.monotonic_ns()

        taken = slot.take()

        assert taken is not None
        assert before_ns <= taken[1] <= after_ns

    @pytest.mark.parametrize("overflow", SlotOverflow)
    def test_closing_wakes_who_waits_for_an_item(self, overflow: SlotOverflow) -> None:
        slot: Slot[str] = Slot(overflow)
        with ThreadPoolExecutor() as threads:
            taking = threads.submit(slot.take)
            slot.close()
            assert taking.result(PATIENCE_S) is None

    def test_closing_wakes_who_waits_for_room_and_says_that_the_item_is_lost(self) -> None:
        slot: Slot[int] = Slot(SlotOverflow.WAIT)
        slot.put(1)
        with ThreadPoolExecutor() as threads:
            putting = threads.submit(slot.put, 2)
            assert slot.close(discard=True) == 1
            assert putting.result(PATIENCE_S) is False
        assert slot.take() is None

    @given(st.lists(st.sampled_from(["put", "take", "close", "discard"]), max_size=40))
    @settings(deadline=None, max_examples=100)
    def test_whatever_went_in_was_taken_or_counted_as_lost(self, steps: list[str]) -> None:
        slot: Slot[int] = Slot(SlotOverflow.NEWEST_WINS)
        offered = lost = 0
        taken: list[int] = []
        held = closed = False
        for step in [*steps, "close", "take"]:
            match step:
                case "put":
                    lost += not slot.put(offered)
                    offered += 1
                    held = not closed or held
                case "take" if held or closed:
                    item = slot.take()
                    assert (item is not None) == held
                    taken += [item[0]] if item else []
                    held = False
                case "close" | "discard":
                    lost += slot.close(discard=step == "discard")
                    closed, held = True, held and step == "close"

        assert offered == len(taken) + lost
        assert taken == sorted(set(taken))

    @pytest.mark.parametrize("overflow", SlotOverflow)
    @given(count=st.integers(0, 300))
    @settings(deadline=None, max_examples=15)
    def test_between_two_threads_order_is_kept_and_every_item_accounted_for(
        self, overflow: SlotOverflow, count: int
    ) -> None:
        slot: Slot[int] = Slot(overflow)

        def take_all() -> list[int]:
            return [taken.item for taken in iter(slot.take, None)]

        with ThreadPoolExecutor() as threads:
            taking = threads.submit(take_all)
            lost = sum(not slot.put(number) for number in range(count))
            slot.close()
            taken = taking.result(PATIENCE_S)

        assert len(taken) + lost == count
        assert taken == sorted(taken)
        assert taken[-1:] == list(range(count))[-1:], "the newest is never the one that is lost"
        if overflow is SlotOverflow.WAIT:
            assert lost == 0


class TestRelief:
    """A taker that is relieved takes nothing more; what waits is for the one after it."""

    @pytest.mark.parametrize("overflow", SlotOverflow)
    def test_who_waits_is_relieved_at_once_and_what_comes_is_for_the_next(self, overflow: SlotOverflow) -> None:
        slot: Slot[str] = Slot(overflow)
        relieved = threading.Event()
        with ThreadPoolExecutor() as threads:
            taking = threads.submit(slot.take, relieved)
            relieved.set()
            slot.wake()
            assert taking.result(PATIENCE_S) is None
        slot.put("frame")

        assert slot.take(relieved) is None
        taken = slot.take(threading.Event())
        assert taken is not None
        assert taken[0] == "frame"

    def test_who_is_woken_without_being_relieved_waits_on(self) -> None:
        slot: Slot[str] = Slot(SlotOverflow.WAIT)
        with ThreadPoolExecutor() as threads:
            taking = threads.submit(slot.take, threading.Event())
            for _ in range(20):
                slot.wake()
            slot.put("frame")
            taken = taking.result(PATIENCE_S)

        assert taken is not None
        assert taken[0] == "frame"

    def test_who_is_relieved_leaves_also_the_last_item_of_a_closed_slot(self) -> None:
        slot: Slot[str] = Slot(SlotOverflow.WAIT)
        slot.put("last")
        slot.close()
        relieved = threading.Event()
        relieved.set()

        assert slot.take(relieved) is None
        taken = slot.take()
        assert taken is not None
        assert taken[0] == "last"

    @pytest.mark.parametrize("overflow", SlotOverflow)
    @given(count=st.integers(0, 200), reliefs=st.lists(st.integers(0, 200), max_size=4).map(sorted))
    @settings(deadline=None, max_examples=15)
    def test_takers_that_relieve_each_other_take_every_item_once_and_in_order(
        self, overflow: SlotOverflow, count: int, reliefs: list[int]
    ) -> None:
        slot: Slot[int] = Slot(overflow)
        lost: list[bool] = []

        def put_all() -> None:
            lost.extend(not slot.put(number) for number in range(count))
            slot.close()

        def take_until(relieved: threading.Event) -> list[int]:
            taken: list[int] = []
            while (item := slot.take(relieved)) is not None:
                taken.append(item[0])
                so_far.append(item[0])
            return taken

        taken: list[int] = []
        so_far: list[int] = []
        with ThreadPoolExecutor() as threads:
            putting = threads.submit(put_all)
            for relief in reliefs:
                relieved = threading.Event()
                taking = threads.submit(take_until, relieved)
                eventually(lambda least=relief, took=taking: took.done() or so_far[-1:] >= [least])
                relieved.set()
                slot.wake()
                taken += taking.result(PATIENCE_S)
            taken += take_until(threading.Event())
            putting.result(PATIENCE_S)

        assert taken == so_far == sorted(set(taken))
        assert len(taken) + sum(lost) == count
        assert taken[-1:] == list(range(count))[-1:], "the newest is never the one that is lost"


class TestLane:
    def test_everything_arrives_in_order_in_batches_that_are_no_larger_than_asked_for(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats, batch=5)
        mqtt.start()
        for number in range(200):
            mqtt.offer(number)

        assert finished(mqtt)
        assert sink.items == list(range(200))
        assert max(map(len, sink.batches)) <= 5
        assert stats.drops() == {}

    def test_when_it_is_full_the_oldest_goes_and_is_counted(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats, capacity=3)
        for number in range(10):
            mqtt.offer(number)
        mqtt.start()

        assert finished(mqtt)
        assert sink.items == [7, 8, 9]
        assert stats.drops() == {("mqtt", DropCause.LANE_FULL): 7}

    def test_capacity_is_in_the_unit_of_weight_and_a_giant_passes_alone(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats, capacity=10, weigh=lambda number: number)
        for number in (4, 4, 4, 99):
            mqtt.offer(number)
        mqtt.start()

        assert finished(mqtt)
        assert sink.items == [99]
        assert stats.drops() == {("mqtt", DropCause.LANE_FULL): 3}

    def test_a_lane_that_lingers_gathers_a_whole_batch_and_does_not_linger_at_the_end(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats, batch=8, linger_s=1000.0)
        mqtt.start()
        for number in range(8):
            mqtt.offer(number)
        eventually(lambda: sink.batches == [list(range(8))])
        mqtt.offer(8)

        assert finished(mqtt)
        assert sink.items == list(range(9))

    def test_a_sink_without_work_is_woken_to_look_after_its_connection(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats)
        mqtt.start()

        assert sink.idle.wait(PATIENCE_S)
        assert finished(mqtt)
        assert sink.batches == []

    def test_a_sink_is_closed_once_after_its_last_write_with_the_time_that_is_left(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats)
        mqtt.offer(1)
        mqtt.start()

        assert finished(mqtt, within_s=30)
        (left_s,) = sink.closed_with_s
        assert 0 < left_s <= 30
        assert sink.items == [1]

    @pytest.mark.parametrize("error", [SinkError, ValueError], ids=["foreseen", "unforeseen"])
    def test_a_sink_that_raises_costs_that_batch_only(self, error: type[Exception]) -> None:
        stats = Stats([])
        sink = Shelf(fails=lambda batch: error("disk full") if 3 in batch else None)
        mqtt = lane(sink, stats, batch=1)
        mqtt.start()
        for number in range(6):
            mqtt.offer(number)

        assert finished(mqtt)
        assert sink.items == [0, 1, 2, 4, 5]
        assert len(sink.closed_with_s) == 1
        assert stats.drops() == {("mqtt", DropCause.SINK_FAILED): 1}

    @pytest.mark.parametrize("error", [SinkError, ValueError], ids=["foreseen", "unforeseen"])
    def test_a_fault_that_lasts_is_one_warning_and_its_end_is_said(
        self, caplog: pytest.LogCaptureFixture, error: type[Exception]
    ) -> None:
        caplog.set_level(logging.INFO)
        sink = Shelf(fails=lambda batch: error("disk full") if batch[0] < 20 else None)
        mqtt = lane(sink, Stats([]), batch=1)
        mqtt.start()
        for number in range(25):
            mqtt.offer(number)

        assert finished(mqtt)
        levels = [record.levelno for record in caplog.records]
        assert len(levels) == 2
        assert levels[0] >= logging.WARNING
        assert caplog.messages[1] == "sink mqtt works again"

    def test_lingering_never_makes_a_lane_overflow(self) -> None:
        sink, stats = Shelf(), Stats([])
        video = lane(sink, stats, capacity=8, batch=16, linger_s=60.0)
        video.start()
        for number in range(100):
            video.offer(number)
            if number % 4 == 3:  # it wakes when it is half full, long before it has lingered enough
                eventually(lambda so_far=number: len(sink.items) > so_far - 4)

        assert finished(video)
        assert sink.items == list(range(100))
        assert not stats.drops()

    def test_drops_are_counted_in_the_lanes_own_unit(self) -> None:
        stats = Stats([])
        parcels = lane(Shelf(), stats, capacity=2, count=lambda rows: rows)
        for rows in (8, 5, 3, 1):
            parcels.offer(rows)
        parcels.close(Deadline(0))
        parcels.start()
        assert parcels.join()

        assert stats.drops() == {("mqtt", DropCause.LANE_FULL): 13, ("mqtt", DropCause.STOPPED): 4}

    def test_a_panic_of_a_native_library_is_a_fault_like_any_other(self) -> None:
        class PanicException(BaseException):
            """As PyO3 raises it: not an Exception."""

        sink, stats = Shelf(fails=lambda batch: PanicException("rust") if batch[0] == 1 else None), Stats([])
        rerun = lane(sink, stats, batch=1)
        rerun.start()
        for number in range(3):
            rerun.offer(number)

        assert finished(rerun)
        assert sink.items == [0, 2]
        assert len(sink.closed_with_s) == 1

    def test_what_comes_after_the_end_is_counted_as_stopped(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats)
        mqtt.start()
        assert finished(mqtt)

        mqtt.offer(1)

        assert stats.drops() == {("mqtt", DropCause.STOPPED): 1}

    def test_what_there_is_no_time_for_at_the_end_is_counted_as_stopped(self) -> None:
        sink, stats = Shelf(), Stats([])
        mqtt = lane(sink, stats)
        for number in range(7):
            mqtt.offer(number)
        mqtt.close(Deadline(0))
        mqtt.start()

        eventually(lambda: sink.closed_with_s == [0.0])
        assert sink.items == []
        assert stats.drops() == {("mqtt", DropCause.STOPPED): 7}

    def test_what_waits_behind_a_stuck_sink_is_counted_when_it_is_left_behind(self) -> None:
        stats = Stats([])
        with gate() as never:
            sink = Shelf(gate=never)
            mqtt = lane(sink, stats, batch=1)
            mqtt.start()
            for number in range(10):
                mqtt.offer(number)
            assert sink.busy.wait(PATIENCE_S)

            assert not finished(mqtt, within_s=0)
            # The nine that wait, and the one that the sink has in hand and will not be asked about again.
            assert stats.drops() == {("mqtt", DropCause.STOPPED): 10}

    @given(
        weights=st.lists(st.integers(1, 9), max_size=80),
        capacity=st.integers(1, 40),
        batch=st.integers(1, 20),
        early=st.integers(0, 80),
        refused=st.sets(st.integers(0, 80), max_size=5),
    )
    @settings(deadline=None, max_examples=60)
    def test_whatever_is_offered_is_written_or_counted_and_order_is_kept(
        self, weights: list[int], capacity: int, batch: int, early: int, refused: set[int]
    ) -> None:
        stats = Stats([])
        sink = Shelf(fails=lambda numbers: SinkError("no") if refused.intersection(numbers) else None)
        mqtt = lane(sink, stats, capacity=capacity, weigh=lambda number: weights[number], batch=batch)
        for number in range(len(weights)):
            if number == early:
                mqtt.start()
            mqtt.offer(number)
        if early >= len(weights):
            mqtt.start()

        assert finished(mqtt)
        assert len(sink.items) + sum(stats.drops().values()) == len(weights)
        assert len(sink.refused) == stats.drops().get(("mqtt", DropCause.SINK_FAILED), 0)
        assert sink.items == sorted(sink.items)
        assert sorted(sink.items + sink.refused)[-1:] == list(range(len(weights)))[-1:], "the newest is never let go"


class TestShown:
    def test_each_frame_says_which_picture_people_look_at(self) -> None:
        shown = Shown(30)
        marked = [shown.marked(frame(seq=seq, fps=60.0)) for seq in range(100, 106)]

        assert [each.shown_seq or each.seq for each in marked] == [100, 100, 102, 102, 104, 104]
        assert [each.is_shown for each in marked] == [True, False] * 3

    def test_each_camera_is_thinned_by_itself(self) -> None:
        shown = Shown(30)
        frames = [frame(seq=seq, camera=camera, fps=60.0) for seq in range(4) for camera in ("front", "back")]

        assert [shown.marked(each).is_shown for each in frames] == [True, True, False, False] * 2

    @pytest.mark.parametrize(
        ("own_encoder", "shown", "filmed"),
        [(False, Shown(30), [0, 2, 4]), (False, None, [*range(6)]), (True, Shown(30), [*range(6)])],
    )
    def test_the_video_lane_gets_what_is_shown_and_all_that_the_camera_has_encoded(
        self, *, own_encoder: bool, shown: Shown | None, filmed: list[int]
    ) -> None:
        sink = Shelf()
        video = Lane[Filmed]("video", sink, Stats([]), capacity=100)
        outlets = Outlets({"rerun": LaneGroup(video=(video,), shown=shown), "mqtt": LaneGroup()})
        video.start()
        for seq in range(6):
            source = replace(frame(seq=seq, fps=60.0), packets=() if own_encoder else None)
            assert outlets.film(source).seq == seq
        video.close(Deadline(PATIENCE_S))

        assert video.join()
        assert sink.seqs == filmed
        kinds = {isinstance(item, EncodedFrame) for item in sink.items}
        assert kinds == {own_encoder}, "no pictures where the camera has encoded them"
