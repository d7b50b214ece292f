"""Puts events into the daemon's outbox, one after the other, until the power goes; for tests/system/power_cut.py.

usage: python -m tests.system.putter DIRECTORY [careless]

It says "put ID" when an event counts, and "gone ID" before the oldest is removed, of more than fifty: as if a broker
had it. careless: SQLite does not wait for the disk, so that a test can see what that would lose.
"""

from __future__ import annotations

import functools
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

from edge.mqtt.outbox import Outbox
from edge.reports import CameraEnded, Event, Happening

_WAITING_MOST = 50
_SESSION = f"{time.time_ns()}"


class Careless(sqlite3.Connection):
    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        return super().execute(sql.replace("synchronous=FULL", "synchronous=NORMAL"), *parameters)


def no_more(camera: str, what: Happening) -> str:
    raise AssertionError(f"the outbox has something to say of {camera}: {what}")


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main() -> None:
    if "careless" in sys.argv:
        sqlite3.connect = functools.partial(sqlite3.connect, factory=Careless)
    outbox = Outbox(Path(sys.argv[1]), no_more)
    outbox.start()
    number = 0
    while True:
        number += 1
        event = Event(f"{_SESSION}-{number}", "front", time.time_ns(), CameraEnded(reason="x" * (number * 7 % 400)))
        outbox.put(event)
        assert outbox.settle(30)
        assert outbox.durable
        say(f"put {event.event_id}")
        if len(outbox) > _WAITING_MOST:
            oldest = outbox.waiting()[0].event_id
            say(f"gone {oldest}")
            outbox.remove(oldest)


if __name__ == "__main__":
    main()
