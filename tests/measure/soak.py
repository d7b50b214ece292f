"""Memory over hours: the daemon behind a camera of 30 frames/s, broker and Rerun server beside it.

usage: python -m tests.measure.soak --hours 2 --log FILE [--model full] [--workers auto]

The daemon runs in this process, which reports on itself every ten seconds: a JSON line into FILE with its memory. At
the end, or with --read of what there is by now: the slope in MiB an hour with its 95 % confidence interval, by least
squares over means of five minutes, since samples that follow each other are alike. The first quarter of an hour is
left out: buffers, caches and the server's queue fill until then.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import time
from pathlib import Path

from edge import logs
from edge.app import App
from edge.bench.daemon import configuration
from edge.bench.footage import MemorySource, shots
from edge.bench.measurement import Loop, Task
from edge.cli.options import leave
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from tests.servers import mosquitto, rerun_server

_SAMPLE_S = 10.0
_BLOCK_S = 300.0
_SETTLING_S = 900.0

# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond 30 the normal distribution's.
_T = [12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10]
_T += [2.09, 2.09, 2.08, 2.07, 2.07, 2.06, 2.06, 2.06, 2.05, 2.05, 2.05, 2.04]


def slope(points: list[tuple[float, float]]) -> tuple[float, float]:
    """Least squares of y over x: the slope and half the width of its 95 % confidence interval."""
    mean_x, mean_y = (statistics.fmean(column) for column in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    rise = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    left = sum((y - mean_y - rise * (x - mean_x)) ** 2 for x, y in points)
    degrees = len(points) - 2
    t = _T[degrees - 1] if degrees <= len(_T) else 1.96
    return rise, t * math.sqrt(left / degrees / spread)


def report(log: Path) -> str:
    samples = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [f"{len(samples)} samples over {samples[-1]['s'] / 3600:.2f} h, {samples[-1]['frames']} frames"]
    for key in ("rss_mib", "anonymous_mib"):
        blocks: dict[int, list[float]] = {}
        for each in samples:
            if each["s"] >= _SETTLING_S:
                blocks.setdefault(int(each["s"] // _BLOCK_S), []).append(each[key])
        points = [((at + 0.5) * _BLOCK_S / 3600, statistics.fmean(values)) for at, values in blocks.items()]
        if len(points) > 2:
            rise, margin = slope(points)
            first, last = points[0][1], points[-1][1]
            lines.append(f"{key}: {first:.1f} -> {last:.1f}, {rise:+.2f} MiB/h, 95 % within +-{margin:.2f}")
    return "\n".join([*lines, json.dumps(samples[-1])])


def sample(app: App, began_s: float) -> dict[str, object]:
    status = Path("/proc/self/status").read_text()

    def mib(name: str) -> float:
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found, f"the kernel says nothing of {name}"
        return round(int(found[1]) / 1024, 2)

    counts = app.stats.cameras["bench0"].counts()
    return {
        "s": round(time.monotonic() - began_s, 1),
        "frames": counts.estimated,
        "workers": counts.workers,
        "rss_mib": mib("VmRSS"),
        "anonymous_mib": mib("RssAnon"),
        "threads": int(re.findall(r"^Threads:\s+(\d+)$", status, re.MULTILINE)[0]),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "cpu_s": round(time.process_time(), 1),
        "drops": {f"{place}: {cause}": items for (place, cause), items in app.stats.drops().items()},
        "sent": app.stats.sends(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--model", default="full")
    parser.add_argument("--read", action="store_true")
    arguments = parser.parse_args()
    if arguments.read:
        print(report(arguments.log))
        return
    logs.divert_native_output()
    logs.setup("warning")
    model = ModelStore().ensure(arguments.model)
    with mosquitto() as broker, rerun_server() as hub, arguments.log.open("w") as log:
        task = Task(Loop.PACED_ALL, str(model.path), seconds=0, broker=broker.url, hub=hub.url)
        footage = shots()
        app = App(configuration(task), model, Inbox(), sources=lambda name, _: MemorySource(name, footage, fps=30))
        app.daemon.start()
        began_s = time.monotonic()
        while (now_s := time.monotonic() - began_s) < arguments.hours * 3600:
            if app.daemon.wait(_SAMPLE_S - now_s % _SAMPLE_S) is not None:
                break
            log.write(json.dumps(sample(app, began_s)) + "\n")
            log.flush()
        app.stop()
    print(report(arguments.log))
    leave(os.EX_OK)


if __name__ == "__main__":
    main()
