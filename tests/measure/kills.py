"""Events of a daemon that is killed, by way of a broker that is killed: who gets them, in which order, how often.

usage: python -m tests.measure.kills [--kills 20] [--events 200] [--brokers durable default memory] [--grace 0]
           [--seed N]

Bursts of events, while the broker and the daemon are killed with SIGKILL at random moments, each so many times. An
event counts once the daemon has said that it is on its disk; one that did not get so far is asked for again, of the
daemon that comes next. Two outside clients subscribe with a session that the broker keeps for them: one is there all
the time and comes back when the broker does, the other one goes before the first kill and comes after the last.

durable: a broker that keeps messages as deploy/broker does, written at each change. default: one with `persistence
true` and nothing else, which writes every half hour. memory: one that keeps nothing.

mosquitto acknowledges a message first and writes it then, within milliseconds: a kill in between loses it for who is
away, unless the daemon sends it again. grace leaves that out, by keeping the daemon from sending for a moment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tests import eventful
from tests.conftest import eventually
from tests.secured_broker import SHIPPED
from tests.servers import free_port, mosquitto

EVENT = "pose/v1/killed/camera/front/event"

_KEEPING = "persistence |autosave_|max_queued_|max_inflight_|queue_qos0_|persistent_client_"

BROKERS = {
    "durable": "\n".join(re.findall(rf"^(?:{_KEEPING}).*$", (SHIPPED / "mosquitto.conf").read_text(), re.MULTILINE)),
    "default": "persistence true",
    "memory": "persistence false",
}
"""Lines of mosquitto.conf; where it keeps its state comes on top."""

_SESSION_S = 86_400
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Received:
    """What one subscriber got of the events that count.

    in_order: as they were asked for, after repeats are taken out. repeats: messages whose id had come before.
    again: events that came under two ids, since they were asked for twice.
    """

    distinct: int
    missing: list[int]
    in_order: bool
    repeats: int
    again: int

    @classmethod
    def of(cls, messages: Sequence[tuple[str, int]], counted: Sequence[int]) -> Received:
        """messages: id and serial number, as they came."""
        serials = list(dict.fromkeys(serial for _, serial in messages))
        ids = {event_id for event_id, _ in messages}
        return cls(
            distinct=len(serials),
            missing=sorted({*counted} - {*serials}),
            in_order=all(before < after for before, after in pairwise(serials)),
            repeats=len(messages) - len(ids),
            again=len(ids) - len(serials),
        )


class Attendee:
    """A client with a session at the broker, that acknowledges what it gets and comes back when the broker does.

    events: id and serial number of each event that was asked for, as they came. serials: those numbers. heard: of every
    other message its topic's last level, and what it says.
    """

    def __init__(self, name: str, port: int, *topics: str) -> None:
        self.events: list[tuple[str, int]] = []
        self.serials: set[int] = set()
        self.heard: list[tuple[str, dict[str, Any]]] = []
        self._name, self._port = name, port
        self._wanted = [(topic, 1) for topic in topics or (EVENT,)]
        self._client: paho.Client

    def come(self) -> None:
        """Returns when the subscription stands."""
        granted = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=self._name, protocol=paho.MQTTv5)
        client.reconnect_delay_set(0.1, 0.1)
        client.on_connect = lambda client, userdata, flags, reason, properties: client.subscribe(self._wanted)
        client.on_subscribe = lambda *_: granted.set()
        client.on_message = self._take
        keep = Properties(PacketTypes.CONNECT)
        keep.SessionExpiryInterval = _SESSION_S
        client.connect("127.0.0.1", self._port, clean_start=False, properties=keep)
        client.loop_start()
        self._client = client
        assert granted.wait(10), "no subscription within 10 s"

    def go(self) -> None:
        """For now: the broker keeps the session."""
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        told = json.loads(message.payload)
        if told.get("type") == "camera_ended":
            self.events.append((told["id"], int(told["reason"])))
            self.serials.add(self.events[-1][1])
        else:
            self.heard.append((message.topic.rpartition("/")[2], told))


class Mortal:
    """What is killed and started again; only one thread at a time may do so."""

    def __init__(self, make: Callable[[], contextlib.AbstractContextManager[subprocess.Popen[bytes]]]) -> None:
        self._make = make
        self._life = contextlib.ExitStack()
        self.process: subprocess.Popen[bytes]

    def start(self) -> None:
        self.process = self._life.enter_context(self._make())

    def rest(self) -> None:
        """End it with SIGTERM and start it again."""
        self.process.terminate()
        self.process.wait(10)
        self.kill()
        self.start()

    def kill(self) -> None:
        """With SIGKILL."""
        self._life.close()


class Maker:
    """Whoever asks for events, and knows which ones count. A daemon at a time answers.

    settings: KEY=VALUE for the daemon. log: the file that gets what it logs. wrap: a command that runs another one.
    """

    def __init__(self, settings: Sequence[str], log: Path, wrap: Sequence[str] = ()) -> None:
        self._command = [*wrap, sys.executable, "-m", "tests.eventful", *settings]
        self._log = log
        self._asked: list[int] = []
        self._lock = threading.Lock()
        self._input: int | None = None
        self.counted: list[int] = []
        self.in_memory: list[int] = []
        self.ready = threading.Event()
        self.starts_s: list[float] = []

    @contextlib.contextmanager
    def daemon(self) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon until it is killed. It is asked for what does not count yet."""
        self.ready.clear()
        began_s = time.monotonic()
        with self._log.open("ab") as log:
            process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        assert process.stdin is not None
        assert process.stdout is not None
        reader = threading.Thread(target=self._listen, args=(process.stdout.fileno(), began_s))
        with self._lock:
            self._input = process.stdin.fileno()
            self._tell(self.uncounted())
        reader.start()
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            reader.join()  # what it said before it died counts
            with self._lock:
                self._input = None
            process.stdin.close()
            process.stdout.close()

    def ask(self, serials: Sequence[int]) -> None:
        with self._lock:
            self._asked += serials
            self._tell(serials)

    def answered(self, serials: Sequence[int], *, width: int = 1) -> bool:
        """Ask, wait for the answer; whether all of them count. width: of the text of each event, in characters."""
        with self._lock:
            self._tell(serials, width)
        newest = -len(serials)
        eventually(lambda: serials[-1] in (*self.counted[newest:], *self.in_memory[newest:]), _PATIENCE_S)
        return not {*serials} - {*self.counted[newest:]}

    def uncounted(self) -> list[int]:
        return sorted({*self._asked} - {*self.counted})

    def _tell(self, serials: Sequence[int], width: int = 1) -> None:
        if self._input is not None:
            with contextlib.suppress(BrokenPipeError):  # it is dead: the next one will be told
                os.write(self._input, "".join(f"{serial:0{width}}\n" for serial in serials).encode())

    def _listen(self, output: int, began_s: float) -> None:
        rest = b""
        while told := os.read(output, 65_536):
            *lines, rest = (rest + told).split(b"\n")
            for line in map(bytes.decode, lines):
                if line == eventful.READY:
                    self.starts_s.append(time.monotonic() - began_s)
                    self.ready.set()
                elif line.startswith(eventful.IN_MEMORY):
                    self.in_memory.append(int(line.removeprefix(eventful.IN_MEMORY)))
                else:
                    self.counted.append(int(line))


@dataclass(frozen=True)
class Outcome:
    """counted: in the order in which the daemon said so. one_only: ids that only one of the two got, so that somebody
    lost them on the way to the other, also where the event came again under another id. start_s: the median from a
    daemon's start to its frames.
    """

    counted: list[int]
    online: Received
    offline: Received
    one_only: int
    took_s: float
    start_s: float


def run(broker_settings: str, *, kills: int, events: int, seed: int, scratch: Path, grace_s: float = 0) -> Outcome:
    """grace_s: before the broker is killed the daemon is frozen for so long, so that the broker has written what it has
    acknowledged. scratch: an empty directory, where the daemon's log remains.
    """
    chance = random.Random(seed)
    began_s = time.monotonic()
    port = free_port()
    for name in ("broker", "state"):
        (scratch / name).mkdir()
    kept = f"{broker_settings}\npersistence_location {scratch}/broker/"

    @contextlib.contextmanager
    def broker() -> Iterator[subprocess.Popen[bytes]]:
        with mosquitto(port=port, settings=kept) as server:
            yield server.process

    common = ["device=killed", "camera.front.source=synthetic", "camera.front.fps=5", "pose.model=lite"]
    common += [f"mqtt.url=mqtt://127.0.0.1:{port}", f"state_dir={scratch}/state"]
    maker = Maker(common, scratch / "daemon.log")
    mortals = {"broker": Mortal(broker), "daemon": Mortal(maker.daemon)}
    there, away = Attendee("there", port), Attendee("away", port)
    bursts = [list(range(first, min(first + 50, events + 1))) for first in range(1, events + 1, 50)]
    # Spread over the lives of the daemon: a burst is asked for as one begins, and lives are short.
    at_life = {round(kills * number / len(bursts)): burst for number, burst in enumerate(bursts)}
    waits_s = {name: [chance.choice((0.02, 0.2, 2.0)) * chance.random() for _ in range(kills)] for name in mortals}

    def kill(name: str) -> None:
        for life, wait_s in enumerate(waits_s[name]):
            if name == "daemon":
                maker.ready.wait(0.7 if life % 2 else _PATIENCE_S)  # so that some die before they get anywhere
                maker.ask(at_life.get(life, []))
            time.sleep(wait_s)
            with _frozen(mortals["daemon"].process, grace_s if name == "broker" else 0):
                mortals[name].kill()
            if name == "broker":
                time.sleep(chance.random() / 2)
            mortals[name].start()

    with contextlib.ExitStack() as stack:
        for mortal in mortals.values():
            stack.callback(mortal.kill)
            mortal.start()
        away.come()
        away.go()
        mortals["broker"].rest()  # so that it has written the subscription, whatever it writes otherwise
        there.come()
        stack.callback(there.go)
        with ThreadPoolExecutor() as killers:
            for killer in [killers.submit(kill, name) for name in mortals]:
                killer.result()
        eventually(lambda: not maker.uncounted(), _PATIENCE_S)
        _await_all(there, maker.counted)
        away.come()
        stack.callback(away.go)
        _await_all(away, maker.counted)
        counted = list(maker.counted)
        online, offline = (Received.of(list(each.events), counted) for each in (there, away))
        ids = [{event_id for event_id, _ in list(each.events)} for each in (there, away)]
    starts_s = sorted(maker.starts_s)
    return Outcome(
        counted, online, offline, len(ids[0] ^ ids[1]), time.monotonic() - began_s, starts_s[len(starts_s) // 2]
    )


@contextlib.contextmanager
def _frozen(process: subprocess.Popen[bytes], grace_s: float) -> Iterator[None]:
    """Since `grace_s`; with 0 it is not frozen at all."""
    if grace_s:
        process.send_signal(signal.SIGSTOP)
        time.sleep(grace_s)
    yield
    if grace_s:
        process.send_signal(signal.SIGCONT)


def _await_all(attendee: Attendee, counted: Sequence[int]) -> None:
    """As long as it takes for all that counts, or until nothing comes any more."""
    last, since_s = -1, time.monotonic()
    while {*counted} - attendee.serials:
        if len(attendee.events) > last:
            last, since_s = len(attendee.events), time.monotonic()
        elif time.monotonic() - since_s > 10:
            return
        time.sleep(0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of the daemon, and as many of the broker")
    parser.add_argument("--events", type=int, default=200)
    parser.add_argument("--brokers", nargs="+", choices=[*BROKERS], default=[*BROKERS])
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--grace", type=float, default=0.0, help="seconds for the broker to write, before it is killed")
    options = parser.parse_args()
    for name in options.brokers:
        with tempfile.TemporaryDirectory() as scratch:
            outcome = run(
                BROKERS[name],
                kills=options.kills,
                events=options.events,
                seed=options.seed,
                scratch=Path(scratch),
                grace_s=options.grace,
            )
        print(
            f"{name}, seed {options.seed}: {len({*outcome.counted})} events count, {options.kills} kills each,"
            f" {outcome.one_only} ids for one of both only; {outcome.took_s:.0f} s, start {outcome.start_s:.2f} s"
        )
        for who, received in (("online", outcome.online), ("offline", outcome.offline)):
            print(
                f"  {who}: {received.distinct} distinct, {len(received.missing)} missing {received.missing[:10] or ''},"
                f" {'in order' if received.in_order else 'NOT IN ORDER'}, {received.repeats} repeats,"
                f" {received.again} under two ids",
                flush=True,
            )


if __name__ == "__main__":
    main()
