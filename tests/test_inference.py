"""A camera's workers: they share its frames, and nobody can tell from the order of what comes out."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.control import Stop
from edge.errors import EstimatorError, ModelError, UnforeseenError
from edge.inference import Estimators, SpareCores
from edge.lanes import Lane, LaneGroup
from edge.pacing import Deadline
from edge.stats import DropCause
from edge.vision.frame import Frame
from edge.vision.observation import Observation
from edge.vision.pose import Pose
from tests.conftest import eventually, frame, pose
from tests.rigs import PATIENCE_S, Crew, Film, Rig, Shelf, Watcher, frames, gate


class TestSpareCores:
    def test_as_many_as_there_are(self) -> None:
        spare = SpareCores(2)
        assert [spare.take(), spare.take(), spare.take()] == [True, True, False]
        spare.give_back()
        assert [spare.take(), spare.take()] == [True, False]

    def test_none_without_memory(self) -> None:
        assert not SpareCores(2, lambda: False).take()

    def test_fewer_than_are_taken_already(self) -> None:
        spare = SpareCores(2)
        assert spare.take()
        assert spare.take()
        spare.allow(1)
        spare.give_back()
        assert not spare.take()
        spare.give_back()
        assert spare.take()


class Meeting(Watcher):
    """Waits in its first frame until so many are in one at the same time."""

    def __init__(self, together: threading.Barrier) -> None:
        super().__init__()
        self._together: threading.Barrier | None = together

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        together, self._together = self._together, None
        if together is not None:
            together.wait(PATIENCE_S)
        return super().estimate(frame)


class Held:
    """Estimators of which the one that gets frame 0 is held in it."""

    def __init__(self, gate: threading.Event) -> None:
        self.seen: list[int] = []
        self._gate = gate

    def crew(self, workers: int) -> Crew:
        held = self

        class InFrame0(Watcher):
            def estimate(self, frame: Frame) -> tuple[Pose, ...]:
                if frame.seq == 0:
                    held._gate.wait()
                held.seen.append(frame.seq)
                return super().estimate(frame)

        return Crew(*(InFrame0() for _ in range(workers)))


class TestSeveralWorkers:
    def test_they_are_at_work_at_the_same_time(self) -> None:
        together = threading.Barrier(3)
        crew, sink = Crew(*(Meeting(together) for _ in range(3))), Shelf()
        rig = Rig({"front": (Film(*frames(30)), crew)}, {"mqtt": sink}, workers=3)

        assert rig.run() == "every camera has ended"
        assert sink.seqs == list(range(30))
        assert len(crew.made) == 3

    @given(count=st.integers(0, 60), workers=st.integers(1, 4))
    @settings(deadline=None, max_examples=30)
    def test_a_files_frames_are_estimated_once_and_come_out_in_order(self, count: int, workers: int) -> None:
        crew, sink = Crew(), Shelf()
        rig = Rig({"front": (Film(*frames(count)), crew)}, {"mqtt": sink}, workers=workers)

        assert rig.run() == "every camera has ended"
        assert sink.seqs == list(range(count))
        assert rig.stats.drops() == {}
        assert all(watcher.freed for watcher in crew.made)

    def test_a_slow_one_is_waited_for(self) -> None:
        with gate() as slow, gate() as go_on, gate() as never:
            held, sink = Held(slow), Shelf()
            rig = Rig({"front": (Film(go_on, *frames(6), never), held.crew(2))}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: sorted(held.seen) == [1, 2, 3, 4, 5])
            assert sink.seqs == []
            slow.set()
            eventually(lambda: sink.seqs == [0, 1, 2, 3, 4, 5])
            rig.daemon.stop()
        assert rig.stats.drops() == {}

    def test_one_that_hangs_holds_the_others_up_for_some_frames_only_and_is_named(self) -> None:
        with gate() as hang, gate() as go_on, gate() as never:
            held, sink = Held(hang), Shelf()
            rig = Rig({"front": (Film(go_on, *frames(41), never), held.crew(2))}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: sink.seqs == list(range(1, 41)))
            eventually(lambda: rig.daemon.stalled(0.05) == ["camera front: inference"])
            assert rig.stats.drops() == {("camera front", DropCause.LATE): 1}
            hang.set()
            eventually(lambda: 0 in held.seen)
            rig.daemon.stop()

        assert sink.seqs == list(range(1, 41)), "what comes too late is not published"
        assert rig.every_frame_is_accounted_for()

    def test_the_first_ones_work_does_not_wait_for_the_others_models(self) -> None:
        with gate() as model, gate() as never:
            crew, sink = Crew(Watcher(), Watcher(model=model)), Shelf()
            rig = Rig({"front": (Film(*frames(10), never), crew)}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: sink.seqs == list(range(10)))
            assert rig.daemon.ready
            model.set()
            eventually(lambda: crew.made[1].seen == [9], timeout_s=PATIENCE_S)
            rig.daemon.stop()
        assert rig.estimated() == 10, "getting warm is no estimate"

    def test_a_swap_does_not_wait_for_one_that_still_loads(self) -> None:
        with gate() as model, gate() as more, gate() as never:
            crew, new, sink = Crew(Watcher(), Watcher(model=model)), Crew(), Shelf()
            rig = Rig({"front": (Film(*frames(3), more, *frames(3, first=3), never), crew)}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: sink.seqs == [0, 1, 2] and len(crew.made) == 2 and crew.made[1].loads.is_set())
            rig.swap(new)
            more.set()
            eventually(lambda: sink.seqs == list(range(6)))
            assert not crew.made[1].freed
            model.set()
            eventually(lambda: crew.made[1].freed)
            assert crew.made[1].seen == []
            rig.daemon.stop()

    @given(count=st.integers(0, 40), swaps=st.lists(st.integers(0, 40), max_size=3).map(sorted))
    @settings(deadline=None, max_examples=30)
    def test_swaps_lose_and_double_nothing(self, count: int, swaps: list[int]) -> None:
        crews, sink = [Crew()], Shelf()
        with gate() as last:
            film = Film(*frames(count), last)
            rig = Rig({"front": (film, crews[0])}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            for at in swaps:
                eventually(lambda at=at: film.given >= min(at, count))
                crews.append(Crew())
                rig.swap(crews[-1])
            last.set()
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()
        assert sink.seqs == list(range(count))
        assert rig.every_frame_is_accounted_for()
        eventually(lambda: all(watcher.freed for crew in crews for watcher in crew.made))

    def test_a_stuck_one_is_not_swapped_and_all_of_them_go_on(self) -> None:
        with gate() as stuck, gate() as go_on, gate() as more, gate() as never:
            held, sink = Held(stuck), Shelf()
            film = Film(go_on, *frames(3), more, *frames(4, first=3), never)
            rig = Rig({"front": (film, held.crew(2))}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: sorted(held.seen) == [1, 2])
            camera = rig.daemon.cameras["front"]
            rig.daemon.load(beside := camera.beside(Estimators(new := Crew())))
            assert not camera.take_over(beside, Deadline(0.05))
            beside.relieve()
            assert beside.join(Deadline(PATIENCE_S))
            stuck.set()
            more.set()
            eventually(lambda: sink.seqs == list(range(7)))
            eventually(lambda: rig.at_work() == 2)
            rig.daemon.stop()
        assert new.made[0].freed

    def test_a_swap_that_waits_for_a_slow_frame_loads_nothing_in_between(self) -> None:
        with gate() as slow, gate() as go_on, gate() as never:
            crew = Held(slow).crew(3)
            rig = Rig({"front": (Film(go_on, *frames(3), never), crew)}, {"mqtt": (sink := Shelf())}, workers=3)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 3)
            go_on.set()
            steps: list[int] = []

            def step() -> None:
                steps.append(0)
                if len(steps) == 3:
                    slow.set()

            camera = rig.daemon.cameras["front"]
            rig.daemon.load(beside := camera.beside(Estimators(Crew())))
            rig.daemon.exchange_estimator("front", beside, step)
            eventually(lambda: sink.seqs == [0, 1, 2])
            rig.daemon.stop()
        assert len(crew.made) == 3

    def test_a_relief_that_is_taken_back_leaves_all_of_them_at_work(self) -> None:
        with gate() as slow, gate() as model, gate() as go_on, gate() as more, gate() as never:
            held = Held(slow)
            crew = held.crew(2)
            crew._first.append(Watcher(model=model))
            film = Film(go_on, *frames(3), more, *frames(5, first=3), never)
            rig = Rig({"front": (film, crew)}, {"mqtt": (sink := Shelf())}, workers=3)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: sorted(held.seen) == [1, 2])
            camera = rig.daemon.cameras["front"]
            rig.daemon.load(beside := camera.beside(Estimators(Watcher)))
            assert not camera.take_over(beside, Deadline(0.05))
            beside.relieve()
            slow.set()
            model.set()
            more.set()
            eventually(lambda: sink.seqs == list(range(8)))
            eventually(lambda: rig.at_work() == 3)
            rig.daemon.stop()

    def test_a_camera_that_is_not_started_after_all_loads_no_more_than_it_has(self) -> None:
        crew = Crew()
        rig = Rig({"front": (Film(), Crew())}, workers=4)
        rig.daemon.load(new := rig.pipeline("front", Film(*frames(3)), crew))
        new.interrupt()
        assert new.join(Deadline(PATIENCE_S))
        assert [watcher.freed for watcher in crew.made] == [True]

    def test_a_stop_ends_all_of_them(self) -> None:
        with gate() as never:
            crew = Crew()
            rig = Rig({"front": (Film(*frames(20), never), crew)}, workers=3)
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 20)
            rig.inbox.post(Stop("SIGTERM"))
            assert rig.ended() == "SIGTERM"
            rig.daemon.stop()
        assert all(watcher.freed for watcher in crew.made)
        assert not rig.daemon.cameras["front"]._inference.alive


class TestWorkersThatFail:
    def test_one_is_replaced_after_a_while_and_its_frame_is_counted(self, caplog: pytest.LogCaptureFixture) -> None:
        with gate() as go_on, gate() as more, gate() as never:
            crew = Crew(*(Watcher(error=EstimatorError("the pose graph failed twice"), at=9) for _ in range(3)))
            film, sink = Film(go_on, *frames(20), more, *frames(20, first=20), never), Shelf()
            rig = Rig({"front": (film, crew)}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: sink.seqs == [seq for seq in range(20) if seq != 9])
            assert len(crew.made) == 2
            eventually(lambda: time.monotonic() > rig.daemon.cameras["front"]._inference._next_hire_s)
            more.set()
            eventually(lambda: rig.at_work() == 2 and sink.seqs[-1] == 39)
            assert len(crew.made) == 3
            rig.daemon.stop()

        assert [watcher.freed for watcher in crew.made] == [True] * 3
        assert rig.stats.drops() == {("camera front", DropCause.ESTIMATOR_FAILED): 1}
        assert "one of its estimators failed, 1 go on: the pose graph failed twice" in caplog.text

    def test_replacements_that_fail_as_well_come_ever_more_rarely(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Watcher):
            def estimate(self, frame: Frame) -> tuple[Pose, ...]:
                raise EstimatorError("the pose graph failed twice")

        count = 20_000
        crew = Crew(Watcher(), *(Broken() for _ in range(50)))
        rig = Rig({"front": (Film(*frames(count)), crew)}, {"mqtt": Shelf()}, workers=3, capacity=count)
        assert rig.run() == "every camera has ended"
        assert len(crew.made) < 12, "a few seconds, two at a time"
        assert rig.every_frame_is_accounted_for()
        assert caplog.text.count("WARNING") <= 2

    def test_one_that_fails_beside_a_slow_one_is_not_the_end(self) -> None:
        with gate() as slow, gate() as go_on, gate() as never:

            class Slow(Watcher):
                def estimate(self, frame: Frame) -> tuple[Pose, ...]:
                    if frame.seq == 0:
                        slow.wait()
                    if frame.seq == 1:
                        raise EstimatorError("the pose graph failed twice")
                    return super().estimate(frame)

            sink = Shelf()
            rig = Rig({"front": (Film(go_on, *frames(5), never), Crew(Slow(), Slow()))}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: rig.dropped("camera front") == 1)
            slow.set()
            eventually(lambda: sink.seqs == [0, 2, 3, 4])
            rig.daemon.stop()

    def test_the_last_ones_failure_is_the_end(self) -> None:
        class Broken(Watcher):
            def estimate(self, frame: Frame) -> tuple[Pose, ...]:
                raise EstimatorError("the pose graph failed twice")

        with gate() as go_on:
            crew = Crew(Broken(), Broken())
            rig = Rig({"front": (Film(go_on, *frames(9)), crew)}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            assert rig.ended() == "camera front failed"
            with pytest.raises(EstimatorError):
                rig.daemon.stop()
        assert rig.every_frame_is_accounted_for()
        assert [watcher.freed for watcher in crew.made] == [True, True]

    @pytest.mark.parametrize("error", [ModelError("no memory"), RuntimeError("can't start new thread")])
    def test_one_that_there_can_not_be_is_done_without(
        self, error: Exception, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Scarce(Crew):
            def __call__(self) -> Watcher:
                if self.made and isinstance(error, RuntimeError):
                    raise error
                return super().__call__()

        with gate() as never:
            crew, sink = Scarce(Watcher(), Watcher(loading=error)), Shelf()
            rig = Rig({"front": (Film(*frames(30), never), crew)}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: sink.seqs == list(range(30)))
            eventually(
                lambda: f"1 go on: {'no memory' if isinstance(error, ModelError) else 'no thread'}" in caplog.text
            )
            assert rig.at_work() == 1
            rig.daemon.stop()
        assert rig.stats.drops() == {}
        assert not rig.daemon.cameras["front"]._inference.alive

    def test_one_that_comes_too_late_and_fails_is_counted_once(self) -> None:
        class LateAndBroken(Watcher):
            def estimate(self, frame: Frame) -> tuple[Pose, ...]:
                if frame.seq == 0:
                    hang.wait()
                    raise EstimatorError("the pose graph failed twice")
                return super().estimate(frame)

        with gate() as hang, gate() as go_on, gate() as never:
            crew, sink = Crew(LateAndBroken(), LateAndBroken()), Shelf()
            rig = Rig({"front": (Film(go_on, *frames(40), never), crew)}, {"mqtt": sink}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: sink.seqs == list(range(1, 40)))
            hang.set()
            eventually(lambda: rig.at_work() == 1)
            rig.daemon.stop()
        assert rig.stats.drops() == {("camera front", DropCause.LATE): 1}

    def test_one_that_hangs_while_it_loads_is_named(self) -> None:
        with gate() as model, gate() as never:
            crew = Crew(Watcher(), Watcher(model=model))
            rig = Rig({"front": (Film(*frames(3), never), crew)}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            eventually(lambda: rig.daemon.stalled(0.01) == ["camera front: inference"])
            model.set()
            eventually(lambda: rig.at_work() == 2)
            rig.daemon.stop()

    def test_one_that_can_not_load_when_all_is_done_spoils_nothing(self) -> None:
        with gate() as model:
            crew = Crew(Watcher(), Watcher(model=model, loading=ModelError("torn")))
            rig = Rig({"front": (Film(*frames(3)), crew)}, workers=2)
            rig.daemon.start()
            assert rig.ended() == "every camera has ended", "whatever still loads"
            model.set()
            rig.daemon.stop()
        assert rig.stats.drops() == {}

    def test_what_fails_behind_the_estimators_is_the_cameras_end_and_counted(self) -> None:
        def broken(observation: Observation) -> int:
            if observation.seq == 5:
                raise ZeroDivisionError("zero")
            return 1

        rig = Rig({"front": (Film(*frames(20)), Crew())}, workers=2)
        lane = Lane[Observation]("mqtt", Shelf(), rig.stats, capacity=100, weigh=broken)
        rig.daemon.outlets.connect("broken", LaneGroup(observers=(lane,)))
        rig.daemon.start()
        assert rig.ended() == "camera front failed"
        with pytest.raises(UnforeseenError, match="ZeroDivisionError: zero"):
            rig.daemon.stop()
        assert rig.every_frame_is_accounted_for()

    def test_what_waits_behind_one_that_hangs_is_counted_at_the_stop(self) -> None:
        with gate() as hang, gate() as go_on, gate() as never:
            held = Held(hang)
            rig = Rig({"front": (Film(go_on, *frames(10), never), held.crew(2))}, workers=2)
            rig.daemon.start()
            eventually(lambda: rig.at_work() == 2)
            go_on.set()
            eventually(lambda: sorted(held.seen) == list(range(1, 10)))
            rig.daemon.stop()
            assert rig.dropped("camera front", DropCause.STOPPED) == 9
            hang.set()
            eventually(rig.every_frame_is_accounted_for)
        assert rig.estimated() == 0

    def test_the_first_one_that_can_not_load_its_model_is_the_end(self) -> None:
        crew = Crew(Watcher(loading=ModelError("torn")))
        rig = Rig({"front": (film := Film(*frames(3)), crew)}, workers=3)
        with pytest.raises(ModelError, match="torn"):
            rig.run()
        assert (film.opened, len(crew.made)) == (0, 1)


class Slow(Watcher):
    """Lets the camera put another frame into the slot before it is done with one."""

    def __init__(self, film: Film) -> None:
        super().__init__()
        self._film = film

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        wanted = min(frame.seq + 2, self._film.last)
        eventually(lambda: self._film.given > wanted)
        return super().estimate(frame)


class Stock(Film):
    """Frames without waiting."""

    def __init__(self, count: int, *more: threading.Event, live: bool = False) -> None:
        super().__init__(*frames(count), *more, live=live)
        self.last = count - 1


class TestAsManyAsNeeded:
    def test_one_that_can_not_keep_up_gets_another_one(self) -> None:
        with gate() as never:
            film, spare = Stock(200, never), SpareCores(1)
            crew, sink = Crew(Slow(film), Slow(film)), Shelf()
            rig = Rig({"front": (film, crew)}, {"mqtt": sink}, workers=spare)
            rig.daemon.start()
            eventually(lambda: len(crew.made) == 2)
            eventually(lambda: sink.seqs == list(range(200)))
            assert not spare.take()
            rig.daemon.stop()
        assert spare.take(), "it is given back at the end"

    def test_one_that_keeps_up_stays_alone(self) -> None:
        steps: list[Frame | Exception | threading.Event] = []
        seen = [threading.Event() for _ in range(200)]

        class Punctual(Watcher):
            def estimate(self, frame: Frame) -> tuple[Pose, ...]:
                found = super().estimate(frame)
                seen[frame.seq].set()
                return found

        for seq, done in enumerate(seen):
            steps += [frame(seq=seq), done]  # the next frame comes when this one is done
        crew = Crew(Punctual())
        rig = Rig({"front": (Film(*steps), crew)}, workers=SpareCores(3))
        assert rig.run() == "every camera has ended"
        assert (len(crew.made), rig.estimated()) == (1, 200)

    def test_no_more_than_there_are_cores_in_all_cameras_together(self) -> None:
        with gate() as never:
            spare, sink = SpareCores(1), Shelf()
            films = [Stock(400, never), Stock(400, never)]
            crews = [Crew(Slow(film), Slow(film)) for film in films]
            rig = Rig({"a": (films[0], crews[0]), "b": (films[1], crews[1])}, {"mqtt": sink}, workers=spare)
            rig.daemon.start()
            eventually(lambda: len(sink.items) == 800)
            assert sorted(len(crew.made) for crew in crews) == [1, 2]
            rig.daemon.stop()

    def test_none_where_there_is_no_memory(self) -> None:
        film = Stock(200)
        crew = Crew(Slow(film), Slow(film))
        rig = Rig({"front": (film, crew)}, workers=SpareCores(3, lambda: False))
        assert rig.run() == "every camera has ended"
        assert len(crew.made) == 1

    def test_a_swap_gives_back_what_the_old_ones_had(self) -> None:
        with gate() as never:
            film, spare = Stock(200, never), SpareCores(1)
            crew = Crew(Slow(film), Slow(film))
            rig = Rig({"front": (film, crew)}, workers=spare)
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 200 and len(crew.made) == 2)
            rig.swap(Crew())
            eventually(lambda: all(watcher.freed for watcher in crew.made))
            assert spare.take()
            spare.give_back()
            rig.daemon.stop()

    def test_how_many_are_at_work_is_known(self) -> None:
        with gate() as never:
            film = Stock(300, never)
            rig = Rig({"front": (film, Crew(Slow(film), Slow(film)))}, workers=SpareCores(1))
            rig.daemon.start()
            eventually(lambda: rig.stats.cameras["front"].counts().workers == 2)
            rig.daemon.stop()


def test_what_the_trackers_differ_by_is_taken_out() -> None:
    """Of two workers one sees everything a little to the right of the other."""

    class Biased(Watcher):
        def __init__(self, by: float) -> None:
            super().__init__()
            self._by = by

        def estimate(self, frame: Frame) -> tuple[Pose, ...]:
            together.wait(PATIENCE_S)  # so each has one of every two frames
            return (pose(x=0.5 + self._by),)

    together, sink = threading.Barrier(2), Shelf()
    with gate() as go_on:
        rig = Rig({"front": (Film(go_on, *frames(60)), Crew(Biased(0.0), Biased(0.01)))}, {"mqtt": sink}, workers=2)
        rig.daemon.start()
        eventually(lambda: rig.at_work() == 2)
        go_on.set()
        rig.ended()
        rig.daemon.stop()
    places = [float(item.people[0].pose.image_xyz[0, 0]) for item in sink.items]
    assert max(places[20:]) - min(places[20:]) < 0.002
