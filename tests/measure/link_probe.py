"""A daemon that reports on its link to Rerun: a JSON line ten times a second. Run by hub_faults.py.

usage: link_probe.py FPS KEY=VALUE...

FPS: of a camera that shows the bundled clip from memory; 0: as fast as frames are taken. On SIGTERM the daemon ends as
`edge-pose run` does, and a last line says what was offered to the lanes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from edge import logs
from edge.app import App
from edge.bench.footage import MemorySource, shots
from edge.cli.options import leave, requests_from_signals
from edge.config_layers import load
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from edge.lanes import Lane
from edge.rerun_log.forwarder import Forwarder
from tests.measure.probe import anonymous_mib

CAMERA = "front"


class Ledger:
    """What was offered to a lane and how long that took. seqs: of what it has to log, if nothing is lost."""

    def __init__(self, lane: Lane[Any], *, observations: bool) -> None:
        self.seqs: list[int] = []
        self.took_us: list[tuple[float, int]] = []
        self._shown = -1
        self._observations = observations
        self._offer = lane.offer
        lane.offer = self._note  # type: ignore[method-assign]

    def _note(self, item: Any) -> None:
        begun_ns = time.perf_counter_ns()
        self._offer(item)
        self.took_us.append((time.time(), (time.perf_counter_ns() - begun_ns) // 1000))
        if not self._observations:
            self.seqs.append(item.seq)
        elif item.shown_seq != self._shown:  # as the sink chooses
            self._shown = item.shown_seq
            self.seqs.append(item.seq)


def main() -> None:
    logs.divert_native_output()
    logs.setup("info")
    inbox = Inbox()
    requests_from_signals(inbox, reload=False)
    fps = float(sys.argv[1])
    config = load(None, environment=os.environ, sets=sys.argv[2:]).config
    model = ModelStore(config.pose.model_dir).ensure(config.pose.model)
    footage = shots()
    app = App(config, model, inbox, sources=lambda name, _: MemorySource(name, footage, fps=fps or None))
    group = app.daemon.outlets.groups["rerun"]
    ledgers = [Ledger(lane, observations=True) for lane in group.observers]
    ledgers += [Ledger(lane, observations=False) for lane in group.video]
    (link,) = (output for output in group.outputs if isinstance(output, Forwarder))
    app.daemon.start()
    while app.daemon.wait(0.1) is None:
        line = {
            "s": time.time(),
            "state": link.state,
            "behind": link.behind,
            "frames": app.stats.cameras[CAMERA].counts().estimated,
            "anonymous_mib": round(anonymous_mib(), 1),
        }
        print(json.dumps(line), flush=True)
    try:
        app.stop()
    finally:
        last = {
            "points": ledgers[0].seqs,
            "video": ledgers[1].seqs,
            "offers_us": [each for ledger in ledgers for each in ledger.took_us],
            "drops": {f"{place}: {cause}": items for (place, cause), items in app.stats.drops().items()},
            "sent": app.stats.sends(),
        }
        print(json.dumps(last), flush=True)
    leave(0)


if __name__ == "__main__":
    main()
