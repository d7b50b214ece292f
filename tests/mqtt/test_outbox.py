from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt.outbox import Outbox
from edge.reports import Event, EventKind


def event(number: int) -> Event:
    return Event(f"s-{number}", EventKind.CAMERA_LOST, "front", number, "gone")


def test_events_wait_in_their_order_until_the_broker_has_them() -> None:
    outbox = Outbox()
    for number in (3, 1, 2):
        outbox.put(event(number))
    outbox.remove("s-1")
    outbox.remove("s-1")
    outbox.remove("s-9")

    assert outbox.waiting() == [event(3), event(2)]
    assert (len(outbox), outbox.lost) == (2, 0)


@given(
    most=st.integers(1, 5),
    steps=st.lists(st.tuples(st.sampled_from(["put", "remove"]), st.integers(0, 9)), max_size=40),
)
def test_it_never_holds_more_than_it_may_and_counts_what_it_gave_up(most: int, steps: list[tuple[str, int]]) -> None:
    outbox = Outbox(most)
    put, removed = 0, 0
    for step, choice in steps:
        if step == "put":
            outbox.put(event(put))
            put += 1
        elif waiting := outbox.waiting():
            outbox.remove(waiting[choice % len(waiting)].event_id)
            removed += 1
        assert len(outbox) == len(outbox.waiting()) <= most
        assert put == len(outbox) + outbox.lost + removed
    numbers = [each.at_ns for each in outbox.waiting()]
    assert numbers == sorted(numbers), "the oldest first"
    assert numbers[-1:] in ([put - 1], []) or removed, "the newest is never the one that goes"


def test_many_threads_may_put_while_one_sends() -> None:
    outbox = Outbox(most=50)
    writers = [
        threading.Thread(target=lambda start=start: [outbox.put(event(start + n)) for n in range(500)])
        for start in (0, 1000, 2000)
    ]
    sent = 0
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers) or len(outbox):
        for each in outbox.waiting():
            before = len(outbox)
            assert before <= 50
            outbox.remove(each.event_id)
        sent += 1

    assert outbox.lost < 1500
    assert outbox.waiting() == []
