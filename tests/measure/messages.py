"""What messages cost: 30 frames/s with four people in each, to a real broker, as JSON and as CBOR.

usage: python -m tests.measure.messages [--seconds 20] [--people 4] [--hz 30]

Per encoding: messages and bytes a second, CPU of the sink's thread a message, and the time from offering a frame to the
lane to its messages being handed to the socket.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Literal

from edge.lanes import Lane
from edge.mqtt import messages
from edge.mqtt.sink import MqttSink
from edge.mqtt.wire import v1
from edge.pacing import Deadline
from edge.stats import Percentiles, Stats
from edge.vision.observation import Observation
from tests.conftest import eventually, frame, observe, pose
from tests.mqtt.test_sink import Bench
from tests.servers import mosquitto


class Timed:
    """A sink that notes when it has handed over what was offered when."""

    def __init__(self, sink: MqttSink) -> None:
        self.sink = sink
        self.offered_ns: dict[int, int] = {}
        self.delays_ms: list[float] = []
        self.cpu_ns = 0
        self.bytes = 0

    def write(self, batch: Sequence[Observation]) -> None:
        before_ns = time.thread_time_ns()
        self.sink.write(batch)
        if batch:
            self.cpu_ns += time.thread_time_ns() - before_ns
        now_ns = time.monotonic_ns()
        self.delays_ms += [(now_ns - self.offered_ns.pop(each.seq)) / 1e6 for each in batch]

    def close(self, timeout_s: float) -> None:
        self.sink.close(timeout_s)


def measure(landmarks_format: Literal["json", "cbor"], *, seconds: float, people: int, hz: float) -> None:
    stats = Stats([])
    with mosquitto() as broker:
        timed = Timed(Bench(broker.url, stats=stats, landmarks_format=landmarks_format, summary_hz=5.0).sink)
        lane: Lane[Observation] = Lane("mqtt", timed, stats, capacity=64)
        lane.start()
        eventually(lambda: timed.sink.online)
        poses = [pose(x=0.2 + 0.15 * number) for number in range(people)]
        began_s = time.monotonic()
        frames = int(seconds * hz)
        for seq in range(frames):
            time.sleep(max(0.0, began_s + seq / hz - time.monotonic()))
            observation = observe(frame(seq=seq, fps=hz), poses)
            timed.offered_ns[seq] = time.monotonic_ns()
            lane.offer(observation)
        passed_s = time.monotonic() - began_s
        lane.close(Deadline(3.0))
        lane.join()
    encode = messages.landmarks_binary if landmarks_format == "cbor" else messages.landmarks
    size, summary = len(encode(observation)), len(v1.encode(messages.summary(observation)))
    sent = stats.sends()
    count = sent["mqtt landmarks"] + sent["mqtt summary"]
    delays = Percentiles.of(timed.delays_ms)
    assert delays
    print(
        f"{landmarks_format}: {count / passed_s:.1f} messages/s, landmarks {size} B, summary {summary} B,"
        f" {(sent['mqtt landmarks'] * size + sent['mqtt summary'] * summary) / passed_s / 1000:.1f} kB/s,"
        f" CPU {timed.cpu_ns / count / 1000:.0f} µs a message, offer to socket p50 {delays.p50_ms:.2f}"
        f" p95 {delays.p95_ms:.2f} p99 {delays.p99_ms:.2f} ms; dropped {stats.drops() or 'nothing'}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--people", type=int, default=4)
    parser.add_argument("--hz", type=float, default=30.0)
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)
    measure("json", seconds=options.seconds, people=options.people, hz=options.hz)
    measure("cbor", seconds=options.seconds, people=options.people, hz=options.hz)


if __name__ == "__main__":
    main()
