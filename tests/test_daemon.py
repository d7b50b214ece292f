from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Self

import pytest

from edge.control import Inbox, Stop
from edge.daemon import Daemon, EndRequested
from edge.errors import CameraLost, CameraUnusable, ModelError, OrderRefused, SinkError
from edge.inference import Estimators
from edge.interfaces import EndOfStream
from edge.lanes import LaneGroup
from edge.stats import DropCause, Stats
from edge.vision.frame import Frame
from tests.conftest import eventually
from tests.rigs import PATIENCE_S, PROMISED_STOP_S, Film, Rig, Shelf, Watcher, frames, gate, lane


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

    def test_a_stop_is_not_kept_waiting_by_an_estimator_that_is_to_be_relieved(self) -> None:
        with gate() as open_gate, gate() as never:
            old = Watcher(gate=open_gate)
            rig = Rig({"front": (Film(*frames(1), never), old)})
            rig.daemon.start()
            assert old.busy.wait(PATIENCE_S)
            rig.daemon.load(beside := rig.daemon.cameras["front"].beside(Estimators(Watcher)))
            rig.inbox.post(Stop("SIGTERM"))
            began_s = time.monotonic()
            with pytest.raises(EndRequested):
                rig.daemon.exchange_estimator("front", beside)
            assert time.monotonic() - began_s < 1.0
            beside.relieve()
            rig.daemon.stop()


class TestAside:
    """Slow work goes on in a thread of its own, and the main thread waits for it step by step."""

    def rig(self) -> Rig:
        return Rig({"front": (Film(), Watcher())})

    def test_what_the_work_returns_is_returned_and_the_main_thread_does_not_do_it(self) -> None:
        assert self.rig().daemon.aside(threading.current_thread, lambda: None) is not threading.current_thread()

    def test_nothing_is_a_result_as_well(self) -> None:
        assert self.rig().daemon.aside(lambda: None, lambda: None) is None

    @pytest.mark.parametrize("error", [ModelError("404"), ZeroDivisionError("zero")])
    def test_what_the_work_raises_is_raised(self, error: Exception) -> None:
        def work() -> None:
            raise error

        with pytest.raises(type(error)) as caught:
            self.rig().daemon.aside(work, lambda: None)
        assert caught.value is error

    def test_steps_are_taken_in_the_main_thread_while_it_lasts(self) -> None:
        with gate() as enough:
            takers: list[threading.Thread] = []

            def step() -> None:
                takers.append(threading.current_thread())
                if len(takers) == 3:
                    enough.set()

            assert self.rig().daemon.aside(lambda: enough.wait(PATIENCE_S), step)
        assert set(takers) == {threading.current_thread()}
        assert len(takers) >= 3

    def test_a_stop_leaves_it_behind(self) -> None:
        rig = self.rig()
        with gate() as never:
            began_s = time.monotonic()
            with pytest.raises(EndRequested):
                rig.daemon.aside(never.wait, lambda: rig.inbox.post(Stop("SIGTERM")))
            assert time.monotonic() - began_s < 1.0
        assert rig.ended() == "SIGTERM"

    def test_what_is_done_before_anybody_asked_for_the_end_counts(self) -> None:
        rig = self.rig()
        with gate() as done:

            def step() -> None:
                done.set()
                eventually(lambda: finished)
                rig.inbox.post(Stop("SIGTERM"))

            finished: list[bool] = []

            def work() -> str:
                done.wait()
                finished.append(True)
                return "a model"

            assert rig.daemon.aside(work, step) == "a model"

    def test_what_no_exception_is_is_raised_as_well(self) -> None:
        class PanicException(BaseException):
            """As PyO3 raises it: not an Exception."""

        def work() -> None:
            raise PanicException("rust")

        with pytest.raises(PanicException):
            self.rig().daemon.aside(work, lambda: None)

    def test_a_step_that_fails_is_not_swallowed(self) -> None:
        def step() -> None:
            raise ZeroDivisionError("zero")

        with gate() as never, pytest.raises(ZeroDivisionError):
            self.rig().daemon.aside(never.wait, step)

    def test_what_takes_too_long_is_left_to_itself(self) -> None:
        never = threading.Event()
        with pytest.raises(OrderRefused, match=r"longer than 0\.1 s"):
            self.rig().daemon.aside(never.wait, lambda: None, timeout_s=0.1)
        never.set()
