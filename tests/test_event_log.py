from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from edge.event_log import EventLog
from edge.reports import Event, EventKind


def test_an_event_says_what_happened_where_and_when() -> None:
    told: list[Event] = []
    events = EventLog("20261124T120000Z-0badcafe")
    events.listen(told.append)
    before_ns = time.time_ns()
    events.happened(EventKind.CAMERA_BACK, "front", "", 2.5)
    after_ns = time.time_ns()

    (event,) = told
    assert event == Event(
        "20261124T120000Z-0badcafe-1", EventKind.CAMERA_BACK, "front", event.at_ns, reason="", away_s=2.5
    )
    assert before_ns <= event.at_ns <= after_ns


def test_numbers_have_no_gaps_and_come_in_order_whichever_threads_report() -> None:
    told: list[Event] = []
    events = EventLog("session")
    events.listen(told.append)

    def report(camera: int) -> None:
        for number in range(200):
            events.happened(EventKind.CAMERA_LOST, f"camera{camera}", str(number), 0.0)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(report, range(8)))

    assert [event.event_id for event in told] == [f"session-{number}" for number in range(1, 1601)]
    for camera in range(8):
        reasons = [event.reason for event in told if event.camera == f"camera{camera}"]
        assert reasons == [str(number) for number in range(200)]


def test_what_happens_before_anybody_listens_counts_all_the_same() -> None:
    told: list[Event] = []
    events = EventLog("session")
    events.happened(EventKind.CAMERA_LOST, "front", "unplugged", 0.0)
    events.listen(told.append)
    events.happened(EventKind.CAMERA_BACK, "front", "", 1.0)

    assert [event.event_id for event in told] == ["session-2"], "whoever counts sees that something was missed"


def test_a_new_listener_takes_the_place_of_the_old_one() -> None:
    old: list[Event] = []
    new: list[Event] = []
    events = EventLog("session")
    for listener in (old, new):
        events.listen(listener.append)
        events.happened(EventKind.CAMERA_ENDED, "front", "its frames are over", 0.0)

    assert [event.event_id for event in (*old, *new)] == ["session-1", "session-2"]
