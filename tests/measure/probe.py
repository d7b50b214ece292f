"""A daemon that reports on itself: one JSON line a second with frames, drops and memory. Run by the measurements.

usage: probe.py [events_hz=N] KEY=VALUE...

events_hz: so many events a second happen.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import threading
import time
from pathlib import Path

from edge import logs
from edge.app import App
from edge.cli.options import leave, requests_from_signals
from edge.config_layers import load
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from edge.reports import CameraEnded


def anonymous_mib() -> float:
    """Memory that belongs to this process alone and is not backed by files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def have_events(app: App, hz: float) -> None:
    began_s = time.monotonic()
    for number in itertools.count(1):
        time.sleep(max(0.0, began_s + number / hz - time.monotonic()))
        app.events.happened("front", CameraEnded(f"event {number}, for nothing has ended"))


def main() -> None:
    logs.divert_native_output()
    logs.setup("info")
    inbox = Inbox()
    requests_from_signals(inbox, reload=False)
    events_hz = [float(word.partition("=")[2]) for word in sys.argv[1:] if word.startswith("events_hz=")]
    sets = [word for word in sys.argv[1:] if not word.startswith("events_hz=")]
    config = load(None, environment=os.environ, sets=sets).config
    model = ModelStore(config.pose.model_dir).ensure(config.pose.model)
    app = App(config, model, inbox, state_dir=config.state_dir)
    app.daemon.start()
    for hz in events_hz:
        threading.Thread(target=have_events, args=(app, hz), daemon=True).start()
    while app.daemon.wait(1.0) is None:
        cpu = os.times()
        counts = [camera.counts() for camera in app.stats.cameras.values()]
        line = {
            "s": time.monotonic(),
            "frames": sum(each.estimated for each in counts),
            "cpu_s": cpu.user + cpu.system,
            "anonymous_mib": round(anonymous_mib(), 1),
        }
        print(json.dumps(line), flush=True)
    app.stop()
    drops = {f"{place}: {cause}": items for (place, cause), items in app.stats.drops().items()}
    print(json.dumps({"drops": drops, "sent": app.stats.sends()}), flush=True)
    leave(0)


if __name__ == "__main__":
    main()
