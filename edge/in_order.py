"""A queue that puts what several threads finish back into the order in which it was dealt to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_WAITING = 16


class InOrder(Generic[T]):
    """Takes results by their numbers, from any thread, and delivers them one after the other.

    deliver, give_up: called one at a time, by whoever finishes something. A result that is missing is waited for within
    bounds. When more than `most` others are there, who has finished the next one is held up as well; when that has
    lasted `patience_s`, the missing one is given up: it comes too late, if it comes. With `by_age` it is given up as
    soon as another one has waited for it for so long, however few there are.
    """

    def __init__(
        self,
        deliver: Callable[[T], None],
        give_up: Callable[[], None],
        *,
        patience_s: Callable[[], float],
        first: int = 0,
        most: int = MOST_WAITING,
        by_age: bool = False,
    ) -> None:
        self._deliver = deliver
        self._give_up = give_up
        self._patience_s = patience_s
        self._next = first
        self._most = most
        self._by_age = by_age
        self._waiting: dict[int, tuple[T | None, float]] = {}
        self._condition = threading.Condition()

    def finish(self, number: int, result: T | None) -> bool:
        """Each number once; None: there is no result, and those that come after it need not wait for one. False when it
        was given up before."""
        with self._condition:
            if number < self._next:
                return False
            self._waiting[number] = result, time.monotonic()
            self._advance()
            while self._waiting and self._by_age and self._oldest_s() > self._patience_s():
                self._pass_over()
            while len(self._waiting) > self._most:
                missing = self._next
                if not self._condition.wait_for(lambda: self._next > missing, self._patience_s()):  # noqa: B023 - at once
                    self._pass_over()
            return True

    def flush(self) -> None:
        """Deliver what waits for a result that may never come."""
        with self._condition:
            for number in sorted(self._waiting):
                result, _ = self._waiting.pop(number)
                if result is not None:
                    self._deliver(result)

    def _oldest_s(self) -> float:
        """For how long somebody has waited by now."""
        return time.monotonic() - min(since_s for _, since_s in self._waiting.values())

    def _pass_over(self) -> None:
        self._next += 1
        self._give_up()
        self._advance()

    def _advance(self) -> None:
        while self._next in self._waiting:
            result, _ = self._waiting.pop(self._next)
            self._next += 1
            if result is not None:
                self._deliver(result)
        self._condition.notify_all()
