from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.control import Inbox, Stop
from edge.errors import CameraLost, CameraUnusable, EdgePoseError, EstimatorError, ModelError, SinkError
from edge.interfaces import EndOfStream
from edge.pacing import Deadline
from edge.pipeline import CameraPipeline, Daemon, EndRequested, Lane, LaneGroup, Slot, SlotOverflow
from edge.stats import DropCause, Stats
from edge.vision.frame import Frame
from edge.vision.observation import Observation
from edge.vision.pose import Pose
from tests.conftest import eventually, frame, pose

PROMISED_STOP_S = 5.0
PATIENCE_S = 20.0


def frames(count: int, *, first: int = 0) -> list[Frame]:
    return [frame(seq=seq) for seq in range(first, first + count)]


class Film:
    """A source that plays a script: frames are given, errors raised, events waited for. Then the stream ends."""

    def __init__(
        self, *script: Frame | Exception | threading.Event, live: bool = False, opening: Sequence[Exception] = ()
    ) -> None:
        self.live = live
        self.opened = self.closed = self.given = 0
        self._script = deque(script)
        self._opening = deque(opening)

    def __enter__(self) -> Self:
        self.opened += 1
        if self._opening:
            raise self._opening.popleft()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed += 1

    def read(self, timeout_s: float) -> Frame | None:
        if not self._script:
            raise EndOfStream
        if isinstance(self._script[0], threading.Event) and not self._script[0].wait(min(timeout_s, 0.02)):
            return None
        step = self._script.popleft()
        if isinstance(step, Exception):
            raise step
        if isinstance(step, threading.Event):
            return None
        self.given += 1
        return step


class Watcher:
    """An estimator that sees one person in each frame. `gate` holds it inside of a frame, `error` ends it at one."""

    def __init__(
        self,
        *,
        gate: threading.Event | None = None,
        error: Exception | None = None,
        at: int = 0,
        loading: Exception | None = None,
    ) -> None:
        self.busy = threading.Event()
        self.seen: list[int] = []
        self.freed = False
        self._gate = gate
        self._error = error
        self._at = at
        self._loading = loading

    def __enter__(self) -> Self:
        if self._loading:
            raise self._loading
        return self

    def __exit__(self, *_: object) -> None:
        self.freed = True

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        self.busy.set()
        if self._gate:
            self._gate.wait()
        if self._error and frame.seq == self._at:
            raise self._error
        self.seen.append(frame.seq)
        return (pose(),)


class Shelf:
    """A sink that keeps what it gets. `gate` holds it inside of each write, `fails` says which batches it refuses."""

    def __init__(
        self,
        *,
        gate: threading.Event | None = None,
        fails: Callable[[Sequence[Any]], BaseException | None] | None = None,
    ) -> None:
        self.batches: list[list[Any]] = []
        self.refused: list[Any] = []
        self.busy = threading.Event()
        self.idle = threading.Event()
        self.closed_with_s: list[float] = []
        self._gate = gate
        self._fails = fails

    @property
    def items(self) -> list[Any]:
        return [item for batch in self.batches for item in batch]

    @property
    def seqs(self) -> list[int]:
        return [item.seq for item in self.items]

    def write(self, batch: Sequence[Any]) -> None:
        if not batch:
            self.idle.set()
            return
        self.busy.set()
        if self._gate:
            self._gate.wait()
        if self._fails and (error := self._fails(batch)):
            self.refused.extend(batch)
            raise error
        self.batches.append(list(batch))

    def close(self, timeout_s: float) -> None:
        self.closed_with_s.append(timeout_s)


class Rig:
    """A daemon of test parts."""

    def __init__(
        self,
        cameras: Mapping[str, tuple[Film, Watcher]],
        sinks: Mapping[str, Shelf] | None = None,
        *,
        video: Mapping[str, Shelf] | None = None,
        capacity: int = 1000,
    ) -> None:
        self.stats = Stats(list(cameras))
        self.inbox = Inbox()
        observers = tuple(
            Lane[Observation](name, sink, self.stats, capacity=capacity) for name, sink in (sinks or {}).items()
        )
        films = tuple(Lane[Frame](name, sink, self.stats, capacity=capacity) for name, sink in (video or {}).items())
        self.daemon = Daemon(self.inbox, {"test": LaneGroup(observers=observers, video=films)})
        for name, (source, estimator) in cameras.items():
            self.daemon.cameras[name] = self.pipeline(name, source, estimator)

    def pipeline(self, name: str, source: Film, estimator: Watcher) -> CameraPipeline:
        return CameraPipeline(
            name,
            source,
            estimator,
            outlets=self.daemon.outlets,
            stats=self.stats.cameras[name],
            drops=self.stats,
            on_end=self.daemon.camera_ended,
        )

    def ended(self) -> str | None:
        """Wait for the end; the reason for it."""
        request = self.daemon.wait(PATIENCE_S)
        return request.reason if isinstance(request, Stop) else None

    def run(self) -> str | None:
        """From start to stop; the reason for the stop. Raises what the daemon raises."""
        self.daemon.start()
        try:
            return self.ended()
        finally:
            self.daemon.stop()

    def exchange(self, name: str, source: Film, estimator: Watcher | None = None) -> None:
        """Have another camera take over."""
        new = self.pipeline(name, source, estimator or Watcher())
        self.daemon.load(new)
        self.daemon.exchange_camera(name, new)

    def captured(self, camera: str = "front") -> int:
        return self.stats.cameras[camera].counts().captured

    def estimated(self, camera: str = "front") -> int:
        return self.stats.cameras[camera].counts().estimated

    def dropped(self, place: str, cause: DropCause | None = None) -> int:
        drops = self.stats.drops()
        return sum(items for (where, why), items in drops.items() if where == place and cause in (None, why))

    def every_frame_is_accounted_for(self, camera: str = "front") -> bool:
        return self.captured(camera) == self.estimated(camera) + self.dropped(f"camera {camera}")


@contextmanager
def gate() -> Iterator[threading.Event]:
    """An event that is set at the end whatever happens, so that no thread of a test stays behind."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


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
            return [item for item, _ in iter(slot.take, None)]

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


def lane(sink: Shelf, stats: Stats, *, capacity: int = 1000, **options: Any) -> Lane[int]:
    return Lane("mqtt", sink, stats, capacity=capacity, **options)


def finished(a_lane: Lane[int], *, within_s: float = PATIENCE_S) -> bool:
    a_lane.close(Deadline(within_s))
    return a_lane.join()


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


class TestFiles:
    def test_every_frame_reaches_every_sink_in_order_before_the_daemon_ends(self) -> None:
        film, watcher = Film(*frames(100)), Watcher()
        sinks = {"mqtt": Shelf(), "rerun": Shelf()}
        video = {"video": Shelf()}
        rig = Rig({"front": (film, watcher)}, sinks, video=video)

        assert rig.run() == "every camera has ended"

        for sink in (*sinks.values(), *video.values()):
            assert sink.seqs == list(range(100))
            assert len(sink.closed_with_s) == 1
        assert isinstance(sinks["mqtt"].items[0], Observation)
        assert isinstance(video["video"].items[0], Frame)
        assert (rig.captured(), rig.estimated(), rig.stats.drops()) == (100, 100, {})
        assert (film.opened, film.closed, watcher.freed) == (1, 1, True)

    def test_a_file_waits_for_the_estimator_and_is_not_read_ahead(self) -> None:
        with gate() as open_gate:
            film, watcher = Film(*frames(50)), Watcher(gate=open_gate)
            rig = Rig({"front": (film, watcher)})
            rig.daemon.start()
            eventually(lambda: film.given == 3)  # one in the estimator, one in the slot, one at its door
            open_gate.set()

            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()
        assert watcher.seen == list(range(50))
        assert rig.stats.drops() == {}

    def test_all_files_are_played_to_their_ends_however_different_they_are(self) -> None:
        cameras = {name: (Film(*frames(count)), Watcher()) for name, count in {"a": 3, "b": 200, "c": 0}.items()}
        rig = Rig(cameras, {"mqtt": Shelf()})

        assert rig.run() == "every camera has ended"
        assert [len(watcher.seen) for _, watcher in cameras.values()] == [3, 200, 0]
        assert [rig.captured(name) for name in cameras] == [3, 200, 0]


class TestLiveCameras:
    def test_a_slow_estimator_gets_the_newest_frame_and_the_others_are_counted(self) -> None:
        with gate() as open_gate, gate() as never:
            watcher = Watcher(gate=open_gate)
            film = Film(frame(seq=0), watcher.busy, *frames(99, first=1), never, live=True)
            rig = Rig({"front": (film, watcher)}, {"mqtt": Shelf()}, video={"video": (video := Shelf())})
            rig.daemon.start()
            eventually(lambda: rig.captured() == 100)
            open_gate.set()
            eventually(lambda: rig.estimated() == 2)
            rig.daemon.stop()

        assert watcher.seen == [0, 99]
        assert video.seqs == list(range(100)), "the picture for people does not wait for the estimator"
        assert rig.stats.drops() == {("camera front", DropCause.NEWER_FRAME): 98}
        assert rig.every_frame_is_accounted_for()

    @pytest.mark.parametrize(("live", "captured", "stopped"), [(True, 100, 1), (False, 3, 2)])
    def test_frames_that_wait_at_the_end_are_counted_as_stopped(
        self, *, live: bool, captured: int, stopped: int
    ) -> None:
        with gate() as open_gate, gate() as never:
            watcher = Watcher(gate=open_gate)
            film = Film(frame(seq=0), watcher.busy, *frames(99, first=1), never, live=live)
            rig = Rig({"front": (film, watcher)}, {"mqtt": Shelf()})
            rig.daemon.start()
            eventually(lambda: film.given == captured)
            eventually(lambda: rig.captured() == captured)
            with ThreadPoolExecutor() as threads:
                stopping = threads.submit(rig.daemon.stop)
                eventually(lambda: rig.dropped("camera front", DropCause.STOPPED) == stopped)
                open_gate.set()
                stopping.result(PATIENCE_S)

        assert watcher.seen == [0]
        assert rig.every_frame_is_accounted_for()

    @given(
        count=st.integers(0, 60),
        live=st.booleans(),
        stop_after=st.integers(0, 60),
        capacity=st.integers(1, 20),
        refuses=st.booleans(),
    )
    @settings(deadline=None, max_examples=25)
    def test_whenever_it_stops_every_frame_was_estimated_or_counted_and_written_or_counted(
        self, *, count: int, live: bool, stop_after: int, capacity: int, refuses: bool
    ) -> None:
        with gate() as never:
            sink = Shelf(fails=lambda batch: SinkError("no") if refuses and batch[0].seq % 3 == 0 else None)
            rig = Rig({"front": (Film(*frames(count), never, live=live), Watcher())}, {"mqtt": sink}, capacity=capacity)
            rig.daemon.start()
            eventually(lambda: rig.captured() >= min(stop_after, count))
            rig.daemon.stop()

        assert rig.every_frame_is_accounted_for()
        assert rig.estimated() == len(sink.items) + rig.dropped("mqtt")
        assert sink.seqs == sorted(sink.seqs)


class TestLostCameras:
    def test_a_lost_camera_is_tried_again_until_it_is_back(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        film = Film(
            *frames(3),
            CameraLost("rtsp://door: the stream has ended"),
            *frames(3, first=3),
            live=False,
            opening=[CameraLost("rtsp://door: Connection refused")],
        )
        sink = Shelf()
        rig = Rig({"front": (film, Watcher())}, {"mqtt": sink})

        assert rig.run() == "every camera has ended"

        assert sink.seqs == list(range(6))
        assert (film.opened, film.closed) == (3, 2), "what was opened was closed, what was not was not"
        said = [(record.levelname, record.getMessage().split(";")[0]) for record in caplog.records]
        assert said == [
            ("WARNING", "camera front: rtsp://door: Connection refused"),
            ("INFO", "camera front is back"),
            ("WARNING", "camera front: rtsp://door: the stream has ended"),
            ("INFO", "camera front is back"),
        ]

    def test_a_camera_that_stays_away_does_not_delay_the_end(self, caplog: pytest.LogCaptureFixture) -> None:
        film = Film(opening=[CameraLost("gone")] * 100)
        rig = Rig({"front": (film, Watcher())})
        rig.daemon.start()
        eventually(lambda: film.opened == 2)

        rig.daemon.stop()

        assert "left behind" not in caplog.text

    def test_an_unusable_camera_ends_alone_and_is_the_verdict_at_the_end(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with gate() as the_other_is_gone:
            broken = Film(*frames(2), CameraUnusable("clip.mp4: can't be read as video"))
            healthy = Film(*frames(3), the_other_is_gone, *frames(4, first=3))
            watcher = Watcher()
            rig = Rig({"broken": (broken, Watcher()), "healthy": (healthy, watcher)}, {"mqtt": Shelf()})
            rig.daemon.start()
            eventually(lambda: rig.daemon.wait(0.01) is None and "the other cameras go on" in caplog.text)
            the_other_is_gone.set()

            assert rig.ended() == "every camera has ended"
            with pytest.raises(CameraUnusable, match=r"clip\.mp4: can't be read as video") as caught:
                rig.daemon.stop()

        assert watcher.seen == list(range(7))
        assert (broken.opened, rig.estimated("broken")) == (1, 2)
        assert caught.value.exit_code == 66
        assert rig.every_frame_is_accounted_for("broken")

    @pytest.mark.parametrize("second", [CameraUnusable("back is gone"), EstimatorError("back's model broke")])
    def test_of_two_cameras_that_fail_both_reasons_are_told(
        self, caplog: pytest.LogCaptureFixture, second: EdgePoseError
    ) -> None:
        with gate() as the_other_is_gone:
            front = Film(opening=[CameraUnusable("front is gone")])
            back = Film(the_other_is_gone, second)
            rig = Rig({"front": (front, Watcher()), "back": (back, Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.daemon.wait(0.01) is None and "the other cameras go on" in caplog.text)
            the_other_is_gone.set()
            rig.ended()
            with pytest.raises(EdgePoseError) as caught:
                rig.daemon.stop()

        told = caplog.text + str(caught.value)
        assert "front is gone" in told
        assert str(second) in told

    def test_the_only_camera_being_unusable_ends_the_daemon(self) -> None:
        with pytest.raises(CameraUnusable, match="no such device"):
            Rig({"front": (Film(opening=[CameraUnusable("no such device")]), Watcher())}).run()


class TestEstimatorFailures:
    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (EstimatorError("the pose graph failed twice"), "the pose graph failed twice"),
            (ZeroDivisionError("zero"), "camera front: ZeroDivisionError: zero; see the log at level debug"),
        ],
    )
    def test_a_broken_estimator_stops_everything_with_its_own_words(self, error: Exception, told: str) -> None:
        with gate() as never:
            front, back = Film(*frames(100), never), Film(*frames(5), never)
            sink = Shelf()
            rig = Rig({"front": (front, Watcher(error=error, at=30)), "back": (back, Watcher())}, {"mqtt": sink})
            rig.daemon.start()

            assert rig.ended() == "camera front failed"
            with pytest.raises(EdgePoseError) as caught:
                rig.daemon.stop()

        assert (str(caught.value), caught.value.exit_code) == (told, 70)
        assert rig.estimated("front") == 30
        assert rig.estimated() + rig.estimated("back") == len(sink.items)
        assert (front.opened, front.closed) == (1, 1)

    def test_every_frame_is_accounted_for_also_when_the_estimator_breaks(self) -> None:
        rig = Rig({"front": (Film(*frames(10)), Watcher(error=EstimatorError("broken"), at=4))})

        with pytest.raises(EstimatorError):
            rig.run()

        assert rig.every_frame_is_accounted_for()

    def test_a_files_frames_are_not_said_to_be_replaced_by_newer_ones_when_the_estimator_breaks(self) -> None:
        with gate() as open_gate:
            film = Film(*frames(10))
            rig = Rig({"front": (film, Watcher(gate=open_gate, error=EstimatorError("broken")))})
            rig.daemon.start()
            eventually(lambda: film.given == 3)  # the third one waits for room in the slot
            open_gate.set()
            eventually(lambda: film.closed)
            with pytest.raises(EstimatorError):
                rig.daemon.stop()

        assert rig.dropped("camera front", DropCause.NEWER_FRAME) == 0

    def test_without_a_model_no_camera_is_opened(self) -> None:
        film = Film(*frames(3))
        rig = Rig({"front": (film, Watcher(loading=ModelError("the model is damaged")))}, {"mqtt": (sink := Shelf())})

        with pytest.raises(ModelError, match="the model is damaged"):
            rig.run()

        assert film.opened == 0
        assert len(sink.closed_with_s) == 1

    def test_the_camera_is_opened_once_the_model_stands(self) -> None:
        with gate() as loaded:

            class Loading(Watcher):
                def __enter__(self) -> Self:
                    self.busy.set()
                    loaded.wait()
                    return self

            film, watcher = Film(*frames(3)), Loading()
            rig = Rig({"front": (film, watcher)})
            rig.daemon.start()
            assert watcher.busy.wait(PATIENCE_S)
            assert film.opened == 0
            loaded.set()

            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()
        assert watcher.seen == [0, 1, 2]


class TestTroubleAtTheOtherEnd:
    def test_a_sink_that_blocks_for_ever_slows_nothing_and_does_not_delay_the_end(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with gate() as never:
            stuck, well = Shelf(gate=never), Shelf()
            film, watcher = Film(*frames(1), stuck.busy, *frames(199, first=1)), Watcher()
            rig = Rig({"front": (film, watcher)}, {"stuck": stuck, "well": well}, capacity=300)
            rig.daemon.start()
            assert rig.ended() == "every camera has ended"
            began_s = time.monotonic()
            rig.daemon.stop()
            took_s = time.monotonic() - began_s

        assert took_s < PROMISED_STOP_S
        assert watcher.seen == list(range(200))
        assert well.seqs == list(range(200))
        assert "left behind, still busy at the deadline: sink stuck" in caplog.messages

    def test_a_blocked_sinks_lane_does_not_grow_and_counts_what_it_lets_go(self) -> None:
        with gate() as open_gate:
            stuck = Shelf(gate=open_gate)
            rig = Rig(
                {"front": (Film(*frames(1), stuck.busy, *frames(199, first=1)), Watcher())},
                {"stuck": stuck},
                capacity=10,
            )
            rig.daemon.start()
            assert rig.ended() == "every camera has ended"
            assert rig.stats.drops() == {("stuck", DropCause.LANE_FULL): 189}
            open_gate.set()
            rig.daemon.stop()

        assert stuck.seqs == [0, *range(190, 200)]

    @pytest.mark.parametrize("error", [SinkError, ValueError], ids=["foreseen", "unforeseen"])
    def test_a_sink_that_always_raises_disturbs_no_other(self, error: type[Exception]) -> None:
        broken, well = Shelf(fails=lambda _: error("disk full")), Shelf()
        rig = Rig({"front": (Film(*frames(50)), Watcher())}, {"broken": broken, "well": well})

        assert rig.run() == "every camera has ended"
        assert well.seqs == list(range(50))
        assert rig.stats.drops() == {("broken", DropCause.SINK_FAILED): 50}

    def test_a_camera_and_an_estimator_that_hang_do_not_delay_the_end_and_the_sinks_are_closed(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Hanging(Film):
            def read(self, timeout_s: float) -> Frame | None:
                never.wait()
                raise EndOfStream

        with gate() as never:
            hanging, watcher, sink = Hanging(), Watcher(gate=never), Shelf()
            rig = Rig({"a": (hanging, Watcher()), "b": (Film(*frames(1), never), watcher)}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: hanging.opened and watcher.busy.is_set())
            began_s = time.monotonic()
            rig.daemon.stop()
            took_s = time.monotonic() - began_s

            assert took_s < PROMISED_STOP_S
            assert len(sink.closed_with_s) == 1
            assert "left behind, still busy at the deadline: camera a, camera b" in caplog.messages

    def test_a_lane_that_feeds_another_one_is_emptied_before_that_one_ends(self) -> None:
        class Relay(Shelf):
            def write(self, batch: Sequence[Any]) -> None:
                super().write(batch)
                for number in batch:
                    second.offer(number)

        stats, last = Stats([]), Shelf()
        second = lane(last, stats)
        first = lane(Relay(), stats)
        daemon = Daemon(Inbox(), {"test": LaneGroup(observers=(first,), outputs=(second,))})
        daemon.start()
        for number in range(300):
            first.offer(number)
        daemon.stop()

        assert last.items == list(range(300))
        assert stats.drops() == {}


class TestProgress:
    def test_an_estimator_that_hangs_is_named_and_the_source_that_waits_for_it_is_not(self) -> None:
        watcher = Watcher(gate=(estimating := threading.Event()))
        rig = Rig({"front": (Film(*frames(5)), watcher)})
        rig.daemon.start()
        try:
            assert watcher.busy.wait(PATIENCE_S)
            eventually(lambda: rig.daemon.stalled(0.05) == ["camera front: inference"])
            estimating.set()
            eventually(lambda: rig.daemon.stalled(0.0) == [])
            assert rig.ended() == "every camera has ended"
        finally:
            estimating.set()
            rig.daemon.stop()

    def test_a_source_that_hangs_is_named(self) -> None:
        class Stuck(Film):
            def read(self, timeout_s: float) -> Frame | None:
                read = super().read(timeout_s)
                if self.given == 2:
                    hang.wait()
                return read

        with gate() as hang:
            rig = Rig({"front": (Stuck(*frames(5), live=True), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.daemon.stalled(0.05) == ["camera front: capture"])
            hang.set()
            rig.ended()
            rig.daemon.stop()

    def test_who_waits_for_frames_or_for_a_lost_camera_gets_on(self) -> None:
        with gate() as quiet:
            films = {
                "quiet": (Film(quiet, live=True), Watcher()),
                "away": (Film(live=True, opening=[CameraLost("unplugged")] * 100), Watcher()),
            }
            rig = Rig(films)
            rig.daemon.start()
            eventually(lambda: films["away"][0].opened >= 2)
            # Longer than a source may take to answer, and than the first pauses between two tries.
            assert rig.daemon.stalled(2.0) == []
            rig.daemon.stop()


class TestExchange:
    def test_lanes_are_exchanged_while_the_camera_goes_on(self) -> None:
        first, second = Shelf(), Shelf()
        with gate() as more:
            rig = Rig({"front": (Film(*frames(10), more, *frames(10, first=10)), Watcher())}, {"old": first})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 10)
            rig.daemon.exchange_lanes("test", LaneGroup(observers=(lane(second, rig.stats),)))
            more.set()
            rig.ended()
            rig.daemon.stop()

        assert (first.seqs, second.seqs) == (list(range(10)), list(range(10, 20)))
        assert [len(shelf.closed_with_s) for shelf in (first, second)] == [1, 1]

    def test_a_camera_takes_over_after_the_old_one_has_let_go(self) -> None:
        with gate() as never, gate() as go_on:
            old, new = Film(*frames(3), never), Film(*frames(2), go_on)
            rig = Rig({"front": (old, Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            rig.exchange("front", new)
            assert (old.closed, new.opened) == (1, 1)
            eventually(lambda: rig.estimated() == 5)
            assert rig.daemon.wait(0.01) is None, "the end of the old one is no end"
            go_on.set()
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()

    def test_a_model_that_can_not_be_loaded_leaves_the_old_camera_at_work(self) -> None:
        with gate() as more:
            rig = Rig({"front": (Film(*frames(3), more, *frames(3)), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            untouched = Film(*frames(1))
            with pytest.raises(ModelError, match="torn"):
                rig.exchange("front", untouched, Watcher(loading=ModelError("torn")))
            more.set()
            rig.ended()
            rig.daemon.stop()
        assert (untouched.opened, rig.estimated()) == (0, 6)

    def test_a_source_that_does_not_work_leaves_none_and_does_not_end_the_daemon(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(never), Watcher())})
            rig.daemon.start()
            broken = Film(opening=[CameraUnusable("no film")])
            with pytest.raises(CameraUnusable, match="no film"):
                rig.exchange("front", broken)
            assert (rig.daemon.cameras, rig.daemon.wait(0.01)) == ({}, None)
            rig.exchange("front", Film(*frames(2)))
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()

    def test_a_camera_that_is_away_takes_over_all_the_same(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(never), Watcher())})
            rig.daemon.start()
            away = Film(*frames(1), live=True, opening=[CameraLost("unplugged")])
            rig.exchange("front", away)
            assert rig.ended() in {"every camera has ended", None}
            rig.daemon.stop()
        assert away.opened == 2

    def test_frames_are_counted_on_where_the_old_camera_ended(self) -> None:
        sink = Shelf()
        with gate() as never:
            rig = Rig({"front": (Film(*frames(3), never), Watcher())}, {"sink": sink})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            rig.exchange("front", Film(*frames(2), never))
            eventually(lambda: rig.estimated() == 5)
            rig.exchange("front", Film(*frames(3)))
            rig.ended()
            rig.daemon.stop()
        assert sink.seqs == list(range(8))

    def test_an_end_while_another_camera_is_exchanged_is_judged_by_what_there_is_afterwards(self) -> None:
        with gate() as film_ends, gate() as never:
            rig = Rig({"front": (Film(never), Watcher()), "film": (Film(film_ends), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.daemon.ready)
            film = rig.daemon.cameras["film"]

            class SlowToOpen(Film):
                def __enter__(self) -> Self:
                    film_ends.set()
                    eventually(lambda: film.ended)
                    return super().__enter__()

            rig.exchange("front", SlowToOpen(*frames(1), never))
            assert rig.daemon.wait(0.1) is None, "the camera that took over goes on"
            rig.daemon.exchange_camera("front", None)
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()

    def test_a_stop_is_not_kept_waiting(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(never), Watcher())})
            rig.daemon.start()
            rig.inbox.post(Stop("SIGTERM"))
            with pytest.raises(EndRequested):
                rig.exchange("front", Film(never, live=True))  # gives no frame for now
            assert rig.ended() == "SIGTERM"
            rig.daemon.stop()
