from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from edge.event_log import EventLog
from edge.reports import CameraBack, CameraEnded, CameraLost, Event


def test_an_event_says_what_happened_where_and_when() -> None:
    told: list[Event] = []
    events = EventLog("20261124T120000Z-0badcafe")
    events.listen(told.append)
    before_ns = time.time_ns()
    number = events.happened("front", CameraBack(2.5, of="session-1"))
    after_ns = time.time_ns()

    (event,) = told
    assert event == Event("20261124T120000Z-0badcafe-1", "front", event.at_ns, CameraBack(2.5, of="session-1"))
    assert number == event.event_id
    assert before_ns <= event.at_ns <= after_ns


def test_numbers_have_no_gaps_and_come_in_order_whichever_threads_report() -> None:
    told: list[Event] = []
    events = EventLog("session")
    events.listen(told.append)

    def report(camera: int) -> None:
        for number in range(200):
            events.happened(f"camera{camera}", CameraLost(str(number)))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(report, range(8)))

    assert [event.event_id for event in told] == [f"session-{number}" for number in range(1, 1601)]
    for camera in range(8):
        reasons = [event.what.reason for event in told if event.camera == f"camera{camera}"]
        assert reasons == [str(number) for number in range(200)]


def test_what_happens_before_anybody_listens_counts_all_the_same() -> None:
    told: list[Event] = []
    events = EventLog("session")
    events.happened("front", CameraLost("unplugged"))
    events.listen(told.append)
    events.happened("front", CameraBack(1.0, of="session-1"))

    assert [event.event_id for event in told] == ["session-2"], "whoever counts sees that something was missed"


def test_each_listener_gets_every_event_until_it_is_forgotten() -> None:
    first: list[Event] = []
    second: list[Event] = []
    events = EventLog("session")
    events.listen(first.append)
    events.happened("front", CameraEnded("its frames are over"))
    events.listen(second.append)
    events.happened("front", CameraEnded("its frames are over"))
    events.forget(first.append)
    events.happened("front", CameraEnded("its frames are over"))

    assert [event.event_id for event in first] == ["session-1", "session-2"]
    assert [event.event_id for event in second] == ["session-2", "session-3"]
