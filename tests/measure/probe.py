"""A daemon that reports on itself: one JSON line a second with frames, drops and memory. Run by the measurements.

usage: probe.py KEY=VALUE...
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from edge import logs
from edge.app import App
from edge.cli.options import leave, requests_from_signals
from edge.config_layers import load
from edge.control import Inbox
from edge.estimators.models.store import ModelStore


def anonymous_mib() -> float:
    """Memory that belongs to this process alone and is not backed by files."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


def main() -> None:
    logs.divert_native_output()
    logs.setup("info")
    inbox = Inbox()
    requests_from_signals(inbox, reload=False)
    config = load(None, environment=os.environ, sets=sys.argv[1:]).config
    app = App(config, ModelStore(config.pose.model_dir).ensure(config.pose.model), inbox)
    app.daemon.start()
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
    app.daemon.stop()
    drops = {f"{place}: {cause}": items for (place, cause), items in app.stats.drops().items()}
    print(json.dumps({"drops": drops, "sent": app.stats.sends()}), flush=True)
    leave(0)


main()
