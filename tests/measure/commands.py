"""What commands cost the daemon: a change of model and rate, and a flood of nonsense.

usage: python -m tests.measure.commands gap [--rounds 5]
       python -m tests.measure.commands flood [--rounds 3] [--payloads 10000]

gap: the longest time between the capture of two frames that were published, around a `set` of model and rate on a live
camera of 30 frames/s, in intervals of that camera; and around a `set` that fails.
flood: frames/s of the clip, unpaced, while nonsense arrives on P/cmd, against the same nonsense sent to a topic that
nobody listens to, and against none; resident memory; and what became of each payload.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.mqtt.wire import v1
from tests.cli.command import COMMAND
from tests.conftest import CLIP, eventually
from tests.servers import Server, mosquitto

P = "pose/v1/measured"
INTERVAL_US = 1e6 / 30


class Ear:
    """An outside client that keeps what the daemon publishes."""

    def __init__(self, port: int) -> None:
        self.replies: list[v1.Reply] = []
        self.frames: list[tuple[int, int]] = []  # seq, t_us
        self.health: dict[str, Any] = {}
        self.info: dict[str, Any] = {}
        self._kinds = threading.Lock()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self.client.max_inflight_messages_set(1000)
        self.client.on_message = self._take
        self.client.on_connect = lambda client, *_: client.subscribe(f"{P}/#", qos=1)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        match message.topic.removeprefix(f"{P}/").split("/"):
            case ["reply", *_]:
                self.replies.append(v1.msgspec.json.decode(message.payload, type=v1.Reply))
            case ["camera", _, "landmarks"]:
                landmarks = json.loads(message.payload)
                self.frames.append((landmarks["seq"], landmarks["t_us"]))
            case ["health"]:
                self.health = json.loads(message.payload)
            case ["info"]:
                self.info = json.loads(message.payload)

    def hear(self, more: int) -> int:
        """Wait for so many more frames; how many there were before."""
        before = len(self.frames)
        eventually(lambda: len(self.frames) > before + more, 30)
        return before

    def ask(self, verb: str, **fields: object) -> v1.Reply:
        before = len(self.replies)
        self.client.publish(f"{P}/cmd/{verb}", json.dumps(fields), qos=1)
        eventually(lambda: len(self.replies) > before, 30)
        return self.replies[-1]


@contextlib.contextmanager
def daemon(broker: Server, *settings: str) -> Iterator[tuple[subprocess.Popen[bytes], Ear]]:
    with tempfile.TemporaryDirectory() as state:
        words = ["device=measured", f"mqtt.url={broker.url}", f"state_dir={state}", *settings]
        command = [*COMMAND, "run", *(part for word in words for part in ("--set", word))]
        ear = Ear(broker.port)
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            try:
                eventually(lambda: len(ear.frames) > 60, 60)
                yield process, ear
            finally:
                process.terminate()
                process.wait(10)
                ear.client.disconnect()
                ear.client.loop_stop()


def longest_gap(frames: list[tuple[int, int]], since: int) -> float:
    """In intervals of the camera, of the frames from number `since` on."""
    times = [t_us for _, t_us in frames[max(since - 1, 0) :]]
    return max(after - before for before, after in pairwise(times)) / INTERVAL_US


def gap(rounds: int) -> None:
    with mosquitto() as broker:
        settings = ("camera.front.source=synthetic", "pose.segmentation=false", "pose.model=lite")
        with daemon(broker, *settings, "mqtt.landmarks_hz=unlimited") as (_, ear):
            ear.hear(100)
            print(f"without any command: {longest_gap(ear.frames, 60):.1f} intervals at most")
        # The keys that a command changes must not stand in --set, which counts for more.
        with daemon(broker, *settings[:2]) as (_, ear):
            for number in range(rounds):
                _one_set(ear, ("lite", "full")[number % 2], (20, "unlimited")[number % 2])
            since = len(ear.frames)
            reply = ear.ask("set", values={"pose.model": "heavy", "pose.max_people": 99})
            ear.hear(60)
            assert not reply.ok
            print(f"a failing set: {reply.error}")
            print(f"  gap {longest_gap(ear.frames, since):.1f} intervals, settings {ear.info['settings']}")


def _one_set(ear: Ear, model: str, landmarks_hz: object) -> None:
    ear.hear(60)
    since, began_s = len(ear.frames), time.monotonic()
    reply = ear.ask("set", values={"pose.model": model, "mqtt.landmarks_hz": landmarks_hz})
    took_s = time.monotonic() - began_s
    ear.hear(60)
    eventually(lambda: ear.info["model"]["name"] == model, 5)
    print(f"set {model}, {landmarks_hz}: ok={reply.ok}, answered after {1000 * took_s:.0f} ms")
    print(f"  gap {longest_gap(ear.frames, since):.1f} intervals, info {ear.info['model']} {ear.info['landmarks']}")


def nonsense(count: int) -> list[tuple[str, bytes]]:
    """(verb, payload): wrong types, unknown fields, deep nesting, 1 MB, no UTF-8, no JSON, verbs that there are not."""
    chance = random.Random(7)
    verbs = [*v1.REQUESTS]
    kinds: list[Any] = [
        lambda: (chance.choice(verbs), json.dumps({"values": [1, 2], "camera": 7, "keep": "yes"}).encode()),
        lambda: ("set", json.dumps({"values": {"pose.model": {"a": 1}}}).encode()),
        lambda: ("set", json.dumps({"values": {f"k{n}": n for n in range(100)}}).encode()),
        lambda: (chance.choice(verbs), b"[" * 4000 + b"]" * 4000),
        lambda: (chance.choice(verbs), b'{"values":' * 700 + b"1" + b"}" * 700),
        lambda: (chance.choice(verbs), b'{"id": "\xff\xfe\x80"}'),
        lambda: (chance.choice(verbs), chance.randbytes(chance.randrange(200))),
        lambda: (chance.choice(verbs), b'{"id": "' + b"x" * chance.randrange(9000) + b'"}'),
        lambda: ("".join(chance.choices("abcxyz -_$", k=chance.randrange(1, 30))), b"{}"),
        lambda: (chance.choice(verbs), b"x" * 20_000),
    ]
    sent = [chance.choice(kinds)() for _ in range(count)]
    for place in range(0, count, 100):
        sent[place] = (chance.choice(verbs), b"x" * 1_000_000)
    return sent


def flood(rounds: int, payloads: int) -> None:
    results: dict[str, list[float]] = {"none": [], "elsewhere": [], "commands": []}
    sent = nonsense(payloads)
    for _ in range(rounds):
        for kind, rates in results.items():
            with mosquitto() as broker:
                clip = (f"camera.front.source={CLIP}", "camera.front.loop=true", "camera.front.pace=unlimited")
                with daemon(broker, *clip, "mqtt.landmarks_hz=unlimited") as (process, ear):
                    rates.append(_one_flood(kind, sent, process, ear))
    base = statistics.median(results["none"])
    for kind, rates in results.items():
        median = statistics.median(rates)
        print(f"{kind}: {median:.1f} frames/s {[round(rate, 1) for rate in rates]}, {median / base:.3f} of none")
    ratio = statistics.median(results["commands"]) / statistics.median(results["elsewhere"])
    print(f"commands against the same sent elsewhere: {ratio:.3f}")


def _one_flood(kind: str, sent: list[tuple[str, bytes]], process: subprocess.Popen[bytes], ear: Ear) -> float:
    before, began_s, memory = ear.frames[-1][0], time.monotonic(), [_resident_mib(process)]
    per_turn = max(1, len(sent) // 400)
    sender = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    sender.connect("127.0.0.1", ear.client.port)
    sender.loop_start()
    topic = {"commands": f"{P}/cmd", "elsewhere": "elsewhere/cmd"}
    for start in range(0, len(sent), per_turn):
        for verb, payload in sent[start : start + per_turn] if kind != "none" else []:
            sender.publish(f"{topic[kind]}/{verb}", payload, qos=1)
        time.sleep(0.05)
        memory.append(_resident_mib(process))
    passed_s, frames = time.monotonic() - began_s, ear.frames[-1][0] - before
    sender.loop_stop()
    if kind == "commands":
        _tell_what_became_of(sent, ear)
    third = memory[len(memory) // 3]
    print(f"  {kind}: {frames / passed_s:.1f} frames/s, resident {third:.0f}, later {memory[-1]:.0f} MiB")
    return frames / passed_s


def _tell_what_became_of(sent: list[tuple[str, bytes]], ear: Ear) -> None:
    ear.health = {}
    eventually(lambda: ear.health, 20)
    answered = Counter(str(reply.error.code) if reply.error else "ok" for reply in ear.replies)
    ignored = ear.health["drops"].get("mqtt commands", {}).get("too_many", 0)
    never = sum(len(payload) > 262_144 for _, payload in sent)
    total = answered.total() + ignored + never
    print(f"  {len(sent)} payloads: answered {dict(answered)}, ignored as too many {ignored},")
    print(f"  too large for the broker to deliver {never}; in all {total}")


def _resident_mib(process: subprocess.Popen[bytes]) -> float:
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["gap", "flood"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--payloads", type=int, default=10_000)
    options = parser.parse_args()
    sys.setswitchinterval(0.001)
    if options.what == "gap":
        gap(options.rounds)
    else:
        flood(options.rounds, options.payloads)


if __name__ == "__main__":
    main()
