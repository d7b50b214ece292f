"""What has happened, numbered within a session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edge.reports import Event, Happening
from edge.vision.events import PeopleEvent


class EventLog:
    """Gives each event its id and hands it to whoever listens. Any thread may report."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._number = 0
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[Event], None], ...] = ()

    def listen(self, listener: Callable[[Event], None]) -> None:
        """From now on `listener` gets every event, in the order of their numbers."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

    def forget(self, listener: Callable[[Event], None]) -> None:
        """From now on `listener` gets none."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    def happened(self, camera: str, what: Happening) -> str:
        """The event's id, by which a later one can say that it ends this one."""
        at_ns = what.captured_ns if isinstance(what, PeopleEvent) else time.time_ns()
        with self._lock:
            self._number += 1
            event = Event(f"{self._session}-{self._number}", camera, at_ns, what)
            for listener in self._listeners:
                listener(event)
        return event.event_id
