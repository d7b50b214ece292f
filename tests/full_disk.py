"""A daemon whose disk gets full: what becomes of events. The same for a disk in memory and for a real one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.conftest import eventually
from tests.measure.kills import BROKERS, Attendee, Maker, Mortal
from tests.servers import free_port, mosquitto

NOT_WRITTEN = "events can't be written to"
_FILLER = "filler"


def fill(directory: Path) -> None:
    """Until nothing fits any more, not even a byte."""
    with (directory / _FILLER).open("ab", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(1 << 20))
    for size in (4096, 1):
        with contextlib.suppress(OSError), (directory / f"{_FILLER}-{size}").open("ab", buffering=0) as rest:
            while rest.write(bytes(size)):
                os.fsync(rest.fileno())


def free(directory: Path) -> None:
    for filler in directory.glob(f"{_FILLER}*"):
        filler.unlink()


@dataclass(frozen=True)
class Disk:
    """A small one. wrap: a command that runs another one that sees it at `mounted`. seen_from: where it is from here,
    given that process."""

    mounted: Path
    wrap: list[str]
    seen_from: Callable[[int], Path]


@dataclass
class Scene:
    """A daemon with its state on a disk, a broker, and who listens."""

    disk: Disk
    broker: Mortal
    maker: Maker
    daemon: Mortal
    outside: Attendee
    log: Path
    next_serial: int = 1
    serials: list[int] = field(default_factory=list)

    @property
    def directory(self) -> Path:
        return self.disk.seen_from(self.daemon.process.pid)

    @property
    def faults(self) -> int:
        """How often the log says that events can't be written."""
        return self.log.read_text().count(NOT_WRITTEN)

    def happens(self, times: int = 1, *, width: int = 1) -> bool:
        """So many events; whether all of them count. width: of the text of each, in characters."""
        serials = [*range(self.next_serial, self.next_serial + times)]
        self.next_serial += times
        self.serials += serials
        return self.maker.answered(serials, width=width)

    def reports(self, *, lost: int = 0, durable: bool) -> None:
        """Wait for a message that says so of the outbox, and that nothing waits in it; the next may be too early."""
        before, wanted = len(self.outside.heard), {"waiting": 0, "lost": lost, "durable": durable}
        eventually(
            lambda: wanted in [told["outbox"] for what, told in self.outside.heard[before:] if what == "health"], 35
        )

    def hears_all(self) -> None:
        eventually(lambda: not {*self.serials} - self.outside.serials, 30)
        serials = [*dict.fromkeys(serial for _, serial in self.outside.events)]
        assert serials == sorted(serials)

    def sees_poses(self) -> None:
        before = len(self.outside.heard)
        eventually(lambda: [what for what, _ in self.outside.heard[before:]].count("landmarks") > 3, 20)


@contextlib.contextmanager
def scene(disk: Disk, scratch: Path) -> Iterator[Scene]:
    """All is there but the daemon, which is for the test to start."""
    port = free_port()
    (scratch / "broker").mkdir()

    @contextlib.contextmanager
    def broker() -> Iterator[Any]:
        kept = f"{BROKERS['durable']}\npersistence_location {scratch}/broker/\nmax_queued_messages 0"
        with mosquitto(port=port, settings=kept) as server:
            yield server.process

    settings = ["device=killed", "camera.front.source=synthetic", "camera.front.fps=20", "pose.model=lite"]
    settings += [f"mqtt.url=mqtt://127.0.0.1:{port}", f"state_dir={disk.mounted}/state"]
    maker = Maker(settings, scratch / "daemon.log", disk.wrap)
    mortals = Mortal(broker), Mortal(maker.daemon)
    topics = ("camera/front/event", "camera/front/landmarks", "health")
    outside = Attendee("outside", port, *(f"pose/v1/killed/{topic}" for topic in topics))
    with contextlib.ExitStack() as stack:
        for mortal in mortals:
            stack.callback(mortal.kill)
        mortals[0].start()
        outside.come()
        stack.callback(outside.go)
        yield Scene(disk, mortals[0], maker, mortals[1], outside, scratch / "daemon.log")


def gets_full(scene: Scene) -> None:
    """(a) The outbox has its space by then."""
    scene.daemon.start()
    assert scene.happens(3)
    fill(scene.directory)

    assert scene.happens(100)
    scene.hears_all()
    scene.reports(durable=True)
    scene.broker.kill()
    for _ in range(20):
        assert scene.happens(50)
    scene.broker.start()
    scene.hears_all()
    scene.reports(durable=True)
    scene.sees_poses()
    assert scene.faults == 0


def is_full_and_gets_room(scene: Scene) -> None:
    """(b) and (d) The disk of `scene` is full before the daemon starts."""
    scene.daemon.start()
    eventually(scene.maker.ready.is_set, 30)

    assert not scene.happens(5)
    scene.hears_all()
    scene.reports(durable=False)
    scene.sees_poses()
    assert scene.faults == 1

    free(scene.directory)
    eventually(scene.happens, 60)
    scene.hears_all()
    scene.reports(durable=True)
    assert "can be written again" in scene.log.read_text()
    assert scene.faults == 1


def holds_no_more(scene: Scene) -> None:
    """(c) More events than the outbox holds, while the broker is away."""
    scene.daemon.start()
    assert scene.happens()
    scene.hears_all()
    scene.broker.kill()
    while len(scene.serials) < 10_000:
        assert scene.happens(500, width=700)
    scene.broker.start()

    def told() -> list[dict[str, Any]]:
        return [told for what, told in list(scene.outside.heard) if what == "event"]

    def accounted_for() -> int:
        return len(scene.outside.serials) + sum({each["id"]: each["count"] for each in told()}.values())

    eventually(lambda: accounted_for() >= len(scene.serials), 90)
    assert accounted_for() == len(scene.serials)
    serials = [*dict.fromkeys(serial for _, serial in scene.outside.events)]
    assert serials[0] == 1
    assert serials[1:] == scene.serials[-len(serials) + 1 :], "the oldest went, and nothing in between"
    lost = sum({each["id"]: each["count"] for each in told()}.values())
    assert lost > 1000
    scene.reports(lost=lost, durable=True)
    for each in told():
        assert each["type"] == "events_lost"
        assert each["camera"] == "front"
        assert each["since_us"] <= each["until_us"] <= each["t_us"]
    assert scene.faults == 0
    print(f"{len(serials) - 1} kept, {lost} lost, told in {len(told())} events")
