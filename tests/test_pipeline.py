from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import reports
from edge.control import Stop
from edge.daemon import EndRequested
from edge.errors import (
    CameraLost,
    CameraUnusable,
    EdgePoseError,
    EstimatorError,
    ModelError,
    SinkError,
    UnforeseenError,
)
from edge.inference import Estimators, Inference
from edge.interfaces import EndOfStream
from edge.lanes import IDLE_S, Shown
from edge.pacing import Deadline
from edge.pipeline import CameraPipeline
from edge.stats import CameraStatus, DropCause
from edge.vision.events import PersonEntered
from edge.vision.frame import Frame, VideoCodec, VideoPacket
from edge.vision.observation import Observation
from tests.conftest import eventually, frame
from tests.rigs import PATIENCE_S, PROMISED_STOP_S, Film, Rig, Shelf, Watcher, frames, gate


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

    def test_frames_that_are_not_shown_are_estimated_and_know_what_is_shown_instead(self) -> None:
        film = Film(*[frame(seq=seq, fps=60.0) for seq in range(20)])
        observed, video = Shelf(), Shelf()
        rig = Rig({"front": (film, Watcher())}, {"mqtt": observed}, video={"video": video}, shown=Shown(30))

        assert rig.run() == "every camera has ended"
        assert video.seqs == list(range(0, 20, 2))
        assert [(each.seq, each.shown_seq) for each in observed.items] == [(seq, seq // 2 * 2) for seq in range(20)]

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
    def test_of_what_a_camera_encodes_itself_nothing_comes_before_a_keyframe_each_time_it_is_opened(self) -> None:
        def encoded(seq: int, *keyframes: bool) -> Frame:
            packets = tuple(VideoPacket(seq, 0, VideoCodec.H264, keyframe, b"") for keyframe in keyframes)
            return replace(frame(seq=seq), packets=packets)

        before = [encoded(0, False), encoded(1), encoded(2, False, True, False), encoded(3, False)]
        after = [encoded(4, False), encoded(5, True), encoded(6, False)]
        video = Shelf()
        film = Film(*before, CameraLost("unplugged"), *after)
        Rig({"front": (film, Watcher())}, video={"video": video}).run()

        assert [[packet.keyframe for packet in item.packets] for item in video.items] == [
            *([], [], [True, False], [False]),
            *([], [True], [False]),
        ]
        assert video.seqs == [*range(7)], "they come all the same, so that one sees that none is missing"

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


class TestAnotherEstimator:
    """One estimator takes over from another while the camera goes on."""

    @given(
        count=st.integers(0, 40),
        swaps=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=3).map(sorted),
    )
    @settings(deadline=None, max_examples=40)
    def test_a_files_frames_are_estimated_once_and_in_order_whenever_it_happens(
        self, count: int, swaps: list[tuple[int, bool]]
    ) -> None:
        script: list[Frame | Exception | threading.Event] = [*frames(count)]
        gates = [threading.Event() for _ in swaps]
        for (at, _), go_on in reversed(list(zip(swaps, gates, strict=True))):
            script.insert(min(at, count), go_on)
        film, sink, watchers = Film(*script), Shelf(), [Watcher()]
        rig = Rig({"front": (film, watchers[0])}, {"mqtt": sink}, video={"video": (video := Shelf())})
        rig.daemon.start()
        for (at, running), go_on in zip(swaps, gates, strict=True):
            eventually(lambda at=at: film.given >= min(at, count))
            watchers.append(Watcher())
            if running:  # the swap and the frames, or the end of the stream, run a race
                go_on.set()
            rig.swap(watchers[-1])
            go_on.set()

        assert rig.ended() == "every camera has ended"
        rig.daemon.stop()
        assert sink.seqs == video.seqs == list(range(count))
        assert (rig.captured(), rig.estimated(), rig.stats.drops()) == (count, count, {})
        assert [watcher.freed for watcher in watchers] == [True] * len(watchers)
        assert rig.happened() == [(reports.CameraEnded, "its frames are over")]

    @given(swaps=st.lists(st.integers(0, 60), max_size=3).map(sorted))
    @settings(deadline=None, max_examples=20)
    def test_a_live_cameras_frames_are_estimated_once_and_in_order_or_counted(self, swaps: list[int]) -> None:
        with gate() as never:
            sink, watchers = Shelf(), [Watcher()]
            rig = Rig({"front": (Film(*frames(60), never, live=True), watchers[0])}, {"mqtt": sink})
            rig.daemon.start()
            for at in swaps:
                eventually(lambda at=at: rig.captured() >= at)
                watchers.append(Watcher())
                rig.swap(watchers[-1])
            eventually(lambda: sink.seqs[-1:] == [59])
            rig.daemon.stop()

        assert sink.seqs == sorted(set(sink.seqs))
        assert rig.every_frame_is_accounted_for()
        assert {cause for _, cause in rig.stats.drops()} <= {DropCause.NEWER_FRAME}
        assert [watcher.freed for watcher in watchers] == [True] * len(watchers)

    def test_the_old_one_goes_on_while_the_new_one_is_loaded_and_is_freed_when_it_has_taken_over(self) -> None:
        with gate() as model, gate() as second, gate() as third:
            old, new, sink = Watcher(), Watcher(model=model), Shelf()
            film = Film(*frames(3), second, *frames(3, first=3), third, *frames(3, first=6))
            rig = Rig({"front": (film, old)}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: old.seen == [0, 1, 2])
            with ThreadPoolExecutor() as threads:
                swapping = threads.submit(rig.swap, new)
                assert new.loads.wait(PATIENCE_S)
                second.set()
                eventually(lambda: old.seen == [0, 1, 2, 3, 4, 5])
                assert (new.seen, old.freed, swapping.done()) == ([], False, False)
                model.set()
                swapping.result(PATIENCE_S)
            assert (old.freed, new.freed) == (True, False)
            third.set()
            rig.ended()
            rig.daemon.stop()

        assert old.seen == [0, 1, 2, 3, 4, 5]
        assert new.seen[-3:] == [6, 7, 8]
        assert sink.seqs == list(range(9))
        assert new.freed

    def test_the_new_one_is_warmed_up_with_the_newest_frame_and_nobody_hears_of_it(self) -> None:
        with gate() as more:
            old, new, sink = Watcher(), Watcher(), Shelf()
            rig = Rig({"front": (Film(*frames(3), more, *frames(2, first=3)), old)}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: sink.seqs == [0, 1, 2])
            rig.swap(new)
            assert (new.seen, rig.estimated()) == ([2], 3)
            more.set()
            rig.ended()
            rig.daemon.stop()

        assert new.seen == [2, 3, 4]
        assert sink.seqs == [0, 1, 2, 3, 4]
        assert rig.every_frame_is_accounted_for()

    def test_without_a_frame_yet_there_is_nothing_to_warm_up_with(self) -> None:
        with gate() as more:
            new = Watcher()
            rig = Rig({"front": (Film(more, *frames(2)), Watcher())})
            rig.daemon.start()
            rig.swap(new)
            assert new.seen == []
            more.set()
            rig.ended()
            rig.daemon.stop()
        assert new.seen == [0, 1]

    @pytest.mark.parametrize(
        ("broken", "told"),
        [
            (Watcher(loading=ModelError("torn")), ModelError("torn")),
            (Watcher(loading=OSError("no memory")), UnforeseenError("camera front: OSError: no memory")),
            (Watcher(error=EstimatorError("the graph failed"), at=2), EstimatorError("the graph failed")),
        ],
        ids=["no model", "unforeseen", "fails at the first frame"],
    )
    def test_one_that_does_not_work_leaves_the_old_one_at_work(self, broken: Watcher, told: EdgePoseError) -> None:
        with gate() as more:
            old, sink = Watcher(), Shelf()
            rig = Rig({"front": (Film(*frames(3), more, *frames(3, first=3)), old)}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: sink.seqs == [0, 1, 2])
            with pytest.raises(type(told), match=str(told)):
                rig.swap(broken)
            assert rig.daemon.wait(0.01) is None
            assert (rig.status(), rig.happened(), rig.daemon.ready) == (CameraStatus.ONLINE, [], True)
            more.set()
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()

        assert old.seen == sink.seqs == [0, 1, 2, 3, 4, 5]

    def test_a_live_camera_has_a_gap_no_longer_than_the_frame_in_work(self) -> None:
        with gate() as open_gate, gate() as never:
            old, new, sink = Watcher(gate=open_gate), Watcher(), Shelf()
            film = Film(frame(seq=0), old.busy, *frames(20, first=1), never, live=True)
            rig = Rig({"front": (film, old)}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: rig.captured() == 21)
            with ThreadPoolExecutor() as threads:
                swapping = threads.submit(rig.swap, new)
                eventually(lambda: new.seen == [20])  # it is warm, and waits for the frame in work
                assert not swapping.done()
                open_gate.set()
                swapping.result(PATIENCE_S)
            eventually(lambda: sink.seqs == [0, 20])
            rig.daemon.stop()

        assert new.seen[0] == 20, "to get warm"
        assert [*old.seen, *new.seen[1:]] == [0, 20]  # whichever of them had the turn by then
        assert rig.stats.drops() == {("camera front", DropCause.NEWER_FRAME): 19}

    def test_an_old_one_that_is_stuck_is_not_replaced_and_goes_on_when_it_comes_back(self) -> None:
        with gate() as open_gate:
            old, new, sink = Watcher(gate=open_gate), Watcher(), Shelf()
            film = Film(*frames(6))
            rig = Rig({"front": (film, old)}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: film.given == 3)
            camera = rig.daemon.cameras["front"]
            rig.daemon.load(beside := camera.beside(Estimators(lambda: new)))

            assert not camera.take_over(beside, Deadline(0.05))
            beside.relieve()
            assert beside.join(Deadline(PATIENCE_S))
            assert (new.freed, old.freed) == (True, False)
            open_gate.set()
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()

        assert old.seen == sink.seqs == list(range(6))

    def test_a_second_try_works_when_the_old_one_has_come_back(self) -> None:
        with gate() as open_gate, gate() as more:
            old, new, sink = Watcher(gate=open_gate), Watcher(), Shelf()
            rig = Rig({"front": (Film(*frames(1), more, *frames(2, first=1)), old)}, {"mqtt": sink})
            rig.daemon.start()
            assert old.busy.wait(PATIENCE_S)
            camera = rig.daemon.cameras["front"]
            rig.daemon.load(beside := camera.beside(Estimators(lambda: new)))
            assert not camera.take_over(beside, Deadline(0.05))
            open_gate.set()
            assert camera.take_over(beside, Deadline(PATIENCE_S))
            more.set()
            rig.ended()
            rig.daemon.stop()

        assert (old.seen, new.seen[-2:], sink.seqs) == ([0], [1, 2], [0, 1, 2])

    def test_a_camera_that_has_ended_stays_so(self) -> None:
        with gate() as never:
            new = Watcher()
            rig = Rig({"film": (Film(*frames(2)), Watcher()), "front": (Film(never), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.daemon.cameras["film"].ended)
            rig.swap(new, "film")
            eventually(lambda: new.freed)
            assert rig.daemon.wait(0.01) is None, "the other camera goes on"
            eventually(lambda: rig.status("film") is CameraStatus.DISABLED)
            assert rig.daemon.cameras["film"].ended
            rig.daemon.stop()

        assert new.seen == []
        assert rig.happened("film") == [(reports.CameraEnded, "its frames are over")]

    def test_a_camera_that_is_away_or_paused_goes_on_with_the_new_one(self) -> None:
        with gate() as unplugged:
            new, sink = Watcher(), Shelf()
            film = Film(*frames(2), unplugged, CameraLost("unplugged"), *frames(2, first=2))
            rig = Rig({"front": (film, Watcher())}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: sink.seqs == [0, 1])
            rig.daemon.cameras["front"].pause(True)
            eventually(lambda: rig.status() is CameraStatus.PAUSED)
            rig.swap(new)
            assert new.seen == [], "there is no newest frame of a camera that is paused"
            rig.daemon.cameras["front"].pause(False)
            unplugged.set()
            rig.ended()
            rig.daemon.stop()

        assert sink.seqs == [0, 1, 2, 3]
        assert new.seen == [2, 3]

    def test_a_stop_during_the_load_is_not_kept_waiting_and_the_new_one_goes_when_it_can(self) -> None:
        with gate() as model, gate() as never:
            new = Watcher(model=model)
            rig = Rig({"front": (Film(*frames(1), never), old := Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 1)
            beside = rig.daemon.cameras["front"].beside(Estimators(lambda: new))
            began_s = time.monotonic()
            with ThreadPoolExecutor() as threads:
                loading = threads.submit(rig.daemon.load, beside)
                assert new.loads.wait(PATIENCE_S)
                rig.inbox.post(Stop("SIGTERM"))
                with pytest.raises(EndRequested):
                    loading.result(PATIENCE_S)
            beside.relieve()
            assert rig.ended() == "SIGTERM"
            rig.daemon.stop()
            assert time.monotonic() - began_s < PROMISED_STOP_S
            assert old.freed
            model.set()
            assert beside.join(Deadline(PATIENCE_S))

        assert (new.freed, new.seen) == (True, [])

    def test_a_load_that_lasts_calls_for_patience_step_by_step(self) -> None:
        with gate() as never, gate() as model:
            steps: list[int] = []

            def step() -> None:
                steps.append(len(steps))
                if len(steps) == 2:
                    model.set()

            rig = Rig({"front": (Film(never), Watcher())})
            rig.daemon.start()
            rig.daemon.load(
                beside := rig.daemon.cameras["front"].beside(Estimators(lambda: Watcher(model=model))), step
            )
            beside.relieve()
            rig.daemon.stop()
        assert steps[:2] == [0, 1]

    def test_one_that_was_loaded_and_is_not_wanted_any_more_goes_without_a_frame(self) -> None:
        with gate() as more:
            new = Watcher()
            rig = Rig({"front": (Film(more, *frames(3)), old := Watcher())})
            rig.daemon.start()
            rig.daemon.load(beside := rig.daemon.cameras["front"].beside(Estimators(lambda: new)))
            beside.relieve()
            assert beside.join(Deadline(PATIENCE_S))
            more.set()
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()
        assert (new.seen, new.freed, old.seen) == ([], True, [0, 1, 2])

    def test_a_camera_that_is_interrupted_between_load_and_start_frees_its_model_and_opens_nothing(self) -> None:
        film, watcher = Film(*frames(3)), Watcher()
        rig = Rig({"front": (Film(), Watcher())})
        new = rig.pipeline("front", film, watcher)
        rig.daemon.load(new)
        new.interrupt()

        assert new.join(Deadline(PATIENCE_S))
        assert (watcher.freed, watcher.seen, film.opened, rig.happened()) == (True, [], 0, [])

    def test_what_hangs_is_the_one_at_work_not_the_one_that_was_relieved(self) -> None:
        with gate() as hang, gate() as more:
            new = Watcher()
            rig = Rig({"front": (Film(*frames(1), more, *frames(3, first=1)), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 1)
            rig.swap(new)
            assert rig.daemon.stalled(0.0) in ([], ["camera front: capture"])
            new._gate = hang
            more.set()
            eventually(lambda: rig.daemon.stalled(0.05) == ["camera front: inference"])
            hang.set()
            rig.ended()
            rig.daemon.stop()


class TestPause:
    def test_the_source_is_let_go_of_and_taken_up_again_and_frames_are_counted_on(self) -> None:
        with gate() as later:
            film, sink = Film(*frames(3), later, *frames(3, first=3)), Shelf()
            rig = Rig({"front": (film, Watcher())}, {"mqtt": sink})
            rig.daemon.start()
            camera = rig.daemon.cameras["front"]
            eventually(lambda: sink.seqs == [0, 1, 2])
            assert camera.latest is not None
            camera.pause(True)
            eventually(lambda: rig.status() is CameraStatus.PAUSED)
            eventually(lambda: camera.latest is None)
            assert (film.opened, film.closed) == (1, 1)
            later.set()
            assert rig.daemon.wait(2 * IDLE_S) is None
            assert (film.given, rig.captured(), camera.latest) == (3, 3, None)
            camera.pause(False)
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()

        assert (film.opened, film.closed) == (2, 2)
        assert sink.seqs == list(range(6))
        assert rig.happened() == [(reports.CameraEnded, "its frames are over")], "a pause is no loss"

    def test_it_can_begin_paused(self) -> None:
        film = Film(*frames(3))
        rig = Rig({"front": (film, Watcher())}, {"mqtt": (sink := Shelf())})
        rig.daemon.cameras["front"] = rig.pipeline("front", film, Watcher(), paused=True)
        rig.daemon.start()
        eventually(lambda: rig.status() is CameraStatus.PAUSED)
        eventually(lambda: rig.daemon.ready)
        assert rig.daemon.cameras["front"].settled.wait(PATIENCE_S), "nobody waits for its first frame"
        assert film.opened == 0
        rig.daemon.cameras["front"].pause(False)

        assert rig.ended() == "every camera has ended"
        rig.daemon.stop()
        assert sink.seqs == [0, 1, 2]

    def test_a_camera_that_takes_over_paused_keeps_nobody_waiting_and_counts_on_later(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(*frames(3), never), Watcher())}, {"mqtt": (sink := Shelf())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            new = rig.pipeline("front", Film(*frames(2)), Watcher(), paused=True)
            rig.daemon.load(new)
            rig.daemon.exchange_camera("front", new)
            assert rig.status() is CameraStatus.PAUSED
            new.pause(False)
            rig.ended()
            rig.daemon.stop()
        assert sink.seqs == list(range(5))

    def test_a_stop_ends_it_at_once(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(*frames(1), never), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 1)
            rig.daemon.cameras["front"].pause(True)
            eventually(lambda: rig.status() is CameraStatus.PAUSED)
            began_s = time.monotonic()
            rig.daemon.stop()

        assert time.monotonic() - began_s < 1.0
        assert rig.happened() == []

    def test_a_camera_that_is_away_is_not_tried_while_it_is_paused(self) -> None:
        away = Film(live=True, opening=[CameraLost("unplugged")] * 1000)
        rig = Rig({"front": (away, Watcher())})
        rig.daemon.start()
        eventually(
            lambda: rig.status() is CameraStatus.RECONNECTING and away.opened >= 3
        )  # the next wait is 1 s or more
        rig.daemon.cameras["front"].pause(True)
        eventually(lambda: rig.status() is CameraStatus.PAUSED, timeout_s=0.9)
        tried = away.opened
        assert rig.daemon.wait(2 * IDLE_S) is None
        assert away.opened == tried
        rig.daemon.cameras["front"].pause(False)
        eventually(lambda: away.opened > tried)
        rig.daemon.stop()

        # A pause is the end of an outage: nobody misses it. After it there is a new one. And so is the end of all.
        lost, over = (reports.CameraLost, "unplugged"), reports.Interrupted
        assert rig.happened() == [lost, (over, "the camera is paused"), lost, (over, "the camera is stopped")]
        assert [event.ends for event in rig.events] == ["", "session-1", "", "session-3"]

    def test_a_source_that_gives_nothing_is_let_go_of_within_the_time_of_one_read(self) -> None:
        class Patient(Film):
            def read(self, timeout_s: float) -> Frame | None:
                reading.set()
                never.wait(timeout_s)  # as long as it may
                return None

        with gate() as never:
            reading = threading.Event()
            film = Patient(live=True)
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            assert reading.wait(PATIENCE_S)
            began_s = time.monotonic()
            rig.daemon.cameras["front"].pause(True)
            eventually(lambda: film.closed == 1)
            took_s = time.monotonic() - began_s
            rig.daemon.stop()
        assert took_s < IDLE_S + 0.5

    def test_it_is_no_reason_for_alarm(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(*frames(1), never), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 1)
            rig.daemon.cameras["front"].pause(True)
            eventually(lambda: rig.status() is CameraStatus.PAUSED)
            eventually(lambda: rig.daemon.stalled(0.0) == [])
            assert [rig.daemon.stalled(0.0) for _ in range(20) if rig.daemon.wait(0.01) is None] == [[]] * 20
            rig.daemon.stop()

    def test_a_file_begins_anew_and_its_frames_are_counted_on(self) -> None:
        class Clip(Film):
            """A file of three pictures, whose times are those in the file."""

            def __enter__(self) -> Self:
                self._position = 0
                return super().__enter__()

            def read(self, timeout_s: float) -> Frame | None:
                if self.opened == 1 and self._position == 2:
                    halfway.wait(min(timeout_s, 0.02))
                    return None
                if self._position == 3:
                    raise EndOfStream
                seq, self.given, self._position = self.given, self.given + 1, self._position + 1
                return replace(frame(seq=self._position - 1), seq=seq)

        with gate() as halfway:
            rig = Rig({"front": (Clip(), Watcher())}, {"mqtt": (sink := Shelf())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 2)
            rig.daemon.cameras["front"].pause(True)
            eventually(lambda: rig.status() is CameraStatus.PAUSED)
            rig.daemon.cameras["front"].pause(False)
            assert rig.ended() == "every camera has ended"
            rig.daemon.stop()

        assert sink.seqs == [0, 1, 2, 3, 4]
        in_file = [each.captured_ns for each in frames(3)]
        assert [item.captured_ns for item in sink.items] == [*in_file[:2], *in_file]

    def test_what_was_captured_before_is_still_estimated(self) -> None:
        with gate() as open_gate, gate() as never:
            watcher = Watcher(gate=open_gate)
            rig = Rig({"front": (Film(frame(seq=0), watcher.busy, frame(seq=1), never, live=True), watcher)})
            rig.daemon.start()
            eventually(lambda: rig.captured() == 2)
            rig.daemon.cameras["front"].pause(True)
            eventually(lambda: rig.status() is CameraStatus.PAUSED)
            open_gate.set()
            eventually(lambda: watcher.seen == [0, 1])
            rig.daemon.stop()
        assert rig.stats.drops() == {}

    @given(orders=st.lists(st.booleans(), max_size=12), lost=st.booleans(), live=st.booleans())
    @settings(deadline=None, max_examples=25)
    def test_however_fast_it_is_changed_the_last_order_counts_and_no_frame_is_lost_or_doubled(
        self, *, orders: list[bool], lost: bool, live: bool
    ) -> None:
        with gate() as last, gate() as never:
            trouble = [CameraLost("unplugged")] if lost else []
            script = [*frames(20), *trouble, *frames(19, first=20), last, *frames(1, first=39), never]
            rig = Rig({"front": (Film(*script, live=live), Watcher())}, {"mqtt": (sink := Shelf())})
            rig.daemon.start()
            camera = rig.daemon.cameras["front"]
            for paused in orders:
                camera.pause(paused)
            if orders[-1:] == [True]:
                eventually(lambda: rig.status() is CameraStatus.PAUSED)
                captured = rig.captured()
                assert rig.daemon.wait(0.02) is None
                assert (rig.captured(), camera.latest) == (captured, None)
                camera.pause(False)
            last.set()
            eventually(lambda: sink.seqs[-1:] == [39])
            eventually(lambda: rig.status() is CameraStatus.ONLINE)
            rig.daemon.stop()

        assert rig.captured() == 40
        assert sink.seqs == sorted(set(sink.seqs))
        assert rig.every_frame_is_accounted_for()
        assert live or sink.seqs == list(range(40))

    def test_a_camera_that_has_ended_can_not_be_taken_up_again(self) -> None:
        with gate() as never:
            rig = Rig({"film": (Film(*frames(2)), Watcher()), "front": (Film(never), Watcher())})
            rig.daemon.start()
            film = rig.daemon.cameras["film"]
            eventually(lambda: film.ended and rig.status("film") is CameraStatus.DISABLED)
            for paused in (True, False):
                film.pause(paused)
            assert rig.daemon.wait(0.05) is None
            assert rig.status("film") is CameraStatus.DISABLED
            rig.daemon.stop()


class TestStatus:
    def test_a_camera_is_online_from_its_first_frame_on(self) -> None:
        with gate() as first, gate() as never:
            film = Film(first, *frames(1), never)
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: film.opened)
            assert rig.status() is CameraStatus.RECONNECTING
            first.set()
            eventually(lambda: rig.status() is CameraStatus.ONLINE)
            rig.daemon.stop()

        assert rig.happened() == [], "an ordinary start and an ordinary stop are no events"

    def test_an_outage_is_one_event_with_its_first_reason_and_so_is_its_end(self) -> None:
        with gate() as never:
            film = Film(
                *frames(2),
                CameraLost("the stream has ended"),
                *frames(2, first=2),
                never,
                live=True,
            )
            film.fails_to_open_after(1, CameraLost("Connection refused"), CameraLost("No route to host"))
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.status() is CameraStatus.RECONNECTING and rig.happened())
            assert rig.daemon.cameras["front"].latest is None
            began_s = time.monotonic()
            eventually(lambda: rig.captured() == 4)
            took_s = time.monotonic() - began_s
            eventually(lambda: rig.status() is CameraStatus.ONLINE)
            rig.daemon.stop()

        assert rig.happened() == [(reports.CameraLost, "the stream has ended"), (reports.CameraBack, "")]
        lost, back = rig.events
        assert isinstance(back.what, reports.CameraBack)
        assert back.ends == lost.event_id
        assert took_s - 0.1 <= back.what.away_s <= took_s + 0.5
        assert (back.at_ns - lost.at_ns) / 1e9 == pytest.approx(back.what.away_s, abs=0.1)

    def test_every_outage_is_an_event_of_its_own(self) -> None:
        film = Film(*frames(1), CameraLost("once"), *frames(1, first=1), CameraLost("twice"), *frames(1, first=2))
        rig = Rig({"front": (film, Watcher())})

        assert rig.run() == "every camera has ended"
        assert rig.happened() == [
            (reports.CameraLost, "once"),
            (reports.CameraBack, ""),
            (reports.CameraLost, "twice"),
            (reports.CameraBack, ""),
            (reports.CameraEnded, "its frames are over"),
        ]
        assert [event.event_id for event in rig.events] == [f"session-{number}" for number in range(1, 6)]

    def test_who_was_there_when_the_camera_went_is_not_watched_and_somebody_new_when_it_is_back(self) -> None:
        film = Film(*frames(3), CameraLost("cable"), *frames(3, first=3))
        observed = Shelf()
        rig = Rig({"front": (film, Watcher())}, {"mqtt": observed}, events=("presence",))

        assert rig.run() == "every camera has ended"
        people, lost, back = rig.events[0], rig.events[2], rig.events[3]
        assert rig.happened() == [
            (PersonEntered, ""),
            (reports.Interrupted, "the camera is lost"),
            (reports.CameraLost, "cable"),
            (reports.CameraBack, ""),
            (PersonEntered, ""),
            (reports.Interrupted, "the camera has ended"),
            (reports.CameraEnded, "its frames are over"),
        ]
        assert (rig.events[1].ends, back.ends) == (people.event_id, lost.event_id)
        assert [[person.person_id for person in each.people] for each in observed.items] == [[1]] * 3 + [[2]] * 3

    def test_a_camera_that_was_never_there_is_lost_as_well(self) -> None:
        film = Film(live=True, opening=[CameraLost("no such host")] * 100)
        rig = Rig({"front": (film, Watcher())})
        rig.daemon.start()
        eventually(lambda: film.opened >= 2)
        rig.daemon.stop()

        assert rig.happened() == [
            (reports.CameraLost, "no such host"),
            (reports.Interrupted, "the camera is stopped"),
        ]
        assert rig.status() is CameraStatus.RECONNECTING

    def test_a_source_that_is_open_and_silent_is_stalled_and_its_next_frame_ends_that(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.1)
        monkeypatch.setattr("edge.pipeline.REOPENED_AFTER", 1000.0)
        with gate() as quiet, gate() as never:
            film = Film(*frames(3), quiet, *frames(1, first=3), never, live=True)
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.status() is CameraStatus.STALLED)
            eventually(lambda: rig.daemon.cameras["front"].latest is None)
            assert film.closed == 0, "not yet: it may give one in a moment"
            quiet.set()
            eventually(lambda: rig.captured() == 4)
            eventually(lambda: reports.CameraBack in [kind for kind, _ in rig.happened()])
            rig.daemon.stop()

        assert rig.happened()[:2] == [(reports.CameraLost, "no frame for 0 s"), (reports.CameraBack, "")]

    def test_one_that_gives_a_frame_and_dies_over_and_over_is_tried_less_and_less_often(self) -> None:
        class Flapping(Film):
            def read(self, timeout_s: float) -> Frame | None:
                if self.given == self.opened:
                    raise CameraLost("gone again")
                self._script.append(frame(seq=self.given))
                return super().read(timeout_s)

        film = Flapping(live=True)
        rig = Rig({"front": (film, Watcher())})
        rig.daemon.start()
        assert rig.daemon.wait(5.0) is None
        rig.daemon.stop()
        # Waits of at least 0.25, 0.5, 1, 2 s; of 0.25 s each it would be 20.
        assert 2 <= film.opened <= 6

    def test_a_source_that_stays_silent_is_opened_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.1)
        with gate() as quiet, gate() as never:
            film = Film(*frames(3), quiet, *frames(1, first=3), never, live=True)
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: film.closed >= 1)
            quiet.set()
            eventually(lambda: rig.captured() == 4)
            rig.daemon.stop()

        kinds = [kind for kind, _ in rig.happened()]
        assert kinds[:2] == [reports.CameraLost, reports.CameraBack], "one outage, whatever was tried in it"

    def test_a_file_that_is_slow_is_not_opened_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.05)
        with gate() as quiet:
            film = Film(*frames(3), quiet, *frames(1, first=3))
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.status() is CameraStatus.STALLED)
            assert rig.daemon.wait(0.5) is None
            assert film.closed == 0
            quiet.set()
            rig.ended()
            rig.daemon.stop()

    def test_a_source_that_is_still_opening_is_not_silent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.05)
        with gate() as first:
            film = Film(first, *frames(2), live=True)
            film.opening = True
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            assert rig.daemon.wait(0.5) is None
            assert (film.closed, rig.status()) == (0, CameraStatus.RECONNECTING)
            film.opening = False
            first.set()
            rig.ended()
            rig.daemon.stop()

        assert rig.happened() == [(reports.CameraEnded, "its frames are over")]

    def test_a_source_that_is_silent_from_the_start_keeps_nobody_waiting(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.1)
        with gate() as never:
            rig = Rig({"front": (Film(never, live=True), Watcher())})
            rig.daemon.start()
            assert rig.daemon.cameras["front"].settled.wait(PATIENCE_S)
            assert rig.status() is CameraStatus.STALLED
            rig.daemon.stop()

    def test_a_silence_that_ends_in_a_loss_is_one_outage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.1)
        with gate() as quiet:
            film = Film(*frames(1), quiet, CameraLost("timed out"), *frames(1, first=1))
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.status() is CameraStatus.STALLED)
            quiet.set()
            rig.ended()
            rig.daemon.stop()

        kinds = [kind for kind, _ in rig.happened()]
        assert kinds == [reports.CameraLost, reports.CameraBack, reports.CameraEnded]

    @pytest.mark.parametrize(("live", "known_s", "most"), [(False, 0.0, 1), (True, 0.25, 0)])
    def test_a_slow_camera_is_not_silent_before_five_of_its_intervals(
        self, monkeypatch: pytest.MonkeyPatch, *, live: bool, known_s: float, most: int
    ) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.01)

        class Slow(Film):
            def read(self, timeout_s: float) -> Frame | None:
                if time.monotonic() < self.due_s:
                    never.wait(0.02)
                    return None
                self.due_s = time.monotonic() + 0.25
                return super().read(timeout_s)

        with gate() as never:
            film = Slow(*frames(5), live=live)
            film.due_s = 0.0
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.cameras["front"] = rig.pipeline("front", film, Watcher(), interval_s=known_s)
            assert rig.run() == "every camera has ended"

        lost = [kind for kind, _ in rig.happened()].count(reports.CameraLost)
        assert lost <= most, "before the second frame nobody knows its interval, unless it was asked for"

    def test_a_silent_source_is_not_alarming_to_the_watchdog(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.1)
        with gate() as never:
            rig = Rig({"front": (Film(never, live=True), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.status() is CameraStatus.STALLED)
            assert rig.daemon.stalled(2.0) == []
            rig.daemon.stop()

    @pytest.mark.parametrize(
        ("film", "reason"),
        [
            (Film(*frames(2)), "its frames are over"),
            (Film(*frames(1), CameraUnusable("clip.mp4: can't be read")), "clip.mp4: can't be read"),
            (Film(opening=[CameraUnusable("no such device")]), "no such device"),
        ],
    )
    def test_a_camera_that_can_give_no_more_is_disabled_with_a_reason(self, film: Film, reason: str) -> None:
        with gate() as never:
            rig = Rig({"front": (film, Watcher()), "other": (Film(never), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.status() is CameraStatus.DISABLED)
            camera = rig.daemon.cameras["front"]
            eventually(lambda: camera.ended)
            assert camera.latest is None
            with ThreadPoolExecutor() as threads:
                stopping = threads.submit(rig.daemon.stop)
                assert str(stopping.exception(PATIENCE_S) or "its frames are over") == reason

        assert rig.happened() == [(reports.CameraEnded, reason)]
        assert rig.happened("other") == []

    def test_the_newest_frame_is_the_one_that_was_captured_last_with_the_number_that_it_is_published_under(
        self,
    ) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(*frames(3), never), Watcher())}, {"mqtt": (sink := Shelf())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            rig.exchange("front", Film(*frames(2), never))
            eventually(lambda: sink.seqs == [0, 1, 2, 3, 4])
            latest = rig.daemon.cameras["front"].latest
            assert latest is not None
            assert latest.seq == 4
            rig.daemon.stop()
        assert rig.daemon.cameras["front"].latest is None


class Blocking(Film):
    """A source whose reads return when they like: at an event they don't look at the time that they were given."""

    def read(self, timeout_s: float) -> Frame | None:
        if self._script and isinstance(self._script[0], threading.Event):
            self.waits.set()
            self._script.popleft().wait()
        return super().read(timeout_s)

    waits: threading.Event


def blocking(*script: Frame | Exception | threading.Event, live: bool = True) -> Blocking:
    film = Blocking(*script, live=live)
    film.waits = threading.Event()
    return film


class TestRacesOfAnExchange:
    def test_an_old_one_that_is_leaving_when_patience_ends_does_not_leave_the_camera_without_any(self) -> None:
        """It has seen that it is relieved and closes its model, which takes longer than it was given."""

        class SlowToLeave(Watcher):
            def __exit__(self, *_: object) -> None:
                leaving.set()
                open_gate.wait()
                super().__exit__()

        leaving = threading.Event()
        with gate() as open_gate, gate() as more, gate() as never:
            sink = Shelf()
            rig = Rig({"front": (Film(*frames(1), more, *frames(1, first=1), never), SlowToLeave())}, {"mqtt": sink})
            rig.daemon.start()
            eventually(lambda: sink.seqs == [0])
            camera = rig.daemon.cameras["front"]
            rig.daemon.load(beside := camera.beside(Estimators(Watcher)))
            taken_over = camera.take_over(beside, Deadline(0.1))
            assert leaving.is_set()
            if not taken_over:
                beside.relieve()
            open_gate.set()
            more.set()
            eventually(lambda: sink.seqs == [0, 1], timeout_s=3.0)
            assert (camera.ended, rig.status(), rig.happened()) == (False, CameraStatus.ONLINE, [])
            rig.daemon.stop()

    @pytest.mark.parametrize("live", [False, True])
    def test_a_relief_that_is_taken_back_at_any_moment_leaves_exactly_one_at_work(self, *, live: bool) -> None:
        """Patience that ends just when the old one does: tried again and again, until the new one has taken over."""

        class TakesItsTimeToLeave(Watcher):
            def __exit__(self, *_: object) -> None:
                never.wait(0.001)
                super().__exit__()

        with gate() as last, gate() as never:
            sink, watchers = Shelf(), [TakesItsTimeToLeave()]
            film = Film(*frames(600), last, *frames(1, first=600), never, live=live)
            rig = Rig({"front": (film, watchers[0])}, {"mqtt": sink})
            rig.daemon.start()
            camera = rig.daemon.cameras["front"]
            for _ in range(30):
                watchers.append(TakesItsTimeToLeave())
                rig.daemon.load(beside := camera.beside(Estimators(lambda: watchers[-1])))
                patience_s = 0.0
                while not camera.take_over(beside, Deadline(patience_s)):
                    never.wait(0.003)  # time enough for the old one to leave by mistake
                    patience_s += 50e-6
                    assert patience_s < 0.1
            last.set()
            eventually(lambda: sink.seqs[-1:] == [600])
            assert (camera.ended, rig.status()) == (False, CameraStatus.ONLINE)
            rig.daemon.stop()

        assert sink.seqs == sorted(set(sink.seqs))
        assert live or sink.seqs == list(range(601))
        assert rig.every_frame_is_accounted_for()
        eventually(lambda: all(watcher.freed for watcher in watchers))

    def test_an_old_one_that_fails_while_it_is_relieved_is_told_of_and_later_drops_are_not_its_fault(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        with gate() as open_gate, gate() as more, gate() as slow, gate() as never:
            old = Watcher(gate=open_gate, error=EstimatorError("the pose graph failed twice"))
            new, sink = Watcher(), Shelf()
            film = Film(*frames(1), more, *frames(1, first=1), new.busy, *frames(2, first=2), never, live=True)
            rig = Rig({"front": (film, old)}, {"mqtt": sink})
            rig.daemon.start()
            assert old.busy.wait(PATIENCE_S)
            camera = rig.daemon.cameras["front"]
            inference = camera._inference
            with ThreadPoolExecutor() as threads:
                swapping = threads.submit(rig.swap, new)
                eventually(lambda: inference.relieved)
                open_gate.set()
                swapping.result(PATIENCE_S)
            assert rig.stats.drops() == {("camera front", DropCause.ESTIMATOR_FAILED): 1}
            new.busy.clear()
            new._gate = slow
            more.set()
            eventually(lambda: rig.captured() == 4)  # 1 in work, 2 replaced by 3
            slow.set()
            eventually(lambda: sink.seqs == [1, 3])
            assert (camera.failure, camera.ended) == (None, False)
            rig.daemon.stop()

        assert rig.stats.drops() == {
            ("camera front", DropCause.ESTIMATOR_FAILED): 1,
            ("camera front", DropCause.NEWER_FRAME): 1,
        }
        assert "the pose graph failed twice" in caplog.text

    def test_what_is_wrong_is_known_before_those_are_woken_who_wait_for_the_model(self) -> None:
        class SlowToHear(CameraPipeline):
            def inference_ended(self, ended: Inference) -> None:
                hearing.set()
                heard.wait()
                super().inference_ended(ended)

        hearing = threading.Event()
        with gate() as heard:
            film, watcher = Film(*frames(3)), Watcher(loading=ModelError("torn"))
            rig = Rig({"front": (film, watcher)})
            camera = rig.daemon.cameras["front"] = rig.pipeline("front", film, watcher, kind=SlowToHear)
            rig.daemon.start()
            assert hearing.wait(PATIENCE_S)
            assert not camera.loaded.wait(0.05) or camera.failure is not None, "a load that failed looks like a model"
            assert (rig.daemon.ready, film.opened) == (False, 0)
            heard.set()
            assert rig.ended() == "camera front failed"
            with pytest.raises(ModelError, match="torn"):
                rig.daemon.stop()
        assert film.opened == 0

    def test_a_camera_that_was_to_take_over_and_can_not_load_its_model_is_no_event_of_the_one_at_work(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(*frames(3), never), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            new = rig.pipeline("front", Film(), Watcher(loading=ModelError("torn")))
            with pytest.raises(ModelError, match="torn"):
                rig.daemon.load(new)
            eventually(lambda: new.ended)
            assert (rig.status(), rig.happened()) == (CameraStatus.ONLINE, [])
            rig.daemon.stop()

    def test_a_camera_that_takes_over_has_a_status_of_its_own(self) -> None:
        class SlowToOpen(Film):
            def __enter__(self) -> Self:
                opening.set()
                opened.wait()
                return super().__enter__()

        opening = threading.Event()
        with gate() as opened, gate() as never:
            rig = Rig({"front": (Film(*frames(3), never), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.estimated() == 3)
            with ThreadPoolExecutor() as threads:
                exchanging = threads.submit(rig.exchange, "front", SlowToOpen(*frames(3), never))
                assert opening.wait(PATIENCE_S)
                assert rig.status() is CameraStatus.RECONNECTING
                opened.set()
                exchanging.result(PATIENCE_S)
            eventually(lambda: rig.status() is CameraStatus.ONLINE)
            rig.daemon.stop()

    def test_a_camera_that_takes_over_from_one_that_has_ended_tells_of_its_own_end(self) -> None:
        with gate() as never:
            rig = Rig({"front": (Film(), Watcher()), "other": (Film(never), Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.daemon.cameras["front"].ended)
            with pytest.raises(CameraUnusable):
                rig.exchange("front", Film(opening=[CameraUnusable("no such device")]))
            rig.daemon.stop()
        assert rig.happened() == [
            (reports.CameraEnded, "its frames are over"),
            (reports.CameraEnded, "no such device"),
        ]

    def test_a_camera_that_was_left_behind_does_not_publish_after_the_one_that_took_over(self) -> None:
        with gate() as open_gate, gate() as never:
            stuck, sink = Watcher(gate=open_gate), Shelf()
            rig = Rig({"front": (Film(*frames(1), never, live=True), stuck)}, {"mqtt": sink})
            rig.daemon.start()
            assert stuck.busy.wait(PATIENCE_S)
            rig.exchange("front", Film(*frames(2), never, live=False))
            eventually(lambda: sink.seqs == [1, 2])
            open_gate.set()
            eventually(lambda: stuck.freed)
            rig.daemon.stop()

        assert sink.seqs == [1, 2]
        assert rig.every_frame_is_accounted_for()

    def test_a_model_that_fails_at_the_end_of_the_stream_is_one_end_with_its_reason(self) -> None:
        with gate() as open_gate:
            watcher = Watcher(gate=open_gate, error=EstimatorError("broken"))
            rig = Rig({"front": (Film(*frames(1)), watcher)})
            rig.daemon.start()
            eventually(lambda: not rig.daemon.cameras["front"]._capture.is_alive() or watcher.busy.is_set())
            open_gate.set()
            assert rig.ended() == "camera front failed"
            with pytest.raises(EstimatorError):
                rig.daemon.stop()
        assert rig.happened() == [(reports.CameraEnded, "broken")]


class TestRacesOfAnEnd:
    def test_a_source_that_gets_lost_during_the_stop_is_no_event(self, caplog: pytest.LogCaptureFixture) -> None:
        with gate() as cut:
            film = blocking(*frames(1), cut, CameraLost("the connection was closed"))
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            assert film.waits.wait(PATIENCE_S)
            camera = rig.daemon.cameras["front"]
            with ThreadPoolExecutor() as threads:
                stopping = threads.submit(rig.daemon.stop)
                eventually(camera._stopping.is_set)
                cut.set()
                stopping.result(PATIENCE_S)

        assert rig.happened() == []
        assert "the connection was closed" not in caplog.text

    @pytest.mark.parametrize("last", [frame(seq=1), CameraLost("unplugged")], ids=["a frame", "a loss"])
    def test_what_a_source_gives_after_its_estimator_broke_does_not_bring_the_camera_back(
        self, last: Frame | Exception
    ) -> None:
        with gate() as later, gate() as never:
            film = blocking(frame(seq=0), later, last, never)
            rig = Rig({"front": (film, Watcher(error=EstimatorError("broken")))})
            rig.daemon.start()
            camera = rig.daemon.cameras["front"]
            assert film.waits.wait(PATIENCE_S)
            assert rig.ended() == "camera front failed"
            later.set()
            assert camera.join(Deadline(PATIENCE_S))
            assert (rig.status(), camera.latest) == (CameraStatus.DISABLED, None)
            with pytest.raises(EstimatorError):
                rig.daemon.stop()

        assert rig.happened() == [(reports.CameraEnded, "broken")]
        assert rig.every_frame_is_accounted_for()


class TestSilence:
    def test_a_long_silence_is_not_taken_for_the_cameras_interval(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 0.1)
        monkeypatch.setattr("edge.pipeline.REOPENED_AFTER", 1000.0)
        with gate() as quiet, gate() as never:
            film = Film(*frames(3), quiet, *frames(1, first=3), never, live=True)
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: rig.status() is CameraStatus.STALLED)
            assert rig.daemon.wait(1.0) is None  # five times as long is longer than this test waits
            quiet.set()
            eventually(lambda: rig.captured() == 4)
            eventually(lambda: len(rig.happened()) == 3, timeout_s=3.0)
            rig.daemon.stop()

        kinds = [kind for kind, _ in rig.happened()]
        assert kinds == [reports.CameraLost, reports.CameraBack, reports.CameraLost, reports.Interrupted]

    def test_the_time_to_open_is_not_taken_for_the_cameras_interval(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("edge.pipeline.SILENT_AFTER_S", 1.5)
        with gate() as first, gate() as never:
            film = Film(first, *frames(1), never, live=True)
            rig = Rig({"front": (film, Watcher())})
            rig.daemon.start()
            eventually(lambda: film.opened)
            assert rig.daemon.wait(1.0) is None  # an RTSP camera gives nothing before its next keyframe
            first.set()
            eventually(lambda: rig.captured() == 1)
            eventually(lambda: rig.status() is CameraStatus.STALLED, timeout_s=3.5)
            rig.daemon.stop()
