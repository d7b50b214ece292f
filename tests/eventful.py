"""A daemon that makes events when it is told to, run by tests that kill it or fill its disk.

usage: python -m tests.eventful KEY=VALUE...

It is the daemon that `run` makes, of these keys. Each line that it reads is the text of an event. A line that it prints
is one that counts: it was on the disk by then. It says READY when all is up, and IN_MEMORY with a text that the disk
did not take.
"""

from __future__ import annotations

import os
import sys
import threading

from edge import logs
from edge.app import App
from edge.cli.options import leave, requests_from_signals
from edge.config_layers import load
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from edge.reports import CameraEnded

READY = "ready"
IN_MEMORY = "in memory: "

_SETTLE_S = 0.2
_READ_BYTES = 65_536


def serve(app: App) -> None:
    """Whatever is there at once is put at once, as when several cameras go together."""
    rest = b""
    while told := os.read(0, _READ_BYTES):
        *lines, rest = (rest + told).split(b"\n")
        texts = [line.decode() for line in lines]
        for text in texts:
            app.events.happened("front", CameraEnded(reason=text))
        assert app.outbox is not None
        while not (counts := app.outbox.settle(_SETTLE_S)) and not app.outbox._degraded:
            pass  # the disk is slow, or what is on it not read yet, which may be
        say(*(text if counts and app.outbox.durable else IN_MEMORY + text for text in texts))


def say(*lines: str) -> None:
    os.write(1, "".join(f"{line}\n" for line in lines).encode())


def main() -> None:
    logs.divert_native_output()
    logs.setup("info")
    inbox = Inbox()
    requests_from_signals(inbox, reload=False)
    config = load(None, environment={}, sets=sys.argv[1:]).config
    app = App(config, ModelStore(config.pose.model_dir).ensure(config.pose.model), inbox, state_dir=config.state_dir)
    app.daemon.start()
    threading.Thread(target=serve, args=(app,), daemon=True).start()
    ready = False
    while app.daemon.wait(0.02 if not ready else 1.0) is None:
        if not ready and app.daemon.ready:
            ready = True
            say(READY)
    app.stop()
    leave(0)


if __name__ == "__main__":
    main()
