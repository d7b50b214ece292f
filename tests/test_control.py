from __future__ import annotations

import os
import signal
import threading

from edge.control import CameraEnded, Inbox, Reload, Stop

PATIENCE_S = 20.0


def test_requests_are_served_in_the_order_in_which_they_came_and_reloads_that_wait_are_one() -> None:
    inbox = Inbox()
    for request in (CameraEnded("a"), Reload(), CameraEnded("b"), Reload()):
        inbox.post(request)

    served = [inbox.next(PATIENCE_S) for _ in range(3)]
    assert served == [CameraEnded("a"), Reload(), CameraEnded("b")]
    assert inbox.next(0.01) is None
    inbox.post(Reload())
    assert inbox.next(None) == Reload()


def test_a_stop_overtakes_and_stays_and_its_first_reason_counts() -> None:
    inbox = Inbox()
    inbox.post(Reload())
    assert not inbox.stop_requested
    inbox.post(Stop("SIGTERM"))
    inbox.post(Stop("SIGINT"))

    assert inbox.stop_requested
    assert [inbox.next(PATIENCE_S), inbox.next(0.01), inbox.next(None)] == [Stop("SIGTERM")] * 3


def test_nobody_asked_for_anything() -> None:
    assert Inbox().next(0.01) is None


def test_a_signal_handler_may_interrupt_the_very_wait_that_it_ends() -> None:
    inbox = Inbox()
    before = signal.signal(signal.SIGUSR1, lambda number, _: inbox.post(Stop(signal.Signals(number).name)))
    try:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        assert inbox.next(PATIENCE_S) == Stop("SIGUSR1")
    finally:
        signal.signal(signal.SIGUSR1, before)
