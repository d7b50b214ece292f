from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import CameraLost, CameraUnusable, EdgePoseError, EstimatorError, ModelError, SinkError
from edge.stats import DropCause
from edge.vision.frame import Frame
from edge.vision.observation import Observation
from tests.conftest import eventually, frame
from tests.rigs import PATIENCE_S, Film, Rig, Shelf, Watcher, frames, gate


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
