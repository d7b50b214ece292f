"""What is dealt to several threads comes out as if one had done it all."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from edge.in_order import InOrder
from tests.conftest import eventually
from tests.rigs import PATIENCE_S


def forever() -> float:
    return PATIENCE_S


@given(order=st.permutations(range(12)), missing=st.sets(st.integers(0, 11)))
def test_whatever_the_order_of_what_is_finished_it_comes_out_sorted(order: list[int], missing: set[int]) -> None:
    delivered: list[int] = []
    line = InOrder(delivered.append, lambda: None, most=12, patience_s=forever)
    for number in order:
        line.finish(number, None if number in missing else number)
    assert delivered == [number for number in range(12) if number not in missing]


@given(order=st.permutations(range(30)), most=st.integers(0, 6))
@settings(deadline=None)
def test_everything_is_delivered_or_given_up_and_no_more_wait_than_may(order: list[int], most: int) -> None:
    delivered: list[int] = []
    given_up: list[None] = []
    line = InOrder(delivered.append, lambda: given_up.append(None), most=most, patience_s=lambda: 0.0)
    for number in order:
        line.finish(number, number)
        assert len(line._waiting) <= most
    assert delivered == sorted(delivered)
    assert len(delivered) + len(given_up) == 30


def test_who_is_missing_is_waited_for_until_too_many_wait_for_too_long() -> None:
    delivered: list[int] = []
    given_up: list[None] = []
    line = InOrder(delivered.append, lambda: given_up.append(None), first=5, most=3, patience_s=lambda: 0.05)
    for number in (6, 7, 8):
        line.finish(number, number)
    assert (delivered, given_up) == ([], [])
    line.finish(9, 9)
    assert (delivered, given_up) == ([6, 7, 8, 9], [None])
    line.finish(5, 5)
    assert delivered == [6, 7, 8, 9]


def test_who_is_too_fast_waits_for_who_is_missing() -> None:
    delivered: list[int] = []
    line = InOrder(delivered.append, lambda: None, most=2, patience_s=forever)
    with ThreadPoolExecutor() as threads:
        for number in (1, 2):
            line.finish(number, number)
        finishing = threads.submit(line.finish, 3, 3)
        eventually(lambda: len(line._waiting) == 3)
        assert not finishing.done()
        line.finish(0, 0)
        finishing.result(PATIENCE_S)
    assert delivered == [0, 1, 2, 3]


def test_from_many_threads() -> None:
    delivered: list[int] = []
    line = InOrder(delivered.append, lambda: None, most=1000, patience_s=forever)
    numbers = iter(range(1000))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            line.finish(number, number)

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(work) for _ in range(4)]:
            done.result(PATIENCE_S)
    assert delivered == list(range(1000))


def test_by_age_who_is_missing_is_given_up_however_few_wait() -> None:
    delivered: list[int] = []
    given_up: list[None] = []
    line = InOrder(delivered.append, lambda: given_up.append(None), patience_s=lambda: 0.05, by_age=True)
    line.finish(1, 1)
    began_s = time.monotonic()
    number = 2
    while not delivered:  # whoever finishes something looks
        line.finish(number, number)
        number += 1
        assert time.monotonic() - began_s < PATIENCE_S
        time.sleep(0.01)
    assert delivered == list(range(1, number))
    assert len(given_up) == 1
    assert not line.finish(0, 0)


def test_what_waits_can_be_let_go_of_and_who_is_missing_may_still_come() -> None:
    delivered: list[int] = []
    line = InOrder(delivered.append, lambda: None, patience_s=forever)
    for number in (3, 1, 2):
        assert line.finish(number, number)
    line.flush()
    assert delivered == [1, 2, 3]
    assert line.finish(0, 0)
    assert delivered == [1, 2, 3, 0]
