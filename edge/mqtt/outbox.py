"""Events on their way: kept in order until the broker has acknowledged them. For now in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

from edge.reports import Event

MOST = 1000
"""Of a camera that comes and goes every second: a quarter of an hour."""


class Outbox:
    """At most `most` events; beyond that the oldest goes, and is counted. Any thread may put, one sink sends."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._events: OrderedDict[str, Event] = OrderedDict()
        self._lock = threading.Lock()
        self.lost = 0

    def put(self, event: Event) -> None:
        with self._lock:
            self._events[event.event_id] = event
            if len(self._events) > self._most:
                self._events.popitem(last=False)
                self.lost += 1

    def waiting(self) -> list[Event]:
        """The oldest first."""
        with self._lock:
            return list(self._events.values())

    def __len__(self) -> int:
        return len(self._events)

    def remove(self, event_id: str) -> None:
        """The broker has it."""
        with self._lock:
            self._events.pop(event_id, None)
