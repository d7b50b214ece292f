"""From the start of `edge-pose run` to its first pose at a subscriber, and what the time goes to.

usage: python -m tests.measure.startup [--runs 5] [--model full] [--recording]

A real broker, the bundled clip in real time, the model in place. The total is the bare command's. The breakdown comes
from other runs, in which an audit hook notes when modules are imported and threads started; two methods of the
estimator are timed too. CPU is the process's own until then, all threads: what else runs hardly changes it. Python's
modules are compiled beforehand, as pip does when it installs; the first start, which does that, is not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho

from edge.estimators.models.store import ModelStore
from tests.cli.command import run_settings
from tests.servers import Server, mosquitto

_CHILD = """
import functools, sys, time

file = open(sys.argv.pop(1), "w", buffering=1)
events = {
    "edge.cli": "interpreter",
    "edge.app": "command line, configuration",
    "mediapipe": "app imported and built",
}
seen = set()

def mark(name):
    if name not in seen:
        seen.add(name)
        file.write(f"{time.monotonic()} {time.process_time()} {name}\\n")

def timed(name, method, counts):
    @functools.wraps(method)
    def around(*arguments):
        found = method(*arguments)
        if counts(found):
            mark(name)
        return found
    return around

def hook(event, arguments):
    if event != "import" or arguments[0] not in events or events[arguments[0]] in seen:
        return
    mark(events[arguments[0]])
    if arguments[0] == "edge.app":
        from edge.estimators.mediapipe import MediaPipeEstimator as Estimator
        Estimator.__enter__ = timed("model loaded", Estimator.__enter__, bool)
        Estimator.estimate = timed("first person found", Estimator.estimate, bool)

sys.addaudithook(hook)
sys.argv[0] = "edge-pose"
from edge.__main__ import main
main()
"""


@dataclass(frozen=True)
class Start:
    """total_s, cpu_s: until the first message with a person was there. marks: (seconds, CPU seconds, what ended)."""

    total_s: float
    cpu_s: float
    marks: list[tuple[float, float, str]]


class FirstPose:
    """A subscriber that waits for one."""

    def __init__(self, broker: Server) -> None:
        self.came = threading.Event()
        self.at_s = 0.0
        subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = self._look
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.connect("127.0.0.1", broker.port)
        self._client.subscribe("#")
        self._client.loop_start()
        assert subscribed.wait(5.0)

    def _look(self, client: paho.Client, data: Any, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/landmarks") and json.loads(message.payload)["people"] and not self.came.is_set():
            self.at_s = time.monotonic()
            self.came.set()

    def close(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()


def start(model: str, settings: list[str], compiled: str, *, marked: bool) -> Start:
    with mosquitto() as broker, tempfile.TemporaryDirectory() as scratch:
        marks = Path(scratch) / "marks"
        entry = ["-c", _CHILD, str(marks)] if marked else ["-m", "edge"]
        more = run_settings(device="hall", mqtt__url=broker.url, pose__model=model, state_dir=scratch)
        subscriber = FirstPose(broker)
        began_s = time.monotonic()
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(
            [sys.executable, *entry, "run", *more, *settings],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            env={**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""},
        )
        try:
            assert subscriber.came.wait(60.0), "no pose came"
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        finally:
            subscriber.close()
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        told = [line.split(maxsplit=2) for line in marks.read_text().splitlines()] if marked else []
        at = [(float(wall_s) - began_s, float(cpu_s), name) for wall_s, cpu_s, name in told]
        return Start(subscriber.at_s - began_s, cpu_s, at)


def print_breakdown(starts: list[Start]) -> None:
    """Medians; a row is what passed since the row before."""
    names = [name for _, _, name in starts[0].marks]
    rows = [[(at, cpu) for each in starts for at, cpu, mark in each.marks if mark == name] for name in names]
    rows.append([(each.total_s, each.cpu_s) for each in starts])
    ends = [(statistics.median(at for at, _ in row), statistics.median(cpu for _, cpu in row)) for row in rows]
    print(f"  {'':<32}{'s':>6}{'at s':>7}{'CPU s':>7}{'at s':>7}")
    begun = [(0.0, 0.0), *ends[:-1]]
    for name, (before, cpu_before), (at, cpu) in zip([*names, "first pose published"], begun, ends, strict=True):
        print(f"  {name:<32}{at - before:6.2f}{at:7.2f}{cpu - cpu_before:7.2f}{cpu:7.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="full")
    parser.add_argument("--recording", action="store_true", help="record into a file as well: Rerun is imported")
    options = parser.parse_args()
    ModelStore().ensure(options.model)
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as compiled:
        settings = ["--set", f"rerun.record_dir={scratch}"] if options.recording else []
        start(options.model, settings, compiled, marked=False)
        numbers = range(2 * options.runs)
        starts = [start(options.model, settings, compiled, marked=number % 2 == 1) for number in numbers]
    totals = sorted(each.total_s for each in starts[::2])
    cpu_s = statistics.median(each.cpu_s for each in starts[::2])
    print(
        f"first published pose after {statistics.median(totals):.2f} s ({totals[0]:.2f} to {totals[-1]:.2f},"
        f" {options.runs} runs), {cpu_s:.2f} s of CPU"
    )
    print_breakdown(starts[1::2])


if __name__ == "__main__":
    main()
