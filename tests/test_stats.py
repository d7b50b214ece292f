from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.stats import CameraStatus, DropCause, FrameRates, Percentiles, Stats
from tests.conftest import eventually


@given(st.lists(st.floats(0, 1e4), min_size=1, max_size=300))
@settings(deadline=None, max_examples=60)
def test_percentiles_are_nearest_rank(values_ms: list[float]) -> None:
    """The smallest of the values that at least so large a share of them does not exceed."""
    measured = Percentiles.of(values_ms)

    def nearest_rank(percent: int) -> float:
        rank = -(-percent * len(values_ms) // 100)
        return sorted(values_ms)[rank - 1]

    assert measured == Percentiles(nearest_rank(50), nearest_rank(95), nearest_rank(99))


def test_nothing_measured_yet_has_no_percentiles() -> None:
    assert Percentiles.of([]) is None
    counts = Stats(["front"]).cameras["front"].counts()
    assert (counts.inference, counts.latency) == (None, None)


def test_a_camera_counts_frames_people_and_times() -> None:
    camera = Stats(["front"]).cameras["front"]
    for people in (0, 2, 1, 0):
        camera.frame_captured()
        camera.frame_estimated(people=people, inference_ms=10.0 * (people + 1), latency_ms=100.0)
    camera.frame_captured()

    counts = camera.counts()

    assert (counts.captured, counts.estimated, counts.with_people, counts.people) == (5, 4, 2, 0)
    assert counts.inference is not None
    assert counts.inference.p99_ms == 30.0
    assert counts.latency == Percentiles(100.0, 100.0, 100.0)


def test_times_are_those_of_the_last_few_hundred_frames_however_long_the_daemon_runs() -> None:
    camera = Stats(["front"]).cameras["front"]
    for inference_ms in [1000.0] * 1000 + [10.0] * 600:
        camera.frame_estimated(people=1, inference_ms=inference_ms, latency_ms=inference_ms)

    assert camera.counts().inference == Percentiles(10.0, 10.0, 10.0)


def test_times_of_the_warming_up_can_be_forgotten() -> None:
    camera = Stats(["front"]).cameras["front"]
    for time_ms in (900.0, 10.0):
        camera.forget_times()
        camera.frame_estimated(people=1, inference_ms=time_ms, latency_ms=time_ms)
        camera.frame_published(publish_ms=time_ms + 1.0, inference_ms=time_ms, age_ms=time_ms + 5.0)

    counts = camera.counts()

    assert counts.inference == counts.latency == Percentiles(10.0, 10.0, 10.0)
    assert counts.overhead == Percentiles(1.0, 1.0, 1.0)
    assert counts.age == Percentiles(15.0, 15.0, 15.0)
    assert counts.estimated == 2


def test_a_films_frames_have_no_age() -> None:
    camera = Stats(["film"]).cameras["film"]
    camera.live = False
    camera.frame_published(publish_ms=10.0, inference_ms=5.0, age_ms=1e9)

    assert camera.counts().age is None


def test_cameras_are_counted_apart() -> None:
    stats = Stats(["front", "back"])
    stats.cameras["front"].frame_captured()

    assert [stats.cameras[name].counts().captured for name in ("front", "back")] == [1, 0]


def test_drops_are_counted_by_place_and_cause_from_every_thread() -> None:
    stats = Stats([])

    def work(_: int) -> None:
        for _ in range(500):
            stats.dropped("mqtt", DropCause.DISCONNECTED)
            stats.dropped("mqtt", DropCause.LANE_FULL, 2)
            stats.sent("landmarks", 3)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))

    assert stats.drops() == {("mqtt", DropCause.DISCONNECTED): 4000, ("mqtt", DropCause.LANE_FULL): 8000}
    assert stats.sends() == {"landmarks": 12000}


def test_a_drop_of_nothing_does_not_show_up_in_the_summary() -> None:
    stats = Stats([])
    stats.dropped("camera front", DropCause.STOPPED, 0)

    assert stats.drops() == {}


@pytest.mark.parametrize("figures", ["drops", "sends"])
def test_figures_that_were_read_do_not_change_under_the_reader(figures: str) -> None:
    stats = Stats([])
    stats.sent("landmarks")
    before = getattr(stats, figures)()
    shown = dict(before)

    stats.sent("landmarks")
    stats.dropped("mqtt", DropCause.STOPPED)

    assert before == shown


def test_a_camera_is_not_open_before_it_says_so_and_its_status_is_told_with_its_counts() -> None:
    camera = Stats(["front"]).cameras["front"]
    assert camera.counts().status is CameraStatus.RECONNECTING

    camera.status = CameraStatus.PAUSED

    assert camera.counts().status is CameraStatus.PAUSED


def test_cameras_that_stay_go_on_with_their_figures_and_others_are_gone() -> None:
    stats = Stats(["front", "back"])
    for camera in stats.cameras.values():
        camera.frame_captured()
    stats.cameras["front"].status = CameraStatus.ONLINE

    stats.count(["side", "front"])

    assert list(stats.cameras) == ["side", "front"]
    assert [camera.counts().captured for camera in stats.cameras.values()] == [0, 1]
    assert stats.cameras["front"].status is CameraStatus.ONLINE


def estimate(stats: Stats, camera: str, frames: int) -> None:
    for _ in range(frames):
        stats.cameras[camera].frame_estimated(people=1, inference_ms=1.0, latency_ms=1.0)


class TestFrameRates:
    def test_a_rate_is_of_the_frames_and_the_time_since_the_last_question(self) -> None:
        stats = Stats(["front", "back"])
        estimate(stats, "front", 1000)
        began_s = time.monotonic()
        rates = FrameRates(stats, shortest_s=0)
        estimate(stats, "front", 60)
        estimate(stats, "back", 30)
        eventually(lambda: time.monotonic() > began_s + 0.3)

        told = rates.since_last()

        passed_s = time.monotonic() - began_s
        assert told["front"] == pytest.approx(60 / passed_s, rel=0.2), "what was before the first question is no rate"
        assert told["back"] == pytest.approx(told["front"] / 2)
        assert rates.since_last() == {"front": 0.0, "back": 0.0}

    def test_two_questions_at_once_do_not_divide_by_nothing(self) -> None:
        stats = Stats(["front"])
        rates = FrameRates(stats, shortest_s=0)

        for _ in range(100):
            estimate(stats, "front", 1)
            assert 0 < rates.since_last()["front"] <= 1000

    def test_a_camera_that_came_later_has_a_rate_and_one_that_is_gone_has_none(self) -> None:
        stats = Stats(["front"])
        rates = FrameRates(stats, shortest_s=0)
        stats.count(["back"])
        estimate(stats, "back", 5)

        told = rates.since_last()

        assert list(told) == ["back"]
        assert told["back"] > 0

    def test_a_camera_that_was_gone_and_came_back_has_no_negative_rate(self) -> None:
        stats = Stats(["front"])
        estimate(stats, "front", 1000)
        rates = FrameRates(stats, shortest_s=0)
        stats.count([])
        stats.count(["front"])
        estimate(stats, "front", 5)

        assert rates.since_last()["front"] > 0
