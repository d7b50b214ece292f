from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from edge.control import MOST_COMMANDS, Answer, CameraEnded, Command, Inbox, Order, Pause, Ping, Reload, Restart, Stop

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


def command(order: Order | None = None) -> Command:
    return Command(order or Ping(), unanswered)


def unanswered(answer: Answer) -> None:
    pytest.fail(f"an inbox hands commands over, it does not answer them: {answer}")


class TestCommands:
    def test_commands_come_in_the_order_in_which_they_were_asked_and_among_the_other_requests(self) -> None:
        inbox = Inbox()
        first, second, third = command(Ping()), command(Pause("front", paused=True, keep=False)), command(Restart())
        assert inbox.ask(first)
        inbox.post(Reload())
        assert inbox.ask(second)
        inbox.post(CameraEnded("front"))
        assert inbox.ask(third)

        served = [inbox.next(PATIENCE_S) for _ in range(5)]

        assert served == [first, Reload(), second, CameraEnded("front"), third]
        assert inbox.next(0.01) is None

    def test_so_many_may_wait_and_whoever_comes_then_is_sent_away_and_leaves_no_trace(self) -> None:
        inbox = Inbox()
        waiting = [command() for _ in range(MOST_COMMANDS)]
        assert all(inbox.ask(each) for each in waiting)

        assert [inbox.ask(command(Restart())) for _ in range(5)] == [False] * 5

        assert [inbox.next(PATIENCE_S) for _ in waiting] == waiting
        assert inbox.next(0.01) is None

    def test_each_that_is_served_makes_room_for_one(self) -> None:
        inbox = Inbox()
        while inbox.ask(command()):
            pass
        for _ in range(3 * MOST_COMMANDS):
            assert isinstance(inbox.next(PATIENCE_S), Command)
            assert inbox.ask(command())
            assert not inbox.ask(command())

    def test_other_requests_neither_need_room_nor_make_any(self) -> None:
        inbox = Inbox()
        for number in range(10 * MOST_COMMANDS):
            inbox.post(CameraEnded(str(number)))
        while inbox.ask(command()):
            pass
        for _ in range(10 * MOST_COMMANDS):
            assert isinstance(inbox.next(PATIENCE_S), CameraEnded)
            assert not inbox.ask(command())

    def test_a_stop_overtakes_all_that_wait(self) -> None:
        inbox = Inbox()
        assert all(inbox.ask(command()) for _ in range(3))
        inbox.post(Stop("SIGTERM"))

        assert [inbox.next(PATIENCE_S) for _ in range(5)] == [Stop("SIGTERM")] * 5

    def test_a_stop_says_whether_to_start_again(self) -> None:
        inbox = Inbox()
        inbox.post(Stop("a restart was asked for", again=True))
        inbox.post(Stop("SIGTERM"))

        assert inbox.next(None) == Stop("a restart was asked for", again=True)

    def test_however_many_ask_at_once_no_more_wait_than_may_and_each_is_served_once(self) -> None:
        inbox = Inbox()
        begin = threading.Barrier(8)

        def ask(_: int) -> list[Command]:
            begin.wait(PATIENCE_S)
            return [mine for mine in (command() for _ in range(50)) if inbox.ask(mine)]

        with ThreadPoolExecutor(8) as threads:
            taken = [each for part in threads.map(ask, range(8)) for each in part]

        assert len(taken) == MOST_COMMANDS
        served = [inbox.next(PATIENCE_S) for _ in taken]
        assert {id(each) for each in served} == {id(each) for each in taken}


def test_the_end_counts_from_when_it_was_first_asked_for() -> None:
    inbox = Inbox()
    assert inbox.stopping_s == 0.0
    inbox.post(Stop("SIGTERM"))
    first_s = inbox.stopping_s
    inbox.post(Stop("SIGTERM"))
    assert inbox.stopping_s >= first_s > 0.0


def test_once_it_is_left_commands_that_wait_are_handed_out_and_none_is_taken() -> None:
    inbox = Inbox()
    commands = [Command(Ping(), lambda answer: None) for _ in range(3)]
    assert all(inbox.ask(command) for command in commands)
    inbox.post(Stop("SIGTERM"))

    assert inbox.leave() == commands
    assert not inbox.ask(commands[0])
