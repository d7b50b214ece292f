from __future__ import annotations

import os
import signal
import threading

from edge.control import Inbox, Reload, Stop

PATIENCE_S = 20.0


def test_requests_are_served_in_the_order_in_which_they_came() -> None:
    inbox = Inbox()
    inbox.post(Reload())
    inbox.post(Stop("SIGTERM"))

    assert [inbox.next(PATIENCE_S), inbox.next(None)] == [Reload(), Stop("SIGTERM")]


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
